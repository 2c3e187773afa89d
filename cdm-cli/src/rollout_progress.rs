//! Text for the progress of a rollout: its waves, rate, remaining time, and the failed sites with their reasons.
//!
//! [`crate::progress`] decides where and how often the text is shown.

use std::collections::VecDeque;
use std::time::Duration;

use cdm_core::domain::MonotonicTime;
use cdm_http::api::rollout::{Counts, Failure, Rollout, RolloutStatus};
use serde_json::Value;

use crate::text::clean;
use crate::view::rollout_status;

/// Period over which the rate is measured.
const SPAN: Duration = Duration::from_secs(30);
/// Width of a wave's bar in characters.
const BAR: usize = 20;
/// Maximum number of failed sites that are listed.
const NAMED: usize = 5;

/// Samples of the progress of a rollout.
#[derive(Debug, Default)]
pub(crate) struct RolloutProgress {
    samples: VecDeque<(MonotonicTime, u64)>,
}

impl RolloutProgress {
    /// Records the number of ended sites, unless it equals the last of at least two samples.
    pub(crate) fn record(&mut self, rollout: &Rollout, now: MonotonicTime) {
        let ended = ended(&rollout.counts);
        if self.samples.back().is_none_or(|(_, done)| *done != ended) || self.samples.len() < 2 {
            self.samples.push_back((now, ended));
        }
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, _)| now.since(*at) > SPAN) {
            self.samples.pop_front();
        }
    }

    /// Returns the rate in sites per second over the last 30 seconds; only while the rollout is running.
    pub(crate) fn rate(&self, rollout: &Rollout, now: MonotonicTime) -> Option<f64> {
        let (first, before) = *self.samples.front()?;
        let took = now.since(first).as_secs_f64();
        let done = ended(&rollout.counts).saturating_sub(before);
        let runs = rollout.status == RolloutStatus::Running;
        (runs && took >= 1.0 && done > 0).then(|| done as f64 / took)
    }

    /// Returns the estimated remaining time at that rate.
    pub(crate) fn remaining(&self, rollout: &Rollout, now: MonotonicTime) -> Option<Duration> {
        let open = u64::from(rollout.counts.total).saturating_sub(ended(&rollout.counts));
        let remaining = open as f64 / self.rate(rollout, now)?;
        Some(Duration::from_secs_f64(remaining.min(1e9)))
    }

    /// Returns the whole display, with lines of at most `width` characters.
    pub(crate) fn screen(&self, rollout: &Rollout, now: MonotonicTime, width: usize) -> String {
        let what = if rollout.promote { "promote" } else { "upgrade" };
        let mut lines = vec![format!(
            "{}  {what} to {}  {}{}",
            clean(rollout.id.as_str()),
            clean(rollout.service.as_str()),
            rollout_status(rollout),
            self.speed(rollout, now)
        )];
        let mut waves: Vec<_> = rollout.waves.iter().map(|wave| (clean(&wave.name), wave.counts)).collect();
        let widest = waves.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(3);
        if waves.len() > 1 {
            waves.push(("all".to_owned(), rollout.counts));
        }
        for (name, wave) in &waves {
            lines.push(format!("  {name:widest$} [{}] {}", bar(wave), counts(wave)));
        }
        lines.extend(reason(rollout));
        lines.extend(failures(rollout));
        let cut = |line: &String| line.chars().take(width.max(20)).collect::<String>();
        lines.iter().map(cut).collect::<Vec<_>>().join("\n")
    }

    /// Returns the rate and the remaining time as text, as far as they are known.
    pub(crate) fn speed(&self, rollout: &Rollout, now: MonotonicTime) -> String {
        let rate = self.rate(rollout, now).map_or_else(String::new, |rate| format!("  {rate:.1} sites/s"));
        let remaining = self
            .remaining(rollout, now)
            .map_or_else(String::new, |remaining| format!(", about {} left", span(remaining)));
        rate + &remaining
    }

    /// Returns the JSON of a rollout with `rate` and `secondsLeft`, for a line of output.
    pub(crate) fn line(&self, json: &Value, rollout: &Rollout, now: MonotonicTime) -> Value {
        let mut line = json.clone();
        line["rate"] = self.rate(rollout, now).map(|rate| (rate * 10.0).round() / 10.0).into();
        line["secondsLeft"] = self.remaining(rollout, now).map(|remaining| remaining.as_secs()).into();
        line
    }
}

/// Returns the progress of a rollout on one line: the current wave, or the one that halted the rollout, and the
/// total.
pub(crate) fn summary(rollout: &Rollout) -> String {
    let waves = &rollout.waves;
    // A halt concerns the wave that exceeded its budget, even if all of its sites have an outcome.
    let at = if rollout.status == RolloutStatus::Halted {
        waves.iter().rposition(|wave| ended(&wave.counts) > 0).unwrap_or(0)
    } else {
        let open = waves.iter().position(|wave| wave.counts.pending + wave.counts.running > 0);
        open.unwrap_or(waves.len().saturating_sub(1))
    };
    let succeeded = |of: &Counts| format!("{} of {} succeeded{}", of.succeeded, of.total, others(of));
    let mut line = format!("{}: {}", clean(rollout.id.as_str()), rollout_status(rollout));
    if let Some(wave) = waves.get(at) {
        line += &format!(", wave {}/{}: {}", at + 1, waves.len(), succeeded(&wave.counts));
    }
    if waves.len() > 1 {
        line += &format!("; all: {}", succeeded(&rollout.counts));
    }
    line
}

/// Returns one line for each of the first sites that failed or were skipped.
fn failures(rollout: &Rollout) -> Vec<String> {
    let mut lines: Vec<_> = rollout.failures.iter().take(NAMED).map(failure).collect();
    let bad = u64::from(rollout.counts.failed + rollout.counts.parked + rollout.counts.skipped);
    let named = lines.len() as u64;
    if named > 0 && bad > named {
        let id = clean(rollout.id.as_str());
        lines.push(format!("  … and {} more: cdm op list --rollout {id}", bad - named));
    }
    lines
}

/// Returns a line for a site that failed, with the reason.
pub(crate) fn failure(failure: &Failure) -> String {
    let message = failure.message.as_deref().map(clean).unwrap_or_default();
    let colon = if message.is_empty() { "" } else { ": " };
    format!("  {} {}{colon}{message}", clean(failure.site.as_str()), clean(failure.outcome.as_str()))
}

fn reason(rollout: &Rollout) -> Option<String> {
    let reason = rollout.reason.as_ref()?;
    let until = reason.until.map_or_else(String::new, |until| format!(" (until {until})"));
    Some(format!("  {}: {}{until}", clean(reason.code.as_str()), clean(&reason.message)))
}

fn bar(of: &Counts) -> String {
    let total = u64::from(of.total.max(1));
    let part = |done: u64| usize::try_from(done * BAR as u64 / total).unwrap_or(BAR).min(BAR);
    let (done, begun) = (part(ended(of)), part(ended(of) + u64::from(of.running)));
    format!("{}{}{}", "=".repeat(done), "-".repeat(begun - done), " ".repeat(BAR - begun))
}

fn counts(of: &Counts) -> String {
    format!("{}/{}{}", of.succeeded, of.total, others(of))
}

/// Returns the counts other than `succeeded` that are not zero.
fn others(of: &Counts) -> String {
    let counts =
        [("failed", of.failed), ("parked", of.parked), ("skipped", of.skipped), ("running", of.running)];
    counts.iter().filter(|(_, count)| *count > 0).map(|(key, count)| format!(", {count} {key}")).collect()
}

/// Number of sites with an outcome.
fn ended(of: &Counts) -> u64 {
    u64::from(of.succeeded) + u64::from(of.failed) + u64::from(of.skipped) + u64::from(of.parked)
}

/// Formats a duration with one unit.
fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds @ 100..=5_999 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3_600)),
    }
}

#[cfg(test)]
mod tests {
    use cdm_http::api::Time;
    use cdm_http::api::operation::{Reason, ReasonCode};
    use cdm_http::api::rollout::{SiteOutcome, Wave};
    use serde_json::json;

    use super::*;

    fn counts(total: u32, succeeded: u32, failed: u32, running: u32) -> Counts {
        let pending = total - succeeded - failed - running;
        Counts { total, succeeded, failed, running, pending, skipped: 0, parked: 0 }
    }

    fn wave(name: &str, total: u32, succeeded: u32, failed: u32, running: u32) -> Wave {
        Wave { name: name.to_owned(), counts: counts(total, succeeded, failed, running) }
    }

    fn rollout(succeeded: u32, failed: u32) -> Rollout {
        let sent = json!({
            "id": "rollout-12", "kind": "promote", "promote": true, "service": "green", "scope": "inactive",
            "status": "running", "partial": false, "waves": [], "total": 0, "succeeded": 0, "failed": 0, "running": 0,
            "pending": 0, "skipped": 0, "parked": 0, "failures": [], "maxConcurrent": 64, "failureBudget": "0",
            "autoRollback": false, "bake": 0, "requestedBy": "ci", "createdAt": "2030-01-01T00:00:00.000Z"
        });
        let mut rollout: Rollout = serde_json::from_value(sent).expect("a rollout");
        rollout.counts = counts(400, 40 + succeeded, failed, 64);
        rollout.waves =
            vec![wave("1", 1, 1, 0, 0), wave("10%", 39, 39, 0, 0), wave("100%", 360, succeeded, failed, 64)];
        let failure = |number: u32| Failure {
            site: format!("s{number}").into(),
            outcome: SiteOutcome::Returned,
            message: Some("`/up` answers 500 instead of 200".to_owned()),
        };
        rollout.failures = (0..failed.min(20)).map(failure).collect();
        rollout
    }

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_millis(seconds * 1_000)
    }

    #[test]
    fn the_display_has_the_waves_the_rate_and_the_failed_sites() {
        let mut progress = RolloutProgress::default();
        progress.record(&rollout(20, 0), at(100));
        progress.record(&rollout(113, 7), at(110));
        let screen = progress.screen(&rollout(113, 7), at(110), 80);
        let expected = "\
rollout-12  promote to green  running  10.0 sites/s, about 24 s left
  1    [====================] 1/1
  10%  [====================] 39/39
  100% [======----          ] 113/360, 7 failed, 64 running
  all  [========---         ] 153/400, 7 failed, 64 running
  s0 returned: `/up` answers 500 instead of 200
  s1 returned: `/up` answers 500 instead of 200
  s2 returned: `/up` answers 500 instead of 200
  s3 returned: `/up` answers 500 instead of 200
  s4 returned: `/up` answers 500 instead of 200
  … and 2 more: cdm op list --rollout rollout-12";
        assert_eq!(screen, expected);
        assert!(screen.lines().all(|line| line.chars().count() <= 80));
        let narrow = progress.screen(&rollout(113, 7), at(110), 40);
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    }

    #[test]
    fn a_waiting_rollout_has_a_reason_and_no_rate() {
        let mut progress = RolloutProgress::default();
        progress.record(&rollout(0, 0), at(0));
        let mut resting = rollout(50, 0);
        resting.status = RolloutStatus::Waiting;
        let time = |text| Time::parse(text).expect("a time");
        resting.reason = Some(Reason {
            code: ReasonCode::from("baking"),
            message: "the wave `100%` begins later".to_owned(),
            since: time("2030-01-01T00:00:00.000Z"),
            until: Some(time("2030-01-01T00:10:00.000Z")),
            clears: "nothing to do".to_owned(),
        });
        progress.record(&resting, at(10));
        assert_eq!(progress.rate(&resting, at(10)), None);
        let screen = progress.screen(&resting, at(10), 100);
        let line = "\n  baking: the wave `100%` begins later (until 2030-01-01T00:10:00.000Z)";
        assert!(screen.contains(line), "{screen}");
        assert_eq!(progress.line(&json!({}), &resting, at(10))["secondsLeft"], Value::Null);
    }

    #[test]
    fn a_halt_names_the_wave_over_its_budget_and_a_partial_success_is_named() {
        let mut halted = rollout(0, 0);
        halted.status = RolloutStatus::Halted;
        halted.waves = vec![wave("1", 1, 0, 1, 0), wave("100%", 399, 0, 0, 0)];
        assert!(
            summary(&halted).starts_with("rollout-12: halted, wave 1/2: 0 of 1 succeeded, 1 failed; all: ")
        );
        halted.status = RolloutStatus::Succeeded;
        halted.partial = true;
        assert!(summary(&halted).starts_with("rollout-12: partly succeeded, "), "{}", summary(&halted));
    }

    #[test]
    fn the_rate_covers_the_last_30_seconds() {
        let mut progress = RolloutProgress::default();
        for (second, done) in [(0, 0), (10, 100), (20, 200), (40, 210), (60, 220)] {
            progress.record(&rollout(done, 0), at(second));
        }
        assert_eq!(progress.rate(&rollout(220, 0), at(60)), Some(0.5));
        assert_eq!(progress.remaining(&rollout(220, 0), at(60)), Some(Duration::from_secs(280)));
    }
}

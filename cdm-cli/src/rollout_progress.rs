//! Text for the progress of a rollout: its waves, rate, remaining time, and the failed sites with their reasons.
//!
//! [`crate::progress`] decides where and how often the text is shown.

use std::collections::VecDeque;
use std::time::Duration;

use cdm_core::domain::MonotonicTime;
use serde_json::Value;

use crate::printer::clean;
use crate::view::{plain, rollout_status};

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
    /// Records a sample.
    pub(crate) fn record(&mut self, value: &Value, now: MonotonicTime) {
        if self.samples.back().is_none_or(|(_, done)| *done != ended(value)) || self.samples.len() < 2 {
            self.samples.push_back((now, ended(value)));
        }
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, _)| now.since(*at) > SPAN) {
            self.samples.pop_front();
        }
    }

    /// Returns the rate in sites per second over the last 30 seconds; only while the rollout is running.
    pub(crate) fn rate(&self, value: &Value, now: MonotonicTime) -> Option<f64> {
        let (first, before) = *self.samples.front()?;
        let took = now.since(first).as_secs_f64();
        let done = ended(value).saturating_sub(before);
        let runs = text(value, "status") == "running";
        (runs && took >= 1.0 && done > 0).then(|| done as f64 / took)
    }

    /// Returns the estimated remaining time at that rate.
    pub(crate) fn remaining(&self, value: &Value, now: MonotonicTime) -> Option<Duration> {
        let open = count(value, "total").saturating_sub(ended(value));
        let remaining = open as f64 / self.rate(value, now)?;
        Some(Duration::from_secs_f64(remaining.min(1e9)))
    }

    /// Returns the whole display, with lines of at most `width` characters.
    pub(crate) fn screen(&self, value: &Value, now: MonotonicTime, width: usize) -> String {
        let what =
            if value.get("promote").and_then(Value::as_bool) == Some(true) { "promote" } else { "upgrade" };
        let mut lines = vec![format!(
            "{}  {what} to {}  {}{}",
            text(value, "id"),
            text(value, "service"),
            rollout_status(value),
            self.speed(value, now)
        )];
        let waves = list(value, "waves");
        let all = (waves.len() > 1).then_some(value);
        let name = |of: &Value| of.get("name").map_or_else(|| "all".to_owned(), plain);
        let widest = waves.iter().map(|wave| name(wave).len()).max().unwrap_or(0).max(3);
        for wave in waves.iter().chain(all) {
            lines.push(format!("  {:widest$} [{}] {}", name(wave), bar(wave), counts(wave)));
        }
        lines.extend(reason(value));
        lines.extend(failures(value));
        let cut = |line: &String| line.chars().take(width.max(20)).collect::<String>();
        lines.iter().map(cut).collect::<Vec<_>>().join("\n")
    }

    /// Returns the rate and the remaining time as text, as far as they are known.
    pub(crate) fn speed(&self, value: &Value, now: MonotonicTime) -> String {
        let rate = self.rate(value, now).map_or_else(String::new, |rate| format!("  {rate:.1} sites/s"));
        let remaining = self
            .remaining(value, now)
            .map_or_else(String::new, |remaining| format!(", about {} left", span(remaining)));
        rate + &remaining
    }

    /// Returns the rollout with `rate` and `secondsLeft`, for a line of JSON.
    pub(crate) fn line(&self, value: &Value, now: MonotonicTime) -> Value {
        let mut line = value.clone();
        line["rate"] = self.rate(value, now).map(|rate| (rate * 10.0).round() / 10.0).into();
        line["secondsLeft"] = self.remaining(value, now).map(|remaining| remaining.as_secs()).into();
        line
    }
}

/// Returns the progress of a rollout on one line: the current wave, or the one that halted the rollout, and the
/// total.
pub(crate) fn summary(value: &Value) -> String {
    let waves = list(value, "waves");
    let open = |wave: &Value| count(wave, "pending") + count(wave, "running") > 0;
    // A halt concerns the wave that exceeded its budget, even if all of its sites have an outcome.
    let at = match text(value, "status").as_str() {
        "halted" => waves.iter().rposition(|wave| ended(wave) > 0).unwrap_or(0),
        _ => waves.iter().position(open).unwrap_or(waves.len().saturating_sub(1)),
    };
    let succeeded =
        |of: &Value| format!("{} of {} succeeded{}", count(of, "succeeded"), count(of, "total"), others(of));
    let mut line = format!("{}: {}", text(value, "id"), rollout_status(value));
    if let Some(wave) = waves.get(at) {
        line += &format!(", wave {}/{}: {}", at + 1, waves.len(), succeeded(wave));
    }
    if waves.len() > 1 {
        line += &format!("; all: {}", succeeded(value));
    }
    line
}

/// Returns one line for each of the first sites that failed or were skipped.
fn failures(value: &Value) -> Vec<String> {
    let sites = list(value, "failures");
    let mut lines: Vec<_> = sites.iter().take(NAMED).map(failure).collect();
    let bad = count(value, "failed") + count(value, "parked") + count(value, "skipped");
    let named = lines.len() as u64;
    if named > 0 && bad > named {
        lines.push(format!("  … and {} more: cdm op list --rollout {}", bad - named, text(value, "id")));
    }
    lines
}

/// Returns a line for a site that failed, with the reason.
pub(crate) fn failure(failure: &Value) -> String {
    let message = text(failure, "message");
    let colon = if message.is_empty() { "" } else { ": " };
    format!("  {} {}{colon}{message}", text(failure, "site"), text(failure, "outcome"))
}

fn reason(value: &Value) -> Option<String> {
    let reason = value.get("reason").filter(|reason| !reason.is_null())?;
    let until = reason.get("until").filter(|until| !until.is_null());
    let until = until.map_or_else(String::new, |until| format!(" (until {})", plain(until)));
    Some(format!("  {}: {}{until}", text(reason, "code"), text(reason, "message")))
}

fn bar(of: &Value) -> String {
    let total = count(of, "total").max(1);
    let part = |done: u64| usize::try_from(done * BAR as u64 / total).unwrap_or(BAR).min(BAR);
    let (done, begun) = (part(ended(of)), part(ended(of) + count(of, "running")));
    format!("{}{}{}", "=".repeat(done), "-".repeat(begun - done), " ".repeat(BAR - begun))
}

fn counts(of: &Value) -> String {
    format!("{}/{}{}", count(of, "succeeded"), count(of, "total"), others(of))
}

/// Returns the counts other than `succeeded` that are not zero.
fn others(of: &Value) -> String {
    let counts = ["failed", "parked", "skipped", "running"].map(|key| (key, count(of, key)));
    counts.iter().filter(|(_, count)| *count > 0).map(|(key, count)| format!(", {count} {key}")).collect()
}

/// Returns the array under a key, or an empty one.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Number of sites with an outcome.
fn ended(of: &Value) -> u64 {
    ["succeeded", "failed", "skipped", "parked"].map(|key| count(of, key)).iter().sum()
}

fn count(of: &Value, key: &str) -> u64 {
    of.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn text(value: &Value, key: &str) -> String {
    clean(&value.get(key).map(plain).unwrap_or_default())
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
    use serde_json::json;

    use super::*;

    fn wave(name: &str, total: u64, succeeded: u64, failed: u64, running: u64) -> Value {
        let pending = total - succeeded - failed - running;
        json!({ "name": name, "total": total, "succeeded": succeeded, "failed": failed, "running": running,
            "pending": pending, "skipped": 0, "parked": 0 })
    }

    fn rollout(succeeded: u64, failed: u64) -> Value {
        let mut value = wave("", 400, 40 + succeeded, failed, 64);
        value.as_object_mut().expect("an object").remove("name");
        value["id"] = "rollout-12".into();
        value["service"] = "green".into();
        value["promote"] = true.into();
        value["status"] = "running".into();
        value["waves"] = json!([
            wave("1", 1, 1, 0, 0),
            wave("10%", 39, 39, 0, 0),
            wave("100%", 360, succeeded, failed, 64),
        ]);
        let why = "`/up` answers 500 instead of 200";
        value["failures"] = (0..failed.min(20))
            .map(|n| json!({ "site": format!("s{n}"), "outcome": "returned", "message": why }))
            .collect();
        value["reason"] = Value::Null;
        value
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
        resting["status"] = "waiting".into();
        resting["reason"] = json!({ "code": "baking", "message": "the wave `100%` begins later",
            "until": "2030-01-01T00:10:00.000Z" });
        progress.record(&resting, at(10));
        assert_eq!(progress.rate(&resting, at(10)), None);
        let screen = progress.screen(&resting, at(10), 100);
        let line = "\n  baking: the wave `100%` begins later (until 2030-01-01T00:10:00.000Z)";
        assert!(screen.contains(line), "{screen}");
        assert_eq!(progress.line(&resting, at(10))["secondsLeft"], Value::Null);
    }

    #[test]
    fn a_halt_names_the_wave_over_its_budget_and_a_partial_success_is_named() {
        let mut halted = rollout(0, 0);
        halted["status"] = "halted".into();
        halted["waves"] = json!([wave("1", 1, 0, 1, 0), wave("100%", 399, 0, 0, 0)]);
        assert!(
            summary(&halted).starts_with("rollout-12: halted, wave 1/2: 0 of 1 succeeded, 1 failed; all: ")
        );
        halted["status"] = "succeeded".into();
        halted["partial"] = true.into();
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

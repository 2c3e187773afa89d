//! The format of single values as HTML: ages, counts, badges, digests. The functions escape their input.

use std::fmt::Write;

use askama::filters;
use cdm_core::domain::Timestamp;

use crate::api::audit::AuditOutcome;
use crate::api::operation::{Operation, OperationStatus, Step, StepStatus};
use crate::api::plan::PlannedChange;
use crate::api::rollout::{Counts, Rollout, RolloutStatus, SiteOutcome};
use crate::api::services::Verdict;
use crate::api::site::{Site, SiteState};
use crate::api::{ServiceName, Time};

/// Escapes text for HTML, in an element or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let Ok(escaped) = filters::escape(text, filters::Html);
    escaped.to_string()
}

/// Returns an error text as a sentence: with a capital letter and a period. Does not escape.
pub(crate) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}

/// The time at which a page is rendered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now(pub(crate) Timestamp);

impl Now {
    /// Returns the time relative to now, such as `2 min ago` or `in 3 h`, with the exact time as a tooltip.
    pub(crate) fn ago(self, at: &Time) -> String {
        let then = at.0;
        let (past, seconds) = if then <= self.0 {
            (true, self.0.since(then).as_secs())
        } else {
            (false, then.since(self.0).as_secs())
        };
        let text = match (past, seconds) {
            (true, 0..10) => "just now".to_owned(),
            (true, seconds) => format!("{} ago", span(seconds)),
            (false, seconds) => format!("in {}", span(seconds)),
        };
        format!("<time datetime=\"{at}\" title=\"{at}\">{text}</time>")
    }

    /// Returns a relative time like [`Now::ago`], or a dash for `None`.
    pub(crate) fn ago_if(self, at: &Option<Time>) -> String {
        at.as_ref().map_or_else(none, |at| self.ago(at))
    }

    /// Returns the duration from `from` to `to`, or to now for an unfinished item; a dash if `from` is `None`.
    pub(crate) fn took(self, from: &Option<Time>, to: &Option<Time>) -> String {
        let Some(from) = from else { return none() };
        duration(to.map_or(self.0, |to| to.0).since(from.0))
    }
}

/// Returns the dash that stands for a missing value.
pub(crate) fn none() -> String {
    "<span class=\"none\" aria-label=\"none\">–</span>".to_owned()
}

/// Returns a duration in its largest unit. Seconds are in steps of ten, so a live page does not change every second.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{} s", seconds.div_euclid(10) * 10),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        86_400..63_072_000 => format!("{} d", seconds / 86_400),
        _ => format!("{} years", seconds / 31_536_000),
    }
}

/// Returns a duration in two units at most.
pub(crate) fn duration(span: std::time::Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// Returns a number with commas between the thousands.
pub(crate) fn count(number: impl std::fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number with the noun `one` or its plural `many`.
pub(crate) fn count_of(number: impl std::fmt::Display, one: &str, many: &str) -> String {
    let number = count(number);
    let noun = if number == "1" { one } else { many };
    format!("{number} {noun}")
}

/// The color of a badge, which repeats the meaning of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadgeColor {
    Good,
    Bad,
    Warning,
    Working,
    Plain,
}

impl BadgeColor {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Warning => "warn",
            Self::Working => "work",
            Self::Plain => "plain",
        }
    }
}

/// A status, state, verdict or result that pages show as a badge.
pub(crate) trait Badge {
    /// Returns the text and the color of the badge.
    fn badge(&self) -> (&str, BadgeColor);
}

impl<T: Badge> Badge for &T {
    fn badge(&self) -> (&str, BadgeColor) {
        (**self).badge()
    }
}

impl Badge for OperationStatus {
    fn badge(&self) -> (&str, BadgeColor) {
        let color = match self {
            Self::Succeeded => BadgeColor::Good,
            Self::Failed => BadgeColor::Bad,
            Self::Parked | Self::Cancelled => BadgeColor::Warning,
            Self::Queued | Self::Running | Self::Waiting => BadgeColor::Working,
            Self::Other(_) => BadgeColor::Plain,
        };
        (self.as_str(), color)
    }
}

impl Badge for StepStatus {
    fn badge(&self) -> (&str, BadgeColor) {
        let color = match self {
            Self::Succeeded => BadgeColor::Good,
            Self::Failed => BadgeColor::Bad,
            Self::Running => BadgeColor::Working,
            Self::Pending | Self::Skipped | Self::Other(_) => BadgeColor::Plain,
        };
        (self.as_str(), color)
    }
}

impl Badge for RolloutStatus {
    fn badge(&self) -> (&str, BadgeColor) {
        let color = match self {
            Self::Succeeded => BadgeColor::Good,
            Self::Failed | Self::Halted | Self::Aborted => BadgeColor::Bad,
            Self::Paused => BadgeColor::Warning,
            Self::Running | Self::Waiting => BadgeColor::Working,
            Self::Other(_) => BadgeColor::Plain,
        };
        (self.as_str(), color)
    }
}

impl Badge for SiteState {
    fn badge(&self) -> (&str, BadgeColor) {
        let color = match self {
            Self::Active => BadgeColor::Good,
            Self::Creating | Self::Provisioning | Self::Upgrading | Self::Promoting | Self::Terminating => {
                BadgeColor::Working
            }
            Self::Created | Self::Other(_) => BadgeColor::Plain,
        };
        (self.as_str(), color)
    }
}

impl Badge for SiteOutcome {
    fn badge(&self) -> (&str, BadgeColor) {
        let color = match self {
            Self::Failed | Self::Unhealthy | Self::UnhealthyInPlace => BadgeColor::Bad,
            Self::Returned | Self::Parked | Self::Gone | Self::Inactive | Self::Busy | Self::Frozen => {
                BadgeColor::Warning
            }
            Self::Other(_) => BadgeColor::Plain,
        };
        (self.as_str(), color)
    }
}

impl Badge for PlannedChange {
    fn badge(&self) -> (&str, BadgeColor) {
        let color = match self {
            Self::Busy | Self::Frozen => BadgeColor::Warning,
            Self::Move | Self::InPlace | Self::Other(_) => BadgeColor::Plain,
        };
        (self.as_str(), color)
    }
}

impl Badge for Verdict {
    fn badge(&self) -> (&str, BadgeColor) {
        let color = match self {
            Self::Healthy => BadgeColor::Good,
            Self::Bad => BadgeColor::Bad,
            Self::RolledBack => BadgeColor::Warning,
            Self::Unknown | Self::Other(_) => BadgeColor::Plain,
        };
        (self.as_str(), color)
    }
}

impl Badge for AuditOutcome {
    fn badge(&self) -> (&str, BadgeColor) {
        let color = match self {
            Self::Accepted => BadgeColor::Good,
            // The request can be repeated unchanged later.
            Self::Rejected(code) if matches!(code.as_str(), "frozen" | "busy") => BadgeColor::Warning,
            Self::Rejected(_) => BadgeColor::Plain,
        };
        (self.as_str(), color)
    }
}

fn badge_with(text: &str, color: BadgeColor) -> String {
    format!("<span class=\"badge {}\">{}</span>", color.class(), escape(text))
}

/// Returns a status, state, verdict or result as a badge.
pub(crate) fn badge(value: impl Badge) -> String {
    let (text, color) = value.badge();
    badge_with(&text.replace('_', " "), color)
}

/// Returns the state of a site as a badge; a parked operation has a badge in place of the state, which follows as text.
pub(crate) fn site_badge(site: &Site) -> String {
    if site.is_parked() { badge(OperationStatus::Parked) } else { badge(&site.state) }
}

/// Returns the status of a step as a badge; the running step of a parked operation is parked.
pub(crate) fn step_badge(operation: &Operation, step: &Step) -> String {
    match (&operation.status, &step.status) {
        (OperationStatus::Parked, StepStatus::Running) => badge(OperationStatus::Parked),
        (_, status) => badge(status),
    }
}

/// Returns the CSS class of the reason of an operation.
pub(crate) const fn operation_class(operation: &Operation) -> &'static str {
    match operation.status {
        OperationStatus::Parked => "warn",
        OperationStatus::Failed => "bad",
        OperationStatus::Queued
        | OperationStatus::Running
        | OperationStatus::Waiting
        | OperationStatus::Succeeded
        | OperationStatus::Cancelled
        | OperationStatus::Other(_) => "",
    }
}

fn is_digest_changed(rollout: &Rollout) -> bool {
    rollout.reason.as_ref().is_some_and(|reason| reason.code.is_digest_changed())
}

/// Returns the status of a rollout as a badge. A rollout that left sites behind is partly succeeded; a rollout that
/// waits for an operator because of a changed digest has a warning color.
pub(crate) fn rollout_badge(rollout: &Rollout) -> String {
    match rollout.status {
        RolloutStatus::Succeeded if rollout.partial => badge_with("partly succeeded", BadgeColor::Warning),
        RolloutStatus::Waiting if is_digest_changed(rollout) => {
            badge_with("waiting: digest changed", BadgeColor::Warning)
        }
        _ => badge(&rollout.status),
    }
}

/// Returns whether a rollout waits for an operator.
pub(crate) fn needs_operator(rollout: &Rollout) -> bool {
    match rollout.status {
        RolloutStatus::Halted | RolloutStatus::Paused => true,
        RolloutStatus::Waiting => is_digest_changed(rollout),
        RolloutStatus::Running
        | RolloutStatus::Aborted
        | RolloutStatus::Succeeded
        | RolloutStatus::Failed
        | RolloutStatus::Other(_) => false,
    }
}

/// Returns the CSS class of a note about a rollout.
pub(crate) fn note_class(rollout: &Rollout) -> &'static str {
    match rollout.status {
        RolloutStatus::Halted => "bad",
        _ if needs_operator(rollout) => "warn",
        _ => "work",
    }
}

/// Returns the CSS class of the reason of a rollout.
pub(crate) const fn rollout_class(rollout: &Rollout) -> &'static str {
    match rollout.status {
        RolloutStatus::Halted | RolloutStatus::Failed => "bad",
        _ => "warn",
    }
}

/// Returns the name of a service with its color.
pub(crate) fn service(name: &ServiceName) -> String {
    let name = escape(name.as_str());
    format!("<span class=\"color {name}\">{name}</span>")
}

/// Returns the first twelve digits of an image's digest, with the complete image as a tooltip.
pub(crate) fn digest(image: impl AsRef<str>) -> String {
    let image = image.as_ref();
    let hex = image.rsplit_once(':').map_or(image, |(_, hex)| hex);
    let short: String = hex.chars().take(12).collect();
    format!("<code class=\"digest\" title=\"{}\">{}</code>", escape(image), escape(&short))
}

/// Returns the target of an audit entry; a digest is shortened.
pub(crate) fn target(text: &str) -> String {
    if text.starts_with("sha256:") { digest(text) } else { escape(text) }
}

/// Returns a digest like [`digest`], or a dash for `None`.
pub(crate) fn digest_if<T: AsRef<str>>(image: &Option<T>) -> String {
    image.as_ref().map_or_else(none, digest)
}

/// Returns a bar with the shares of succeeded, failed or parked, skipped, and running sites.
pub(crate) fn bar(counts: &Counts) -> String {
    let Counts { total, succeeded, failed, running, parked, skipped, .. } = *counts;
    let mut parts = String::new();
    let mut from = 0.0;
    for (kind, number) in
        [("good", succeeded), ("bad", failed + parked), ("warn", skipped), ("work", running)]
    {
        let share = 100.0 * f64::from(number) / f64::from(total.max(1));
        let _ = write!(
            parts,
            "<rect class=\"{kind}\" x=\"{from:.2}\" y=\"0\" width=\"{share:.2}\" height=\"8\"/>"
        );
        from += share;
    }
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{parts}</svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_counts() {
        let now = Now(Timestamp::from_millis(1_700_000_000_000));
        for (before, text) in
            [(0, "just now"), (59, "50 s ago"), (60, "1 min ago"), (7_200, "2 h ago"), (200_000, "2 d ago")]
        {
            let at = Time(Timestamp::from_millis(1_700_000_000_000 - before * 1_000));
            assert!(now.ago(&at).contains(text), "{}", now.ago(&at));
        }
        assert_eq!(
            [count(0_u32), count(999_u32), count(10_000_u32), count(1_234_567_u32)],
            ["0", "999", "10,000", "1,234,567"]
        );
    }
}

//! How single values look: ages, counts, badges, digests. Each gives HTML that is safe to put into a page.

use std::fmt::Write;

use cdm_core::domain::{ReasonCode, Timestamp};

use crate::api::moment;
use crate::api::rollout::{Counts, Rollout};

/// Text with what HTML would read as its own made harmless.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// What the rules and refusals of the core say, as a sentence of its own.
pub(crate) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}

/// The moment at which a page is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now(pub(crate) Timestamp);

impl Now {
    /// How long ago a moment was, or how long it is still to come, with the moment itself for whoever points at it.
    pub(crate) fn ago(self, at: &str) -> String {
        let Some(then) = moment(at) else { return escaped(at) };
        let (past, seconds) = if then <= self.0 {
            (true, self.0.since(then).as_secs())
        } else {
            (false, then.since(self.0).as_secs())
        };
        let told = match (past, seconds) {
            (true, 0..10) => "just now".to_owned(),
            (true, seconds) => format!("{} ago", span(seconds)),
            (false, seconds) => format!("in {}", span(seconds)),
        };
        format!("<time datetime=\"{at}\" title=\"{at}\">{told}</time>")
    }

    /// The same of a moment that there may not be.
    pub(crate) fn ago_if(self, at: &Option<String>) -> String {
        at.as_deref().map_or_else(none, |at| self.ago(at))
    }

    /// How long something took, or takes so far.
    pub(crate) fn took(self, from: &Option<String>, to: &Option<String>) -> String {
        let Some(from) = from.as_deref().and_then(moment) else { return none() };
        let to = to.as_deref().and_then(moment).unwrap_or(self.0);
        lasted(to.since(from))
    }
}

/// What stands where there is nothing.
pub(crate) fn none() -> String {
    "<span class=\"none\" aria-label=\"none\">–</span>".to_owned()
}

/// A span in its largest unit; seconds in tens, so that a page is not another one every second.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{} s", seconds.div_euclid(10) * 10),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        86_400..63_072_000 => format!("{} d", seconds / 86_400),
        _ => format!("{} years", seconds / 31_536_000),
    }
}

/// A span as exactly as one wants to know it.
pub(crate) fn lasted(span: std::time::Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// A number with its thousands apart.
pub(crate) fn count(number: impl std::fmt::Display) -> String {
    let digits = number.to_string();
    let mut told = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}

/// So many of something, with its plural.
pub(crate) fn counted(number: impl std::fmt::Display, one: &str, many: &str) -> String {
    let number = count(number);
    let named = if number == "1" { one } else { many };
    format!("{number} {named}")
}

/// A word of a closed set, with its colour; the word itself says it all.
pub(crate) fn badge(word: &str) -> String {
    let kind = match word {
        "healthy" | "succeeded" | "active" | "accepted" | "moved" => "good",
        "bad" | "failed" | "halted" | "aborted" | "unhealthy" | "unhealthy_in_place" => "bad",
        "parked" | "paused" | "cancelled" | "returned" | "frozen" | "busy" | "gone" | "inactive"
        | "rolled_back" => "warn",
        "running" | "waiting" | "queued" | "creating" | "provisioning" | "upgrading" | "promoting"
        | "terminating" => "work",
        _ => "plain",
    };
    let word = escaped(word).replace('_', " ");
    format!("<span class=\"badge {kind}\">{word}</span>")
}

/// Where a rollout is. One that left sites behind is no plain success, and one that waits for a person does not look busy.
pub(crate) fn standing(rollout: &Rollout) -> String {
    let changed =
        rollout.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged.as_str());
    match rollout.status.as_str() {
        "succeeded" if rollout.partial => "<span class=\"badge warn\">partly succeeded</span>".to_owned(),
        "waiting" if changed => "<span class=\"badge warn\">waiting: digest changed</span>".to_owned(),
        status => badge(status),
    }
}

/// Whether a rollout waits for a person.
pub(crate) fn stands(rollout: &Rollout) -> bool {
    let changed =
        rollout.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged.as_str());
    matches!(rollout.status.as_str(), "halted" | "paused") || (rollout.status == "waiting" && changed)
}

/// How urgent a note about a rollout looks.
pub(crate) fn urgency(rollout: &Rollout) -> &'static str {
    match rollout.status.as_str() {
        "halted" => "bad",
        _ if stands(rollout) => "warn",
        _ => "work",
    }
}

/// The name of a service, with its colour beside it.
pub(crate) fn service(name: &str) -> String {
    let name = escaped(name);
    format!("<span class=\"colour {name}\">{name}</span>")
}

/// An image by the first characters of its digest, whole for whoever points at it or copies it.
pub(crate) fn digest(image: &str) -> String {
    let hex = image.rsplit_once(':').map_or(image, |(_, hex)| hex);
    let short: String = hex.chars().take(12).collect();
    format!("<code class=\"digest\" title=\"{}\">{}</code>", escaped(image), escaped(&short))
}

/// What an audit entry is about: digests are cut as elsewhere.
pub(crate) fn target(text: &str) -> String {
    if text.starts_with("sha256:") { digest(text) } else { escaped(text) }
}

pub(crate) fn digest_if(image: &Option<String>) -> String {
    image.as_deref().map_or_else(none, digest)
}

/// A bar of shares, drawn to scale: what succeeded, failed and runs, of all.
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
        for (before, told) in
            [(0, "just now"), (59, "50 s ago"), (60, "1 min ago"), (7_200, "2 h ago"), (200_000, "2 d ago")]
        {
            let at = crate::api::time(Timestamp::from_millis(1_700_000_000_000 - before * 1_000));
            assert!(now.ago(&at).contains(told), "{}", now.ago(&at));
        }
        assert!(now.ago("<b>").contains("&lt;b&gt;"));
        assert_eq!(
            [count(0_u32), count(999_u32), count(10_000_u32), count(1_234_567_u32)],
            ["0", "999", "10,000", "1,234,567"]
        );
    }
}

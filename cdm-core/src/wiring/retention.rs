//! How long audit entries and events are kept.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Unit};
use serde::Deserialize;

use super::config::{ConfigError, Environment};
use super::given::pick;
use crate::engine::Kept;

/// What is kept where nothing else is said: audit entries for 400 days, so that a year can be looked back upon; events
/// for as long as a failing webhook may be behind, and longer.
const USUAL: (&str, &str) = ("400d", "7d");
/// The word for what is never deleted.
const FOR_GOOD: &str = "forever";
/// Less is no retention but a mistake.
const LEAST: Duration = Duration::from_hours(24);

/// `[retention]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetention {
    audit: Option<String>,
    events: Option<String>,
}

/// What was given, or the usual.
pub(super) fn of(environment: Environment<'_>, raw: Option<RawRetention>) -> Result<Kept, ConfigError> {
    let raw = raw.unwrap_or_default();
    let one = |variable: &str, key: &str, of_file: Option<String>, usual: &str| {
        let given = pick(environment, variable, key, of_file);
        let (key, text) = given.unwrap_or_else(|| (key.to_owned(), usual.to_owned()));
        parse(&text).ok_or_else(|| ConfigError {
            key,
            message: format!(
                "\"{text}\" is neither a time of a day or more, such as `30d` or `12w`, nor `{FOR_GOOD}`"
            ),
        })
    };
    Ok(Kept {
        audit: one("CDM_RETENTION_AUDIT", "retention.audit", raw.audit, USUAL.0)?,
        events: one("CDM_RETENTION_EVENTS", "retention.events", raw.events, USUAL.1)?,
    })
}

/// How long a text says; `None` where it says nothing.
fn parse(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    if text == FOR_GOOD {
        return Some(None);
    }
    let span: Span = text.parse().ok()?;
    let seconds = span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).ok()?;
    let kept = Duration::try_from_secs_f64(seconds).ok().filter(|kept| *kept >= LEAST)?;
    Some(Some(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_weeks_are_times_and_mistakes_are_named() {
        let days = |days: u64| Some(Some(Duration::from_hours(24 * days)));
        assert_eq!(parse("30d"), days(30));
        assert_eq!(parse("12w"), days(84));
        assert_eq!(parse(" 48h "), days(2));
        assert_eq!(parse("forever"), Some(None));
        for wrong in ["", "0d", "1h", "-3d", "soon", "30", "1e9"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let given = |name: &str| (name == "CDM_RETENTION_EVENTS").then(|| "ever".to_owned());
        assert_eq!(of(&given, None).map_err(|error| error.key), Err("CDM_RETENTION_EVENTS".to_owned()));
        let usual = of(&|_| None, None).expect("the usual");
        assert_eq!((usual.audit, usual.events), (days(400).flatten(), days(7).flatten()));
    }
}

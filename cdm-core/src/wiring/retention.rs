//! How long audit entries and events are retained.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Unit};
use serde::Deserialize;

use super::config::{ConfigError, Environment};
use super::sources::pick;
use crate::engine::RetentionPeriods;

/// The default retention of audit entries: longer than a year, so that a whole year is available.
const DEFAULT_AUDIT: &str = "400d";
/// The default retention of events: longer than a failing webhook can lag behind.
const DEFAULT_EVENTS: &str = "7d";
/// The value for entries and events that are never deleted.
const FOREVER: &str = "forever";
/// The shortest retention. A shorter value is most likely a mistake.
const MIN_RETENTION: Duration = Duration::from_hours(24);

/// `[retention]`: durations such as `30d`, or `forever`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetention {
    audit: Option<String>,
    events: Option<String>,
}

/// Reads the retention of audit entries and events.
pub(super) fn resolve(
    environment: Environment<'_>,
    raw: Option<RawRetention>,
) -> Result<RetentionPeriods, ConfigError> {
    let raw = raw.unwrap_or_default();
    let retention = |variable: &str, key: &str, from_file: Option<String>, default: &str| {
        let setting = pick(environment, variable, key, from_file);
        let (key, text) = setting.unwrap_or_else(|| (key.to_owned(), default.to_owned()));
        parse(&text).ok_or_else(|| ConfigError {
            key,
            message: format!(
                "`{text}` is neither a duration of at least one day, such as `30d` or `12w`, nor `{FOREVER}`"
            ),
        })
    };
    Ok(RetentionPeriods {
        audit: retention("CDM_RETENTION_AUDIT", "retention.audit", raw.audit, DEFAULT_AUDIT)?,
        events: retention("CDM_RETENTION_EVENTS", "retention.events", raw.events, DEFAULT_EVENTS)?,
    })
}

/// Parses a retention. The outer `None` means that the text is invalid, `Some(None)` means forever.
fn parse(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    if text == FOREVER {
        return Some(None);
    }
    let span: Span = text.parse().ok()?;
    let seconds = span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).ok()?;
    let retention = Duration::try_from_secs_f64(seconds).ok()?;
    (retention >= MIN_RETENTION).then_some(Some(retention))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_weeks_are_durations_and_an_invalid_value_is_rejected_with_its_key() {
        let days = |days: u64| Some(Some(Duration::from_hours(24 * days)));
        assert_eq!(parse("30d"), days(30));
        assert_eq!(parse("12w"), days(84));
        assert_eq!(parse(" 48h "), days(2));
        assert_eq!(parse("forever"), Some(None));
        for wrong in ["", "0d", "1h", "-3d", "soon", "30", "1e9"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let environment = |name: &str| (name == "CDM_RETENTION_EVENTS").then(|| "ever".to_owned());
        assert_eq!(
            resolve(&environment, None).map_err(|error| error.key),
            Err("CDM_RETENTION_EVENTS".to_owned())
        );
        let default = resolve(&|_| None, None).expect("the default");
        assert_eq!((default.audit, default.events), (days(400).flatten(), days(7).flatten()));
    }
}

//! How long audit entries and events are retained.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Unit};

use super::sources::{ConfigError, Environment, Setting, keys};
use crate::engine::RetentionPeriods;

/// The default retention of audit entries: longer than a year, so that a whole year is available.
const DEFAULT_AUDIT: &str = "400d";
/// The default retention of events: longer than a failing webhook can lag behind.
const DEFAULT_EVENTS: &str = "7d";
/// The value for entries and events that are never deleted.
const FOREVER: &str = "forever";
/// The shortest retention. A shorter value is most likely a mistake.
const MIN_RETENTION: Duration = Duration::from_hours(24);

keys! {
    /// `[retention]`: durations such as `30d`, or `forever`.
    RawRetention in "retention." {
        audit: String as "CDM_RETENTION_AUDIT",
        events: String as "CDM_RETENTION_EVENTS",
    }
}

/// Reads the retention of audit entries and events.
pub(super) fn resolve(
    environment: Environment<'_>,
    raw: &RawRetention,
) -> Result<RetentionPeriods, ConfigError> {
    let retention = |setting: Setting, default: &str| {
        let text = setting.text_or(default);
        parse(&text).ok_or_else(|| {
            setting.error(format!(
                "`{text}` is neither a duration of at least one day, such as `30d` or `12w`, nor `{FOREVER}`"
            ))
        })
    };
    Ok(RetentionPeriods {
        audit: retention(raw.audit(environment), DEFAULT_AUDIT)?,
        events: retention(raw.events(environment), DEFAULT_EVENTS)?,
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
            resolve(&environment, &RawRetention::default()).map_err(|error| error.key),
            Err("CDM_RETENTION_EVENTS".to_owned())
        );
        let default = resolve(&|_| None, &RawRetention::default()).expect("the default");
        assert_eq!((default.audit, default.events), (days(400).flatten(), days(7).flatten()));
    }
}

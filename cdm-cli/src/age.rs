//! Times as ages, in the format of kubectl: `41s`, `5m`, `3h12m`, `9d`.

use cdm_core::domain::Timestamp;

/// Returns how long ago `text` was, or how far in the future it is; `None` if it is not a time.
pub(crate) fn of(text: &str, now: Timestamp) -> Option<String> {
    let then: jiff::Timestamp = text.parse().ok()?;
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now.millis()).ok()?).ok()?;
    let seconds = now.duration_since(then).as_secs();
    Some(if seconds < 0 {
        format!("in {}", span(seconds.unsigned_abs()))
    } else {
        span(seconds.unsigned_abs())
    })
}

/// Returns the time between two texts.
pub(crate) fn between(from: &str, to: &str) -> Option<String> {
    let (from, to): (jiff::Timestamp, jiff::Timestamp) = (from.parse().ok()?, to.parse().ok()?);
    Some(span(to.duration_since(from).as_secs().max(0).unsigned_abs()))
}

/// Formats a duration in its two largest units, or in one unit where the second does not matter.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if days < 2 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () => two(days / 365, "y", days % 365, "d"),
    }
}

fn two(large: u64, unit: &str, small: u64, smaller: &str) -> String {
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{smaller}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let spans = [0, 119, 120, 185, 600, 10_799, 11_520, 86_400, 172_800, 180_000, 8_640_000, 63_158_400];
        let texts = spans.map(span);
        assert_eq!(
            texts,
            ["0s", "119s", "2m", "3m5s", "10m", "179m", "3h12m", "24h", "2d", "2d2h", "100d", "2y1d"]
        );
    }

    #[test]
    fn future_times_are_marked_and_invalid_times_are_none() {
        let now = Timestamp::from_millis(60_000);
        assert_eq!(of("1970-01-01T00:00:00Z", now), Some("60s".into()));
        assert_eq!(of("1970-01-01T00:01:30Z", now), Some("in 30s".into()));
        assert_eq!(of("yesterday", now), None);
    }
}

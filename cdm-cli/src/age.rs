//! Times as ages, in the format of kubectl: `41s`, `5m`, `3h12m`, `9d`.

use cdm_core::domain::Timestamp;
use cdm_http::api::Time;

/// Returns how long ago `then` was, or how far in the future it is.
pub(crate) fn of(then: Time, now: Timestamp) -> String {
    match now >= then.0 {
        true => span(now.since(then.0).as_secs()),
        false => match then.0.since(now).as_secs() {
            0 => span(0),
            seconds => format!("in {}", span(seconds)),
        },
    }
}

/// Returns the time between two times; zero if the second is not later.
pub(crate) fn between(from: Time, to: Time) -> String {
    span(to.0.since(from.0).as_secs())
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
    fn future_times_are_marked() {
        let now = Timestamp::from_millis(60_000);
        let at = |millis| Time(Timestamp::from_millis(millis));
        assert_eq!(of(at(0), now), "60s");
        assert_eq!(of(at(90_000), now), "in 30s");
        assert_eq!(of(at(60_500), now), "0s");
        assert_eq!(between(at(1_000), at(91_000)), "90s");
        assert_eq!(between(at(91_000), at(1_000)), "0s");
    }
}

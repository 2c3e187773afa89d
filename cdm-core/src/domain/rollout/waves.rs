//! How a list of sites is cut into waves, what came out of each, and how much of one may fail.

use std::fmt;

use super::super::NameError;
use super::MemberOutcome;

/// How far one wave goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaveTarget {
    /// So many sites, counted from the first.
    Count(u32),
    /// So many hundredths of all sites, rounded up.
    Percent(u8),
}

impl WaveTarget {
    /// Parses `25` or `10%`.
    ///
    /// # Errors
    /// Zero, a percentage over 100, or anything else.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = |rule| NameError::new("a wave", rule, text);
        let parsed = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|p| (1..=100).contains(p)).map(Self::Percent),
            None => text.parse().ok().filter(|count| *count > 0).map(Self::Count),
        };
        parsed.ok_or_else(|| refuse("a wave is a count such as `25`, or a percentage from `1%` to `100%`"))
    }

    /// Where the wave ends among `total` sites.
    pub fn end(&self, total: u32) -> u32 {
        match self {
            Self::Count(count) => (*count).min(total),
            Self::Percent(percent) => {
                let end = (u64::from(total) * u64::from(*percent)).div_ceil(100);
                u32::try_from(end).unwrap_or(total)
            }
        }
    }
}

impl fmt::Display for WaveTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// One wave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wave {
    /// As it was asked for.
    pub name: String,
    /// The ordinal after its last site.
    pub end: u32,
    /// How its sites came out.
    pub counts: Counts,
}

/// Cuts `total` sites into waves.
///
/// # Errors
/// A last wave other than `100%`, or waves that do not grow. Waves that come out empty, because the fleet is small,
/// are left out.
pub fn plan_waves(reaches: &[WaveTarget], total: u32) -> Result<Vec<Wave>, NameError> {
    let refuse = |rule, at: &WaveTarget| NameError::new("a list of waves", rule, &at.to_string());
    let Some(last) = reaches.last() else {
        return Ok(vec![Wave { name: "100%".to_owned(), end: total, counts: Counts::default() }]);
    };
    if *last != WaveTarget::Percent(100) {
        return Err(refuse("the last wave is `100%`", last));
    }
    let mut waves: Vec<Wave> = Vec::new();
    // A count and a percentage are compared by what they come to; two of a kind by what they say, since in a small fleet
    // they may come to the same.
    let (mut count, mut percent) = (0, 0);
    for reach in reaches {
        let grows = match reach {
            WaveTarget::Percent(next) => std::mem::replace(&mut percent, *next) < *next,
            WaveTarget::Count(next) => std::mem::replace(&mut count, *next) < *next,
        };
        if !grows {
            return Err(refuse("waves are cumulative: each goes further than the one before", reach));
        }
        let end = reach.end(total);
        if end > waves.last().map_or(0, |wave| wave.end) {
            waves.push(Wave { name: reach.to_string(), end, counts: Counts::default() });
        }
    }
    Ok(waves)
}

/// How many sites of a wave may fail before the rollout halts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Budget {
    /// So many.
    Count(u32),
    /// So many hundredths of the wave, rounded down.
    Percent(u8),
}

impl Budget {
    /// How many of a wave of `size` sites may fail.
    pub fn allows(self, size: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                u32::try_from(u64::from(size) * u64::from(percent) / 100).unwrap_or(size)
            }
        }
    }
}

/// How many sites came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counts {
    /// Where the rollout wants them.
    pub succeeded: u32,
    /// Where they were, moved back or never moved.
    pub failed: u32,
    /// Gone, inactive or busy.
    pub skipped: u32,
    /// Moved, waiting for a person.
    pub parked: u32,
}

impl Counts {
    /// Sites with an outcome.
    pub const fn resolved(self) -> u32 {
        self.succeeded + self.failed + self.skipped + self.parked
    }

    /// Counts one outcome.
    pub fn add(&mut self, outcome: MemberOutcome) {
        *self.of(outcome) += 1;
    }

    /// Takes one outcome back.
    pub fn remove(&mut self, outcome: MemberOutcome) {
        let count = self.of(outcome);
        *count = count.saturating_sub(1);
    }

    fn of(&mut self, outcome: MemberOutcome) -> &mut u32 {
        match outcome {
            MemberOutcome::Moved | MemberOutcome::InPlace => &mut self.succeeded,
            MemberOutcome::Failed
            | MemberOutcome::Unhealthy
            | MemberOutcome::UnhealthyInPlace
            | MemberOutcome::Returned => &mut self.failed,
            MemberOutcome::SkippedGone
            | MemberOutcome::SkippedInactive
            | MemberOutcome::SkippedBusy
            | MemberOutcome::SkippedFrozen => &mut self.skipped,
            MemberOutcome::Parked => &mut self.parked,
        }
    }
}

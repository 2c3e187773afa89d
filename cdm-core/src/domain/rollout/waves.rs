//! The waves of a rollout, the counts of their outcomes, and the failure budget.

use std::fmt;

use super::super::NameError;
use super::MemberOutcome;

/// The cumulative size of a wave.
///
/// ```
/// use cdm_core::domain::rollout::WaveTarget;
///
/// let target = WaveTarget::parse("10%")?;
/// assert_eq!(target, WaveTarget::Percent(10));
/// assert_eq!(target.end(25), 3);
/// assert!(WaveTarget::parse("0").is_err());
/// # Ok::<(), cdm_core::domain::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaveTarget {
    /// The number of sites, counted from the first site of the rollout.
    Count(u32),
    /// The percentage of all sites, rounded up.
    Percent(u8),
}

impl WaveTarget {
    /// Parses `25` or `10%`.
    ///
    /// # Errors
    /// The text is neither a positive count nor a percentage from 1 to 100.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let error = |rule| NameError::new("a wave", rule, text);
        let parsed = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|p| (1..=100).contains(p)).map(Self::Percent),
            None => text.parse().ok().filter(|count| *count > 0).map(Self::Count),
        };
        parsed.ok_or_else(|| error("a wave is a count such as `25` or a percentage from `1%` to `100%`"))
    }

    /// Returns the ordinal at which the wave ends in a rollout of `total` sites.
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

/// One wave of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wave {
    /// The size as it was requested, such as `25` or `10%`.
    pub name: String,
    /// The ordinal after its last site.
    pub end: u32,
    /// The counts of the outcomes of its sites.
    pub counts: Counts,
}

/// Plans the waves of `total` sites. Without targets there is one wave. A wave that would be empty is left out, as in a
/// small fleet.
///
/// # Errors
/// The last target is not `100%`, or a target is not greater than the one before.
pub fn plan_waves(targets: &[WaveTarget], total: u32) -> Result<Vec<Wave>, NameError> {
    let error = |rule, at: &WaveTarget| NameError::new("a list of waves", rule, &at.to_string());
    let Some(last) = targets.last() else {
        return Ok(vec![Wave { name: "100%".to_owned(), end: total, counts: Counts::default() }]);
    };
    if *last != WaveTarget::Percent(100) {
        return Err(error("the last wave must be `100%`", last));
    }
    let mut waves: Vec<Wave> = Vec::new();
    // Two counts, and two percentages, are compared by their values, since they can end at the same site in a small
    // fleet. A count and a percentage are compared by where they end.
    let (mut count, mut percent) = (0, 0);
    for target in targets {
        let grows = match target {
            WaveTarget::Percent(next) => std::mem::replace(&mut percent, *next) < *next,
            WaveTarget::Count(next) => std::mem::replace(&mut count, *next) < *next,
        };
        if !grows {
            return Err(error("waves are cumulative: each must be greater than the one before", target));
        }
        let end = target.end(total);
        if end > waves.last().map_or(0, |wave| wave.end) {
            waves.push(Wave { name: target.to_string(), end, counts: Counts::default() });
        }
    }
    Ok(waves)
}

/// The number of sites of a wave that may fail before the rollout halts.
///
/// ```
/// use cdm_core::domain::rollout::Budget;
///
/// assert_eq!(Budget::Count(3).allows(500), 3);
/// assert_eq!(Budget::Percent(1).allows(500), 5);
/// assert_eq!(Budget::Percent(1).allows(99), 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Budget {
    /// The number of sites.
    Count(u32),
    /// The percentage of the sites of the wave, rounded down.
    Percent(u8),
}

impl Budget {
    /// Returns how many sites of a wave of `size` sites may fail.
    pub fn allows(self, size: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                u32::try_from(u64::from(size) * u64::from(percent) / 100).unwrap_or(size)
            }
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The number of sites by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counts {
    /// Moved to the target, or already there.
    pub succeeded: u32,
    /// Not moved, moved back, or unhealthy on the target.
    pub failed: u32,
    /// Deleted, inactive, busy or frozen.
    pub skipped: u32,
    /// Moved, but a user must act.
    pub parked: u32,
}

impl Counts {
    /// Returns the number of sites that have an outcome.
    pub const fn resolved(self) -> u32 {
        self.succeeded + self.failed + self.skipped + self.parked
    }

    /// Counts one more site with this outcome.
    pub fn add(&mut self, outcome: MemberOutcome) {
        *self.of(outcome) += 1;
    }

    /// Counts one site less with this outcome.
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

//! The phase of a rollout, with the data of each phase.

use crate::domain::fence::Direction;
use crate::domain::{OperationId, Timestamp};

/// What a rollout does at present. The status states whether an owner does it now; see [`super::Rollout::advance`] for
/// the transitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutPhase {
    /// No site moves before this deploy has succeeded.
    Deploying(OperationId),
    /// Sites move to the target.
    Moving(Progress),
    /// The caches of the moved sites are flushed before the rollout continues, waits, stops or ends. No site moves.
    Flushing(Progress),
    /// No site moves before the bake time between two waves is over. The next wave is granted already.
    Baking {
        /// The end of the bake time.
        until: Timestamp,
        /// The progress of the sites.
        progress: Progress,
    },
    /// The moved sites move back.
    RollingBack {
        /// The ordinal after the last site that is moved back.
        end: u32,
        /// Whether the caches of the moved sites are flushed while no site moves, as in [`RolloutPhase::Flushing`].
        flushing: bool,
        /// The progress of the sites.
        progress: Progress,
    },
}

/// How far a rollout has processed the list of its sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The sites that were granted to the owner and of which not all have an outcome. An earlier site has one.
    pub window: Window,
    /// The ordinal of the first site whose caches are neither flushed nor part of `pending_flush`.
    pub flush_from: u32,
    /// The flush in progress.
    pub pending_flush: Option<PendingFlush>,
    /// The round of jobs of the next flush: 1, and one more for each earlier flush from the same site on.
    pub round: u32,
}

/// A range of the list of sites: the ordinals from `start` up to, but not including, `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The ordinal of the first site.
    pub start: u32,
    /// The ordinal after the last site.
    pub end: u32,
}

/// Sites that have their outcomes and whose caches are flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingFlush {
    /// The range of the sites.
    pub window: Window,
    /// The round of the jobs that flush them; see [`Progress::round`].
    pub round: u32,
}

impl Window {
    /// The least number of sites that are granted at once. A wave that has fewer sites is granted as a whole.
    pub const MIN: u32 = 128;
    /// The greatest number of sites that are granted at once.
    pub const MAX: u32 = 512;

    /// Returns how many sites are granted at once: four times `max_concurrent`, between [`Window::MIN`] and
    /// [`Window::MAX`]. Each grant costs a write of the record.
    pub fn size(max_concurrent: u32) -> u32 {
        max_concurrent.saturating_mul(4).clamp(Self::MIN, Self::MAX)
    }

    /// Returns whether the window contains the site with this ordinal.
    pub fn contains(self, ordinal: u32) -> bool {
        (self.start..self.end).contains(&ordinal)
    }
}

impl PendingFlush {
    /// The limit of sites that can move while the caches of earlier ones are flushed.
    pub const MAX: u32 = 1_024;

    /// Returns the flush without the sites from `end` on. Returns `None` if no site remains.
    pub(super) fn until(self, end: u32) -> Option<Self> {
        let window = Window { start: self.window.start, end: self.window.end.min(end) };
        (window.start < window.end).then_some(Self { window, ..self })
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self { window: Window::default(), flush_from: 0, pending_flush: None, round: 1 }
    }
}

impl Progress {
    /// Begins a flush up to `end`. `open` is the first site without an outcome: the sites from there on are flushed
    /// again after they have moved.
    pub(super) fn begin_flush(&mut self, end: u32, open: Option<u32>) -> PendingFlush {
        let pending = PendingFlush { window: Window { start: self.flush_from, end }, round: self.round };
        let next = open.map_or(end, |open| open.min(end));
        self.round = if next == self.flush_from { self.round + 1 } else { 1 };
        self.flush_from = next;
        self.pending_flush = Some(pending);
        pending
    }
}

impl RolloutPhase {
    /// Returns the direction in which sites move.
    pub const fn direction(&self) -> Direction {
        match self {
            Self::Deploying(_) | Self::Moving(_) | Self::Flushing(_) | Self::Baking { .. } => {
                Direction::Forward
            }
            Self::RollingBack { .. } => Direction::Rollback,
        }
    }

    /// Returns the progress. A rollout that waits for its deploy has none.
    pub fn progress(&self) -> Progress {
        match self {
            Self::Deploying(_) => Progress::default(),
            Self::Moving(progress)
            | Self::Flushing(progress)
            | Self::Baking { progress, .. }
            | Self::RollingBack { progress, .. } => *progress,
        }
    }

    /// Returns the name of the phase in error messages.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Deploying(_) => "deploying",
            Self::Moving(_) => "moving",
            Self::Flushing(_) => "flushing",
            Self::Baking { .. } => "baking",
            Self::RollingBack { .. } => "rolling back",
        }
    }

    /// Returns whether an owner moves sites in this phase.
    pub const fn moves_sites(&self) -> bool {
        match self {
            Self::Moving(_) | Self::RollingBack { flushing: false, .. } => true,
            Self::Deploying(_) | Self::Flushing(_) | Self::Baking { .. } | Self::RollingBack { .. } => false,
        }
    }

    /// Returns whether the rollout only waits for the flush of caches.
    pub const fn is_flushing(&self) -> bool {
        matches!(self, Self::Flushing(_) | Self::RollingBack { flushing: true, .. })
    }

    /// Returns the same phase while sites move, with other progress.
    pub(super) const fn moving(&self, progress: Progress) -> Self {
        match self {
            Self::RollingBack { end, .. } => Self::RollingBack { end: *end, flushing: false, progress },
            _ => Self::Moving(progress),
        }
    }

    /// Returns the same phase while the caches of moved sites are flushed, with other progress.
    pub(super) const fn flushing(&self, progress: Progress) -> Self {
        match self {
            Self::RollingBack { end, .. } => Self::RollingBack { end: *end, flushing: true, progress },
            _ => Self::Flushing(progress),
        }
    }
}

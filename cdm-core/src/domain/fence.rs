//! Fences and claim tokens, by which a target rejects the write of a worker that has lost an operation or rollout.

use std::fmt;

/// How often an operation was claimed or changed its direction. A call carries the epoch in its fence, so that a worker
/// that has lost the operation changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// How often a rollout was claimed. Sites reject claims of a lower term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Epoch {
    /// The epoch before the first claim.
    pub const ZERO: Self = Self(0);

    /// Returns the epoch of the next claim.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Term {
    /// Returns the term of the next claim.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The calls of a rollout's owner are fenced by its term.
impl From<Term> for Epoch {
    fn from(term: Term) -> Self {
        Self(term.0)
    }
}

impl From<u64> for Epoch {
    fn from(epoch: u64) -> Self {
        Self(epoch)
    }
}

impl From<Epoch> for u64 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}

impl From<u64> for Term {
    fn from(term: u64) -> Self {
        Self(term)
    }
}

impl From<Term> for u64 {
    fn from(term: Term) -> Self {
        term.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `<number>.<epoch>`: the operation that made a write, and the operation's ownership epoch at that time.
///
/// Every claim of an operation raises its epoch, and so does every change of its direction (an undo). Numbers are
/// never reused, so two writers never share a fence. A target that stores the fence of its last write and rejects a
/// write that expects another fence cannot be changed by a worker that has lost the operation.
///
/// ```
/// use cdm_core::domain::{Epoch, Fence};
///
/// let fence = Fence::new(12, Epoch(3));
/// assert_eq!(fence.to_string(), "12.3");
/// assert_eq!(Fence::parse("12.3"), Some(fence));
///
/// // A second write of the same claim has another fence, but belongs to the same claim.
/// let second = fence.over(fence);
/// assert_ne!(second, fence);
/// assert_eq!(second.claim(), fence);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The number of the operation that made the write.
    pub number: u64,
    /// The operation's epoch, with a count of its writes to the target in the high bits; see [`Fence::over`].
    pub epoch: Epoch,
}

impl Fence {
    /// Creates the fence of operation `number` in `epoch`.
    pub const fn new(number: u64, epoch: Epoch) -> Self {
        Self { number, epoch }
    }

    /// The number of low bits of an epoch that count ownership. The bits above count the writes of one owner to one
    /// target.
    const OWNERSHIP: u32 = 40;

    /// Returns the fence for the next write of this claim to a target that carries `current`. The fence differs from
    /// every fence that the operation has written to the target before. A claim that writes to a target more than
    /// once needs distinct fences, so that a delayed write finds another fence than it expects.
    pub const fn over(self, current: Self) -> Self {
        if self.number != current.number {
            return self;
        }
        let writes = (current.epoch.0 >> Self::OWNERSHIP) + 1;
        Self { epoch: Epoch(self.epoch.0 | writes << Self::OWNERSHIP), ..self }
    }

    /// Returns the claim under which the fence was written, without the count of writes.
    pub const fn claim(self) -> Self {
        Self { epoch: Epoch(self.epoch.0 & ((1 << Self::OWNERSHIP) - 1)), ..self }
    }

    /// Parses the output of `Display`; returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, epoch) = text.split_once('.')?;
        let fence = Self { number: number.parse().ok()?, epoch: Epoch(epoch.parse().ok()?) };
        (fence.to_string() == text).then_some(fence)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.epoch)
    }
}

/// The right of a rollout's owner to claim sites: the rollout's number, the direction and the owner's term.
///
/// A site stores the highest claim token that it has accepted and rejects a claim under a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimToken {
    /// The rollout's number. A later rollout has a higher number.
    pub rollout: u64,
    /// The direction of the rollout. A rollback outranks the forward move.
    pub direction: Direction,
    /// The owner's term, raised each time another worker takes over the rollout.
    pub term: Term,
}

/// The direction in which a rollout moves a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Toward the target service.
    #[default]
    Forward,
    /// Back to the service where the site was before.
    Rollback,
}

impl Direction {
    /// Returns the epoch of a member's first claim in this direction. Both directions use the same operation number
    /// and must never share a fence.
    pub const fn first_epoch(self) -> Epoch {
        match self {
            Self::Forward => Epoch(1),
            Self::Rollback => Epoch(1 << 32),
        }
    }
}

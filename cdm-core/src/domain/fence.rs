//! What tells an owner's effect from that of one who has lost the work since.

use std::fmt;

/// `<number>.<epoch>`: the operation that wrote a thing, and its ownership count at that time.
///
/// Every claim of an operation raises its epoch, and so does every change of its direction (an undo). Numbers are
/// never reused, so two writers never share a fence. A target that keeps the fence of its last write, and refuses a
/// write that expects another one, cannot be moved by a worker that has lost the operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The operation's number.
    pub number: u64,
    /// The operation's epoch.
    pub epoch: u64,
}

impl Fence {
    /// The fence of operation `number` in its `epoch`.
    pub const fn new(number: u64, epoch: u64) -> Self {
        Self { number, epoch }
    }

    /// The bits of an epoch that count ownership; those above count the writes of one owner to one thing.
    const OWNERSHIP: u32 = 40;

    /// The fence of a claim's next write over what carries `there`: of the same claim, and another one than every
    /// fence that the operation has written there before. A claim that writes a thing more than once needs it, so that
    /// a late write finds another fence than it expects.
    pub const fn over(self, there: Self) -> Self {
        if self.number != there.number {
            return self;
        }
        let writes = (there.epoch >> Self::OWNERSHIP) + 1;
        Self { epoch: self.epoch | writes << Self::OWNERSHIP, ..self }
    }

    /// The claim under which it was written.
    pub const fn claim(self) -> Self {
        Self { epoch: self.epoch & ((1 << Self::OWNERSHIP) - 1), ..self }
    }

    /// Parses what `Display` prints; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, epoch) = text.split_once('.')?;
        let fence = Self { number: number.parse().ok()?, epoch: epoch.parse().ok()? };
        (fence.to_string() == text).then_some(fence)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.epoch)
    }
}

/// The right to move sites in a rollout: the rollout's number and the term of its owner.
///
/// A site remembers the highest grant it has seen and refuses a claim under a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimToken {
    /// The rollout's number; later rollouts have higher ones.
    pub rollout: u64,
    /// Which way: a return outranks the move it undoes.
    pub direction: Direction,
    /// The owner's term.
    pub term: u64,
}

/// Which way a rollout takes a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the target.
    #[default]
    Forward,
    /// Back to where the site was.
    Rollback,
}

impl Direction {
    /// The epoch of a member's first claim on this leg. Both legs have the same operation number, and must never share
    /// a fence.
    pub const fn first_epoch(self) -> u64 {
        match self {
            Self::Forward => 1,
            Self::Rollback => 1 << 32,
        }
    }
}

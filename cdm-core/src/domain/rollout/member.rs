//! The sites of a rollout: how each came out, on which digest, and why.

use super::plan::Candidate;
use crate::domain::reason::ReasonCode;
use crate::domain::{Digest, SiteId, Uid};

/// How one site came out of one leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberOutcome {
    /// Moved to the target from the other service.
    Moved,
    /// It was on the target already, or is not moved by this kind.
    InPlace,
    /// Not moved; it is where it was.
    Failed,
    /// The gate spoke against its move before it was moved; it is where it was.
    Unhealthy,
    /// It was on the target already, and the gate speaks against it there.
    UnhealthyInPlace,
    /// Moved, and taken back: because the gate spoke against it, or all of the rollout was.
    Returned,
    /// Not there any more.
    SkippedGone,
    /// Not active.
    SkippedInactive,
    /// Busy until the end of its window.
    SkippedBusy,
    /// Its moves are frozen.
    SkippedFrozen,
    /// Moved, but its caches could not be flushed.
    Parked,
}

/// One site of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutMember {
    /// Which.
    pub id: SiteId,
    /// Which incarnation.
    pub uid: Uid,
    /// How it came out.
    pub outcome: Option<MemberOutcome>,
    /// Why, where it came out badly or was skipped, and there is something to say.
    pub why: Option<String>,
    /// The digest that the target ran when it was moved there, or asked there. `None` where it was not, and in what was
    /// stored before this was kept.
    pub digest: Option<Digest>,
}

/// A site that came out badly, or was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFailure {
    /// Which.
    pub site: SiteId,
    /// How.
    pub outcome: MemberOutcome,
    /// Why, where there is something to say.
    pub why: Option<String>,
}

impl MemberFailure {
    /// How many a rollout's record names; its pages have them all.
    pub const KEPT: usize = 20;
}

impl MemberOutcome {
    /// The word that users see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::InPlace => "in_place",
            Self::Failed => "failed",
            Self::Unhealthy => "unhealthy",
            Self::UnhealthyInPlace => "unhealthy_in_place",
            Self::Returned => "returned",
            Self::SkippedGone => "gone",
            Self::SkippedInactive => "inactive",
            Self::SkippedBusy => "busy",
            Self::SkippedFrozen => "frozen",
            Self::Parked => "parked",
        }
    }

    /// Whether a wave's budget pays for it.
    pub const fn fails(self) -> bool {
        match self {
            Self::Failed | Self::Unhealthy | Self::UnhealthyInPlace | Self::Returned => true,
            Self::Moved
            | Self::InPlace
            | Self::SkippedGone
            | Self::SkippedInactive
            | Self::SkippedBusy
            | Self::SkippedFrozen
            | Self::Parked => false,
        }
    }

    /// Whether nothing was done to it.
    pub const fn is_skipped(self) -> bool {
        matches!(self, Self::SkippedGone | Self::SkippedInactive | Self::SkippedBusy | Self::SkippedFrozen)
    }

    /// Whether it says something of the image that the target ran.
    pub const fn speaks_against_image(self) -> bool {
        matches!(self, Self::Unhealthy | Self::UnhealthyInPlace | Self::Returned)
    }

    /// Why, in general; for what was stored without more.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Moved => "it was moved",
            Self::InPlace => "it was in place",
            Self::Failed => "it was not moved",
            Self::Unhealthy | Self::UnhealthyInPlace => "the gate spoke against it",
            Self::Returned => "it was taken back with the rollout, which went over its budget",
            Self::SkippedGone => "the site was gone when its turn came",
            Self::SkippedInactive => "the site was not active when its turn came",
            Self::SkippedBusy => "another operation was at work on the site until the end of its window",
            Self::SkippedFrozen => "a freeze stopped its moves",
            Self::Parked => {
                "it was moved, and its caches could not be flushed, or it could not be taken back"
            }
        }
    }
}

impl RolloutMember {
    /// A site to which nothing was done yet.
    pub const fn new(id: SiteId, uid: Uid) -> Self {
        Self { id, uid, outcome: None, why: None, digest: None }
    }

    /// Why it is not as it was wanted: a code, and the particulars.
    pub fn reason(&self) -> Option<(ReasonCode, String)> {
        let code = match self.outcome? {
            MemberOutcome::Moved | MemberOutcome::InPlace => return None,
            MemberOutcome::Failed => ReasonCode::MoveFailed,
            // Nothing speaks against a site that went back with all others.
            MemberOutcome::Returned if self.why.is_none() => ReasonCode::BudgetExceeded,
            MemberOutcome::Unhealthy | MemberOutcome::UnhealthyInPlace | MemberOutcome::Returned => {
                ReasonCode::GateFailed
            }
            MemberOutcome::SkippedGone => ReasonCode::SiteGone,
            MemberOutcome::SkippedInactive => ReasonCode::SiteInactive,
            MemberOutcome::SkippedBusy => ReasonCode::SiteBusy,
            MemberOutcome::SkippedFrozen => ReasonCode::Frozen,
            MemberOutcome::Parked => ReasonCode::CacheFlushFailed,
        };
        let told = self.outcome.map(MemberOutcome::describe).unwrap_or_default();
        Some((code, self.why.clone().unwrap_or_else(|| told.to_owned())))
    }
}

impl From<Candidate> for RolloutMember {
    fn from(site: Candidate) -> Self {
        Self::new(site.id, site.uid)
    }
}

/// A page of a rollout's frozen list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutPage {
    /// The rollout.
    pub rollout: u64,
    /// Which page, from 0.
    pub page: u32,
    /// Its sites, in ordinal order.
    pub members: Vec<RolloutMember>,
}

impl RolloutPage {
    /// How many sites a page has; two of the shortest windows.
    pub const SIZE: u32 = 256;
}

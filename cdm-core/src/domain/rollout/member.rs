//! The sites of a rollout: the outcome of each, its digest and its reason.

use crate::domain::reason::ReasonCode;
use crate::domain::{Digest, SiteId, Uid};

/// The outcome of one site in one direction of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberOutcome {
    /// The site was moved to the target.
    Moved,
    /// The site was on the target already, or this kind of rollout moves no sites.
    InPlace,
    /// The site was not moved.
    Failed,
    /// The site failed the health gate before its move, and was not moved.
    Unhealthy,
    /// The site was on the target already, and failed the health gate there.
    UnhealthyInPlace,
    /// The site was moved and moved back: it failed the health gate, or the whole rollout was rolled back.
    Returned,
    /// Skipped: the site no longer exists.
    SkippedGone,
    /// Skipped: the site is not active.
    SkippedInactive,
    /// Skipped: another operation ran on the site until the end of its window.
    SkippedBusy,
    /// Skipped: a freeze stops moves of the site.
    SkippedFrozen,
    /// The site was moved, but its caches could not be flushed, or it could not be moved back.
    Parked,
}

/// Limits a reason to 200 characters, so that a page of sites stays small.
pub(crate) fn truncate(why: &str) -> String {
    why.chars().take(200).collect()
}

/// One site in the list of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutMember {
    /// The id of the site.
    pub id: SiteId,
    /// The uid, which distinguishes it from an earlier or later site of the same id.
    pub uid: Uid,
    /// The outcome. `None` until the site has one.
    pub outcome: Option<MemberOutcome>,
    /// The reason of a failed, parked or skipped site, if more is known than the outcome.
    pub why: Option<String>,
    /// The digest that the target ran when the site was moved there or probed there. `None` if it was neither, and in
    /// records of versions that did not store the digest.
    pub digest: Option<Digest>,
}

/// A site that failed, is parked, or was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFailure {
    /// The id of the site.
    pub site: SiteId,
    /// The outcome: a failed, parked or skipped one.
    pub outcome: MemberOutcome,
    /// The reason, if more is known than the outcome.
    pub why: Option<String>,
}

impl MemberFailure {
    /// The limit of failures in the record of a rollout. The pages of the rollout contain all of them.
    pub const KEPT: usize = 20;
}

impl MemberOutcome {
    /// Returns the name in feed events and in stored records.
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

    /// Returns whether the outcome counts against the budget of the wave.
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

    /// Returns whether the site was skipped.
    pub const fn is_skipped(self) -> bool {
        matches!(self, Self::SkippedGone | Self::SkippedInactive | Self::SkippedBusy | Self::SkippedFrozen)
    }

    /// Returns whether the outcome is evidence against the image that the target ran.
    pub const fn blames_image(self) -> bool {
        matches!(self, Self::Unhealthy | Self::UnhealthyInPlace | Self::Returned)
    }

    /// Returns the general reason, for outcomes that are stored without a specific one.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Moved => "the site was moved",
            Self::InPlace => "the site was on the target already",
            Self::Failed => "the site was not moved",
            Self::Unhealthy | Self::UnhealthyInPlace => "the site failed the health gate",
            Self::Returned => "the site was moved back with the rollout, which exceeded its budget",
            Self::SkippedGone => "the site no longer existed when its turn came",
            Self::SkippedInactive => "the site was not active when its turn came",
            Self::SkippedBusy => "another operation ran on the site until the end of its window",
            Self::SkippedFrozen => "a freeze stopped moves of the site",
            Self::Parked => {
                "the caches of the moved site could not be flushed, or the site could not be moved back"
            }
        }
    }
}

impl RolloutMember {
    /// Creates a site without an outcome.
    pub const fn new(id: SiteId, uid: Uid) -> Self {
        Self { id, uid, outcome: None, why: None, digest: None }
    }

    /// Returns the reason of a failed, parked or skipped site: the code and the message.
    pub fn reason(&self) -> Option<(ReasonCode, String)> {
        let code = match self.outcome? {
            MemberOutcome::Moved | MemberOutcome::InPlace => return None,
            MemberOutcome::Failed => ReasonCode::MoveFailed,
            // A site that was rolled back with all others has not failed itself.
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
        let general = self.outcome.map(MemberOutcome::describe).unwrap_or_default();
        Some((code, self.why.clone().unwrap_or_else(|| general.to_owned())))
    }
}

/// A page of the list of sites of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutPage {
    /// The number of the rollout.
    pub rollout: u64,
    /// The index of the page, from 0.
    pub page: u32,
    /// The sites, in the order of their ordinals.
    pub members: Vec<RolloutMember>,
}

impl RolloutPage {
    /// The number of sites of a full page: two windows of the least size.
    pub const SIZE: u32 = 256;
}

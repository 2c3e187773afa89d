//! The sites of a rollout that its owner has read, and the outcomes that the next report stores.

use std::collections::{BTreeMap, BTreeSet};

use super::member::Resolution;
use crate::domain::operation::OperationParent;
use crate::domain::rollout::{
    MemberFailure, MemberOutcome, Progress, ReportedOutcome, RolloutMember, RolloutPage, Window, truncate,
};
use crate::domain::{Direction, OperationId, Rollout, Subject, Timestamp, Uid};
use crate::ports::{FeedEvent, Mutation};

/// The pages that were read. An outcome is entered into its page at once, and stored by the next report.
#[derive(Debug, Default)]
pub(super) struct Sites {
    pages: BTreeMap<u32, RolloutPage>,
    changed: BTreeSet<u32>,
    outcomes: Vec<ReportedOutcome>,
}

impl Sites {
    /// Returns the pages that have to be read for this progress. The pages of earlier sites are dropped.
    pub(super) fn missing(&mut self, progress: Progress) -> Vec<u32> {
        let Progress { window, flush_from, pending_flush, .. } = progress;
        let pending = pending_flush.map_or(window.start, |pending| pending.window.start);
        let first = window.start.min(flush_from).min(pending) / RolloutPage::SIZE;
        let last = window.end.saturating_sub(1) / RolloutPage::SIZE;
        self.pages.retain(|page, _| *page >= first);
        (first..=last).filter(|page| !self.pages.contains_key(page)).collect()
    }

    pub(super) fn insert(&mut self, pages: Vec<RolloutPage>) {
        self.pages.extend(pages.into_iter().map(|page| (page.page, page)));
    }

    /// Returns the site with this ordinal, if its page was read.
    pub(super) fn get(&self, ordinal: u32) -> Option<&RolloutMember> {
        let page = self.pages.get(&(ordinal / RolloutPage::SIZE))?;
        page.members.get((ordinal % RolloutPage::SIZE) as usize)
    }

    /// Returns the sites of a window that must still be moved in this direction.
    pub(super) fn open(&self, window: Window, direction: Direction) -> impl Iterator<Item = u32> + '_ {
        (window.start..window.end).filter(move |ordinal| self.is_open(*ordinal, direction))
    }

    /// Returns whether a site must still be moved in this direction.
    pub(super) fn is_open(&self, ordinal: u32, direction: Direction) -> bool {
        self.get(ordinal).is_some_and(|member| match direction {
            Direction::Forward => member.outcome.is_none(),
            Direction::Rollback => member.outcome == Some(MemberOutcome::Moved),
        })
    }

    /// Returns the sites of a window whose caches must be flushed.
    pub(super) fn flushable(&self, window: Window) -> impl Iterator<Item = (u32, Uid)> + '_ {
        (window.start..window.end).filter_map(|ordinal| {
            let member = self.get(ordinal)?;
            needs_flush(member.outcome?).then_some((ordinal, member.uid))
        })
    }

    /// Enters the outcome of a site.
    pub(super) fn resolve(&mut self, ordinal: u32, resolution: Resolution) {
        let number = ordinal / RolloutPage::SIZE;
        let Some(page) = self.pages.get_mut(&number) else { return };
        let Some(member) = page.members.get_mut((ordinal % RolloutPage::SIZE) as usize) else { return };
        let Resolution { outcome, why, digest } = resolution;
        let before = member.outcome.replace(outcome);
        member.why = why.as_deref().map(truncate);
        // A rollback or a failed flush keeps the digest of the move.
        member.digest = digest.or(member.digest);
        let site = MemberFailure { site: member.id.clone(), outcome, why: member.why.clone() };
        self.outcomes.push(ReportedOutcome { ordinal, before, digest, site });
        self.changed.insert(number);
    }

    /// Returns how many of the outcomes of the next report count against the budget.
    pub(super) fn failed(&self) -> u32 {
        count_failed(&self.outcomes)
    }

    /// Returns the outcomes since the last report, and the pages with them.
    pub(super) fn take_outcomes(&mut self) -> (Vec<ReportedOutcome>, Vec<Mutation>) {
        let changed = std::mem::take(&mut self.changed);
        let pages = changed.iter().filter_map(|page| self.pages.get(page));
        let pages = pages.cloned().map(Mutation::RolloutPage).collect();
        (std::mem::take(&mut self.outcomes), pages)
    }
}

/// Returns how many outcomes count against the budget.
pub(super) fn count_failed(outcomes: &[ReportedOutcome]) -> u32 {
    outcomes.iter().map(|one| u32::from(one.site.outcome.fails())).sum()
}

/// Returns the feed events of outcomes. The hooks of a deploy move no sites and have none.
pub(super) fn events_of(rollout: &Rollout, outcomes: &[ReportedOutcome], at: Timestamp) -> Vec<FeedEvent> {
    if !rollout.spec.kind.moves() {
        return Vec::new();
    }
    let events = outcomes.iter().map(|one| FeedEvent {
        at,
        subject: Some(Subject::Site(one.site.site.clone())),
        operation: Some(OperationId {
            number: rollout.first_number + u64::from(one.ordinal),
            parent: OperationParent::Rollout(rollout.number, one.ordinal),
        }),
        rollout: Some(rollout.number),
        what: format!("site {}", one.site.outcome.as_str()),
    });
    events.collect()
}

/// Returns whether the caches of a site with this outcome must be flushed: the site is on the destination.
const fn needs_flush(outcome: MemberOutcome) -> bool {
    match outcome {
        MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::Returned => true,
        MemberOutcome::Failed
        | MemberOutcome::Unhealthy
        | MemberOutcome::UnhealthyInPlace
        | MemberOutcome::SkippedGone
        | MemberOutcome::SkippedInactive
        | MemberOutcome::SkippedBusy
        | MemberOutcome::SkippedFrozen
        | MemberOutcome::Parked => false,
    }
}

//! The operations of a site: its own, and those of rollouts that include it.

use std::fmt;
use std::str::FromStr;

use super::{Manager, ManagerError};
use crate::domain::operation::{Step, StepStatus};
use crate::domain::rollout::{MemberOutcome, RolloutMember, RolloutPage};
use crate::domain::{Operation, OperationId, Reason, Rollout, SiteId, Status, Subject, TerminalStatus};
use crate::pipelines::NOT_FLUSHED;
use crate::ports::{JobFailure, OperationQuery, Page};

/// The number of rollouts that one request examines.
const ROLLOUTS_PER_PAGE: usize = 32;

/// The cursor of a page of a site's operations: a position among the site's own operations and a position among
/// rollouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryCursor {
    own: Option<u64>,
    rollouts: Option<u64>,
}

impl fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |of: Option<u64>| of.map_or_else(String::new, |number| number.to_string());
        write!(f, "{}.{}", number(self.own), number(self.rollouts))
    }
}

impl FromStr for HistoryCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| match text {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| ()),
        };
        let (own, rollouts) = text.split_once('.').ok_or(())?;
        Ok(Self { own: number(own)?, rollouts: number(rollouts)? })
    }
}

/// The position after the last item of a list. No number is below 0.
const END: Option<u64> = Some(0);

impl Manager {
    /// Returns a site's operations, newest first: its own, and those of rollouts that include the site. A page can
    /// have fewer than `limit` items although another page follows.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn site_operations(
        &self,
        site: &SiteId,
        query: &OperationQuery,
        from: HistoryCursor,
        limit: usize,
    ) -> Result<Page<Operation, HistoryCursor>, ManagerError> {
        let limit = limit.min(1_000);
        let query = OperationQuery { site: Some(site.clone()), ..query.clone() };
        let own = self.ports.store.operations(&query, from.own, limit).await?;
        let memberships = self.memberships(site, &query, from.rollouts, limit).await?;
        let own_items = own.items.len();
        let members = memberships.items.len();
        let mut all: Vec<(Option<u64>, Operation)> = own.items.into_iter().map(|own| (None, own)).collect();
        all.extend(memberships.items.into_iter().map(|(rollout, operation)| (Some(rollout), operation)));
        all.sort_by_key(|(_, operation)| std::cmp::Reverse(operation.id.number));
        all.truncate(limit);
        let own_taken = all.iter().rev().find(|(rollout, _)| rollout.is_none());
        let own_taken = own_taken.map(|(_, operation)| operation.id.number);
        let rollout_taken = all.iter().rev().find_map(|(rollout, _)| *rollout);
        let taken = all.iter().filter(|(rollout, _)| rollout.is_none()).count();
        let next = HistoryCursor {
            own: if taken == own_items && own.next.is_none() { END } else { own_taken.or(from.own) },
            rollouts: match (all.len() - taken == members, memberships.next) {
                (true, None) => END,
                (true, Some(next)) => Some(next),
                (false, _) => rollout_taken.or(from.rollouts),
            },
        };
        let finished = next == HistoryCursor { own: END, rollouts: END };
        let items = all.into_iter().map(|(_, operation)| operation).collect();
        Ok(Page { items, next: Some(next).filter(|_| !finished) })
    }

    /// Returns the site's operations in rollouts, newest first, each with the number of the rollout. `next` is the
    /// number below which no rollout was examined yet.
    async fn memberships(
        &self,
        site: &SiteId,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<(u64, Operation), u64>, ManagerError> {
        let mut items = Vec::new();
        let page = self.ports.store.rollouts(before, ROLLOUTS_PER_PAGE).await?;
        let mut next = page.next;
        for rollout in page.items.into_iter().filter(|rollout| rollout.spec.kind.moves()) {
            if items.len() == limit {
                break;
            }
            let Some((ordinal, member)) = self.member(&rollout, site).await? else { continue };
            // A rollout that ended without an outcome for the site did nothing to it.
            if member.outcome.is_none() && rollout.status.ended() {
                continue;
            }
            let number = rollout.number;
            let operation = self.describe_member(&rollout, ordinal, member).await?;
            let matches = query.kind.is_none_or(|kind| kind == operation.state.input.kind())
                && query.status.is_none_or(|status| status == operation.state.status);
            if matches {
                items.push((number, operation));
            }
            if items.len() == limit {
                next = Some(number);
            }
        }
        Ok(Page { items, next })
    }

    /// Returns whether a rollout includes the site.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn has_member(&self, number: u64, site: &SiteId) -> Result<bool, ManagerError> {
        let Some(rollout) = self.ports.store.rollout(number).await? else { return Ok(false) };
        Ok(self.member(&rollout, site).await?.is_some())
    }

    /// Finds a site in a rollout's member list by binary search, since the list is ordered by site id. Returns the
    /// member with its ordinal.
    async fn member(
        &self,
        rollout: &Rollout,
        site: &SiteId,
    ) -> Result<Option<(u32, RolloutMember)>, ManagerError> {
        let (mut low, mut high) = (0, rollout.total.div_ceil(RolloutPage::SIZE));
        while low < high {
            let at = low.midpoint(high);
            let Some(page) = self.ports.store.rollout_page(rollout.number, at).await? else {
                return Ok(None);
            };
            match (page.members.first(), page.members.last()) {
                (Some(first), _) if *site < first.id => high = at,
                (_, Some(last)) if *site > last.id => low = at + 1,
                _ => {
                    let found = page.members.into_iter().zip(at * RolloutPage::SIZE..);
                    let found = found.into_iter().find(|(member, _)| member.id == *site);
                    return Ok(found.map(|(member, ordinal)| (ordinal, member)));
                }
            }
        }
        Ok(None)
    }

    /// Builds a member's operation: from the site's record while the operation is in progress, and otherwise from the
    /// member list.
    pub(super) async fn describe_member(
        &self,
        rollout: &Rollout,
        ordinal: u32,
        member: RolloutMember,
    ) -> Result<Operation, ManagerError> {
        let id: OperationId = Self::member_id(rollout, ordinal);
        let subject = Subject::Site(member.id.clone());
        let site = self.ports.store.site(&member.id).await?;
        let live = site
            .as_ref()
            .and_then(|site| site.operation.clone())
            .filter(|operation| operation.number == id.number);
        if let Some(operation) = live {
            return Ok(Operation::live(subject, operation));
        }
        let routed = rollout.target.other();
        let movement = crate::domain::operation::Move { from: routed, to: rollout.target, routed };
        let promote = rollout.spec.kind == crate::domain::RolloutKind::Promote;
        let input = if promote {
            crate::domain::OperationInput::Promote(movement)
        } else {
            crate::domain::OperationInput::Upgrade(movement)
        };
        let mut operation = self.registry.queued(id.number, input, &rollout.requested_by, rollout.created_at);
        operation.steps.clear();
        operation.started_at = rollout.started_at;
        let since = rollout.finished_at.or(rollout.started_at).unwrap_or(rollout.created_at);
        let unflushed = member.why.as_deref().is_some_and(|why| why.starts_with(NOT_FLUSHED));
        if let Some(why) = member.why.as_ref().filter(|_| unflushed) {
            // The job flushed many sites, so its output for this site is the member's error.
            let flush =
                Step { log: Some(why.clone()), status: StepStatus::Failed, ..Step::pending("FlushCaches") };
            operation.steps.push(flush);
        }
        operation.reason = member.reason().map(|(code, message)| {
            let of_flush = JobFailure::of_output(&message).code().filter(|_| unflushed);
            Reason { code: of_flush.unwrap_or(code), message, since, until: None }
        });
        operation.status = match member.outcome {
            None if rollout.status.ended() => Status::Ended(TerminalStatus::Cancelled),
            None => Status::Queued,
            Some(MemberOutcome::Moved | MemberOutcome::InPlace) => Status::Ended(TerminalStatus::Succeeded),
            Some(outcome) if outcome.fails() => Status::Ended(TerminalStatus::Failed),
            Some(MemberOutcome::Parked) => Status::Parked,
            Some(_) => Status::Ended(TerminalStatus::Cancelled),
        };
        Ok(Operation {
            id,
            subject,
            state: operation,
            finished_at: rollout.finished_at,
            digest: member.digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_parsed_from_its_text() {
        for cursor in [
            HistoryCursor::default(),
            HistoryCursor { own: Some(7), rollouts: None },
            HistoryCursor { own: END, rollouts: Some(12) },
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for invalid in ["", "7", "7.8.9", "x.1", "-1."] {
            assert_eq!(invalid.parse::<HistoryCursor>(), Err(()), "{invalid}");
        }
    }
}

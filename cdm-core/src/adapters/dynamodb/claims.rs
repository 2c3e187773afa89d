//! How a rollout's owner takes a site and lets it go: one update each, where nothing stands in its way.
//!
//! The condition of the update is what [`Site::claim`] and [`Site::release_claim`] ask of a site in the usual case. Where it is
//! not met, the answer holds the site as it lies, and the domain decides on that.

use super::change::Change;
use super::failure::Failure;
use super::item::{Item, Key, Read, document, number, text, written_by};
use super::site;
use super::table::DynamoTable;
use crate::domain::operation::{Move, OperationInput};
use crate::domain::site::{Claim, ClaimIntent, ClaimRefused, Claimed, ReleaseClaim};
use crate::domain::{Phase, Site, SiteId, State, Subject};
use crate::ports::{CallContext, Outcome, StoreError, WriteError};

/// How often a site is looked at anew that others write to meanwhile.
const TRIES: usize = 4;

/// What a site answers, and whether it is written for it.
type Decided<T> = (Result<T, ClaimRefused>, Option<Site>);

pub(super) async fn claim(
    table: &DynamoTable,
    call: &CallContext,
    claim: &Claim,
) -> Outcome<Claimed, WriteError> {
    let seen = match take(claim) {
        None => Ok(None),
        Some(take) => match take.map(|change| change.with(":write", written_by(call.write))) {
            Err(error) => return Failure::Not(error).refused(),
            Ok(change) => match table.write(call, &[change]).await {
                Ok(taken) => return answer_of(taken.as_ref(), |site| said(&site, claim)),
                Err(Failure::Unmet(seen)) => Ok(seen),
                Err(failure) => Err(failure),
            },
        },
    };
    let decide = |site: &Site| -> Decided<Claimed> {
        let mut next = site.clone();
        let answer = next.claim(claim);
        let written = match answer {
            Ok(Claimed::Taken { .. }) => true,
            Ok(Claimed::FencedOff) | Err(ClaimRefused::AlreadyResolved(..)) => {
                next.claim_token != site.claim_token
            }
            Err(ClaimRefused::Gone | ClaimRefused::NotActive | ClaimRefused::Busy | ClaimRefused::Fenced) => {
                false
            }
        };
        (answer, written.then_some(next))
    };
    match seen {
        Ok(seen) => settle(table, call, &claim.id, seen, |site| said(site, claim), decide).await,
        Err(failure) => failure.refused(),
    }
}

pub(super) async fn release_claim(
    table: &DynamoTable,
    call: &CallContext,
    complete: &ReleaseClaim,
) -> Outcome<(), WriteError> {
    let seen = match release(complete).map(|change| change.with(":write", written_by(call.write))) {
        Err(error) => return Failure::Not(error).refused(),
        Ok(change) => match table.write(call, &[change]).await {
            Ok(_) => return Outcome::Applied(()),
            Err(Failure::Unmet(seen)) => seen,
            Err(failure) => return failure.refused(),
        },
    };
    let decide = |site: &Site| -> Decided<()> {
        let mut next = site.clone();
        let answer = next.release_claim(complete);
        (answer, answer.is_ok().then_some(next))
    };
    settle(table, call, &complete.id, seen, |_| Ok(()), decide).await
}

/// The claim of a free site as one update; `None` for one that is not about a free site.
fn take(claim: &Claim) -> Option<Result<Change, StoreError>> {
    let (to, promote) = match claim.intent {
        ClaimIntent::Upgrade(to) => (to, false),
        ClaimIntent::Promote(to) => (to, true),
        ClaimIntent::Recover => return None,
    };
    // Where the site comes from is copied from the item itself.
    let course = Move { from: to, to, routed: to };
    let mut operation = claim.operation(if promote {
        OperationInput::Promote(course)
    } else {
        OperationInput::Upgrade(course)
    });
    operation.epoch = claim.claim_token.direction.first_epoch();
    let state = if promote { State::Promoting } else { State::Upgrading };
    let change = Change::update(
        Key::site(&claim.id),
        "SET #slot = :slot, #number = :number, #epoch = :epoch, #courseFrom = #service, \
         #courseRouted = if_not_exists(#routeService, #service), #state = :state, #grant = :grant, \
         #updatedAt = :at, #version = #version + :one, #write = :write",
    )
    .when(
        "#uid = :uid AND #phase = :active AND attribute_not_exists(#slot) AND #grant <= :grant \
         AND (attribute_not_exists(#settledBy) OR #settledBy <> :leg)",
    )
    .with(":number", number(operation.number))
    .with(":epoch", number(operation.epoch))
    .with(":state", text(state.as_str()))
    .with(":grant", site::claim_token(&claim.claim_token))
    .with(":at", number(claim.at.millis()))
    .with(":one", number(1))
    .with(":uid", text(claim.uid.to_string()))
    .with(":active", text(site::phase_word(Phase::Active)))
    .with(":leg", site::direction(claim.claim_token.rollout, claim.claim_token.direction));
    Some(document(&operation).map(|operation| change.with(":slot", operation)))
}

/// The end of a claim that is in force, as one update.
fn release(complete: &ReleaseClaim) -> Result<Change, StoreError> {
    let mut sets =
        "SET #state = :state, #updatedAt = :at, #version = #version + :one, #write = :write".to_owned();
    let mut values = vec![(":state".to_owned(), text(State::Active.as_str()))];
    let mut set = |name: &str, value| {
        sets.push_str(&format!(", #{name} = :{name}"));
        values.push((format!(":{name}"), value));
    };
    if let Some(service) = complete.service {
        set("service", text(service.as_str()));
    }
    for (name, value) in complete.route.iter().flat_map(site::route) {
        set(name, value);
    }
    if let Some(outcome) = complete.outcome {
        let (rollout, direction) = (complete.claim_token.rollout, complete.claim_token.direction);
        let digest = complete.digest;
        set("settled", document(&crate::domain::site::LastOutcome { rollout, direction, outcome, digest })?);
        set("settledBy", site::direction(rollout, direction));
    }
    sets.push_str(" REMOVE #slot, #number, #epoch, #courseFrom, #courseRouted");
    let change = Change::update(Key::site(&complete.id), sets)
        .when("#number = :number AND #epoch = :epoch AND #grant = :grant AND #phase = :phase")
        .with(":number", number(complete.fence.number))
        .with(":epoch", number(complete.fence.epoch))
        .with(":grant", site::claim_token(&complete.claim_token))
        .with(":phase", text(site::phase_word(Phase::Active)))
        .with(":at", number(complete.at.millis()))
        .with(":one", number(1));
    Ok(values.into_iter().fold(change, |change, (name, value)| change.with(&name, value)))
}

/// What the claim that wrote the site last was answered. The record holds all of it, so the answer is kept nowhere.
fn said(site: &Site, claim: &Claim) -> Result<Claimed, ClaimRefused> {
    let direction = (claim.claim_token.rollout, claim.claim_token.direction);
    if let Some(last_outcome) =
        site.last_outcome.filter(|last_outcome| (last_outcome.rollout, last_outcome.direction) == direction)
    {
        return Err(ClaimRefused::AlreadyResolved(last_outcome.outcome, last_outcome.digest));
    }
    let operation = site.operation.as_ref().filter(|operation| operation.number == claim.number);
    Ok(match operation.map(|operation| (&operation.input, operation.epoch)) {
        Some((OperationInput::Upgrade(course) | OperationInput::Promote(course), epoch)) => {
            Claimed::Taken { course: *course, route: site.route, epoch, version: site.version }
        }
        Some(_) | None => Claimed::FencedOff,
    })
}

/// Has the domain decide on the site as it lies, and writes what it decides over that.
async fn settle<T: Copy>(
    table: &DynamoTable,
    call: &CallContext,
    id: &SiteId,
    mut seen: Option<Item>,
    said: impl Fn(&Site) -> Result<T, ClaimRefused>,
    decide: impl Fn(&Site) -> Decided<T>,
) -> Outcome<T, WriteError> {
    for _ in 0..TRIES {
        let lies = match seen.take() {
            Some(item) => Ok(Some(item)),
            None => table.get(&Key::site(id), call.deadline).await,
        };
        let item = match lies {
            Ok(Some(item)) => item,
            Ok(None) => return Outcome::NotApplied(WriteError::Claim(ClaimRefused::Gone)),
            // Nothing was done yet, unless by an earlier request under the same write id.
            Err(error) => return Failure::Lost(error).refused(),
        };
        let site = match site::of_item(&item) {
            Ok(site) => site,
            Err(error) => return Failure::Not(error).refused(),
        };
        if Read(&item).is_of(call.write) {
            return outcome(said(&site));
        }
        let (answer, written) = decide(&site);
        let Some(next) = written else { return outcome(answer) };
        match over(table, call, &site, next).await {
            Ok(()) => return outcome(answer),
            Err(Failure::Unmet(other)) => seen = other,
            Err(failure) => return failure.refused(),
        }
    }
    Outcome::NotApplied(WriteError::Conflict(Subject::Site(id.clone()).to_string()))
}

/// Writes a site over what was read of it.
async fn over(table: &DynamoTable, call: &CallContext, read: &Site, next: Site) -> Result<(), Failure> {
    let item = site::to_item(&Site { version: read.version + 1, ..next }, call.write)?;
    let change = Change::put(item)
        .when("#version = :version AND #uid = :uid")
        .with(":version", number(read.version))
        .with(":uid", text(read.uid.to_string()));
    table.write(call, &[change]).await.map(drop)
}

fn answer_of<T>(
    item: Option<&Item>,
    said: impl Fn(Site) -> Result<T, ClaimRefused>,
) -> Outcome<T, WriteError> {
    let none = || StoreError::Denied("an update was answered without the item".to_owned());
    match item.ok_or_else(none).and_then(site::of_item) {
        Ok(site) => outcome(said(site)),
        // It was made; what it made cannot be read.
        Err(error) => Outcome::Unknown(WriteError::Store(error)),
    }
}

fn outcome<T>(answer: Result<T, ClaimRefused>) -> Outcome<T, WriteError> {
    match answer {
        Ok(value) => Outcome::Applied(value),
        Err(refused) => Outcome::NotApplied(WriteError::Claim(refused)),
    }
}

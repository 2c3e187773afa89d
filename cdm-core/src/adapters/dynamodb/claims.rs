//! Claims of sites by a rollout: one conditional update for a claim and one for its release, in the usual case.
//!
//! The condition of the update covers the usual case of [`Site::claim`] and [`Site::release_claim`]. If the condition
//! fails, the response has the stored site, and the domain decides.

use super::change::Change;
use super::failure::Failure;
use super::item::{Item, ItemReader, Key, document, number, text, written_by};
use super::site;
use super::table::DynamoTable;
use crate::domain::operation::{Move, OperationInput};
use crate::domain::site::{Claim, ClaimIntent, ClaimRefused, Claimed, ReleaseClaim};
use crate::domain::{Phase, Site, SiteId, State, Subject};
use crate::ports::{CallContext, Outcome, StoreError, WriteError};

/// How often to read and decide again when concurrent writes change the site.
const MAX_ATTEMPTS: usize = 4;

/// The response to a request, and the new site if the request changes it.
type Decided<T> = (Result<T, ClaimRefused>, Option<Site>);

pub(super) async fn claim(
    table: &DynamoTable,
    call: &CallContext,
    claim: &Claim,
) -> Outcome<Claimed, WriteError> {
    let known = match claim_update(claim) {
        None => Ok(None),
        Some(update) => match update.map(|change| change.with(":write", written_by(call.write))) {
            Err(error) => return Failure::NotApplied(error).into_outcome(),
            Ok(change) => match table.write(call, &[change]).await {
                Ok(taken) => return outcome_of_update(taken.as_ref(), |site| last_response(&site, claim)),
                Err(Failure::ConditionFailed(known)) => Ok(known),
                Err(failure) => Err(failure),
            },
        },
    };
    let decide = |site: &Site| -> Decided<Claimed> {
        let mut next = site.clone();
        let response = next.claim(claim);
        let written = match response {
            Ok(Claimed::Taken { .. }) => true,
            Ok(Claimed::FencedOff) | Err(ClaimRefused::AlreadyResolved(..)) => {
                next.claim_token != site.claim_token
            }
            Err(ClaimRefused::Gone | ClaimRefused::NotActive | ClaimRefused::Busy | ClaimRefused::Fenced) => {
                false
            }
        };
        (response, written.then_some(next))
    };
    match known {
        Ok(known) => {
            decide_and_write(table, call, &claim.id, known, |site| last_response(site, claim), decide).await
        }
        Err(failure) => failure.into_outcome(),
    }
}

pub(super) async fn release_claim(
    table: &DynamoTable,
    call: &CallContext,
    release: &ReleaseClaim,
) -> Outcome<(), WriteError> {
    let known = match release_update(release).map(|change| change.with(":write", written_by(call.write))) {
        Err(error) => return Failure::NotApplied(error).into_outcome(),
        Ok(change) => match table.write(call, &[change]).await {
            Ok(_) => return Outcome::Applied(()),
            Err(Failure::ConditionFailed(known)) => known,
            Err(failure) => return failure.into_outcome(),
        },
    };
    let decide = |site: &Site| -> Decided<()> {
        let mut next = site.clone();
        let response = next.release_claim(release);
        (response, response.is_ok().then_some(next))
    };
    decide_and_write(table, call, &release.id, known, |_| Ok(()), decide).await
}

/// Returns the claim of a free site as one update; `None` for a recovery, which concerns a site that is not free.
fn claim_update(claim: &Claim) -> Option<Result<Change, StoreError>> {
    let (to, promote) = match claim.intent {
        ClaimIntent::Upgrade(to) => (to, false),
        ClaimIntent::Promote(to) => (to, true),
        ClaimIntent::Recover => return None,
    };
    // The update copies the site's current service from the item.
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
    .with(":epoch", number(operation.epoch.0))
    .with(":state", text(state.as_str()))
    .with(":grant", site::claim_token(&claim.claim_token))
    .with(":at", number(claim.at.millis()))
    .with(":one", number(1))
    .with(":uid", text(claim.uid.to_string()))
    .with(":active", text(site::phase_text(Phase::Active)))
    .with(":leg", site::direction(claim.claim_token.rollout, claim.claim_token.direction));
    Some(document(&operation).map(|operation| change.with(":slot", operation)))
}

/// Returns the release of a claim that is in force, as one update.
fn release_update(release: &ReleaseClaim) -> Result<Change, StoreError> {
    let mut sets =
        "SET #state = :state, #updatedAt = :at, #version = #version + :one, #write = :write".to_owned();
    let mut values = vec![(":state".to_owned(), text(State::Active.as_str()))];
    let mut set = |name: &str, value| {
        sets.push_str(&format!(", #{name} = :{name}"));
        values.push((format!(":{name}"), value));
    };
    if let Some(service) = release.service {
        set("service", text(service.as_str()));
    }
    for (name, value) in release.route.iter().flat_map(site::route) {
        set(name, value);
    }
    if let Some(outcome) = release.outcome {
        let (rollout, direction) = (release.claim_token.rollout, release.claim_token.direction);
        let digest = release.digest;
        set("settled", document(&crate::domain::site::LastOutcome { rollout, direction, outcome, digest })?);
        set("settledBy", site::direction(rollout, direction));
    }
    sets.push_str(" REMOVE #slot, #number, #epoch, #courseFrom, #courseRouted");
    let change = Change::update(Key::site(&release.id), sets)
        .when("#number = :number AND #epoch = :epoch AND #grant = :grant AND #phase = :phase")
        .with(":number", number(release.fence.number))
        .with(":epoch", number(release.fence.epoch.0))
        .with(":grant", site::claim_token(&release.claim_token))
        .with(":phase", text(site::phase_text(Phase::Active)))
        .with(":at", number(release.at.millis()))
        .with(":one", number(1));
    Ok(values.into_iter().fold(change, |change, (name, value)| change.with(&name, value)))
}

/// Returns the response of the claim that last wrote the site. The record has all of it, so the response is not stored
/// separately.
fn last_response(site: &Site, claim: &Claim) -> Result<Claimed, ClaimRefused> {
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

/// Lets the domain decide on the stored site, and writes the new site on the condition that the stored one is
/// unchanged.
async fn decide_and_write<T: Copy>(
    table: &DynamoTable,
    call: &CallContext,
    id: &SiteId,
    mut known: Option<Item>,
    last_response: impl Fn(&Site) -> Result<T, ClaimRefused>,
    decide: impl Fn(&Site) -> Decided<T>,
) -> Outcome<T, WriteError> {
    for _ in 0..MAX_ATTEMPTS {
        let stored = match known.take() {
            Some(item) => Ok(Some(item)),
            None => table.get(&Key::site(id), call.deadline).await,
        };
        let item = match stored {
            Ok(Some(item)) => item,
            Ok(None) => return Outcome::NotApplied(WriteError::Claim(ClaimRefused::Gone)),
            // Nothing was written yet, unless by an earlier request with the same write ID.
            Err(error) => return Failure::Unknown(error).into_outcome(),
        };
        let site = match site::from_item(&item) {
            Ok(site) => site,
            Err(error) => return Failure::NotApplied(error).into_outcome(),
        };
        if ItemReader(&item).is_last_written_by(call.write) {
            return outcome(last_response(&site));
        }
        let (response, written) = decide(&site);
        let Some(next) = written else { return outcome(response) };
        match overwrite(table, call, &site, next).await {
            Ok(()) => return outcome(response),
            Err(Failure::ConditionFailed(other)) => known = other,
            Err(failure) => return failure.into_outcome(),
        }
    }
    Outcome::NotApplied(WriteError::Conflict(Subject::Site(id.clone()).to_string()))
}

/// Writes a site on the condition that the stored site is the one that was read.
async fn overwrite(table: &DynamoTable, call: &CallContext, read: &Site, next: Site) -> Result<(), Failure> {
    let item = site::to_item(&Site { version: read.version + 1, ..next }, call.write)?;
    let change = Change::put(item)
        .when("#version = :version AND #uid = :uid")
        .with(":version", number(read.version))
        .with(":uid", text(read.uid.to_string()));
    table.write(call, &[change]).await.map(drop)
}

fn outcome_of_update<T>(
    item: Option<&Item>,
    last_response: impl Fn(Site) -> Result<T, ClaimRefused>,
) -> Outcome<T, WriteError> {
    let none = || StoreError::Denied("DynamoDB's response to an update has no item".to_owned());
    match item.ok_or_else(none).and_then(site::from_item) {
        Ok(site) => outcome(last_response(site)),
        // The update was applied, but the resulting item cannot be read.
        Err(error) => Outcome::Unknown(WriteError::Store(error)),
    }
}

fn outcome<T>(response: Result<T, ClaimRefused>) -> Outcome<T, WriteError> {
    match response {
        Ok(value) => Outcome::Applied(value),
        Err(refused) => Outcome::NotApplied(WriteError::Claim(refused)),
    }
}

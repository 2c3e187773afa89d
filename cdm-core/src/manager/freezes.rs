//! Creates, removes and lists freezes, which stop moves of sites.

use super::submit::Decision;
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::{Canonical, Fleet, Freeze, ReasonCode, RolloutStatus, SiteId, Timestamp};
use crate::ports::{Mutation, WriteBatch};

/// A freeze to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFreeze {
    /// The sites to freeze; `None` freezes all sites.
    pub sites: Option<Vec<SiteId>>,
    /// Why moves are frozen, for users.
    pub reason: String,
    /// When the freeze ends by itself; `None` if a user has to remove it.
    pub until: Option<Timestamp>,
}

impl NewFreeze {
    pub(super) fn content(&self) -> Canonical {
        let content = match &self.sites {
            Some(sites) => Canonical::new().list("sites", sites),
            None => Canonical::new().optional("sites", None::<&SiteId>),
        };
        content.field("reason", &self.reason).optional("until", self.until.map(Timestamp::millis))
    }
}

impl Manager {
    /// Stops moves of all sites, or of the named ones. Moves in progress are completed; a rollout waits before its
    /// next move.
    ///
    /// # Errors
    /// Returns `invalid` for an end in the past, an invalid reason, an empty list of sites, or too many freezes.
    pub async fn freeze(&self, request: &Request, requested: &NewFreeze) -> Result<Freeze, ManagerError> {
        let content = requested.content();
        let reason = Freeze::reason(&requested.reason)?;
        let now = self.now();
        if requested.until.is_some_and(|until| until <= now) {
            return Err(ManagerError::Invalid("the end of a freeze must be in the future".to_owned()));
        }
        if requested.sites.as_ref().is_some_and(Vec::is_empty) {
            return Err(ManagerError::Invalid(
                "an empty list of sites freezes nothing; name sites, or omit the list to freeze all sites"
                    .to_owned(),
            ));
        }
        let accepted = self
            .submit(request, Action::CreateFreeze, "fleet", &content, || async {
                let mut fleet = self.ports.store.fleet().await?;
                let number = self.number().await?;
                let sites = requested.sites.clone();
                let by = request.actor.clone();
                let freeze =
                    Freeze { number, sites, reason: reason.clone(), by, at: now, until: requested.until };
                fleet.freeze(freeze, now)?;
                let batch = WriteBatch::of(vec![Mutation::Fleet(Box::new(fleet))]);
                Ok(Decision { batch, accepted: Accepted::Freeze(number) })
            })
            .await?;
        let Accepted::Freeze(number) = accepted else { return Err(ManagerError::Contended) };
        let found = self.freezes().await?.into_iter().find(|freeze| freeze.number == number);
        found.ok_or_else(|| ManagerError::NotFound { what: format!("the freeze {number}") })
    }

    /// Ends a freeze. A rollout that waits for the end of the freeze continues.
    ///
    /// # Errors
    /// Returns `not_found` if no freeze has this number.
    pub async fn thaw(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.submit(request, Action::RemoveFreeze, &format!("freeze-{number}"), &Canonical::new(), || async {
            let mut fleet = self.ports.store.fleet().await?;
            let before = fleet.freezes.len();
            fleet.freezes.retain(|freeze| freeze.number != number);
            if fleet.freezes.len() == before {
                return Err(ManagerError::NotFound { what: format!("the freeze {number}") });
            }
            let mut writes = Vec::new();
            if let Some(rollout) = fleet.rollout {
                let mut rollout = self.get_rollout(rollout).await?;
                let frozen = rollout.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::Frozen);
                if rollout.status == RolloutStatus::Waiting && frozen {
                    rollout.next_poll_at = None;
                    writes.push(Mutation::Rollout(Box::new(rollout)));
                }
            }
            writes.insert(0, Mutation::Fleet(Box::new(fleet)));
            Ok(Decision { batch: WriteBatch::of(writes), accepted: Accepted::Done })
        })
        .await
    }

    /// Returns the freezes that are in force, oldest first.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn freezes(&self) -> Result<Vec<Freeze>, ManagerError> {
        let now = self.now();
        let Fleet { freezes, .. } = self.ports.store.fleet().await?;
        Ok(freezes.into_iter().filter(|freeze| freeze.holds(now)).collect())
    }

    /// Rejects a move of a site that is frozen now.
    pub(super) async fn check_freezes(&self, site: &SiteId) -> Result<(), ManagerError> {
        let fleet = self.ports.store.fleet().await?;
        match fleet.freezes(site, self.now()) {
            Some(freeze) => Err(ManagerError::Frozen(Box::new(freeze.clone()))),
            None => Ok(()),
        }
    }
}

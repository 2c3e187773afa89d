//! Submission of requests. Each request is decided on the stored records and written atomically together with its
//! audit entry, idempotency record and event, or it is not accepted.

use super::refusals::Span;
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::{AuditEntry, Canonical, Fence, Fingerprint, OperationId, Subject, Timestamp};
use crate::engine::{Backoff, Lost, Pauses, Unwritten, is_transient, retry_write};
use crate::ports::{CallContext, FeedEvent, IdempotencyRecord, StoreError, WriteBatch, WriteError};

/// The maximum number of attempts, both to decide on a record that keeps changing and to repeat a write whose
/// response was lost.
const TRIES: u32 = 8;
/// The number of operation numbers that one allocation reserves.
const NUMBERS_PER_BLOCK: u32 = 16;

/// The decision on a request: the batch to write and the result for the caller.
pub(super) struct Decision {
    pub(super) batch: WriteBatch,
    /// The result for the caller.
    pub(super) accepted: Accepted,
}

impl Decision {
    /// Creates a decision that changes no records.
    pub(super) fn without_write(accepted: Accepted) -> Self {
        Self { batch: WriteBatch::default(), accepted }
    }
}

impl Manager {
    pub(super) fn now(&self) -> Timestamp {
        self.ports.clock.wall()
    }

    pub(super) fn call(&self) -> CallContext {
        CallContext {
            deadline: self.ports.clock.monotonic().after(self.settings.call),
            write: self.ports.entropy.write(),
            fence: Fence::default(),
        }
    }

    /// Decides on a request and stores the decision. `decide` runs again if a record that it read has changed before
    /// the write. The role is checked first. If the required role depends on a record, `decide` checks it again on
    /// the record that the write is conditional on.
    pub(super) async fn submit<F, Fut>(
        &self,
        request: &Request,
        action: Action,
        target: &str,
        content: &Canonical,
        decide: F,
    ) -> Result<Accepted, ManagerError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<Decision, ManagerError>> + Send,
    {
        let fingerprint = Fingerprint::of(action.as_str(), target, content);
        let result = match request.may(action) {
            Ok(()) => self.decide_and_write(request, action, target, &fingerprint, decide).await,
            Err(forbidden) => Err(forbidden),
        };
        if let (Ok(_), Some(worker)) = (&result, &self.worker) {
            worker.wake();
        }
        if let Err(error) = &result
            && !matches!(
                error,
                ManagerError::Unavailable(_)
                    | ManagerError::StorageFull(_)
                    | ManagerError::Denied(_)
                    | ManagerError::Unknown
            )
        {
            self.refused(request, action, target, error.code()).await;
        }
        result
    }

    /// Checks that the caller's role permits an action, and writes an audit entry if it does not. Frontends call it
    /// to reject a request before they parse the rest of it; every method that takes a request repeats the check.
    ///
    /// # Errors
    /// Returns `forbidden`.
    pub async fn authorize(
        &self,
        request: &Request,
        action: Action,
        target: &str,
    ) -> Result<(), ManagerError> {
        let decided = request.may(action);
        if let Err(error) = &decided {
            self.refused(request, action, target, error.code()).await;
        }
        decided
    }

    /// Records a rejected request in the audit log. The request gets an individual entry, unless the actor at the
    /// address had more than 30 rejections in the current minute, or all callers together had more than 600; such
    /// rejections are counted in one entry.
    pub async fn refused(&self, request: &Request, action: Action, target: &str, code: &'static str) {
        let entry = self.audit(request, action, target, code, &Accepted::Done);
        let due = self.refusals.record(entry, self.ports.clock.monotonic());
        self.write_refusals(due).await;
    }

    /// Writes the counts of rejected requests that have no individual audit entry. Programs call it about once a
    /// minute and before they exit.
    pub async fn count_refusals(&self, span: Span) {
        let due = self.refusals.flush(span, self.ports.clock.monotonic());
        self.write_refusals(due).await;
    }

    async fn write_refusals(&self, entries: Vec<AuditEntry>) {
        for entry in entries {
            // The request is rejected whether or not its entry can be written.
            let batch = WriteBatch { audit: Some(entry), ..WriteBatch::default() };
            let _ = self.ports.store.write(&self.call(), &batch).await;
        }
    }

    async fn decide_and_write<F, Fut>(
        &self,
        request: &Request,
        action: Action,
        target: &str,
        fingerprint: &Fingerprint,
        decide: F,
    ) -> Result<Accepted, ManagerError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<Decision, ManagerError>> + Send,
    {
        for _ in 0..TRIES {
            if let Some(key) = &request.key
                && let Some(record) = self.ports.store.idempotency(&request.actor, key).await?
            {
                let same = record.fingerprint == *fingerprint;
                return if same {
                    Ok(Accepted::decode(&record.answer))
                } else {
                    Err(ManagerError::KeyReused)
                };
            }
            let Decision { mut batch, accepted } = decide().await?;
            batch.audit = Some(self.audit(request, action, target, "accepted", &accepted));
            batch.idempotency = request.key.clone().map(|key| IdempotencyRecord {
                actor: request.actor.clone(),
                key,
                fingerprint: fingerprint.clone(),
                answer: accepted.encode(),
                at: self.now(),
            });
            match self.write(&batch).await? {
                Written::Stored => return Ok(accepted),
                Written::Changed => {}
            }
        }
        Err(ManagerError::Contended)
    }

    /// Writes a batch. After a lost response, the write is repeated under the same write id.
    pub(super) async fn write(&self, batch: &WriteBatch) -> Result<Written, ManagerError> {
        let Ok(written) = retry_write(
            self.pauses(),
            || Ok(self.call()),
            // A repetition frees no space.
            |error| is_transient(error) && !matches!(error, WriteError::Store(StoreError::Full(_))),
            |call| async move { self.ports.store.write(&call, batch).await },
        )
        .await
        else {
            return Err(ManagerError::Unknown);
        };
        let Err(Unwritten { error, unknown }) = written else { return Ok(Written::Stored) };
        Err(match error {
            WriteError::HostnameTaken { host, site } => ManagerError::HostnameTaken { host, site },
            WriteError::Conflict(_) | WriteError::KeyUsed | WriteError::Claim(_) => {
                return Ok(Written::Changed);
            }
            WriteError::Store(error @ StoreError::Denied(_)) => error.into(),
            WriteError::Store(_) if unknown => ManagerError::Unknown,
            WriteError::Store(error @ StoreError::Full(_)) => error.into(),
            WriteError::Store(_) => ManagerError::Unavailable("the store is busy".into()),
        })
    }

    /// Returns the pauses between attempts at one call.
    pub(super) fn pauses(&self) -> Pauses<'_> {
        let backoff = Backoff::of(&self.settings);
        Pauses { clock: &*self.ports.clock, backoff, stopping: None, tries: Some(TRIES) }
    }

    pub(super) fn audit(
        &self,
        request: &Request,
        action: Action,
        target: &str,
        outcome: &'static str,
        accepted: &Accepted,
    ) -> AuditEntry {
        let (operation, rollout) = match accepted {
            Accepted::Operation(id) => (Some(id.clone()), None),
            Accepted::Rollout(number) => (None, Some(*number)),
            Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => (None, None),
        };
        AuditEntry {
            at: self.now(),
            actor: request.actor.clone(),
            action: action.as_str().into(),
            target: target.to_owned(),
            request_id: request.id.clone(),
            outcome: outcome.into(),
            operation,
            rollout,
            address: request.address,
            count: 1,
        }
    }

    /// Returns a new number for an operation, webhook or freeze.
    pub(super) async fn number(&self) -> Result<u64, ManagerError> {
        let next = |block: &mut std::ops::Range<u64>| block.next();
        let block = |manager: &Self| {
            next(&mut manager.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        };
        if let Some(number) = block(self) {
            return Ok(number);
        }
        let first = self.allocate_ids(NUMBERS_PER_BLOCK).await?;
        let mut kept = self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *kept = first + 1..first + u64::from(NUMBERS_PER_BLOCK);
        Ok(first)
    }

    /// Allocates `count` consecutive numbers. Numbers whose allocation response was lost stay unused.
    pub(super) async fn allocate_ids(&self, count: u32) -> Result<u64, ManagerError> {
        let allocated = retry_write(
            self.pauses(),
            || Ok(self.call()),
            |error| !matches!(error, WriteError::Store(StoreError::Denied(_) | StoreError::Full(_))),
            |call| async move { self.ports.store.allocate_ids(&call, count).await },
        )
        .await;
        match allocated {
            Ok(Ok(first)) => Ok(first),
            Ok(Err(Unwritten {
                error: WriteError::Store(error @ (StoreError::Denied(_) | StoreError::Full(_))),
                ..
            })) => Err(error.into()),
            Ok(Err(_)) | Err(Lost) => Err(ManagerError::Unavailable("the store allocates no numbers".into())),
        }
    }
}

/// The result of a write.
pub(super) enum Written {
    /// The batch is stored.
    Stored,
    /// A record has changed since it was read.
    Changed,
}

/// Creates the event of a newly accepted operation.
pub(super) fn queued_event(id: &OperationId, subject: Subject, now: Timestamp) -> FeedEvent {
    FeedEvent {
        at: now,
        subject: Some(subject),
        operation: Some(id.clone()),
        rollout: None,
        what: "queued".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::rollout::{Budget, HealthGate, RolloutKind, RolloutSpec, WaveTarget};
    use crate::domain::{Color, Digest, Hostnames, RolloutScope, SiteId, SiteName, Theme};
    use crate::manager::rollouts::content;
    use crate::manager::{DeployRequest, Force, NewFreeze, NewSite, Resume};

    /// A retried request has to match the record that an earlier build of the same encoding version stored.
    #[test]
    fn fingerprints_of_requests_are_pinned() {
        let digest = Digest::parse(&format!("sha256:{}", "a".repeat(64))).expect("a digest");
        let site = SiteId::parse("shop").expect("an id");
        let new_site = NewSite {
            id: site.clone(),
            name: SiteName::parse("Shop").expect("a name"),
            theme: Theme::parse("twentytwentyfive").expect("a theme"),
            hostnames: Hostnames::parse(&["shop.example.com", "www.example.com"], "shop.example.com")
                .expect("hostnames"),
            service: Some(Color::Green),
        };
        let freeze = NewFreeze {
            sites: Some(vec![site.clone()]),
            reason: "release night".to_owned(),
            until: Some(Timestamp::from_millis(1_764_547_200_000)),
        };
        let rollout = RolloutSpec {
            kind: RolloutKind::Promote,
            digest: Some(digest),
            scope: RolloutScope::Sites(vec![site]),
            waves: vec![WaveTarget::Count(1), WaveTarget::Percent(10)],
            budget: Budget::Percent(5),
            auto_rollback: true,
            gate: Some(HealthGate::new("/health").and_then(|gate| gate.with_text("ok")).expect("a gate")),
            bake: Duration::from_secs(300),
            ..RolloutSpec::default()
        };
        let deploy = DeployRequest { digest, service: None, promote: true };
        let resume = Resume { accept: Some(digest), force: Force::Yes };
        let pinned = [
            (new_site.content(), "25e7c6c56d0b751a125258276bb37db53c02401b38a76aecf02fc93cb8b8a5dc"),
            (freeze.content(), "b763170a85dbccd89fb4d4f5b7e9b45f646032fec73178fb3198149d591f2821"),
            (
                content(&rollout, Some("f00d")),
                "6d62fb013ee6a7c1de6558e6b739af69bcd50f5dd1414a7f0b7c159a47bbce25",
            ),
            (
                content(&RolloutSpec::default(), None),
                "77690832be0a77e18dfc6250dbdb03b7ae34a2072aa82bfc368bf5b0b1c1eae5",
            ),
            (deploy.content(), "0913983367e820e081fe1c1ce8f3dfbf2c950d0f711d6876db05794bea9a2db3"),
            (resume.content(), "c591c870eb54c6b98100fa611deaf2eb0c6e6189bc200291940ef19100fd3654"),
            (Force::No.content(), "c31f93154cc29fbe7e88e38085c55c6e933681b8b45b7665f22540b5203d6a93"),
        ];
        let found: Vec<_> = pinned.iter().map(|(content, _)| content.sha256()).collect();
        let expected: Vec<_> = pinned.iter().map(|(_, pin)| *pin).collect();
        assert_eq!(found, expected);
    }
}

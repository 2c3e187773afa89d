//! The door: a request is decided on what the store has, and stored with its audit entry, its key and its event in one
//! write; or it is not accepted.

use super::refusals::Span;
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::{AuditEntry, Canonical, Fence, Fingerprint, OperationId, Subject, Timestamp};
use crate::ports::{CallContext, FeedEvent, IdempotencyRecord, Outcome, StoreError, WriteBatch, WriteError};

/// How often a request is decided anew because the record changed under it, and how often a lost answer is asked for.
const TRIES: u32 = 8;
/// How many numbers are drawn at once.
const BLOCK: u32 = 16;

/// What a request comes to, decided on what was read.
pub(super) struct Decision {
    /// What is written.
    pub(super) batch: WriteBatch,
    /// What is answered.
    pub(super) accepted: Accepted,
}

impl Decision {
    /// Nothing is written.
    pub(super) fn answer(accepted: Accepted) -> Self {
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

    /// Decides and stores. `decide` is asked again whenever what it read has changed before the write. The role is judged
    /// first; where it depends on a record, `decide` judges it once more, on the record that the write is conditional on.
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

    /// Decides whether the caller's role suffices for an action; that it does not is kept in the audit. For frontends that
    /// refuse a request before they look at the rest of it: every method that takes a request decides the same by itself.
    ///
    /// # Errors
    /// `forbidden`.
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

    /// Keeps in the audit that a request was refused under a code: by an entry of its own, or, where one actor at one
    /// address was refused more than 30 times within a minute, or all together 600 times, by a number in one entry.
    pub async fn refused(&self, request: &Request, action: Action, target: &str, code: &'static str) {
        let entry = self.audit(request, action, target, code, &Accepted::Done);
        let due = self.refusals.note(entry, self.ports.clock.monotonic());
        self.keep_refusals(due).await;
    }

    /// Writes how many refusals had no entry of their own. To be called about once a minute, and at the end of a process.
    pub async fn count_refusals(&self, span: Span) {
        let due = self.refusals.due(span, self.ports.clock.monotonic());
        self.keep_refusals(due).await;
    }

    async fn keep_refusals(&self, entries: Vec<AuditEntry>) {
        for entry in entries {
            // The refusal stands whether or not its entry can be written.
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

    /// Writes a batch; a lost answer is asked for under the same write id.
    pub(super) async fn write(&self, batch: &WriteBatch) -> Result<Written, ManagerError> {
        let mut call = self.call();
        let mut pause = self.settings.pause;
        let mut unknown = false;
        for _ in 0..TRIES {
            match self.ports.store.write(&call, batch).await {
                Outcome::Applied(()) => return Ok(Written::Stored),
                Outcome::NotApplied(WriteError::HostnameTaken { host, site }) => {
                    return Err(ManagerError::HostnameTaken { host, site });
                }
                Outcome::NotApplied(WriteError::Conflict(_) | WriteError::KeyUsed | WriteError::Claim(_)) => {
                    return Ok(Written::Changed);
                }
                Outcome::NotApplied(WriteError::Store(error @ StoreError::Denied(_))) => {
                    return Err(error.into());
                }
                // Repeated attempts free no space. What an earlier attempt did stays unknown.
                Outcome::NotApplied(WriteError::Store(error @ StoreError::Full(_)))
                | Outcome::Unknown(WriteError::Store(error @ StoreError::Full(_))) => {
                    return Err(if unknown { ManagerError::Unknown } else { error.into() });
                }
                Outcome::NotApplied(WriteError::Store(_)) => {}
                Outcome::Unknown(_) => unknown = true,
            }
            let clock = &self.ports.clock;
            clock.sleep_until(clock.monotonic().after(pause)).await;
            pause = (pause * 2).min(self.settings.longest_pause);
            call = CallContext { write: call.write, ..self.call() };
        }
        Err(if unknown {
            ManagerError::Unknown
        } else {
            ManagerError::Unavailable("the store is busy".into())
        })
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

    /// A fresh number.
    pub(super) async fn number(&self) -> Result<u64, ManagerError> {
        let next = |block: &mut std::ops::Range<u64>| block.next();
        let block = |services: &Self| {
            next(&mut services.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        };
        if let Some(number) = block(self) {
            return Ok(number);
        }
        let first = self.allocate_ids(BLOCK).await?;
        let mut kept = self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *kept = first + 1..first + u64::from(BLOCK);
        Ok(first)
    }

    /// `count` fresh numbers in a row; what is drawn by a call whose answer was lost is a gap.
    pub(super) async fn allocate_ids(&self, count: u32) -> Result<u64, ManagerError> {
        let mut pause = self.settings.pause;
        for _ in 0..TRIES {
            match self.ports.store.allocate_ids(&self.call(), count).await {
                Outcome::Applied(first) => return Ok(first),
                Outcome::NotApplied(WriteError::Store(
                    error @ (StoreError::Denied(_) | StoreError::Full(_)),
                ))
                | Outcome::Unknown(WriteError::Store(error @ StoreError::Full(_))) => {
                    return Err(error.into());
                }
                Outcome::NotApplied(_) | Outcome::Unknown(_) => {
                    let clock = &self.ports.clock;
                    clock.sleep_until(clock.monotonic().after(pause)).await;
                    pause = (pause * 2).min(self.settings.longest_pause);
                }
            }
        }
        Err(ManagerError::Unavailable("the store draws no numbers".into()))
    }
}

/// What became of an admission's write.
pub(super) enum Written {
    /// It is stored.
    Stored,
    /// Something changed since it was read.
    Changed,
}

/// The event of an operation that was just asked for.
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
    use crate::domain::rollout::{Budget, HealthGate, WaveTarget};
    use crate::domain::{Color, Digest, Hostnames, RolloutScope, SiteId, SiteName, Theme};
    use crate::manager::{DeployRequest, Force, NewFreeze, NewSite, Resume, RolloutRequest};

    /// A retried request must match the record that an earlier build of the same encoding version stored.
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
        let rollout = RolloutRequest {
            promote: true,
            digest: Some(digest),
            scope: RolloutScope::Sites(vec![site]),
            waves: vec![WaveTarget::Count(1), WaveTarget::Percent(10)],
            budget: Budget::Percent(5),
            auto_rollback: true,
            gate: Some(HealthGate::new("/health").and_then(|gate| gate.with_text("ok")).expect("a gate")),
            bake: Duration::from_secs(300),
            plan: Some("f00d".to_owned()),
            ..RolloutRequest::default()
        };
        let deploy = DeployRequest { digest, service: None, promote: true };
        let resume = Resume { accept: Some(digest), force: Force::Yes };
        let pinned = [
            (new_site.content(), "25e7c6c56d0b751a125258276bb37db53c02401b38a76aecf02fc93cb8b8a5dc"),
            (freeze.content(), "b763170a85dbccd89fb4d4f5b7e9b45f646032fec73178fb3198149d591f2821"),
            (rollout.content(), "6d62fb013ee6a7c1de6558e6b739af69bcd50f5dd1414a7f0b7c159a47bbce25"),
            (
                RolloutRequest::default().content(),
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

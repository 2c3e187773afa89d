//! The writes of the record of a rollout: the record after an event, in one batch with the locks, the verdict, the pages
//! and the end in the record of the fleet.

use super::read_with_retry;
use crate::domain::operation::{Deploy, Hooks};
use crate::domain::rollout::{Effect, IllegalRollout, RolloutEvent, Timing};
use crate::domain::service::rollback_choice;
use crate::domain::{
    Color, Digest, Fence, Fleet, LockMode, OperationId, OperationInput, Rollout, Service, Subject, Timestamp,
};
use crate::engine::{Backoff, Lost, Pauses, Unwritten, Worker, is_transient, retry_write};
use crate::pipelines::PipelineSettings;
use crate::ports::{FeedEvent, Mutation, Outcome, StoreError, WriteBatch, WriteError};

/// The records that an owner writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records<'a> {
    worker: &'a Worker,
    timing: Timing,
}

/// What the owner stores together with an event.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    /// The pages with new outcomes.
    pub(super) pages: Vec<Mutation>,
    /// The feed events of sites.
    pub(super) events: Vec<FeedEvent>,
}

impl<'a> Records<'a> {
    pub(super) fn new(worker: &'a Worker, settings: &PipelineSettings) -> Self {
        let timing = Timing {
            scan: worker.settings().scan,
            longest_pause: worker.settings().longest_pause,
            ready_timeout: settings.ready_timeout,
            backend_timeout: settings.timeouts.backend.max(settings.timeouts.denied),
            job_timeout: settings.job_timeout,
        };
        Self { worker, timing }
    }

    /// Applies an event to the stored record, provided that this owner still owns the rollout, and returns the record
    /// and the effects that remain. The same batch acquires or releases the lock that the rollout then needs; if the
    /// lock is not available, the rollout waits. A rollout that ends is removed from the record of the fleet.
    pub(super) async fn advance(
        self,
        rollout: Rollout,
        event: RolloutEvent,
        attachments: Attachments,
    ) -> Result<(Rollout, Vec<Effect>), Lost> {
        let ports = self.worker.ports();
        let mine = (rollout.owner.clone(), rollout.term);
        let mut fresh = rollout;
        let backoff = Backoff::of(self.worker.settings());
        loop {
            let (mut next, mut effects) = self.checked(fresh.advance(&event, &self.timing, self.now()))?;
            let mut writes = self.other_records(&fresh, &mut next, &mut effects).await?;
            writes.insert(0, Mutation::Rollout(Box::new(next.clone())));
            writes.extend(attachments.pages.iter().cloned());
            let mut events = self.events(&fresh, &next);
            events.extend(attachments.events.iter().cloned());
            let batch = WriteBatch { writes, events, ..WriteBatch::default() };
            let pauses = Pauses { clock: &*ports.clock, backoff, stopping: None, tries: None };
            // The claim is fenced by the version of the record, later events by the term of the owner.
            let fence = Fence::new(fresh.number, fresh.term.into());
            let written = retry_write(
                pauses,
                || self.worker.lease().call(ports, fence),
                is_transient,
                |call| {
                    let batch = &batch;
                    async move { ports.store.write(&call, batch).await }
                },
            )
            .await?;
            match written {
                Ok(()) => {
                    next.version += 1;
                    return Ok((next, effects));
                }
                Err(Unwritten { error: WriteError::Store(_), .. }) => return Err(Lost),
                Err(_) if matches!(event, RolloutEvent::Claim(_)) => return Err(Lost),
                Err(_) => {}
            }
            fresh = read_with_retry(self.worker, || ports.store.rollout(fresh.number)).await?.ok_or(Lost)?;
            if (fresh.owner.clone(), fresh.term) != mine {
                return Err(Lost);
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.worker.ports().clock.wall()
    }

    /// Returns the writes of other records: locks, the verdict, and the end in the record of the fleet.
    async fn other_records(
        &self,
        before: &Rollout,
        next: &mut Rollout,
        effects: &mut Vec<Effect>,
    ) -> Result<Vec<Mutation>, Lost> {
        let ports = self.worker.ports();
        let mut writes = Vec::new();
        let rejects = effects.contains(&Effect::RejectImage);
        effects.retain(|effect| *effect != Effect::RejectImage);
        let (wanted, held) = (next.lock(), next.locked_color);
        for color in Color::ALL {
            let takes = wanted == Some(color);
            let (stays, rejects) = ((held == Some(color)) == takes, rejects && color == next.target);
            if stays && !rejects {
                continue;
            }
            let mut service = self.service(color).await?;
            if rejects {
                self.reject_image(next, &mut service).await?;
            }
            if stays {
                // The lock does not change; only the verdict is written.
            } else if !takes {
                service.lock.release(next.number);
                next.locked_color = next.locked_color.filter(|held| *held != color);
            } else if service.lock.acquire(next.number, LockMode::Shared) {
                next.locked_color = Some(color);
            } else {
                let event = RolloutEvent::Locked { service: color, claims: before.needs_recovery };
                (*next, *effects) = self.checked(next.advance(&event, &self.timing, self.now()))?;
                continue;
            }
            writes.push(Mutation::Service(Box::new(service)));
        }
        if next.status.ended() && next.spec.kind.moves() {
            let fleet = read_with_retry(self.worker, || ports.store.fleet()).await?;
            if fleet.rollout == Some(next.number) {
                writes.push(Mutation::Fleet(Box::new(Fleet { rollout: None, ..fleet })));
            }
        }
        Ok(writes)
    }

    /// Reports an illegal transition, which is a bug. Nothing is stored then.
    fn checked<T>(&self, transition: Result<T, IllegalRollout>) -> Result<T, Lost> {
        transition.map_err(|illegal| {
            self.worker.illegal(&illegal);
            Lost
        })
    }

    async fn service(&self, color: Color) -> Result<Service, Lost> {
        read_with_retry(self.worker, || self.worker.ports().store.service(color)).await
    }

    fn events(&self, before: &Rollout, after: &Rollout) -> Vec<FeedEvent> {
        let changed = before.status != after.status || before.window() != after.window();
        let what = match changed {
            true => format!("{} {}/{}", after.status.as_str(), after.counts().resolved(), after.total),
            false => return Vec::new(),
        };
        vec![FeedEvent { at: self.now(), subject: None, operation: None, rollout: Some(after.number), what }]
    }

    /// Records the verdict of the health gate in the record of the target. With automatic rollback it also starts the
    /// deploy that restores the previous digest, since sites that were on the target already cannot be moved back.
    async fn reject_image(&self, next: &mut Rollout, target: &mut Service) -> Result<(), Lost> {
        let requested = next.spec.digest.filter(|_| crate::bug!(VerdictOnRolloutsDigest));
        let Some(digest) = requested.or_else(|| next.wanted()) else { return Ok(()) };
        let why = format!("sites failed the health gate of rollout-{}", next.number);
        target.condemn(&digest, self.now(), &next.requested_by, &why);
        if !next.spec.auto_rollback || next.in_place == 0 {
            return Ok(());
        }
        let other = self.service(target.color.other()).await?;
        let note = match (rollback_choice(target, &other, Some(digest)), &target.operation) {
            (Some(previous), None) => {
                let number = self.allocate_number().await?;
                next.rollback = Some(OperationId::on(number, Subject::Service(target.color)));
                let deploy = rollback_input(target, previous);
                let registry = self.worker.registry();
                target.operation = Some(registry.queued(number, deploy, &next.requested_by, self.now()));
                format!("a deploy restores {previous} on `{}`", target.color)
            }
            (None, _) => format!("`{}` has no healthy digest to restore", target.color),
            (Some(_), Some(_)) => {
                format!("no digest is restored on `{}`, since another operation runs on it", target.color)
            }
        };
        if let Some(reason) = &mut next.reason {
            reason.message = format!("{}; {note}", reason.message);
        }
        Ok(())
    }

    async fn allocate_number(&self) -> Result<u64, Lost> {
        let ports = self.worker.ports();
        let mut backoff = Backoff::of(self.worker.settings());
        loop {
            let call = self.worker.lease().call(ports, Fence::default())?;
            match ports.store.allocate_ids(&call, 1).await {
                Outcome::Applied(number) => return Ok(number),
                Outcome::NotApplied(WriteError::Store(StoreError::Denied(_))) => return Err(Lost),
                Outcome::NotApplied(_) | Outcome::Unknown(_) => backoff.wait(&*ports.clock).await,
            }
        }
    }
}

fn rollback_input(target: &Service, digest: Digest) -> OperationInput {
    OperationInput::Deploy(Box::new(Deploy {
        color: target.color,
        digest,
        promote: false,
        hooks: Hooks::Run,
        previous: None,
        rollout: None,
        rolls_back: true,
    }))
}

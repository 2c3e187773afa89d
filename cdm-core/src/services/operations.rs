//! What may be asked of operations, and of the records of what was asked.

use super::admit::Decision;
use super::{Accepted, Action, Request, ServiceError, Services, Work};
use crate::domain::operation::{Event, Home, Operation, Position, Slot, Step, StepStatus, Subject, Task};
use crate::domain::rollout::{Outcome as MemberOutcome, RolloutPage};
use crate::domain::{AuditEntry, Code, End, OperationId, Reason, Status, Tick};
use crate::engine::{Record, plan};
use crate::pipelines::NOT_FLUSHED;
use crate::ports::{Batch, FeedEvent, JobFailure, OperationQuery, Page};

/// After how long whoever waits for an operation looks for the first time; each later look is twice as far, up to a
/// quarter of the time between a worker's looks.
const FIRST_LOOK: std::time::Duration = std::time::Duration::from_millis(10);

impl Services {
    /// An operation, at work or ended.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn operation(&self, id: &OperationId) -> Result<Operation, ServiceError> {
        let found = match &id.home {
            Home::Subject(subject) => self.own_operation(id, subject).await?,
            Home::Rollout(rollout, ordinal) => self.member_operation(id, *rollout, *ordinal).await?,
        };
        found.ok_or_else(|| ServiceError::no_operation(id))
    }

    async fn own_operation(
        &self,
        id: &OperationId,
        subject: &Subject,
    ) -> Result<Option<Operation>, ServiceError> {
        let record = Record::read(&self.ports, subject).await?;
        let slot = record.as_ref().and_then(Record::slot).filter(|slot| slot.number == id.number);
        if let Some(slot) = slot {
            return Ok(Some(Operation::live(subject.clone(), slot.clone())));
        }
        Ok(self.ports.store.history(id).await?)
    }

    /// A member's operation is told from its page, and from its site while it is at work.
    async fn member_operation(
        &self,
        id: &OperationId,
        number: u64,
        ordinal: u32,
    ) -> Result<Option<Operation>, ServiceError> {
        let Some(rollout) = self.ports.store.rollout(number).await? else { return Ok(None) };
        let page = self.ports.store.rollout_page(number, ordinal / RolloutPage::SIZE).await?;
        let index = (ordinal % RolloutPage::SIZE) as usize;
        let member = page.and_then(|page| page.members.into_iter().nth(index));
        let Some(member) = member.filter(|_| Self::member_id(&rollout, ordinal) == *id) else {
            return Ok(None);
        };
        let subject = Subject::Site(member.id.clone());
        let site = self.ports.store.site(&member.id).await?;
        let live = site.as_ref().and_then(|site| site.slot.clone()).filter(|slot| slot.number == id.number);
        if let Some(slot) = live {
            return Ok(Some(Operation::live(subject, slot)));
        }
        let routed = rollout.target.other();
        let course = crate::domain::operation::Move { from: routed, to: rollout.target, routed };
        let promote = rollout.kind == crate::domain::RolloutKind::Promote;
        let task = if promote { Task::Promote(course) } else { Task::Upgrade(course) };
        let mut slot = self.registry.queued(id.number, task, &rollout.requested_by, rollout.created_at);
        slot.steps.clear();
        slot.started_at = rollout.started_at;
        let since = rollout.finished_at.or(rollout.started_at).unwrap_or(rollout.created_at);
        let unflushed = member.why.as_deref().is_some_and(|why| why.starts_with(NOT_FLUSHED));
        if let Some(why) = member.why.as_ref().filter(|_| unflushed) {
            // The job was for many sites; what it printed for this one is why it failed.
            let flush =
                Step { log: Some(why.clone()), status: StepStatus::Failed, ..Step::pending("FlushCaches") };
            slot.steps.push(flush);
        }
        slot.reason = member.why.map(|message| {
            let of_flush = || JobFailure::of_output(&message).code().unwrap_or(Code::CacheFlushFailed);
            let code = if unflushed { of_flush() } else { Code::GateFailed };
            Reason { code, message, since, until: None }
        });
        slot.status = match member.outcome {
            None if rollout.status.ended() => Status::Ended(End::Cancelled),
            None => Status::Queued,
            Some(MemberOutcome::Moved | MemberOutcome::InPlace) => Status::Ended(End::Succeeded),
            Some(
                MemberOutcome::Failed
                | MemberOutcome::Unhealthy
                | MemberOutcome::UnhealthyInPlace
                | MemberOutcome::Returned,
            ) => Status::Ended(End::Failed),
            Some(MemberOutcome::Parked) => Status::Parked,
            Some(
                MemberOutcome::SkippedBusy
                | MemberOutcome::SkippedFrozen
                | MemberOutcome::SkippedGone
                | MemberOutcome::SkippedInactive,
            ) => Status::Ended(End::Cancelled),
        };
        Ok(Some(Operation { id: id.clone(), subject, slot, finished_at: rollout.finished_at }))
    }

    /// Operations, newest first; those of rollouts' members are left out.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, ServiceError> {
        Ok(self.ports.store.operations(query, before, limit.min(1_000)).await?)
    }

    /// Lets a parked operation go on, or repeats one that failed or was cancelled as a new one. Takes the role of what it
    /// repeats.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `illegal_transition` when it is neither.
    pub async fn retry(&self, request: &Request, id: &OperationId) -> Result<Accepted, ServiceError> {
        self.admit(request, Action::RetryOperation, &id.to_string(), "", || self.decide_retry(request, id))
            .await
    }

    async fn decide_retry(&self, request: &Request, id: &OperationId) -> Result<Decision, ServiceError> {
        let operation = self.operation(id).await?;
        let refuse = |why: &str| Err(ServiceError::IllegalTransition(why.to_owned()));
        let Status::Ended(end) = operation.slot.status else {
            return self
                .decide_slot((request, Action::RetryOperation), id, |slot, _| {
                    plan::retry(slot)?;
                    Ok(())
                })
                .await;
        };
        request.may_on(Action::RetryOperation, Work::Operation(operation.slot.task.kind()))?;
        match (end, &operation.subject, &operation.slot.task) {
            (End::Succeeded, _, _) => refuse("an operation that succeeded is not retried"),
            (_, _, Task::Create) => refuse("a site whose creation was undone is created again"),
            (End::Failed | End::Cancelled, Subject::Site(site), task) => {
                self.decide(request, site, task.kind(), Some(id)).await
            }
            (End::Failed | End::Cancelled, Subject::Colour(_), Task::Deploy(deploy)) => {
                self.decide_deploy(request, deploy.selector, deploy.digest, deploy.promote, Some(id)).await
            }
            (End::Failed | End::Cancelled, _, _) => refuse("select the service again"),
        }
    }

    /// Asks an operation to stop. It does at its next step boundary, and what it did is undone where that is its
    /// pipeline's promise. Takes the role of what it stops.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `illegal_transition` when it has ended, or has gone too far.
    pub async fn cancel(&self, request: &Request, id: &OperationId) -> Result<Accepted, ServiceError> {
        let ask = |slot: &mut Slot, record: &Record| {
            // A terminate that took the place of a parked create has nowhere to go back to.
            if let Record::Site(site) = record {
                site.life().next(crate::domain::lifecycle::Event::End(End::Cancelled))?;
            }
            let begun = slot.attempts > 0 || slot.position != Position::Forward(0);
            let pipeline = self.registry.newest(slot.task.kind());
            let too_far = match slot.position {
                Position::Forward(step) => {
                    begun && !pipeline.is_some_and(|pipeline| pipeline.cancellable(step))
                }
                Position::Undo(..) => false,
            };
            if too_far {
                let kind = slot.task.kind();
                return Err(ServiceError::IllegalTransition(format!(
                    "this {kind} has gone too far to be cancelled"
                )));
            }
            if slot.status == Status::Parked {
                slot.reason = None;
            }
            slot.status = slot.status.next(Event::Cancel)?;
            slot.cancel = true;
            Ok(())
        };
        self.admit(request, Action::CancelOperation, &id.to_string(), "", || {
            self.decide_slot((request, Action::CancelOperation), id, ask)
        })
        .await
    }

    /// Decides on a change of an operation that has not ended.
    async fn decide_slot(
        &self,
        (request, action): (&Request, Action),
        id: &OperationId,
        change: impl Fn(&mut Slot, &Record) -> Result<(), ServiceError> + Send,
    ) -> Result<Decision, ServiceError> {
        let Home::Subject(subject) = &id.home else {
            let why = "a rollout's member does not change by itself; ask the rollout";
            return Err(ServiceError::IllegalTransition(why.to_owned()));
        };
        let record = Record::read(&self.ports, subject).await?;
        let slot = record.as_ref().and_then(Record::slot).filter(|slot| slot.number == id.number).cloned();
        let (Some(mut record), Some(mut slot)) = (record, slot) else {
            let ended = self.ports.store.history(id).await?.ok_or_else(|| ServiceError::no_operation(id))?;
            request.may_on(action, Work::Operation(ended.slot.task.kind()))?;
            let status = ended.slot.status;
            return Err(ServiceError::IllegalTransition(format!("the operation has {status} already")));
        };
        request.may_on(action, Work::Operation(slot.task.kind()))?;
        change(&mut slot, &record)?;
        let event = FeedEvent {
            at: self.now(),
            subject: Some(subject.clone()),
            operation: Some(id.clone()),
            rollout: None,
            what: slot.status.as_str().to_owned(),
        };
        record.set_slot(Some(slot));
        let batch = Batch { events: vec![event], ..Batch::of(vec![record.write()]) };
        Ok(Decision { batch, accepted: Accepted::Operation(id.clone()) })
    }

    /// Waits until an operation rests, at most until `until`; answers it as it then is.
    ///
    /// # Errors
    /// As [`Services::operation`]. That it does not rest in time is none.
    pub async fn rested(&self, id: &OperationId, until: Tick) -> Result<Operation, ServiceError> {
        let mut pause = FIRST_LOOK;
        loop {
            let operation = self.operation(id).await?;
            let now = self.ports.clock.monotonic();
            if operation.slot.status.rests() || now >= until {
                return Ok(operation);
            }
            self.ports.clock.sleep_until(now.after(pause).min(until)).await;
            pause = (pause * 2).min(self.settings.scan / 4);
        }
    }

    /// What a step's job printed; `None` where it has printed nothing, or is no job.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn step_log(&self, id: &OperationId, step: &str) -> Result<Option<String>, ServiceError> {
        let operation = self.operation(id).await?;
        let step = operation.slot.steps.into_iter().find(|known| known.name == step);
        step.map(|step| step.log)
            .ok_or_else(|| ServiceError::NotFound { what: format!("that step of `{id}`") })
    }

    /// Who asked for what, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn audit_log(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<AuditEntry, u64>, ServiceError> {
        Ok(self.ports.store.audit(before, limit.min(1_000)).await?)
    }

    /// What happened, oldest first, each event with its number.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn events(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, FeedEvent)>, ServiceError> {
        Ok(self.ports.store.events(after, limit.min(1_000)).await?)
    }

    /// The number of the last event so far.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn last_event(&self) -> Result<Option<u64>, ServiceError> {
        Ok(self.ports.store.last_event().await?)
    }
}

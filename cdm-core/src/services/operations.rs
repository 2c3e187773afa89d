//! What may be asked of operations, and of the records of what was asked.

use super::admit::Decision;
use super::colours::Image;
use super::{Accepted, Action, Force, Request, ServiceError, Services, Work};
use crate::domain::operation::{Event, Home, Operation, Position, Slot, Subject, Task};
use crate::domain::rollout::RolloutPage;
use crate::domain::{AuditEntry, Canonical, End, OperationId, Status, Tick};
use crate::engine::{Record, plan};
use crate::ports::{Batch, FeedEvent, OperationQuery, Page};

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
        Ok(Some(self.member_told(&rollout, ordinal, member).await?))
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
    /// `forbidden`; `not_found`; `illegal_transition` when it is neither; `bad_digest` for the deploy of a digest that is
    /// bad.
    pub async fn retry(&self, request: &Request, id: &OperationId) -> Result<Accepted, ServiceError> {
        self.retry_with(request, id, Force::No).await
    }

    /// The same; with `force` a deploy of a digest that is bad is repeated too.
    ///
    /// # Errors
    /// As [`Services::retry`].
    pub async fn retry_with(
        &self,
        request: &Request,
        id: &OperationId,
        force: Force,
    ) -> Result<Accepted, ServiceError> {
        let content = force.content();
        let decide = || self.decide_retry(request, id, force);
        self.admit(request, Action::RetryOperation, &id.to_string(), &content, decide).await
    }

    async fn decide_retry(
        &self,
        request: &Request,
        id: &OperationId,
        force: Force,
    ) -> Result<Decision, ServiceError> {
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
                self.refuse_bad(deploy.digest, force).await?;
                let wanted = Image {
                    rolls_back: deploy.rolls_back,
                    ..Image::deployed(deploy.selector, deploy.digest, deploy.promote)
                };
                self.decide_deploy(request, &wanted, Some(id)).await
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
        self.admit(request, Action::CancelOperation, &id.to_string(), &Canonical::new(), || {
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

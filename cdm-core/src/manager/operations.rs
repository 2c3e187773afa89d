//! What may be asked of operations, and of the records of what was asked.

use super::blue_green::Image;
use super::submit::Decision;
use super::{Accepted, Action, Force, Manager, ManagerError, Request, Work};
use crate::domain::operation::{
    Event, Operation, OperationInput, OperationParent, OperationState, Position, Subject,
};
use crate::domain::rollout::RolloutPage;
use crate::domain::{AuditEntry, Canonical, MonotonicTime, OperationId, Status, TerminalStatus};
use crate::engine::{Record, plan};
use crate::ports::{FeedEvent, OperationQuery, Page, WriteBatch};

/// After how long whoever waits for an operation looks for the first time; each later look is twice as far, up to a
/// quarter of the time between a worker's looks.
const FIRST_LOOK: std::time::Duration = std::time::Duration::from_millis(10);

impl Manager {
    /// An operation, at work or ended.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn operation(&self, id: &OperationId) -> Result<Operation, ManagerError> {
        let found = match &id.parent {
            OperationParent::Subject(subject) => self.own_operation(id, subject).await?,
            OperationParent::Rollout(rollout, ordinal) => {
                self.member_operation(id, *rollout, *ordinal).await?
            }
        };
        found.ok_or_else(|| ManagerError::no_operation(id))
    }

    async fn own_operation(
        &self,
        id: &OperationId,
        subject: &Subject,
    ) -> Result<Option<Operation>, ManagerError> {
        let record = Record::read(&self.ports, subject).await?;
        let operation =
            record.as_ref().and_then(Record::operation).filter(|operation| operation.number == id.number);
        if let Some(operation) = operation {
            return Ok(Some(Operation::live(subject.clone(), operation.clone())));
        }
        Ok(self.ports.store.history(id).await?)
    }

    async fn member_operation(
        &self,
        id: &OperationId,
        number: u64,
        ordinal: u32,
    ) -> Result<Option<Operation>, ManagerError> {
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
    ) -> Result<Page<Operation, u64>, ManagerError> {
        Ok(self.ports.store.operations(query, before, limit.min(1_000)).await?)
    }

    /// Lets a parked operation go on, or repeats one that failed or was cancelled as a new one. Takes the role of what it
    /// repeats.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `illegal_transition` when it is neither; `bad_digest` for the deploy of a digest that is
    /// bad.
    pub async fn retry(&self, request: &Request, id: &OperationId) -> Result<Accepted, ManagerError> {
        self.retry_with(request, id, Force::No).await
    }

    /// The same; with `force` a deploy of a digest that is bad is repeated too.
    ///
    /// # Errors
    /// As [`Manager::retry`].
    pub async fn retry_with(
        &self,
        request: &Request,
        id: &OperationId,
        force: Force,
    ) -> Result<Accepted, ManagerError> {
        let content = force.content();
        let decide = || self.decide_retry(request, id, force);
        self.submit(request, Action::RetryOperation, &id.to_string(), &content, decide).await
    }

    async fn decide_retry(
        &self,
        request: &Request,
        id: &OperationId,
        force: Force,
    ) -> Result<Decision, ManagerError> {
        let operation = self.operation(id).await?;
        let refuse = |why: &str| Err(ManagerError::IllegalTransition(why.to_owned()));
        let Status::Ended(end) = operation.state.status else {
            return self
                .decide_change((request, Action::RetryOperation), id, |state, _| {
                    plan::retry(state)?;
                    Ok(())
                })
                .await;
        };
        request.may_on(Action::RetryOperation, Work::Operation(operation.state.input.kind()))?;
        match (end, &operation.subject, &operation.state.input) {
            (TerminalStatus::Succeeded, _, _) => refuse("an operation that succeeded is not retried"),
            (_, _, OperationInput::Create) => refuse("a site whose creation was undone is created again"),
            (TerminalStatus::Failed | TerminalStatus::Cancelled, Subject::Site(site), input) => {
                self.decide(request, site, input.kind(), Some(id)).await
            }
            (
                TerminalStatus::Failed | TerminalStatus::Cancelled,
                Subject::Service(_),
                OperationInput::Deploy(deploy),
            ) => {
                self.refuse_bad(deploy.digest, force).await?;
                let wanted = Image {
                    rolls_back: deploy.rolls_back,
                    ..Image::deployed(deploy.color, deploy.digest, deploy.promote)
                };
                self.decide_deploy(request, &wanted, Some(id)).await
            }
            (TerminalStatus::Failed | TerminalStatus::Cancelled, _, _) => refuse("select the service again"),
        }
    }

    /// Asks an operation to stop. It does at its next step boundary, and what it did is undone where that is its
    /// pipeline's promise. Takes the role of what it stops.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `illegal_transition` when it has ended, or has gone too far.
    pub async fn cancel(&self, request: &Request, id: &OperationId) -> Result<Accepted, ManagerError> {
        let ask = |operation: &mut OperationState, record: &Record| {
            // A terminate that took the place of a parked create has nowhere to go back to.
            if let Record::Site(site) = record {
                site.life().next(crate::domain::lifecycle::Event::End(TerminalStatus::Cancelled))?;
            }
            let begun = operation.attempts > 0 || operation.position != Position::Forward(0);
            let pipeline = self.registry.newest(operation.input.kind());
            let too_far = match operation.position {
                Position::Forward(step) => {
                    begun && !pipeline.is_some_and(|pipeline| pipeline.is_cancelable(step))
                }
                Position::Undo(..) => false,
            };
            if too_far {
                let kind = operation.input.kind();
                return Err(ManagerError::IllegalTransition(format!(
                    "this {kind} has gone too far to be cancelled"
                )));
            }
            if operation.status == Status::Parked {
                operation.reason = None;
            }
            operation.status = operation.status.next(Event::Cancel)?;
            operation.cancel = true;
            Ok(())
        };
        self.submit(request, Action::CancelOperation, &id.to_string(), &Canonical::new(), || {
            self.decide_change((request, Action::CancelOperation), id, ask)
        })
        .await
    }

    /// Decides on a change of an operation that has not ended.
    async fn decide_change(
        &self,
        (request, action): (&Request, Action),
        id: &OperationId,
        change: impl Fn(&mut OperationState, &Record) -> Result<(), ManagerError> + Send,
    ) -> Result<Decision, ManagerError> {
        let OperationParent::Subject(subject) = &id.parent else {
            let why = "a rollout's member does not change by itself; ask the rollout";
            return Err(ManagerError::IllegalTransition(why.to_owned()));
        };
        let record = Record::read(&self.ports, subject).await?;
        let state =
            record.as_ref().and_then(Record::operation).filter(|state| state.number == id.number).cloned();
        let (Some(mut record), Some(mut state)) = (record, state) else {
            let ended = self.ports.store.history(id).await?.ok_or_else(|| ManagerError::no_operation(id))?;
            request.may_on(action, Work::Operation(ended.state.input.kind()))?;
            let status = ended.state.status;
            return Err(ManagerError::IllegalTransition(format!("the operation has {status} already")));
        };
        request.may_on(action, Work::Operation(state.input.kind()))?;
        change(&mut state, &record)?;
        let event = FeedEvent {
            at: self.now(),
            subject: Some(subject.clone()),
            operation: Some(id.clone()),
            rollout: None,
            what: state.status.as_str().to_owned(),
        };
        record.set_operation(Some(state));
        let batch = WriteBatch { events: vec![event], ..WriteBatch::of(vec![record.write()]) };
        Ok(Decision { batch, accepted: Accepted::Operation(id.clone()) })
    }

    /// Waits until an operation rests, at most until `until`; answers it as it then is.
    ///
    /// # Errors
    /// As [`Manager::operation`]. That it does not rest in time is none.
    pub async fn rested(&self, id: &OperationId, until: MonotonicTime) -> Result<Operation, ManagerError> {
        let mut pause = FIRST_LOOK;
        loop {
            let operation = self.operation(id).await?;
            let now = self.ports.clock.monotonic();
            if operation.state.status.rests() || now >= until {
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
    pub async fn step_log(&self, id: &OperationId, step: &str) -> Result<Option<String>, ManagerError> {
        let operation = self.operation(id).await?;
        let step = operation.state.steps.into_iter().find(|known| known.name == step);
        step.map(|step| step.log)
            .ok_or_else(|| ManagerError::NotFound { what: format!("that step of `{id}`") })
    }

    /// Who asked for what, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn audit_log(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<AuditEntry, u64>, ManagerError> {
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
    ) -> Result<Vec<(u64, FeedEvent)>, ManagerError> {
        Ok(self.ports.store.events(after, limit.min(1_000)).await?)
    }

    /// The number of the last event so far.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn last_event(&self) -> Result<Option<u64>, ManagerError> {
        Ok(self.ports.store.last_event().await?)
    }
}

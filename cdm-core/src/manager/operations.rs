//! Lists, retries and cancels operations, and reads the audit log and the event feed.

use super::blue_green::Image;
use super::submit::Decision;
use super::{Accepted, Action, Force, Manager, ManagerError, Request, Work};
use crate::domain::operation::{
    Event, Operation, OperationInput, OperationParent, OperationState, Position, Subject,
};
use crate::domain::rollout::RolloutPage;
use crate::domain::{AuditEntry, Canonical, MonotonicTime, OperationId, Status, TerminalStatus};
use crate::engine::{Backoff, Record, plan};
use crate::ports::{FeedEvent, OperationQuery, Page, WriteBatch};

/// The delay of the first poll of an operation. Each further delay is twice as long, up to a quarter of the worker's
/// scan interval.
const FIRST_POLL: std::time::Duration = std::time::Duration::from_millis(10);

impl Manager {
    /// Returns an operation, which can be in progress or ended.
    ///
    /// # Errors
    /// Returns `not_found` if the operation does not exist.
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
        Ok(Some(self.describe_member(&rollout, ordinal, member).await?))
    }

    /// Returns operations, newest first, without those of rollout members.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn operations(
        &self,
        query: &OperationQuery,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Operation, u64>, ManagerError> {
        Ok(self.ports.store.operations(query, before, limit.min(1_000)).await?)
    }

    /// Continues a parked operation, or repeats a failed or canceled one as a new operation. The request
    /// requires the role for the repeated action.
    ///
    /// # Errors
    /// Returns `forbidden`; `not_found`; `illegal_transition` if the operation is neither parked nor failed nor
    /// canceled; `bad_digest` for the deploy of a bad digest.
    pub async fn retry(&self, request: &Request, id: &OperationId) -> Result<Accepted, ManagerError> {
        self.retry_with(request, id, Force::No).await
    }

    /// Retries an operation as [`Manager::retry`] does. With `force`, the deploy of a bad digest is repeated too.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::retry`].
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
        let reject = |why: &str| Err(ManagerError::IllegalTransition(why.to_owned()));
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
            (TerminalStatus::Succeeded, _, _) => reject("an operation that succeeded cannot be retried"),
            (_, _, OperationInput::Create) => {
                reject("the creation of the site was undone; create the site again")
            }
            (TerminalStatus::Failed | TerminalStatus::Cancelled, Subject::Site(site), input) => {
                self.decide(request, site, input.kind(), Some(id)).await
            }
            (
                TerminalStatus::Failed | TerminalStatus::Cancelled,
                Subject::Service(_),
                OperationInput::Deploy(deploy),
            ) => {
                self.reject_bad_digest(deploy.digest, force).await?;
                let image = Image {
                    rolls_back: deploy.rolls_back,
                    ..Image::deployed(deploy.color, deploy.digest, deploy.promote)
                };
                self.decide_deploy(request, &image, Some(id)).await
            }
            (TerminalStatus::Failed | TerminalStatus::Cancelled, _, _) => {
                reject("this operation cannot be retried; select the service again")
            }
        }
    }

    /// Requests that an operation stops. It stops at its next step boundary and undoes its changes if its pipeline
    /// supports that. The request requires the role for the canceled action.
    ///
    /// # Errors
    /// Returns `forbidden`; `not_found`; `illegal_transition` if the operation has ended or can no longer be
    /// canceled.
    pub async fn cancel(&self, request: &Request, id: &OperationId) -> Result<Accepted, ManagerError> {
        let request_cancel = |operation: &mut OperationState, record: &Record| {
            // A terminate that displaced a parked create has no state to return to.
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
                    "this {kind} can no longer be canceled"
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
            self.decide_change((request, Action::CancelOperation), id, request_cancel)
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
            let why = "the operation of a rollout member cannot be changed by itself; change the rollout";
            return Err(ManagerError::IllegalTransition(why.to_owned()));
        };
        let record = Record::read(&self.ports, subject).await?;
        let state =
            record.as_ref().and_then(Record::operation).filter(|state| state.number == id.number).cloned();
        let (Some(mut record), Some(mut state)) = (record, state) else {
            let ended = self.ports.store.history(id).await?.ok_or_else(|| ManagerError::no_operation(id))?;
            request.may_on(action, Work::Operation(ended.state.input.kind()))?;
            let status = ended.state.status;
            return Err(ManagerError::IllegalTransition(format!(
                "the operation has already ended with the status `{status}`"
            )));
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

    /// Waits until an operation has ended or is parked, but not longer than `until`, and returns the operation in its
    /// current state.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::operation`]. Reaching `until` is not an error.
    pub async fn rested(&self, id: &OperationId, until: MonotonicTime) -> Result<Operation, ManagerError> {
        let mut pauses = Backoff::new(FIRST_POLL, self.settings.scan / 4);
        loop {
            let operation = self.operation(id).await?;
            let now = self.ports.clock.monotonic();
            if operation.state.status.is_settled() || now >= until {
                return Ok(operation);
            }
            self.ports.clock.sleep_until(now.after(pauses.next_pause()).min(until)).await;
        }
    }

    /// Returns the output of a step's job; `None` if the step has no job or the job printed nothing.
    ///
    /// # Errors
    /// Returns `not_found` if the operation or the step does not exist.
    pub async fn step_log(&self, id: &OperationId, name: &str) -> Result<Option<String>, ManagerError> {
        let operation = self.operation(id).await?;
        let step = operation.state.steps.into_iter().find(|step| step.name == name);
        step.map(|step| step.log)
            .ok_or_else(|| ManagerError::NotFound { what: format!("the step `{name}` of `{id}`") })
    }

    /// Returns audit entries, newest first, at most 1,000 per call.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn audit_log(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<AuditEntry, u64>, ManagerError> {
        Ok(self.ports.store.audit(before, limit.min(1_000)).await?)
    }

    /// Returns events with their numbers, oldest first, at most 1,000 per call.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn events(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, FeedEvent)>, ManagerError> {
        Ok(self.ports.store.events(after, limit.min(1_000)).await?)
    }

    /// Returns the number of the latest event; `None` if there is no event.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn last_event(&self) -> Result<Option<u64>, ManagerError> {
        Ok(self.ports.store.last_event().await?)
    }
}

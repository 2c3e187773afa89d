//! Operations: their kinds, inputs, statuses and steps, and the table of status transitions.

use std::borrow::Cow;
use std::fmt;

use super::fence::{Direction, Epoch, Fence, Term};
use super::reason::Reason;
use super::{Actor, Color, Digest, SiteId, Template, Timestamp, WorkerId};

/// The kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationKind {
    /// Records a site and stores its credentials.
    Create,
    /// Makes a created site live.
    Provision,
    /// Assigns a site to another service without moving its route.
    Upgrade,
    /// Moves a site's route and assignment to another service.
    Promote,
    /// Deletes a site and its data.
    Terminate,
    /// Sets an image on a service.
    Deploy,
    /// Makes a service the active canary.
    Select,
}

impl OperationKind {
    /// All kinds, in the order of their definition.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Provision,
        Self::Upgrade,
        Self::Promote,
        Self::Terminate,
        Self::Deploy,
        Self::Select,
    ];

    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Provision => "provision",
            Self::Upgrade => "upgrade",
            Self::Promote => "promote",
            Self::Terminate => "terminate",
            Self::Deploy => "deploy",
            Self::Select => "select",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The final status of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TerminalStatus {
    /// Every step has finished.
    Succeeded,
    /// No step took effect, or every step that has an undo was undone.
    Failed,
    /// Canceled by a user.
    Cancelled,
}

impl fmt::Display for TerminalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

/// The status of an operation.
///
/// ```
/// use cdm_core::domain::operation::{Event, Status};
///
/// let running = Status::Queued.next(Event::Claim).expect("a queued operation can be claimed");
/// assert_eq!(running, Status::Running);
/// let parked = running.next(Event::Park).expect("a running operation can be parked");
/// assert_eq!(parked.next(Event::Retry), Ok(Status::Queued));
/// assert!(parked.next(Event::Claim).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Accepted, and not claimed by a worker.
    Queued,
    /// Claimed by a worker, which makes attempts.
    Running,
    /// Waits for a condition, and continues without a user; the reason states until when.
    Waiting,
    /// Stopped until a user acts; the reason states how.
    Parked,
    /// Finished, with this final status.
    Ended(TerminalStatus),
}

impl Status {
    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Ended(TerminalStatus::Succeeded) => "succeeded",
            Self::Ended(TerminalStatus::Failed) => "failed",
            Self::Ended(TerminalStatus::Cancelled) => "cancelled",
        }
    }

    /// Returns whether no worker continues the operation: it has ended, or it is parked until a user acts.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Parked | Self::Ended(_) => true,
            Self::Queued | Self::Running | Self::Waiting => false,
        }
    }

    /// Returns the status after `event`.
    ///
    /// # Errors
    /// [`IllegalEvent`] for each pair of status and event that is not a transition.
    pub fn next(self, event: Event) -> Result<Self, IllegalEvent> {
        match (self, event) {
            (Self::Queued | Self::Running | Self::Waiting, Event::Claim) => Ok(Self::Running),
            (Self::Running, Event::Wait) => Ok(Self::Waiting),
            (Self::Waiting, Event::Wake) => Ok(Self::Running),
            (Self::Queued | Self::Running | Self::Waiting, Event::Park) => Ok(Self::Parked),
            (Self::Running | Self::Waiting, Event::HandOver) => Ok(Self::Queued),
            (Self::Parked, Event::Retry | Event::Cancel) => Ok(Self::Queued),
            (Self::Queued | Self::Running | Self::Waiting, Event::Cancel) => Ok(self),
            (Self::Parked, Event::Displace) => Ok(Self::Ended(TerminalStatus::Cancelled)),
            (Self::Running, Event::Finish(end)) => Ok(Self::Ended(end)),
            _ => Err(IllegalEvent { status: self.as_str(), event: event.as_str() }),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event that changes the status of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A worker claims the operation, also from a worker whose lease has expired.
    Claim,
    /// The current step waits for a condition.
    Wait,
    /// The condition is polled again.
    Wake,
    /// The current step needs a user.
    Park,
    /// The worker shuts down and releases the operation.
    HandOver,
    /// A user requests a retry.
    Retry,
    /// A user requests a cancel; the request takes effect at a step boundary.
    Cancel,
    /// A terminate replaces a parked operation.
    Displace,
    /// The operation ends with this status.
    Finish(TerminalStatus),
}

impl Event {
    /// Returns the name of the event in error messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Wait => "wait",
            Self::Wake => "wake",
            Self::Park => "park",
            Self::HandOver => "hand over",
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Displace => "displace",
            Self::Finish(TerminalStatus::Succeeded) => "succeed",
            Self::Finish(TerminalStatus::Failed) => "fail",
            Self::Finish(TerminalStatus::Cancelled) => "end cancelled",
        }
    }
}

/// An event that an operation cannot have in its present status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event `{event}` is not possible while the operation is `{status}`")]
pub struct IllegalEvent {
    /// The name of the status.
    pub status: &'static str,
    /// The name of the event.
    pub event: &'static str,
}

/// The record that an operation changes. The record contains the state of the operation until the operation ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The record of a site.
    Site(SiteId),
    /// The record of one of the two services.
    Service(Color),
    /// The record of the fleet: the active canary, and the rollout that moves sites.
    Fleet,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(id) => write!(f, "site-{id}"),
            Self::Service(color) => write!(f, "service-{color}"),
            Self::Fleet => f.write_str("fleet"),
        }
    }
}

/// The record that an operation is read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationParent {
    /// The record of the subject, and after the end the history of that subject.
    Subject(Subject),
    /// A rollout: its number, and the ordinal of the site in it.
    Rollout(u64, u32),
}

/// The identifier of an operation. Users treat the text as opaque.
///
/// The identifier contains the place of the operation, so that a lookup needs no index.
///
/// ```
/// use cdm_core::domain::operation::{OperationParent, Subject};
/// use cdm_core::domain::{Color, OperationId};
///
/// let id = OperationId::parse("op-7-service-blue").expect("a valid identifier");
/// assert_eq!(id.number, 7);
/// assert_eq!(id.parent, OperationParent::Subject(Subject::Service(Color::Blue)));
/// assert_eq!(id.to_string(), "op-7-service-blue");
/// assert_eq!(OperationId::parse("op-007-fleet"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId {
    /// The number, which is unique on the platform and never reused.
    pub number: u64,
    /// The record that contains the operation.
    pub parent: OperationParent,
}

impl OperationId {
    /// Creates the identifier of operation `number` on `subject`.
    pub const fn on(number: u64, subject: Subject) -> Self {
        Self { number, parent: OperationParent::Subject(subject) }
    }

    /// Parses the text that `Display` prints. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, parent) = text.strip_prefix("op-")?.split_once('-')?;
        let number = number.parse().ok()?;
        let parent = match parent.split_once('-') {
            Some(("site", id)) => OperationParent::Subject(Subject::Site(SiteId::parse(id).ok()?)),
            Some(("service", color)) => OperationParent::Subject(Subject::Service(Color::parse(color).ok()?)),
            Some(("rollout", member)) => {
                let (rollout, ordinal) = member.split_once('-')?;
                OperationParent::Rollout(rollout.parse().ok()?, ordinal.parse().ok()?)
            }
            None if parent == "fleet" => OperationParent::Subject(Subject::Fleet),
            Some(_) | None => return None,
        };
        let id = Self { number, parent };
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.parent {
            OperationParent::Subject(subject) => write!(f, "op-{}-{subject}", self.number),
            OperationParent::Rollout(rollout, ordinal) => {
                write!(f, "op-{}-rollout-{rollout}-{ordinal}", self.number)
            }
        }
    }
}

/// The input of an operation, with the data that its steps have stored for later attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationInput {
    /// See [`OperationKind::Create`].
    Create,
    /// See [`OperationKind::Provision`]. The value is the service of the site when the operation was accepted.
    Provision(Color),
    /// See [`OperationKind::Upgrade`].
    Upgrade(Move),
    /// See [`OperationKind::Promote`].
    Promote(Move),
    /// See [`OperationKind::Terminate`].
    Terminate,
    /// See [`OperationKind::Deploy`].
    Deploy(Box<Deploy>),
    /// See [`OperationKind::Select`].
    Select(Color),
}

impl OperationInput {
    /// Returns the kind without the input.
    pub const fn kind(&self) -> OperationKind {
        match self {
            Self::Create => OperationKind::Create,
            Self::Provision(_) => OperationKind::Provision,
            Self::Upgrade(_) => OperationKind::Upgrade,
            Self::Promote(_) => OperationKind::Promote,
            Self::Terminate => OperationKind::Terminate,
            Self::Deploy(_) => OperationKind::Deploy,
            Self::Select(_) => OperationKind::Select,
        }
    }
}

/// The services of a move, as they were when the operation was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Move {
    /// The service in the record of the site.
    pub from: Color,
    /// The active canary, which is the target.
    pub to: Color,
    /// The service that the route pointed to.
    pub routed: Color,
}

/// The input of a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// The service that gets the image.
    pub color: Color,
    /// The digest of the image.
    pub digest: Digest,
    /// Whether the hooks also route the sites of the service to it.
    pub promote: bool,
    /// Whether the hooks run. A rollout that deploys first skips them, since it does the same itself.
    pub hooks: Hooks,
    /// The state that the deploy replaces, stored before the first change. `None` until the service was read.
    pub previous: Option<Previous>,
    /// The number of the rollout that runs the hooks. `None` until it is allocated.
    pub rollout: Option<u64>,
    /// Whether the deploy is a rollback. The replaced image then no longer counts as healthy, until a user marks it.
    pub rolls_back: bool,
}

/// Whether the `Hooks` step of a deploy starts a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// The step flushes the caches of the sites of the service, and routes them if [`Deploy::promote`] is set.
    Run,
    /// The rollout that requested the deploy does both.
    Skip,
}

/// The state of a service before a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The fence on the workload when it was read.
    pub fence: Fence,
    /// The whole pod template, which a failed deploy restores. `None` if nothing ran.
    pub template: Option<Template>,
    /// The digest that ran. `None` if nothing ran, or if the image was not named by a digest.
    pub digest: Option<Digest>,
}

/// The status of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepStatus {
    /// Not started: no intent is stored.
    #[default]
    Pending,
    /// Started: the intent is stored.
    Running,
    /// Finished, with the result stored.
    Succeeded,
    /// Failed, so that the operation is undone.
    Failed,
    /// Not finished, since the operation was canceled.
    Skipped,
}

impl StepStatus {
    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One step of an operation, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The name. It can be from a pipeline version that this process does not support.
    pub name: Cow<'static, str>,
    /// The status, which is pending until the first attempt.
    pub status: StepStatus,
    /// The number of attempts.
    pub attempts: u32,
    /// The name of the job that runs the step. `None` if the step has no job.
    pub job: Option<String>,
    /// The output of the job, stored before the job is deleted.
    pub log: Option<String>,
    /// The time when the intent was first stored.
    pub started_at: Option<Timestamp>,
    /// The time when the step finished.
    pub finished_at: Option<Timestamp>,
    /// A message for users, such as the reason of a failure.
    pub message: Option<String>,
}

impl Step {
    /// Creates a step that has not started.
    pub const fn pending(name: &'static str) -> Self {
        Self {
            name: Cow::Borrowed(name),
            status: StepStatus::Pending,
            attempts: 0,
            job: None,
            log: None,
            started_at: None,
            finished_at: None,
            message: None,
        }
    }
}

/// The position of an operation in its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// At the step with this index.
    Forward(usize),
    /// At the undo step with this index, before an end with this status.
    Undo(usize, TerminalStatus),
}

/// The claim of a rollout on a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The number of the rollout.
    pub rollout: u64,
    /// The ordinal of the site in the rollout.
    pub ordinal: u32,
    /// Whether the rollout moves the site forward, or rolls it back.
    pub direction: Direction,
    /// The term of the owner that claimed the site.
    pub term: Term,
}

/// The state of an operation that has not ended. The record of the subject contains it, so that both change in one
/// write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationState {
    /// The number in the id of the operation, which is unique on the platform and never reused.
    pub number: u64,
    /// The kind and the input.
    pub input: OperationInput,
    /// The version of the pipeline when the operation was accepted.
    pub pipeline: u32,
    /// The number of claims and of changes of direction.
    pub epoch: Epoch,
    /// The worker that has claimed the operation.
    pub owner: Option<WorkerId>,
    /// The status; see [`Status::next`] for its transitions.
    pub status: Status,
    /// The position in the pipeline.
    pub position: Position,
    /// The number of attempts of the current step. An attempt is counted before it is made.
    pub attempts: u32,
    /// The number of the job of the current step: 1, and one more for each failed job.
    pub job: u32,
    /// The time of the next attempt while the operation waits.
    pub next_poll_at: Option<Timestamp>,
    /// The start of the wait of the current step, for the timeout of the step.
    pub waiting_since: Option<Timestamp>,
    /// The time of the first failure in the present series of failures of a backend. `None` while the backends respond.
    pub trouble_since: Option<Timestamp>,
    /// The reason why the operation waits, is parked, or is undone.
    pub reason: Option<Reason>,
    /// Whether a cancel was requested.
    pub cancel: bool,
    /// The service whose lock the operation holds.
    pub locked_color: Option<Color>,
    /// The claim, if a rollout has claimed the site. `None` for an operation that was requested.
    pub member: Option<Member>,
    /// The steps, as the API shows them. Empty for a site of a rollout: the kind of the rollout determines the steps.
    pub steps: Vec<Step>,
    /// The actor that requested the operation.
    pub requested_by: Actor,
    /// The operation that this operation retries; `None` if it is not a retry.
    pub retry_of: Option<OperationId>,
    /// The time when the operation was accepted.
    pub created_at: Timestamp,
    /// The time of the first claim.
    pub started_at: Option<Timestamp>,
}

impl OperationState {
    /// Returns the fence of calls that the operation makes now.
    pub const fn fence(&self) -> Fence {
        Fence::new(self.number, self.epoch)
    }

    /// Returns the index of the current step. Returns `None` while the operation is undone.
    pub const fn forward(&self) -> Option<usize> {
        match self.position {
            Position::Forward(step) => Some(step),
            Position::Undo(..) => None,
        }
    }
}

/// An operation with its identifier and its subject: one that has not ended, or one from the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The identifier, which users see.
    pub id: OperationId,
    /// The record that the operation changes.
    pub subject: Subject,
    /// The present state, or the last one.
    pub state: OperationState,
    /// The time when the operation ended.
    pub finished_at: Option<Timestamp>,
    /// The digest that the target ran when a rollout moved the site there or probed it there. `None` for an operation
    /// outside a rollout.
    pub digest: Option<Digest>,
}

impl Operation {
    /// Creates the operation with this `state` in the record of `subject`.
    pub fn live(subject: Subject, state: OperationState) -> Self {
        let parent = match state.member {
            Some(member) => OperationParent::Rollout(member.rollout, member.ordinal),
            None => OperationParent::Subject(subject.clone()),
        };
        Self {
            id: OperationId { number: state.number, parent },
            subject,
            state,
            finished_at: None,
            digest: None,
        }
    }
}

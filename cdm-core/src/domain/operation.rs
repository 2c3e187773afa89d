//! Operations: what is asked for, how far it is, and how it ends.

use std::borrow::Cow;
use std::fmt;

use super::fence::{Direction, Fence};
use super::reason::Reason;
use super::{Actor, Color, Digest, SiteId, Template, Timestamp, WorkerId};

/// What an operation does.
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
    /// Removes a site for good.
    Terminate,
    /// Sets an image on a colour.
    Deploy,
    /// Makes a colour the active canary service.
    Select,
}

impl OperationKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Provision,
        Self::Upgrade,
        Self::Promote,
        Self::Terminate,
        Self::Deploy,
        Self::Select,
    ];

    /// The word that users see.
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

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TerminalStatus {
    /// All was done.
    Succeeded,
    /// Nothing was done, or all was undone.
    Failed,
    /// Stopped because someone asked.
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

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Accepted; no worker has it.
    Queued,
    /// A worker has it.
    Running,
    /// It will go on by itself; the reason says when.
    Waiting,
    /// A person is needed; the reason says what clears it.
    Parked,
    /// It rests.
    Ended(TerminalStatus),
}

impl Status {
    /// The word that users see.
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

    /// Whether nothing happens any more unless a person asks.
    pub const fn rests(self) -> bool {
        match self {
            Self::Parked | Self::Ended(_) => true,
            Self::Queued | Self::Running | Self::Waiting => false,
        }
    }

    /// What follows when `event` happens.
    ///
    /// # Errors
    /// [`IllegalEvent`], naming both, for every pair that the table does not have.
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

/// What can happen to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A worker takes it, also from a worker that is lost.
    Claim,
    /// Its step has to wait.
    Wait,
    /// What it waited for may have come.
    Wake,
    /// Its step cannot go on without a person.
    Park,
    /// Its worker stops in good order.
    HandOver,
    /// A person asks to go on.
    Retry,
    /// A person asks to stop; it takes effect at a step boundary.
    Cancel,
    /// A terminate takes a parked operation's place.
    Displace,
    /// It has come to its end.
    Finish(TerminalStatus),
}

impl Event {
    /// The event in words.
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

/// A transition that the table of operations does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an operation that is {status} does not take the event `{event}`")]
pub struct IllegalEvent {
    /// The status's word.
    pub status: &'static str,
    /// The event's word.
    pub event: &'static str,
}

/// The record that an operation works on, and lives in until it rests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A site.
    Site(SiteId),
    /// One of the two services.
    Service(Color),
    /// The platform: which service is the canary, which rollout moves sites.
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

/// Where an operation is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationParent {
    /// In its subject's record, then in that subject's history.
    Subject(Subject),
    /// In a rollout: the rollout's number and the member's ordinal.
    Rollout(u64, u32),
}

/// An operation's name. It tells where the operation is kept, so that finding one needs no index; users treat it as
/// opaque.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId {
    /// Unique over the platform, never reused.
    pub number: u64,
    /// Where it is kept.
    pub parent: OperationParent,
}

impl OperationId {
    /// The operation `number` on `subject`.
    pub const fn on(number: u64, subject: Subject) -> Self {
        Self { number, parent: OperationParent::Subject(subject) }
    }

    /// Parses what `Display` prints; `None` for anything else.
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

/// What an operation was asked to do, and what it has learnt that a restart must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationInput {
    /// See [`OperationKind::Create`].
    Create,
    /// See [`OperationKind::Provision`]; the service that the record named when it was accepted.
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
    /// The task's kind.
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

/// From which service a site goes to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Move {
    /// The record's service when the operation was accepted.
    pub from: Color,
    /// The active canary at that moment.
    pub to: Color,
    /// Where its route pointed at that moment.
    pub routed: Color,
}

/// An image on its way to a colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// To which colour.
    pub color: Color,
    /// The image.
    pub digest: Digest,
    /// Whether the sites of that colour are routed to it afterwards.
    pub promote: bool,
    /// Whether the hooks run at all; a rollout that deploys first brings its own.
    pub hooks: Hooks,
    /// What ran before, kept before anything is changed; `None` until it was looked at.
    pub previous: Option<Previous>,
    /// The rollout that runs the hooks, once its number is drawn.
    pub rollout: Option<u64>,
    /// Whether it takes back what runs: that is not healthy any more then, until a person says so.
    pub rolls_back: bool,
}

/// Whether a deploy's `Hooks` step has work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// Flush the caches of the colour's sites, and route them when asked.
    Run,
    /// Someone else does it.
    Skip,
}

/// What a colour ran before a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The fence on the workload when it was looked at.
    pub fence: Fence,
    /// The whole pod template, to be put back; `None` where nothing ran.
    pub template: Option<Template>,
    /// The digest it ran, where it was one.
    pub digest: Option<Digest>,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepStatus {
    /// Not begun.
    #[default]
    Pending,
    /// Its intent is stored.
    Running,
    /// Done.
    Succeeded,
    /// It ended the operation.
    Failed,
    /// Not needed.
    Skipped,
}

impl StepStatus {
    /// The word that users see.
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

/// One step as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name; it may come from a pipeline version that this process does not know.
    pub name: Cow<'static, str>,
    /// How far it is.
    pub status: StepStatus,
    /// How often it was begun.
    pub attempts: u32,
    /// The job that does it, where one does.
    pub job: Option<String>,
    /// What the job printed, kept before the job vanishes.
    pub log: Option<String>,
    /// When its intent was first stored.
    pub started_at: Option<Timestamp>,
    /// When it was done.
    pub finished_at: Option<Timestamp>,
    /// What there is to say.
    pub message: Option<String>,
}

impl Step {
    /// A step that has not begun.
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

/// Where in its pipeline an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// At a step, on the way out.
    Forward(usize),
    /// At an undo step, on the way to an end that is not success.
    Undo(usize, TerminalStatus),
}

/// The part of a rollout that an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The rollout's number.
    pub rollout: u64,
    /// Which of its sites.
    pub ordinal: u32,
    /// Out or back.
    pub direction: Direction,
    /// The term of the owner that claimed the site.
    pub term: u64,
}

/// An operation that has not ended. It lives inside its subject's record, so that the two move together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationState {
    /// The operation's number.
    pub number: u64,
    /// What it does.
    pub input: OperationInput,
    /// The version of the pipeline it was accepted under.
    pub pipeline: u32,
    /// How often it was claimed, and its direction changed.
    pub epoch: u64,
    /// Who has it.
    pub owner: Option<WorkerId>,
    /// How it stands.
    pub status: Status,
    /// Where it is.
    pub position: Position,
    /// Attempts of the present step, counted before each is made.
    pub attempts: u32,
    /// Which job of the present step: 1, then one more for each that failed.
    pub job: u32,
    /// When a waiting operation looks again by itself.
    pub next_poll_at: Option<Timestamp>,
    /// Since when the present step waits, for the step's deadline.
    pub waiting_since: Option<Timestamp>,
    /// Since when backends have kept the present step from its end; `None` while they answer.
    pub trouble_since: Option<Timestamp>,
    /// Why it waits or is parked.
    pub reason: Option<Reason>,
    /// Whether someone asked to stop.
    pub cancel: bool,
    /// Which colour's hold it has.
    pub locked_color: Option<Color>,
    /// The part of a rollout that it is.
    pub member: Option<Member>,
    /// The steps as users see them; empty in a rollout, whose steps are known by their kind.
    pub steps: Vec<Step>,
    /// Whose request it was.
    pub requested_by: Actor,
    /// The operation that this one repeats.
    pub retry_of: Option<OperationId>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When a worker first had it.
    pub started_at: Option<Timestamp>,
}

impl OperationState {
    /// The fence that this operation's effects carry now.
    pub const fn fence(&self) -> Fence {
        Fence::new(self.number, self.epoch)
    }

    /// The step at work, counted from 0, when it goes forward.
    pub const fn forward(&self) -> Option<usize> {
        match self.position {
            Position::Forward(step) => Some(step),
            Position::Undo(..) => None,
        }
    }
}

/// An operation as it is kept and shown: a slot with its subject, or what is left of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// What it was about.
    pub subject: Subject,
    /// How it stands, in full.
    pub state: OperationState,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Of a rollout's site: the digest that the target ran when the site was moved there, or asked there.
    pub digest: Option<Digest>,
}

impl Operation {
    /// The operation in `subject`'s `slot`.
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

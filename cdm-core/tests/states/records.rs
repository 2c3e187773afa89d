//! A record with the operation in it, as the services, the engine and time change it.

use std::sync::LazyLock;
use std::time::Duration;

use cdm_core::domain::lifecycle::{Event as LifeEvent, Life};
use cdm_core::domain::operation::{Deploy, Event, Hooks, IllegalEvent, Move, Position, Step as SlotStep};
use cdm_core::domain::site::Activation;
use cdm_core::domain::{
    ClaimToken, Color, Digest, Hostnames, OperationInput, OperationKind, OperationState, Phase, ReasonCode,
    Site, SiteId, SiteName, State, Status, TerminalStatus, Theme, Uid,
};
use cdm_core::engine::plan::{self, Next, Waits};
use cdm_core::engine::{Pipeline, Registry, StepError, StepOutput};
use cdm_core::pipelines::{PipelineSettings, registry};
use cdm_core::ports::{ErrorKind, PortError};

use crate::search::{By, Machine, Step, named};
use crate::{LONG, NOW, actor, worker};

/// How often a step is begun here; the counter saturates one above.
const ATTEMPTS: u32 = 2;

/// A record with the operation in it.
#[derive(Clone)]
enum OperationParent {
    Site(Option<Box<Site>>),
    Colour(Option<Box<OperationState>>),
    Fleet(Option<Box<OperationState>>),
}

/// A record, its operation, and what the operation has done.
#[derive(Clone)]
pub(crate) struct World {
    parent: OperationParent,
    /// Whether an attempt was made on the way out, so that there may be something to undo.
    touched: bool,
    /// How the last operation ended.
    last: Option<TerminalStatus>,
    /// Whether the last operation ended on its way out, without undoing what it may have done.
    left: bool,
}

impl World {
    pub(crate) fn site() -> Self {
        Self { parent: OperationParent::Site(None), touched: false, last: None, left: false }
    }

    pub(crate) fn service() -> Self {
        Self { parent: OperationParent::Colour(None), touched: false, last: None, left: false }
    }

    pub(crate) fn fleet() -> Self {
        Self { parent: OperationParent::Fleet(None), touched: false, last: None, left: false }
    }

    pub(crate) fn life(&self) -> Life {
        match &self.parent {
            OperationParent::Site(Some(site)) => site.life(),
            OperationParent::Site(None) | OperationParent::Colour(_) | OperationParent::Fleet(_) => {
                Life::Absent
            }
        }
    }

    fn operation(&self) -> Option<&OperationState> {
        match &self.parent {
            OperationParent::Site(site) => site.as_ref().and_then(|site| site.operation.as_ref()),
            OperationParent::Colour(operation) | OperationParent::Fleet(operation) => operation.as_deref(),
        }
    }

    pub(crate) fn kind(&self) -> Option<OperationKind> {
        self.operation().map(|operation| operation.input.kind())
    }

    pub(crate) fn statuses(&self) -> Vec<Status> {
        self.operation()
            .map(|operation| operation.status)
            .into_iter()
            .chain(self.last.map(Status::Ended))
            .collect()
    }

    /// The world with `slot` in its place, counted no further than the search tells apart.
    fn with(&self, mut operation: OperationState) -> Self {
        operation.attempts = operation.attempts.min(ATTEMPTS + 1);
        operation.epoch = 1;
        operation.job = 1;
        let mut next = Self { last: None, left: false, ..self.clone() };
        match &mut next.parent {
            OperationParent::Site(Some(site)) => site.operation = Some(operation),
            OperationParent::Site(None) => unreachable!("an operation on no site"),
            OperationParent::Colour(place) | OperationParent::Fleet(place) => {
                *place = Some(Box::new(operation))
            }
        }
        next
    }

    /// Stores what became of the operation; one that has come to its end is taken out in the same write.
    fn store(&self, pipeline: &Pipeline, operation: OperationState) -> Step<Self> {
        let Next::Rest(end) = plan::next(&operation, pipeline, ATTEMPTS, NOW) else {
            return Step::To(self.with(operation));
        };
        if let Err(illegal) = Status::Running.next(Event::Finish(end)) {
            return Step::Wrong(illegal.to_string());
        }
        let undoes = pipeline.undo().count() > 0 || !pipeline.is_cancelable(0);
        let out = matches!(operation.position, Position::Forward(_)) && end != TerminalStatus::Succeeded;
        let left = out && undoes && self.touched;
        let mut next = Self { touched: false, last: Some(end), left, ..self.with(operation) };
        match &mut next.parent {
            OperationParent::Site(place) => {
                let Some(site) = place.take() else {
                    return Step::Wrong("an operation on no site".to_owned());
                };
                let life = site.life();
                match site.end(end, NOW) {
                    Ok(site) => *place = site.map(Box::new),
                    Err(illegal) => {
                        let (state, event) = (word(life), LifeEvent::End(end).to_string());
                        return named(&illegal, state, &event);
                    }
                }
            }
            OperationParent::Colour(place) | OperationParent::Fleet(place) => *place = None,
        }
        Step::To(next)
    }

    /// A request for an operation of `kind`, as the services decide it.
    fn begin(&self, kind: OperationKind) -> Step<Self> {
        let parked = self.operation().is_some_and(|operation| operation.status == Status::Parked);
        let operation = queued(kind);
        let mut next = Self { touched: false, last: None, left: false, ..self.clone() };
        match &mut next.parent {
            OperationParent::Site(None) => match Life::Absent.next(LifeEvent::Begin(kind)) {
                Ok(_) => next.parent = OperationParent::Site(Some(Box::new(site(operation)))),
                Err(illegal) => return named(&illegal, "absent", &LifeEvent::Begin(kind).to_string()),
            },
            OperationParent::Site(Some(site)) => {
                let displaces = parked && kind == OperationKind::Terminate;
                let event = if displaces { LifeEvent::Displace } else { LifeEvent::Begin(kind) };
                let state = site.state().as_str();
                if let Err(illegal) = site.begin(operation, NOW) {
                    return named(&illegal, state, &event.to_string());
                }
                if displaces {
                    next.last = Some(TerminalStatus::Cancelled);
                } else if self.operation().is_some() {
                    return Step::Wrong("two operations on one site".to_owned());
                }
            }
            // These have no table of their own: the services look at the slot.
            OperationParent::Colour(place)
                if kind == OperationKind::Deploy && (place.is_none() || parked) =>
            {
                next.last = parked.then_some(TerminalStatus::Cancelled);
                *place = Some(Box::new(operation));
            }
            OperationParent::Fleet(place @ None) if kind == OperationKind::Select => {
                *place = Some(Box::new(operation))
            }
            OperationParent::Colour(_) | OperationParent::Fleet(_) => return Step::Refused,
        }
        if let (true, Some(operation)) = (next.last.is_some(), self.operation())
            && operation.status.next(Event::Displace) != Ok(Status::Ended(TerminalStatus::Cancelled))
        {
            return Step::Wrong("what is displaced has not ended".to_owned());
        }
        Step::To(next)
    }

    /// A request to cancel, as the services decide it.
    fn cancel(&self, pipeline: &Pipeline, operation: &OperationState) -> Step<Self> {
        let begun = operation.attempts > 0 || operation.position != Position::Forward(0);
        let too_far = operation.forward().is_some_and(|step| begun && !pipeline.is_cancelable(step));
        let nowhere = matches!(self.parent, OperationParent::Site(_))
            && self.life().next(LifeEvent::End(TerminalStatus::Cancelled)).is_err();
        if too_far || nowhere {
            return Step::Refused;
        }
        let mut next = operation.clone();
        match operation.status.next(Event::Cancel) {
            Ok(status) => next.status = status,
            Err(illegal) => return named(&illegal, operation.status.as_str(), Event::Cancel.as_str()),
        }
        next.cancel = true;
        next.reason = None;
        Step::To(self.with(next))
    }

    /// What the table of statuses has to say of `event`, and what `act` makes of the slot where it is legal. Where it
    /// is not, `act` leaves the slot alone.
    fn on(
        &self,
        operation: &OperationState,
        event: Event,
        act: impl Fn(&mut OperationState) -> Result<(), IllegalEvent>,
    ) -> Step<Self> {
        let mut next = operation.clone();
        let took = act(&mut next);
        match operation.status.next(event) {
            Ok(_) if took.is_ok() => Step::To(self.with(next)),
            Ok(_) => Step::Wrong("a legal event is refused".to_owned()),
            Err(illegal) if next == *operation && took == Err(illegal) => {
                named(&illegal, operation.status.as_str(), event.as_str())
            }
            Err(illegal) => Step::Wrong(format!("{illegal}, and it took it")),
        }
    }

    /// What can come of one turn of the loop that runs operations.
    fn turns(&self, pipeline: &Pipeline, operation: &OperationState) -> Vec<(By, String, Step<Self>)> {
        let mut turns = Vec::new();
        let mut begin_undo = |event: &str, step: Step<Self>| turns.push((By::Itself, event.to_owned(), step));
        let mut next = operation.clone();
        match plan::next(operation, pipeline, ATTEMPTS, NOW) {
            Next::Leave | Next::Sleep => {}
            Next::Rest(_) => begin_undo("rest", self.store(pipeline, next)),
            Next::BeginUndo => {
                let turned = plan::begin_undo(&mut next, TerminalStatus::Cancelled, NOW);
                let step = if let Err(illegal) = turned {
                    Step::Wrong(illegal.to_string())
                } else if next.epoch == operation.epoch {
                    Step::Wrong("it turned round under the same fence".to_owned())
                } else {
                    self.store(pipeline, next)
                };
                begin_undo("turn", step);
            }
            Next::GiveUp => {
                let gave_up = plan::give_up(&mut next, ATTEMPTS, NOW);
                begin_undo("give up", legal(gave_up, || self.store(pipeline, next)));
            }
            Next::Attempt if operation.status == Status::Waiting => {
                begin_undo("attempt", Step::Wrong("it does not wait".to_owned()));
            }
            Next::Attempt => {
                let given = plan::hand_over(&mut next);
                begin_undo("hand over", legal(given, || self.store(pipeline, next)));
                if operation.attempts == 0 {
                    begin_undo("attempt", Step::Wrong("an attempt that was not counted".to_owned()));
                }
                let forward = operation.forward().is_some();
                let world = Self { touched: self.touched || forward, ..self.clone() };
                let mut next = operation.clone();
                let done = plan::done(&mut next, pipeline, &StepOutput::default(), NOW);
                begin_undo("done", legal(done, || world.store(pipeline, next)));
                for (event, stop, waits) in stops() {
                    let mut next = operation.clone();
                    let stopped = plan::stopped(&mut next, &stop, &waits, NOW);
                    if matches!(&stop, StepError::Retry(error) if error.kind != ErrorKind::Conflict)
                        && next.attempts > operation.attempts
                    {
                        begin_undo(
                            event,
                            Step::Wrong("a wait for a backend counts as an attempt".to_owned()),
                        );
                    }
                    begin_undo(event, legal(stopped, || world.store(pipeline, next)));
                }
                // The worker is lost with an effect made, and nothing stored of it.
                begin_undo("crash", Step::To(world.with(operation.clone())));
            }
        }
        turns
    }
}

/// A legal transition's outcome; that it was refused is wrong.
fn legal(taken: Result<(), IllegalEvent>, then: impl FnOnce() -> Step<World>) -> Step<World> {
    match taken {
        Ok(()) => then(),
        Err(illegal) => Step::Wrong(illegal.to_string()),
    }
}

/// Every way for a step not to be done, and how long it may wait.
fn stops() -> [(&'static str, StepError, Waits); 11] {
    let long = Waits { pause: LONG, away: 2 * LONG, denied: 2 * LONG };
    let short = Waits { away: Duration::ZERO, denied: Duration::ZERO, ..long };
    let again = |kind| StepError::Retry(PortError::new("cluster", kind, "no answer"));
    let wait = |timeout| StepError::Wait {
        code: ReasonCode::JobRunning,
        message: "it runs".to_owned(),
        timeout,
        again: Duration::from_secs(5),
        changes: Vec::new(),
    };
    [
        ("note", StepError::PersistAndRetry(Vec::new()), long),
        ("wait", wait(LONG), long),
        ("wait too long", wait(Duration::ZERO), long),
        ("away", again(ErrorKind::Unavailable), long),
        ("away too long", again(ErrorKind::Unavailable), short),
        ("throttled", again(ErrorKind::Throttled(None)), long),
        ("denied", again(ErrorKind::Denied), long),
        ("denied too long", again(ErrorKind::Denied), short),
        ("conflict", again(ErrorKind::Conflict), long),
        ("park", StepError::Park(ReasonCode::Invalid, "it is wrong".to_owned()), long),
        ("fail", StepError::Fail(ReasonCode::ImageNotReady, "it cannot".to_owned(), Vec::new()), long),
    ]
}

pub(crate) fn phase(life: Life) -> Option<Phase> {
    match life {
        Life::Absent => None,
        Life::Present { phase, .. } => Some(phase),
    }
}

pub(crate) fn word(life: Life) -> &'static str {
    life.state().map_or("absent", State::as_str)
}

fn pipeline(kind: OperationKind) -> &'static Pipeline {
    static PIPELINES: LazyLock<Registry> = LazyLock::new(|| registry(&PipelineSettings::default()));
    PIPELINES.newest(kind).expect("each kind has a pipeline")
}

fn queued(kind: OperationKind) -> OperationState {
    let course = Move { from: Color::Blue, to: Color::Green, routed: Color::Blue };
    let input = match kind {
        OperationKind::Create => OperationInput::Create,
        OperationKind::Provision => OperationInput::Provision(Color::Blue),
        OperationKind::Upgrade => OperationInput::Upgrade(course),
        OperationKind::Promote => OperationInput::Promote(course),
        OperationKind::Terminate => OperationInput::Terminate,
        OperationKind::Deploy => OperationInput::Deploy(Box::new(Deploy {
            color: Color::Green,
            digest: digest(),
            promote: false,
            hooks: Hooks::Run,
            previous: None,
            rollout: None,
            rolls_back: false,
        })),
        OperationKind::Select => OperationInput::Select(Color::Green),
    };
    OperationState {
        number: 1,
        input,
        pipeline: pipeline(kind).version(),
        epoch: 0,
        owner: None,
        status: Status::Queued,
        position: Position::Forward(0),
        attempts: 0,
        job: 1,
        next_poll_at: None,
        waiting_since: None,
        trouble_since: None,
        reason: None,
        cancel: false,
        locked_color: None,
        member: None,
        steps: pipeline(kind).step_names().map(SlotStep::pending).collect(),
        requested_by: actor(),
        retry_of: None,
        created_at: NOW,
        started_at: None,
    }
}

fn site(operation: OperationState) -> Site {
    Site {
        id: SiteId::parse("shop").expect("a site id"),
        uid: Uid::from_parts(1, 1),
        name: SiteName::parse("Shop").expect("a name"),
        theme: Theme::parse("plain").expect("a theme"),
        hostnames: Hostnames::parse(&["shop.example"], "shop.example").expect("a hostname"),
        service: Color::Blue,
        route: None,
        phase: Phase::New,
        operation: Some(operation),
        claim_token: ClaimToken::default(),
        last_outcome: None,
        activation: Activation::Never,
        created_at: NOW,
        updated_at: NOW,
        version: 0,
    }
}

impl Machine for World {
    fn key(&self) -> String {
        let place = match &self.parent {
            OperationParent::Site(_) => word(self.life()),
            OperationParent::Colour(_) => "colour",
            OperationParent::Fleet(_) => "fleet",
        };
        let phase = phase(self.life());
        let operation = self.operation().map(|operation| {
            let OperationState { status, position, attempts, cancel, .. } = operation;
            let (owner, next_poll_at, reason) =
                (operation.owner.is_some(), operation.next_poll_at.is_some(), operation.reason.is_some());
            let waited = (operation.waiting_since.is_some(), operation.trouble_since.is_some());
            let code = operation.reason.as_ref().map(|reason| reason.code);
            let trouble = code.filter(|_| waited.1);
            let flags = (cancel, owner, next_poll_at, waited, reason, self.touched, trouble);
            format!("{} {status} {position:?} attempt {attempts} {flags:?}", operation.input.kind())
        });
        format!("{place} {phase:?} {operation:?} {:?} {}", self.last, self.left)
    }

    fn events(&self) -> Vec<(By, String, Step<Self>)> {
        let mut events: Vec<(By, String, Step<Self>)> = OperationKind::ALL
            .iter()
            .map(|kind| (By::Person, format!("ask to {kind}"), self.begin(*kind)))
            .collect();
        let Some(operation) = self.operation() else { return events };
        let pipeline = pipeline(operation.input.kind());
        events.push((By::Person, "ask to cancel".to_owned(), self.cancel(pipeline, operation)));
        events.push((By::Person, "retry".to_owned(), self.on(operation, Event::Retry, plan::retry)));
        let claim = self.on(operation, Event::Claim, |operation| {
            let epoch = operation.epoch;
            plan::claim(operation, &worker(), NOW)?;
            assert!(operation.epoch > epoch, "a claim under the same fence");
            Ok(())
        });
        events.push((By::Itself, "claim".to_owned(), claim));
        let next_poll_at = self.on(operation, Event::Wake, plan::wake);
        events.push((By::Itself, "wake".to_owned(), next_poll_at));
        if let Status::Running | Status::Waiting = operation.status {
            events.extend(self.turns(pipeline, operation));
        }
        events
    }

    fn sound(&self) -> Result<(), String> {
        if self.left {
            return Err("it ended, and what it may have done is not undone".to_owned());
        }
        let Some(operation) = self.operation() else { return Ok(()) };
        let parked = operation.status == Status::Parked;
        let silent = operation.reason.is_none();
        if parked && (operation.owner.is_some() || operation.next_poll_at.is_some() || silent) {
            return Err("parked, with an owner or without a reason".to_owned());
        }
        if operation.status == Status::Waiting && silent && !operation.cancel {
            return Err("it waits silently".to_owned());
        }
        if let Status::Ended(_) = operation.status {
            return Err("ended, and still in its place".to_owned());
        }
        if parked && pipeline(operation.input.kind()).lock(operation).is_some() {
            return Err("what is parked holds a colour".to_owned());
        }
        Ok(())
    }

    fn rests(&self) -> bool {
        self.operation().is_none_or(|operation| operation.status.rests())
    }

    fn ended(&self) -> bool {
        self.operation().is_none()
    }
}

pub(crate) fn digest() -> Digest {
    Digest::parse(&"a".repeat(64)).expect("a digest")
}

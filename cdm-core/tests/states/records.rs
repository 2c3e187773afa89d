//! A record with its operation, and the transitions by the manager, the engine and time.

use std::sync::LazyLock;
use std::time::Duration;

use cdm_core::domain::lifecycle::{Event as LifeEvent, Life};
use cdm_core::domain::operation::{
    Deploy, Event, Hooks, IllegalEvent, Move, Position, Step as OperationStep,
};
use cdm_core::domain::site::Activation;
use cdm_core::domain::{
    ClaimToken, Color, Digest, Epoch, Hostnames, OperationInput, OperationKind, OperationState, Phase,
    ReasonCode, Site, SiteId, SiteName, State, Status, TerminalStatus, Theme, Uid,
};
use cdm_core::engine::plan::{self, Next, WaitLimits};
use cdm_core::engine::{Pipeline, Registry, StepError, StepOutput};
use cdm_core::pipelines::{PipelineSettings, registry};
use cdm_core::ports::{ErrorKind, PortError};

use crate::search::{StateMachine, Step, Trigger, named};
use crate::{LONG, NOW, actor, worker};

/// Maximum number of attempts of a step in the search; the counter saturates one above.
const ATTEMPTS: u32 = 2;

/// A record with its operation.
#[derive(Clone)]
enum OperationParent {
    Site(Option<Box<Site>>),
    Service(Option<Box<OperationState>>),
    Fleet(Option<Box<OperationState>>),
}

/// A record, its operation, and the effects of the operation.
#[derive(Clone)]
pub(crate) struct RecordState {
    parent: OperationParent,
    /// Whether a forward attempt was made, so that there may be an effect to undo.
    touched: bool,
    /// The terminal status of the last operation.
    last: Option<TerminalStatus>,
    /// Whether the last operation ended while moving forward, without undoing its possible effects.
    effects_left: bool,
}

impl RecordState {
    pub(crate) fn site() -> Self {
        Self { parent: OperationParent::Site(None), touched: false, last: None, effects_left: false }
    }

    pub(crate) fn service() -> Self {
        Self { parent: OperationParent::Service(None), touched: false, last: None, effects_left: false }
    }

    pub(crate) fn fleet() -> Self {
        Self { parent: OperationParent::Fleet(None), touched: false, last: None, effects_left: false }
    }

    pub(crate) fn life(&self) -> Life {
        match &self.parent {
            OperationParent::Site(Some(site)) => site.life(),
            OperationParent::Site(None) | OperationParent::Service(_) | OperationParent::Fleet(_) => {
                Life::Absent
            }
        }
    }

    fn operation(&self) -> Option<&OperationState> {
        match &self.parent {
            OperationParent::Site(site) => site.as_ref().and_then(|site| site.operation.as_ref()),
            OperationParent::Service(operation) | OperationParent::Fleet(operation) => operation.as_deref(),
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

    /// Returns the state with `operation` as its operation, with counters reduced to what the search distinguishes.
    fn with(&self, mut operation: OperationState) -> Self {
        operation.attempts = operation.attempts.min(ATTEMPTS + 1);
        operation.epoch = Epoch(1);
        operation.job = 1;
        let mut next = Self { last: None, effects_left: false, ..self.clone() };
        match &mut next.parent {
            OperationParent::Site(Some(site)) => site.operation = Some(operation),
            OperationParent::Site(None) => unreachable!("an operation on no site"),
            OperationParent::Service(slot) | OperationParent::Fleet(slot) => {
                *slot = Some(Box::new(operation))
            }
        }
        next
    }

    /// Stores the operation; an operation that has ended is removed in the same write.
    fn store(&self, pipeline: &Pipeline, operation: OperationState) -> Step<Self> {
        let Next::Finish(end) = plan::next(&operation, pipeline, ATTEMPTS, NOW) else {
            return Step::To(self.with(operation));
        };
        if let Err(illegal) = Status::Running.next(Event::Finish(end)) {
            return Step::Wrong(illegal.to_string());
        }
        let undoes = pipeline.undo().count() > 0 || !pipeline.is_cancelable(0);
        let out = matches!(operation.position, Position::Forward(_)) && end != TerminalStatus::Succeeded;
        let effects_left = out && undoes && self.touched;
        let mut next = Self { touched: false, last: Some(end), effects_left, ..self.with(operation) };
        match &mut next.parent {
            OperationParent::Site(slot) => {
                let Some(site) = slot.take() else {
                    return Step::Wrong("an operation on no site".to_owned());
                };
                let life = site.life();
                match site.end(end, NOW) {
                    Ok(site) => *slot = site.map(Box::new),
                    Err(illegal) => {
                        let (state, event) = (life_name(life), LifeEvent::End(end).to_string());
                        return named(&illegal, state, &event);
                    }
                }
            }
            OperationParent::Service(slot) | OperationParent::Fleet(slot) => *slot = None,
        }
        Step::To(next)
    }

    /// Requests an operation of `kind`, as the manager does.
    fn begin(&self, kind: OperationKind) -> Step<Self> {
        let parked = self.operation().is_some_and(|operation| operation.status == Status::Parked);
        let operation = queued(kind);
        let mut next = Self { touched: false, last: None, effects_left: false, ..self.clone() };
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
            // These kinds have no table; the manager checks the current operation.
            OperationParent::Service(slot) if kind == OperationKind::Deploy && (slot.is_none() || parked) => {
                next.last = parked.then_some(TerminalStatus::Cancelled);
                *slot = Some(Box::new(operation));
            }
            OperationParent::Fleet(slot @ None) if kind == OperationKind::Select => {
                *slot = Some(Box::new(operation))
            }
            OperationParent::Service(_) | OperationParent::Fleet(_) => return Step::Refused,
        }
        if let (true, Some(operation)) = (next.last.is_some(), self.operation())
            && operation.status.next(Event::Displace) != Ok(Status::Ended(TerminalStatus::Cancelled))
        {
            return Step::Wrong("a displaced operation has not ended".to_owned());
        }
        Step::To(next)
    }

    /// Requests a cancel, as the manager does.
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

    /// Returns the transition that the status table defines for `event`, and applies `act` if the event is legal. If
    /// it is not, `act` must not change the operation.
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
            Ok(_) => Step::Wrong("a legal event is rejected".to_owned()),
            Err(illegal) if next == *operation && took == Err(illegal) => {
                named(&illegal, operation.status.as_str(), event.as_str())
            }
            Err(illegal) => Step::Wrong(format!("{illegal}, and the operation changed")),
        }
    }

    /// Returns the possible results of one turn of the loop that runs operations.
    fn loop_results(
        &self,
        pipeline: &Pipeline,
        operation: &OperationState,
    ) -> Vec<(Trigger, String, Step<Self>)> {
        let mut loop_results = Vec::new();
        let mut result =
            |event: &str, step: Step<Self>| loop_results.push((Trigger::System, event.to_owned(), step));
        let mut next = operation.clone();
        match plan::next(operation, pipeline, ATTEMPTS, NOW) {
            Next::Ignore | Next::Sleep => {}
            Next::Finish(_) => result("rest", self.store(pipeline, next)),
            Next::BeginUndo => {
                let turned = plan::begin_undo(&mut next, TerminalStatus::Cancelled, NOW);
                let step = if let Err(illegal) = turned {
                    Step::Wrong(illegal.to_string())
                } else if next.epoch == operation.epoch {
                    Step::Wrong("the undo began under the same fence".to_owned())
                } else {
                    self.store(pipeline, next)
                };
                result("turn", step);
            }
            Next::GiveUp => {
                let gave_up = plan::give_up(&mut next, ATTEMPTS, NOW);
                result("give up", legal(gave_up, || self.store(pipeline, next)));
            }
            Next::Attempt if operation.status == Status::Waiting => {
                result("attempt", Step::Wrong("the operation does not wait".to_owned()));
            }
            Next::Attempt => {
                let handed_over = plan::hand_over(&mut next);
                result("hand over", legal(handed_over, || self.store(pipeline, next)));
                if operation.attempts == 0 {
                    result("attempt", Step::Wrong("an attempt that was not counted".to_owned()));
                }
                let forward = operation.forward().is_some();
                let world = Self { touched: self.touched || forward, ..self.clone() };
                let mut next = operation.clone();
                let done = plan::complete_step(&mut next, pipeline, &StepOutput::default(), NOW);
                result("done", legal(done, || world.store(pipeline, next)));
                for (event, stop, waits) in step_errors() {
                    let mut next = operation.clone();
                    let stopped = plan::record_error(&mut next, &stop, &waits, NOW);
                    if matches!(&stop, StepError::Retry(error) if error.kind != ErrorKind::Conflict)
                        && next.attempts > operation.attempts
                    {
                        result(event, Step::Wrong("a wait for a backend counts as an attempt".to_owned()));
                    }
                    result(event, legal(stopped, || world.store(pipeline, next)));
                }
                // The worker dies after an effect and before the effect is stored.
                result("crash", Step::To(world.with(operation.clone())));
            }
        }
        loop_results
    }
}

/// Returns the result of a legal transition; a rejection is an error.
fn legal(
    transition_result: Result<(), IllegalEvent>,
    then: impl FnOnce() -> Step<RecordState>,
) -> Step<RecordState> {
    match transition_result {
        Ok(()) => then(),
        Err(illegal) => Step::Wrong(illegal.to_string()),
    }
}

/// Returns every error of a step, and how long the step may wait.
fn step_errors() -> [(&'static str, StepError, WaitLimits); 11] {
    let long = WaitLimits { pause: LONG, unavailable: 2 * LONG, denied: 2 * LONG };
    let short = WaitLimits { unavailable: Duration::ZERO, denied: Duration::ZERO, ..long };
    let retry_error = |kind| StepError::Retry(PortError::new("cluster", kind, "no response"));
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
        ("away", retry_error(ErrorKind::Unavailable), long),
        ("away too long", retry_error(ErrorKind::Unavailable), short),
        ("throttled", retry_error(ErrorKind::Throttled(None)), long),
        ("denied", retry_error(ErrorKind::Denied), long),
        ("denied too long", retry_error(ErrorKind::Denied), short),
        ("conflict", retry_error(ErrorKind::Conflict), long),
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

pub(crate) fn life_name(life: Life) -> &'static str {
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
        pipeline: pipeline(kind).version,
        epoch: Epoch(0),
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
        steps: pipeline(kind).step_names().map(OperationStep::pending).collect(),
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

impl StateMachine for RecordState {
    fn key(&self) -> String {
        let slot = match &self.parent {
            OperationParent::Site(_) => life_name(self.life()),
            OperationParent::Service(_) => "service",
            OperationParent::Fleet(_) => "fleet",
        };
        let phase = phase(self.life());
        let operation = self.operation().map(|operation| {
            let OperationState { status, position, attempts, cancel, .. } = operation;
            let (owner, next_poll_at, reason) =
                (operation.owner.is_some(), operation.next_poll_at.is_some(), operation.reason.is_some());
            let waited = (operation.waiting_since.is_some(), operation.trouble_since.is_some());
            let code = operation.reason.as_ref().map(|reason| reason.code);
            let unavailable = code.filter(|_| waited.1);
            let flags = (cancel, owner, next_poll_at, waited, reason, self.touched, unavailable);
            format!("{} {status} {position:?} attempt {attempts} {flags:?}", operation.input.kind())
        });
        format!("{slot} {phase:?} {operation:?} {:?} {}", self.last, self.effects_left)
    }

    fn events(&self) -> Vec<(Trigger, String, Step<Self>)> {
        let mut events: Vec<(Trigger, String, Step<Self>)> = OperationKind::ALL
            .iter()
            .map(|kind| (Trigger::User, format!("ask to {kind}"), self.begin(*kind)))
            .collect();
        let Some(operation) = self.operation() else { return events };
        let pipeline = pipeline(operation.input.kind());
        events.push((Trigger::User, "ask to cancel".to_owned(), self.cancel(pipeline, operation)));
        events.push((Trigger::User, "retry".to_owned(), self.on(operation, Event::Retry, plan::retry)));
        let claim = self.on(operation, Event::Claim, |operation| {
            let epoch = operation.epoch;
            plan::claim(operation, &worker(), NOW)?;
            assert!(operation.epoch > epoch, "a claim under the same fence");
            Ok(())
        });
        events.push((Trigger::System, "claim".to_owned(), claim));
        let next_poll_at = self.on(operation, Event::Wake, plan::wake);
        events.push((Trigger::System, "wake".to_owned(), next_poll_at));
        if let Status::Running | Status::Waiting = operation.status {
            events.extend(self.loop_results(pipeline, operation));
        }
        events
    }

    fn check_invariants(&self) -> Result<(), String> {
        if self.effects_left {
            return Err("the operation ended, and its possible effects are not undone".to_owned());
        }
        let Some(operation) = self.operation() else { return Ok(()) };
        let parked = operation.status == Status::Parked;
        let silent = operation.reason.is_none();
        if parked && (operation.owner.is_some() || operation.next_poll_at.is_some() || silent) {
            return Err("parked, with an owner or without a reason".to_owned());
        }
        if operation.status == Status::Waiting && silent && !operation.cancel {
            return Err("the operation waits without a reason".to_owned());
        }
        if let Status::Ended(_) = operation.status {
            return Err("the operation has ended and is still in its record".to_owned());
        }
        if parked && pipeline(operation.input.kind()).lock(operation).is_some() {
            return Err("a parked operation holds a service lock".to_owned());
        }
        Ok(())
    }

    fn rests(&self) -> bool {
        self.operation().is_none_or(|operation| operation.status.is_settled())
    }

    fn ended(&self) -> bool {
        self.operation().is_none()
    }
}

pub(crate) fn digest() -> Digest {
    Digest::parse(&"a".repeat(64)).expect("a digest")
}

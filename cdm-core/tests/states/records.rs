//! A record with the operation in it, as the services, the engine and time change it.

use std::sync::LazyLock;
use std::time::Duration;

use cdm_core::domain::lifecycle::{Event as LifeEvent, Life};
use cdm_core::domain::operation::{Deploy, Event, Hooks, IllegalEvent, Move, Position, Step as SlotStep};
use cdm_core::domain::site::Activation;
use cdm_core::domain::{
    Code, Digest, End, Grant, Hostnames, Kind, Phase, Selector, Site, SiteId, SiteName, Slot, State, Status,
    Task, Theme, Uid,
};
use cdm_core::engine::plan::{self, Next, Waits};
use cdm_core::engine::{Done, Pipeline, Registry, Stop};
use cdm_core::pipelines::{Platform, registry};
use cdm_core::ports::{ErrorKind, PortError};

use crate::search::{By, Machine, Step, named};
use crate::{LONG, NOW, actor, worker};

/// How often a step is begun here; the counter saturates one above.
const ATTEMPTS: u32 = 2;

/// A record with the operation in it.
#[derive(Clone)]
enum Home {
    Site(Option<Box<Site>>),
    Colour(Option<Box<Slot>>),
    Fleet(Option<Box<Slot>>),
}

/// A record, its operation, and what the operation has done.
#[derive(Clone)]
pub(crate) struct World {
    home: Home,
    /// Whether an attempt was made on the way out, so that there may be something to undo.
    touched: bool,
    /// How the last operation ended.
    last: Option<End>,
    /// Whether the last operation ended on its way out, without undoing what it may have done.
    left: bool,
}

impl World {
    pub(crate) fn site() -> Self {
        Self { home: Home::Site(None), touched: false, last: None, left: false }
    }

    pub(crate) fn colour() -> Self {
        Self { home: Home::Colour(None), touched: false, last: None, left: false }
    }

    pub(crate) fn fleet() -> Self {
        Self { home: Home::Fleet(None), touched: false, last: None, left: false }
    }

    pub(crate) fn life(&self) -> Life {
        match &self.home {
            Home::Site(Some(site)) => site.life(),
            Home::Site(None) | Home::Colour(_) | Home::Fleet(_) => Life::Absent,
        }
    }

    fn slot(&self) -> Option<&Slot> {
        match &self.home {
            Home::Site(site) => site.as_ref().and_then(|site| site.slot.as_ref()),
            Home::Colour(slot) | Home::Fleet(slot) => slot.as_deref(),
        }
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        self.slot().map(|slot| slot.task.kind())
    }

    pub(crate) fn statuses(&self) -> Vec<Status> {
        self.slot().map(|slot| slot.status).into_iter().chain(self.last.map(Status::Ended)).collect()
    }

    /// The world with `slot` in its place, counted no further than the search tells apart.
    fn with(&self, mut slot: Slot) -> Self {
        slot.attempts = slot.attempts.min(ATTEMPTS + 1);
        slot.epoch = 1;
        slot.job = 1;
        let mut next = Self { last: None, left: false, ..self.clone() };
        match &mut next.home {
            Home::Site(Some(site)) => site.slot = Some(slot),
            Home::Site(None) => unreachable!("an operation on no site"),
            Home::Colour(place) | Home::Fleet(place) => *place = Some(Box::new(slot)),
        }
        next
    }

    /// Stores what became of the operation; one that has come to its end is taken out in the same write.
    fn store(&self, pipeline: &dyn Pipeline, slot: Slot) -> Step<Self> {
        let Next::Rest(end) = plan::next(&slot, pipeline, ATTEMPTS, NOW) else {
            return Step::To(self.with(slot));
        };
        if let Err(illegal) = Status::Running.next(Event::Finish(end)) {
            return Step::Wrong(illegal.to_string());
        }
        let undoes = !pipeline.undo().is_empty() || !pipeline.cancellable(0);
        let out = matches!(slot.position, Position::Forward(_)) && end != End::Succeeded;
        let left = out && undoes && self.touched;
        let mut next = Self { touched: false, last: Some(end), left, ..self.with(slot) };
        match &mut next.home {
            Home::Site(place) => {
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
            Home::Colour(place) | Home::Fleet(place) => *place = None,
        }
        Step::To(next)
    }

    /// A request for an operation of `kind`, as the services decide it.
    fn begin(&self, kind: Kind) -> Step<Self> {
        let parked = self.slot().is_some_and(|slot| slot.status == Status::Parked);
        let slot = queued(kind);
        let mut next = Self { touched: false, last: None, left: false, ..self.clone() };
        match &mut next.home {
            Home::Site(None) => match Life::Absent.next(LifeEvent::Begin(kind)) {
                Ok(_) => next.home = Home::Site(Some(Box::new(site(slot)))),
                Err(illegal) => return named(&illegal, "absent", &LifeEvent::Begin(kind).to_string()),
            },
            Home::Site(Some(site)) => {
                let displaces = parked && kind == Kind::Terminate;
                let event = if displaces { LifeEvent::Displace } else { LifeEvent::Begin(kind) };
                let state = site.state().as_str();
                if let Err(illegal) = site.begin(slot, NOW) {
                    return named(&illegal, state, &event.to_string());
                }
                if displaces {
                    next.last = Some(End::Cancelled);
                } else if self.slot().is_some() {
                    return Step::Wrong("two operations on one site".to_owned());
                }
            }
            // These have no table of their own: the services look at the slot.
            Home::Colour(place) if kind == Kind::Deploy && (place.is_none() || parked) => {
                next.last = parked.then_some(End::Cancelled);
                *place = Some(Box::new(slot));
            }
            Home::Fleet(place @ None) if kind == Kind::Select => *place = Some(Box::new(slot)),
            Home::Colour(_) | Home::Fleet(_) => return Step::Refused,
        }
        if let (true, Some(slot)) = (next.last.is_some(), self.slot())
            && slot.status.next(Event::Displace) != Ok(Status::Ended(End::Cancelled))
        {
            return Step::Wrong("what is displaced has not ended".to_owned());
        }
        Step::To(next)
    }

    /// A request to cancel, as the services decide it.
    fn cancel(&self, pipeline: &dyn Pipeline, slot: &Slot) -> Step<Self> {
        let begun = slot.attempts > 0 || slot.position != Position::Forward(0);
        let too_far = slot.forward().is_some_and(|step| begun && !pipeline.cancellable(step));
        let nowhere =
            matches!(self.home, Home::Site(_)) && self.life().next(LifeEvent::End(End::Cancelled)).is_err();
        if too_far || nowhere {
            return Step::Refused;
        }
        let mut next = slot.clone();
        match slot.status.next(Event::Cancel) {
            Ok(status) => next.status = status,
            Err(illegal) => return named(&illegal, slot.status.as_str(), Event::Cancel.as_str()),
        }
        next.cancel = true;
        next.reason = None;
        Step::To(self.with(next))
    }

    /// What the table of statuses has to say of `event`, and what `act` makes of the slot where it is legal. Where it
    /// is not, `act` leaves the slot alone.
    fn on(
        &self,
        slot: &Slot,
        event: Event,
        act: impl Fn(&mut Slot) -> Result<(), IllegalEvent>,
    ) -> Step<Self> {
        let mut next = slot.clone();
        let took = act(&mut next);
        match slot.status.next(event) {
            Ok(_) if took.is_ok() => Step::To(self.with(next)),
            Ok(_) => Step::Wrong("a legal event is refused".to_owned()),
            Err(illegal) if next == *slot && took == Err(illegal) => {
                named(&illegal, slot.status.as_str(), event.as_str())
            }
            Err(illegal) => Step::Wrong(format!("{illegal}, and it took it")),
        }
    }

    /// What can come of one turn of the loop that runs operations.
    fn turns(&self, pipeline: &dyn Pipeline, slot: &Slot) -> Vec<(By, String, Step<Self>)> {
        let mut turns = Vec::new();
        let mut turn = |event: &str, step: Step<Self>| turns.push((By::Itself, event.to_owned(), step));
        let mut next = slot.clone();
        match plan::next(slot, pipeline, ATTEMPTS, NOW) {
            Next::Leave | Next::Sleep => {}
            Next::Rest(_) => turn("rest", self.store(pipeline, next)),
            Next::Turn => {
                let turned = plan::turn(&mut next, End::Cancelled, NOW);
                let step = if let Err(illegal) = turned {
                    Step::Wrong(illegal.to_string())
                } else if next.epoch == slot.epoch {
                    Step::Wrong("it turned round under the same fence".to_owned())
                } else {
                    self.store(pipeline, next)
                };
                turn("turn", step);
            }
            Next::GiveUp => {
                let gave_up = plan::give_up(&mut next, ATTEMPTS, NOW);
                turn("give up", legal(gave_up, || self.store(pipeline, next)));
            }
            Next::Attempt if slot.status == Status::Waiting => {
                turn("attempt", Step::Wrong("it does not wait".to_owned()));
            }
            Next::Attempt => {
                let given = plan::hand_over(&mut next);
                turn("hand over", legal(given, || self.store(pipeline, next)));
                if slot.attempts == 0 {
                    turn("attempt", Step::Wrong("an attempt that was not counted".to_owned()));
                }
                let forward = slot.forward().is_some();
                let world = Self { touched: self.touched || forward, ..self.clone() };
                let mut next = slot.clone();
                let done = plan::done(&mut next, pipeline, &Done::default(), NOW);
                turn("done", legal(done, || world.store(pipeline, next)));
                for (event, stop, waits) in stops() {
                    let mut next = slot.clone();
                    let stopped = plan::stopped(&mut next, &stop, &waits, NOW);
                    if matches!(&stop, Stop::Again(error) if error.kind != ErrorKind::Conflict)
                        && next.attempts > slot.attempts
                    {
                        turn(event, Step::Wrong("a wait for a backend counts as an attempt".to_owned()));
                    }
                    turn(event, legal(stopped, || world.store(pipeline, next)));
                }
                // The worker is lost with an effect made, and nothing stored of it.
                turn("crash", Step::To(world.with(slot.clone())));
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
fn stops() -> [(&'static str, Stop, Waits); 11] {
    let long = Waits { pause: LONG, away: 2 * LONG, denied: 2 * LONG };
    let short = Waits { away: Duration::ZERO, denied: Duration::ZERO, ..long };
    let again = |kind| Stop::Again(PortError::new("cluster", kind, "no answer"));
    let wait = |patience| Stop::Wait {
        code: Code::JobRunning,
        message: "it runs".to_owned(),
        patience,
        again: Duration::from_secs(5),
        changes: Vec::new(),
    };
    [
        ("note", Stop::Note(Vec::new()), long),
        ("wait", wait(LONG), long),
        ("wait too long", wait(Duration::ZERO), long),
        ("away", again(ErrorKind::Unavailable), long),
        ("away too long", again(ErrorKind::Unavailable), short),
        ("throttled", again(ErrorKind::Throttled(None)), long),
        ("denied", again(ErrorKind::Denied), long),
        ("denied too long", again(ErrorKind::Denied), short),
        ("conflict", again(ErrorKind::Conflict), long),
        ("park", Stop::Park(Code::Invalid, "it is wrong".to_owned()), long),
        ("fail", Stop::Fail(Code::ImageNotReady, "it cannot".to_owned(), Vec::new()), long),
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

fn pipeline(kind: Kind) -> &'static dyn Pipeline {
    static PIPELINES: LazyLock<Registry> = LazyLock::new(|| registry(&Platform::default()));
    PIPELINES.newest(kind).expect("each kind has a pipeline")
}

fn queued(kind: Kind) -> Slot {
    let course = Move { from: Selector::Blue, to: Selector::Green, routed: Selector::Blue };
    let task = match kind {
        Kind::Create => Task::Create,
        Kind::Provision => Task::Provision(Selector::Blue),
        Kind::Upgrade => Task::Upgrade(course),
        Kind::Promote => Task::Promote(course),
        Kind::Terminate => Task::Terminate,
        Kind::Deploy => Task::Deploy(Box::new(Deploy {
            selector: Selector::Green,
            digest: digest(),
            promote: false,
            hooks: Hooks::Run,
            previous: None,
            rollout: None,
            rolls_back: false,
        })),
        Kind::Select => Task::Select(Selector::Green),
    };
    Slot {
        number: 1,
        task,
        pipeline: pipeline(kind).version(),
        epoch: 0,
        owner: None,
        status: Status::Queued,
        position: Position::Forward(0),
        attempts: 0,
        job: 1,
        wake: None,
        waiting_since: None,
        trouble_since: None,
        reason: None,
        cancel: false,
        holds: None,
        member: None,
        steps: pipeline(kind).steps().iter().map(|name| SlotStep::pending(name)).collect(),
        requested_by: actor(),
        retry_of: None,
        created_at: NOW,
        started_at: None,
    }
}

fn site(slot: Slot) -> Site {
    Site {
        id: SiteId::parse("shop").expect("a site id"),
        uid: Uid::from_parts(1, 1),
        name: SiteName::parse("Shop").expect("a name"),
        theme: Theme::parse("plain").expect("a theme"),
        hostnames: Hostnames::parse(&["shop.example"], "shop.example").expect("a hostname"),
        service: Selector::Blue,
        route: None,
        phase: Phase::New,
        slot: Some(slot),
        grant: Grant::default(),
        settled: None,
        activation: Activation::Never,
        created_at: NOW,
        updated_at: NOW,
        version: 0,
    }
}

impl Machine for World {
    fn key(&self) -> String {
        let place = match &self.home {
            Home::Site(_) => word(self.life()),
            Home::Colour(_) => "colour",
            Home::Fleet(_) => "fleet",
        };
        let phase = phase(self.life());
        let slot = self.slot().map(|slot| {
            let Slot { status, position, attempts, cancel, .. } = slot;
            let (owner, wake, reason) = (slot.owner.is_some(), slot.wake.is_some(), slot.reason.is_some());
            let waited = (slot.waiting_since.is_some(), slot.trouble_since.is_some());
            let code = slot.reason.as_ref().map(|reason| reason.code);
            let trouble = code.filter(|_| waited.1);
            let flags = (cancel, owner, wake, waited, reason, self.touched, trouble);
            format!("{} {status} {position:?} attempt {attempts} {flags:?}", slot.task.kind())
        });
        format!("{place} {phase:?} {slot:?} {:?} {}", self.last, self.left)
    }

    fn events(&self) -> Vec<(By, String, Step<Self>)> {
        let mut events: Vec<(By, String, Step<Self>)> =
            Kind::ALL.iter().map(|kind| (By::Person, format!("ask to {kind}"), self.begin(*kind))).collect();
        let Some(slot) = self.slot() else { return events };
        let pipeline = pipeline(slot.task.kind());
        events.push((By::Person, "ask to cancel".to_owned(), self.cancel(pipeline, slot)));
        events.push((By::Person, "retry".to_owned(), self.on(slot, Event::Retry, plan::retry)));
        let claim = self.on(slot, Event::Claim, |slot| {
            let epoch = slot.epoch;
            plan::claim(slot, &worker(), NOW)?;
            assert!(slot.epoch > epoch, "a claim under the same fence");
            Ok(())
        });
        events.push((By::Itself, "claim".to_owned(), claim));
        let wake = self.on(slot, Event::Wake, plan::wake);
        events.push((By::Itself, "wake".to_owned(), wake));
        if let Status::Running | Status::Waiting = slot.status {
            events.extend(self.turns(pipeline, slot));
        }
        events
    }

    fn sound(&self) -> Result<(), String> {
        if self.left {
            return Err("it ended, and what it may have done is not undone".to_owned());
        }
        let Some(slot) = self.slot() else { return Ok(()) };
        let parked = slot.status == Status::Parked;
        let silent = slot.reason.is_none();
        if parked && (slot.owner.is_some() || slot.wake.is_some() || silent) {
            return Err("parked, with an owner or without a reason".to_owned());
        }
        if slot.status == Status::Waiting && silent && !slot.cancel {
            return Err("it waits silently".to_owned());
        }
        if let Status::Ended(_) = slot.status {
            return Err("ended, and still in its place".to_owned());
        }
        if parked && pipeline(slot.task.kind()).hold(slot).is_some() {
            return Err("what is parked holds a colour".to_owned());
        }
        Ok(())
    }

    fn rests(&self) -> bool {
        self.slot().is_none_or(|slot| slot.status.rests())
    }

    fn ended(&self) -> bool {
        self.slot().is_none()
    }
}

pub(crate) fn digest() -> Digest {
    Digest::parse(&"a".repeat(64)).expect("a digest")
}

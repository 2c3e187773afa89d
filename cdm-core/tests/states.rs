//! Every reachable state of the pure machine, by breadth-first search: a site with its operation, a colour and the
//! fleet with theirs, and a rollout.
//!
//! The search calls the functions that the engine and the services call, and knows no transition itself. From every
//! state there is a way to rest, without a person's help; from every parked one there is a way out with it. The counts
//! are pinned, so that a table that gains or loses a row is seen.

mod campaign;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::Duration;

use campaign::Campaign;
use cdm_core::domain::lifecycle::{Event as LifeEvent, Life};
use cdm_core::domain::operation::{Deploy, Event, Hooks, Move, Position, Step as SlotStep};
use cdm_core::domain::rollout::{Budget, Outcome, Reach, RolloutEvent, RolloutMember, Tally, Window};
use cdm_core::domain::{
    Actor, Code, Digest, End, Grant, Hostnames, Kind, Leg, OperationId, Phase, Reason, Rollout, RolloutKind,
    RolloutStatus, Selector, Site, SiteId, SiteName, Slot, State, Status, Subject, Task, Theme, Timestamp,
    Uid, WorkerId,
};
use cdm_core::engine::plan::{self, Next};
use cdm_core::engine::{Done, Pipeline, Registry, Stop};
use cdm_core::pipelines::{Draft, Platform, registry};
use cdm_core::ports::{ErrorKind, PortError};

/// Who makes an event happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The engine, or time.
    Itself,
    /// A person.
    Person,
    /// A person who gives up on a rollout.
    Abort,
}

/// A state of a machine. Two with the same key are one.
trait Machine: Sized {
    /// What tells it from others.
    fn key(&self) -> String;
    /// What can happen in it, and what then comes of it.
    fn events(&self) -> Vec<(By, String, Step<Self>)>;
    /// What has to hold in it.
    fn sound(&self) -> Result<(), String>;
    /// Whether nothing happens in it unless a person asks.
    fn rests(&self) -> bool;
    /// Whether there is nothing left to be asked for.
    fn ended(&self) -> bool;
}

/// What comes of an event in a state.
enum Step<S> {
    /// This state.
    To(S),
    /// It is refused, and says so.
    Refused,
    /// Something that must not be.
    Wrong(String),
}

/// What a search has found.
struct Found<S> {
    states: Vec<S>,
    parents: Vec<Option<(usize, String)>>,
    back: Vec<Vec<(usize, By)>>,
    pairs: u64,
    refused: u64,
    wrong: Vec<String>,
}

/// No machine here comes near it; a search that does has lost its bounds.
const MOST: usize = 2_000_000;

impl<S: Machine> Found<S> {
    fn search(starts: Vec<S>) -> Self {
        let mut found = Self {
            states: Vec::new(),
            parents: Vec::new(),
            back: Vec::new(),
            pairs: 0,
            refused: 0,
            wrong: Vec::new(),
        };
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut queue = VecDeque::new();
        for start in starts {
            found.reach(start, None, &mut known, &mut queue);
        }
        while let Some(at) = queue.pop_front() {
            assert!(found.states.len() < MOST, "the search has no end");
            for (by, event, step) in found.states[at].events() {
                found.pairs += 1;
                match step {
                    Step::Refused => found.refused += 1,
                    Step::Wrong(why) => {
                        let path = found.path(at);
                        found.wrong.push(format!("{why}: {path} > {event}"));
                    }
                    Step::To(state) => {
                        if let Err(why) = state.sound() {
                            let path = found.path(at);
                            found.wrong.push(format!("{why}: {path} > {event} > [{}]", state.key()));
                        }
                        let to = found.reach(state, Some((at, event)), &mut known, &mut queue);
                        found.back[to].push((at, by));
                    }
                }
            }
        }
        found
    }

    fn reach(
        &mut self,
        state: S,
        parent: Option<(usize, String)>,
        known: &mut HashMap<String, usize>,
        queue: &mut VecDeque<usize>,
    ) -> usize {
        *known.entry(state.key()).or_insert_with(|| {
            self.states.push(state);
            self.parents.push(parent);
            self.back.push(Vec::new());
            queue.push_back(self.states.len() - 1);
            self.states.len() - 1
        })
    }

    /// The shortest way to a state.
    fn path(&self, at: usize) -> String {
        let mut events = Vec::new();
        let mut here = at;
        while let Some((before, event)) = &self.parents[here] {
            events.push(event.as_str());
            here = *before;
        }
        events.push("");
        events.reverse();
        format!("[{}]{} > [{}]", self.states[here].key(), events.join(" > "), self.states[at].key())
    }

    /// Which states cannot come to one of `goal`, where only `who` may act.
    fn trapped(&self, goal: impl Fn(&S) -> bool, who: &[By]) -> Vec<usize> {
        let mut reaches: Vec<bool> = self.states.iter().map(goal).collect();
        let mut queue: VecDeque<usize> = (0..reaches.len()).filter(|at| reaches[*at]).collect();
        while let Some(at) = queue.pop_front() {
            for (before, by) in &self.back[at] {
                if who.contains(by) && !reaches[*before] {
                    reaches[*before] = true;
                    queue.push_back(*before);
                }
            }
        }
        (0..reaches.len()).filter(|at| !reaches[*at]).collect()
    }

    /// Every state is a run: it fails when no state of `goal` can be reached from it.
    fn judge(&self, campaign: &mut Campaign, what: &str, goal: impl Fn(&S) -> bool, who: &[By]) {
        let trapped: BTreeSet<usize> = self.trapped(goal, who).into_iter().collect();
        for at in 0..self.states.len() {
            let free = !trapped.contains(&at);
            campaign.run(if free { Ok(()) } else { Err(format!("no way to {what}: {}", self.path(at))) });
        }
    }

    fn end(mut self, mut campaign: Campaign, pinned: (usize, u64, u64, usize)) {
        let (rest, ended) = ("a resting state", "an end");
        self.judge(&mut campaign, rest, Machine::rests, &[By::Itself]);
        self.judge(&mut campaign, ended, Machine::ended, &[By::Itself, By::Person, By::Abort]);
        for wrong in self.wrong.drain(..) {
            campaign.run(Err(wrong));
        }
        let resting = self.states.iter().filter(|state| state.rests()).count();
        let counted = (self.states.len(), self.pairs, self.refused, resting);
        if counted != pinned {
            campaign.run(Err(format!("(states, pairs, refused, resting) are {counted:?}, not {pinned:?}")));
        }
        let (states, pairs, refused, resting) = counted;
        campaign
            .end(&format!("{states} states, {pairs} pairs, {refused} of them refused, {resting} resting"));
    }
}

/// Fails when one of `all` is not among `reached`.
fn all_reached<T: PartialEq + std::fmt::Debug>(campaign: &mut Campaign, all: &[T], reached: &[T]) {
    for one in all {
        let there = reached.contains(one);
        campaign.run(if there { Ok(()) } else { Err(format!("{one:?} is not reached")) });
    }
}

const STATUSES: [Status; 7] = [
    Status::Queued,
    Status::Running,
    Status::Waiting,
    Status::Parked,
    Status::Ended(End::Succeeded),
    Status::Ended(End::Failed),
    Status::Ended(End::Cancelled),
];

/// States, pairs, refused pairs, resting states.
const SITE: (usize, u64, u64, usize) = (1690, 21_585, 14_952, 251);
const SERVICES: (usize, u64, u64, usize) = (394, 5_012, 3_455, 64);
const ROLLOUT: (usize, u64, u64, usize) = (28_162, 144_298, 42_798, 6_520);

#[test]
fn sites() {
    let found = Found::search(vec![World::site()]);
    let mut campaign = Campaign::new("states");
    let lives: Vec<Life> = found.states.iter().map(World::life).collect();
    let phases: Vec<Phase> = lives.iter().filter_map(|life| phase(*life)).collect();
    let states: Vec<State> = lives.iter().filter_map(|life| life.state()).collect();
    let kinds: Vec<Kind> = found.states.iter().filter_map(World::kind).collect();
    all_reached(&mut campaign, &[Phase::New, Phase::Created, Phase::Active], &phases);
    all_reached(&mut campaign, &State::ALL, &states);
    all_reached(&mut campaign, &Kind::ALL[..5], &kinds);
    let statuses: Vec<Status> = found.states.iter().flat_map(World::statuses).collect();
    all_reached(&mut campaign, &STATUSES, &statuses);
    found.end(campaign, SITE);
}

#[test]
fn services() {
    let found = Found::search(vec![World::colour(), World::fleet()]);
    let mut campaign = Campaign::new("states-services");
    let kinds: Vec<Kind> = found.states.iter().filter_map(World::kind).collect();
    all_reached(&mut campaign, &Kind::ALL[5..], &kinds);
    let statuses: Vec<Status> = found.states.iter().flat_map(World::statuses).collect();
    all_reached(&mut campaign, &STATUSES, &statuses);
    found.end(campaign, SERVICES);
}

#[test]
fn rollouts() {
    let found = Found::search(Moving::all());
    let mut campaign = Campaign::new("states-rollout");
    let statuses: Vec<RolloutStatus> = found.states.iter().map(Moving::status).collect();
    all_reached(&mut campaign, &RolloutStatus::ALL, &statuses);
    found.end(campaign, ROLLOUT);
}

fn phase(life: Life) -> Option<Phase> {
    match life {
        Life::Absent => None,
        Life::Present { phase, .. } => Some(phase),
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const LONG: Duration = Duration::from_secs(900);
/// How often a step is begun here; the counter saturates one above.
const ATTEMPTS: u32 = 2;

fn worker() -> WorkerId {
    WorkerId::new("worker")
}

fn actor() -> Actor {
    Actor::parse("operator").expect("an actor")
}

fn digest() -> Digest {
    Digest::parse(&"a".repeat(64)).expect("a digest")
}

/// A record with the operation in it.
#[derive(Clone)]
enum Home {
    Site(Option<Box<Site>>),
    Colour(Option<Box<Slot>>),
    Fleet(Option<Box<Slot>>),
}

/// A record, its operation, and what the operation has done.
#[derive(Clone)]
struct World {
    home: Home,
    /// Whether an attempt was made on the way out, so that there may be something to undo.
    touched: bool,
    /// How the last operation ended.
    last: Option<End>,
    /// Whether the last operation ended on its way out, without undoing what it may have done.
    left: bool,
}

impl World {
    fn site() -> Self {
        Self { home: Home::Site(None), touched: false, last: None, left: false }
    }

    fn colour() -> Self {
        Self { home: Home::Colour(None), touched: false, last: None, left: false }
    }

    fn fleet() -> Self {
        Self { home: Home::Fleet(None), touched: false, last: None, left: false }
    }

    fn life(&self) -> Life {
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

    fn kind(&self) -> Option<Kind> {
        self.slot().map(|slot| slot.task.kind())
    }

    fn statuses(&self) -> Vec<Status> {
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
    fn on(&self, slot: &Slot, event: Event, act: impl Fn(&mut Slot)) -> Step<Self> {
        let mut next = slot.clone();
        act(&mut next);
        match slot.status.next(event) {
            Ok(_) => Step::To(self.with(next)),
            Err(illegal) if next == *slot => named(&illegal, slot.status.as_str(), event.as_str()),
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
                plan::turn(&mut next, End::Cancelled, NOW);
                let step = if next.epoch == slot.epoch {
                    Step::Wrong("it turned round under the same fence".to_owned())
                } else {
                    self.store(pipeline, next)
                };
                turn("turn", step);
            }
            Next::GiveUp => {
                plan::park(&mut next, Code::AttemptsExhausted, "gave up".to_owned(), NOW);
                turn("give up", self.store(pipeline, next));
            }
            Next::Attempt if slot.status == Status::Waiting => {
                turn("attempt", Step::Wrong("it does not wait".to_owned()));
            }
            Next::Attempt => {
                plan::hand_over(&mut next);
                turn("hand over", self.store(pipeline, next));
                if slot.attempts == 0 {
                    turn("attempt", Step::Wrong("an attempt that was not counted".to_owned()));
                }
                let forward = slot.forward().is_some();
                let world = Self { touched: self.touched || forward, ..self.clone() };
                let mut next = slot.clone();
                plan::done(&mut next, pipeline, &Done::default(), NOW);
                turn("done", world.store(pipeline, next));
                for (event, stop) in stops() {
                    let mut next = slot.clone();
                    plan::stopped(&mut next, &stop, LONG, NOW);
                    turn(event, world.store(pipeline, next));
                }
                // The worker is lost with an effect made, and nothing stored of it.
                turn("crash", Step::To(world.with(slot.clone())));
            }
        }
        turns
    }
}

/// Every way for a step not to be done.
fn stops() -> [(&'static str, Stop); 6] {
    let wait = |patience| Stop::Wait {
        code: Code::JobRunning,
        message: "it runs".to_owned(),
        patience,
        again: Duration::from_secs(5),
        changes: Vec::new(),
    };
    [
        ("note", Stop::Note(Vec::new())),
        ("wait", wait(LONG)),
        ("wait too long", wait(Duration::ZERO)),
        ("again", Stop::Again(PortError::new("cluster", ErrorKind::Unavailable, "no answer"))),
        ("park", Stop::Park(Code::Denied, "it may not".to_owned())),
        ("fail", Stop::Fail(Code::ImageNotReady, "it cannot".to_owned(), Vec::new())),
    ]
}

/// A refusal, which has to name both.
fn named<S>(error: &dyn std::error::Error, state: &str, event: &str) -> Step<S> {
    let text = error.to_string();
    let both = text.contains(&format!(" {state} ")) && text.contains(&format!("`{event}`"));
    if both {
        Step::Refused
    } else {
        Step::Wrong(format!("the refusal of `{event}` in {state} says: {text}"))
    }
}

fn word(life: Life) -> &'static str {
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
            let waited = slot.waiting_since.is_some();
            let flags = (cancel, owner, wake, waited, reason, self.touched);
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
            plan::claim(slot, &worker(), NOW);
            assert!(slot.status != Status::Running || slot.epoch > epoch, "a claim under the same fence");
        });
        events.push((By::Itself, "claim".to_owned(), claim));
        let wake = self.on(slot, Event::Wake, |slot| {
            // What the loop does with what it finds waiting under its own name.
            if slot.status == Status::Waiting {
                slot.status = Status::Running;
                slot.wake = None;
            }
        });
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

/// A rollout, and what its owner has written of its sites.
#[derive(Clone)]
struct Moving {
    rollout: Rollout,
    outcomes: Vec<Option<Outcome>>,
}

/// Why a window is left early, as far as the record shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Early {
    /// Someone asked for something, or the wave is over its budget.
    Stop,
    /// What it needs is not there, or the process wants to end.
    Wait,
}

impl Moving {
    /// Every shape that the search begins with.
    fn all() -> Vec<Self> {
        let single = (3, vec![]);
        let canary = (3, vec![Reach::Count(1), Reach::Percent(100)]);
        let wide = (Window::SIZE + 2, vec![Reach::Count(1), Reach::Percent(100)]);
        let empty = (0, vec![]);
        let mut all = Vec::new();
        for (total, waves) in [empty, single, canary, wide] {
            for kind in [RolloutKind::Promote, RolloutKind::Upgrade, RolloutKind::Flush] {
                for auto_return in [false, true] {
                    for deploys in [false, true] {
                        all.push(Self::new(total, waves.clone(), kind, auto_return, deploys));
                    }
                }
            }
        }
        all
    }

    fn new(total: u32, waves: Vec<Reach>, kind: RolloutKind, auto_return: bool, deploys: bool) -> Self {
        let member = |random| RolloutMember {
            id: SiteId::parse(&format!("s{random}")).expect("a site id"),
            uid: Uid::from_parts(1, random),
            outcome: None,
        };
        let draft = Draft {
            number: 7,
            kind,
            target: Selector::Green,
            digest: Some(digest()),
            members: (0..u128::from(total)).map(member).collect(),
            waves,
            max_concurrent: 64,
            budget: Budget::Count(1),
            auto_return,
            after: deploys.then(|| OperationId::on(6, Subject::Colour(Selector::Green))),
            retry_of: None,
            first_number: 8,
            requested_by: actor(),
            now: NOW,
        };
        let outcomes = vec![None; total as usize];
        Self { rollout: draft.head().expect("a rollout"), outcomes }
    }

    fn status(&self) -> RolloutStatus {
        self.rollout.status
    }

    fn edit(&self, act: impl FnOnce(&mut Rollout)) -> Step<Self> {
        let mut next = self.clone();
        act(&mut next.rollout);
        Step::To(next)
    }

    /// A worker takes it.
    fn claim(&self) -> Step<Self> {
        let mut next = self.clone();
        next.rollout.claim(&worker(), NOW);
        match self.status().next(RolloutEvent::Claim) {
            Ok(_) if next.rollout.term == self.rollout.term => {
                return Step::Wrong("claimed under the same term".to_owned());
            }
            Ok(_) => {}
            Err(illegal) if next.rollout == self.rollout => {
                return named(&illegal, self.status().as_str(), RolloutEvent::Claim.as_str());
            }
            Err(illegal) => return Step::Wrong(format!("{illegal}, and it took it")),
        }
        next.rollout.term = 1;
        if next.rollout.after.is_none() && !next.rollout.open() {
            next.rollout.settle(RolloutEvent::Succeed, None, NOW);
        }
        Step::To(next)
    }

    fn ask(&self, event: RolloutEvent) -> Step<Self> {
        let mut next = self.clone();
        match next.rollout.ask(event, NOW) {
            Ok(()) => Step::To(next),
            Err(illegal) if next.rollout == self.rollout => {
                named(&illegal, self.status().as_str(), event.as_str())
            }
            Err(illegal) => Step::Wrong(format!("{illegal}, and it took it")),
        }
    }

    /// What the owner does while the deploy before it is under way.
    fn deploys(&self) -> Vec<(By, String, Step<Self>)> {
        let step = |event: &str, step| (By::Itself, event.to_owned(), step);
        let succeeded = self.edit(|head| {
            head.after = None;
            if !head.open() {
                head.settle(RolloutEvent::Succeed, None, NOW);
            }
        });
        let failed =
            self.edit(|head| head.settle(RolloutEvent::Fail, Some(reason(Code::ImageNotReady)), NOW));
        let looked = self.edit(|head| match head.control {
            Some(_) => head.proceed(false, NOW),
            None => wait(head, Code::Deploying),
        });
        vec![step("deploy succeeded", succeeded), step("deploy failed", failed), step("look", looked)]
    }

    /// The window's sites that this leg has still to do something to.
    fn todo(&self) -> Vec<u32> {
        let Window { start, end } = self.rollout.window;
        let open = |ordinal: &u32| match (self.rollout.leg, self.outcomes[*ordinal as usize]) {
            (Leg::Out, outcome) => outcome.is_none(),
            (Leg::Back, outcome) => outcome == Some(Outcome::Moved),
        };
        (start..end).filter(open).collect()
    }

    /// Outcomes are written down: of the first sites `bad`, of all others `good`.
    fn count(&self, todo: &[u32], bad: usize, outcomes: (Outcome, Outcome)) -> Step<Self> {
        let mut next = self.clone();
        for (index, ordinal) in todo.iter().enumerate() {
            let outcome = if index < bad { outcomes.0 } else { outcomes.1 };
            let before = next.outcomes[*ordinal as usize].replace(outcome);
            next.rollout.count(*ordinal, before, outcome);
        }
        next.rollout.flushing = !next.flushable().is_empty();
        Step::To(next)
    }

    /// The window's sites whose caches are to be flushed.
    fn flushable(&self) -> Vec<u32> {
        let Window { start, end } = self.rollout.window;
        let there = |ordinal: &u32| match self.outcomes[*ordinal as usize] {
            Some(Outcome::Moved | Outcome::InPlace | Outcome::Returned) => true,
            Some(_) | None => false,
        };
        (start..end).filter(there).collect()
    }

    /// What the owner does to a window.
    fn window(&self) -> Vec<(By, String, Step<Self>)> {
        let mut steps = Vec::new();
        let mut step = |event: String, step| steps.push((By::Itself, event, step));
        let todo = self.todo();
        let (bad, good) = match self.rollout.leg {
            Leg::Out if self.rollout.kind.moves() => (Outcome::Failed, Outcome::Moved),
            Leg::Out => (Outcome::Parked, Outcome::InPlace),
            Leg::Back => (Outcome::Parked, Outcome::Returned),
        };
        if !self.rollout.flushing && !todo.is_empty() {
            for failed in 0..=todo.len().min(2) {
                step(
                    format!("{failed} sites {bad:?}, the rest {good:?}"),
                    self.count(&todo, failed, (bad, good)),
                );
            }
            step("all skipped".to_owned(), self.count(&todo, 0, (bad, Outcome::SkippedBusy)));
            let Window { start, end } = self.rollout.window;
            if todo.len() as u32 == end - start && todo.len() > 1 {
                for failed in 0..2 {
                    step(format!("the first {failed} {bad:?}"), self.count(&todo[..1], failed, (bad, good)));
                }
            }
        }
        let flushable = self.flushable();
        if self.rollout.flushing && !flushable.is_empty() {
            step("flush failed".to_owned(), self.count(&flushable, 0, (bad, Outcome::Parked)));
        }
        // What a lost owner wrote is flushed before the rest of the window is done.
        if todo.is_empty() || self.rollout.flushing {
            step("checkpoint".to_owned(), self.checkpoint(None));
        }
        if self.rollout.control.is_some() || self.rollout.over_budget() {
            step("checkpoint, early".to_owned(), self.checkpoint(Some(Early::Stop)));
        }
        step("checkpoint, not ready".to_owned(), self.checkpoint(Some(Early::Wait)));
        steps
    }

    fn checkpoint(&self, early: Option<Early>) -> Step<Self> {
        let whole = early.is_none() && self.todo().is_empty();
        self.edit(|head| match early {
            Some(Early::Wait) if head.control.is_none() => {
                head.flushing = false;
                wait(head, Code::ServiceNotReady);
            }
            None | Some(_) => {
                head.flushing = false;
                head.proceed(whole, NOW);
                head.job = 1;
            }
        })
    }
}

fn reason(code: Code) -> Reason {
    Reason { code, message: "why".to_owned(), since: NOW, until: None }
}

/// As the owner does: on the way back, the reason for it is kept.
fn wait(head: &mut Rollout, code: Code) {
    let kept = head.reason.take().filter(|_| head.leg == Leg::Back);
    head.settle(RolloutEvent::Wait, Some(kept.unwrap_or(reason(code))), NOW);
    head.owner = None;
    head.wake = Some(NOW.after(LONG));
}

impl Machine for Moving {
    fn key(&self) -> String {
        let Rollout {
            kind,
            auto_return,
            total,
            status,
            control,
            leg,
            window,
            reached,
            forgiven,
            flushing,
            ..
        } = &self.rollout;
        let tallies: Vec<Tally> = self.rollout.waves.iter().map(|wave| wave.tally).collect();
        let (owner, after) = (self.rollout.owner.is_some(), self.rollout.after.is_some());
        let why = self.rollout.reason.as_ref().map(|reason| reason.code);
        let todo = self.todo().len();
        let moved = self.outcomes.iter().skip(window.end as usize).filter(|o| **o == Some(Outcome::Moved));
        format!(
            "{kind:?} {total} {auto_return} {} {control:?} {leg:?} {window:?} {reached} {forgiven} {:?} {todo} {}",
            status.as_str(),
            (flushing, owner, after, why),
            tallies
                .iter()
                .map(|t| format!("{}+{}+{}+{} ", t.succeeded, t.failed, t.skipped, t.parked))
                .collect::<String>()
                + &moved.count().to_string(),
        )
    }

    fn events(&self) -> Vec<(By, String, Step<Self>)> {
        let mut events = vec![
            (By::Person, "pause".to_owned(), self.ask(RolloutEvent::Pause)),
            (By::Person, "resume".to_owned(), self.ask(RolloutEvent::Resume)),
            (By::Abort, "abort".to_owned(), self.ask(RolloutEvent::Abort)),
            (By::Itself, "claim".to_owned(), self.claim()),
        ];
        if self.status() == RolloutStatus::Running && self.rollout.owner.is_some() {
            events.extend(if self.rollout.after.is_some() { self.deploys() } else { self.window() });
        }
        events
    }

    fn sound(&self) -> Result<(), String> {
        let rollout = &self.rollout;
        let Window { start, end } = rollout.window;
        let mut from = 0;
        for wave in &rollout.waves {
            let mut counted = Tally::default();
            self.outcomes[from as usize..wave.end as usize]
                .iter()
                .flatten()
                .for_each(|one| counted.add(*one));
            if counted != wave.tally {
                return Err(format!("the wave's tally is {:?}, and its sites say {counted:?}", wave.tally));
            }
            if rollout.leg == Leg::Out && start < wave.end && wave.end < end {
                return Err("a window crosses the end of its wave".to_owned());
            }
            from = wave.end;
        }
        let counts = rollout.tally().resolved() + rollout.running() + rollout.pending();
        let checks = [
            (end.saturating_sub(start) <= Window::SIZE && end <= rollout.total, "a window is too wide"),
            (counts == rollout.total, "the counts do not sum to the total"),
            (rollout.status.runnable() || rollout.owner.is_none(), "what does not run has an owner"),
            (
                rollout.status.runnable() || rollout.status.ended() || rollout.control.is_none(),
                "a stop is still asked for",
            ),
            (rollout.status.ended() == rollout.finished_at.is_some(), "an end without its time"),
            (rollout.hold().is_none() || rollout.status == RolloutStatus::Running, "it rests and holds"),
        ];
        if let Some((_, wrong)) = checks.iter().find(|(holds, _)| !holds) {
            return Err((*wrong).to_owned());
        }
        match rollout.status {
            RolloutStatus::Succeeded if rollout.tally().resolved() != rollout.total => {
                Err("succeeded, with sites left".to_owned())
            }
            RolloutStatus::Halted | RolloutStatus::Failed if rollout.reason.is_none() => {
                Err(format!("{} without a reason", rollout.status.as_str()))
            }
            _ => Ok(()),
        }
    }

    fn rests(&self) -> bool {
        !self.status().runnable()
    }

    fn ended(&self) -> bool {
        self.status().ended()
    }
}

/// A resumed rollout can still come to an end of its own.
#[test]
fn rollouts_go_on() {
    let found = Found::search(Moving::all());
    let mut campaign = Campaign::new("states-rollout-resumed");
    found.judge(&mut campaign, "an end other than an abort", Machine::ended, &[By::Itself, By::Person]);
    campaign.end("no abort is needed");
}

/// Every row of the three tables, and no other, is legal; a refusal names both.
#[test]
fn tables() {
    let mut campaign = Campaign::new("states-tables");
    let (mut legal, mut pairs) = (0, 0);
    let mut judge = |state: &str, event: &str, follows: Result<String, String>, rows: &[&str]| {
        pairs += 1;
        let row = format!("{state} > {event} > ");
        let known = rows.iter().find_map(|known| known.strip_prefix(row.as_str()));
        campaign.run(match (known, follows) {
            (Some(known), Ok(next)) if known == next => {
                legal += 1;
                Ok(())
            }
            (None, Err(text)) => {
                // A site's refusal names what users see of it.
                let state = state.split(" (").next().unwrap_or(state);
                let both = text.contains(&format!(" {state} ")) && text.contains(&format!("`{event}`"));
                if both { Ok(()) } else { Err(format!("{row}is refused with: {text}")) }
            }
            (known, follows) => Err(format!("{row}{follows:?}, and the table says {known:?}")),
        });
    };
    let ends = [End::Succeeded, End::Failed, End::Cancelled];
    let rests = |phase| Life::Present { phase, work: None };
    let works = |phase, kind| Life::Present { phase, work: Some(kind) };
    let lives = [
        Life::Absent,
        works(Phase::New, Kind::Create),
        works(Phase::New, Kind::Terminate),
        rests(Phase::Created),
        works(Phase::Created, Kind::Provision),
        works(Phase::Created, Kind::Terminate),
        rests(Phase::Active),
        works(Phase::Active, Kind::Upgrade),
        works(Phase::Active, Kind::Promote),
        works(Phase::Active, Kind::Terminate),
    ];
    for life in lives {
        let begins = Kind::ALL.into_iter().map(LifeEvent::Begin);
        for event in begins.chain([LifeEvent::Displace]).chain(ends.map(LifeEvent::End)) {
            let follows = life.next(event).map(shown).map_err(|illegal| illegal.to_string());
            judge(&shown(life), &event.to_string(), follows, LIVES);
        }
    }
    let plain = [
        Event::Claim,
        Event::Wait,
        Event::Wake,
        Event::Park,
        Event::HandOver,
        Event::Retry,
        Event::Cancel,
        Event::Displace,
    ];
    for status in STATUSES {
        for event in plain.into_iter().chain(ends.map(Event::Finish)) {
            let follows =
                status.next(event).map(|next| next.to_string()).map_err(|illegal| illegal.to_string());
            judge(status.as_str(), event.as_str(), follows, OPERATIONS);
        }
    }
    for status in RolloutStatus::ALL {
        for event in RolloutEvent::ALL {
            let follows = status
                .next(event)
                .map(|next| next.as_str().to_owned())
                .map_err(|illegal| illegal.to_string());
            judge(status.as_str(), event.as_str(), follows, ROLLOUTS);
        }
    }
    let rows = LIVES.len() + OPERATIONS.len() + ROLLOUTS.len();
    campaign.run(if legal == rows { Ok(()) } else { Err(format!("{legal} of {rows} rows are legal")) });
    campaign.end(&format!("{pairs} pairs, {legal} legal"));
}

/// A life in words: what users see, then phase and work.
fn shown(life: Life) -> String {
    match life {
        Life::Absent => "absent".to_owned(),
        Life::Present { phase, work } => {
            format!("{} ({phase:?}, {})", word(life), work.map_or("none", Kind::as_str))
        }
    }
}

const LIVES: &[&str] = &[
    "absent > begin create > creating (New, create)",
    "creating (New, create) > end succeeded > created (Created, none)",
    "creating (New, create) > end failed > absent",
    "creating (New, create) > end cancelled > absent",
    "creating (New, create) > displace the parked operation > terminating (New, terminate)",
    "created (Created, none) > begin provision > provisioning (Created, provision)",
    "created (Created, none) > begin terminate > terminating (Created, terminate)",
    "provisioning (Created, provision) > end succeeded > active (Active, none)",
    "provisioning (Created, provision) > end failed > created (Created, none)",
    "provisioning (Created, provision) > end cancelled > created (Created, none)",
    "provisioning (Created, provision) > displace the parked operation > terminating (Created, terminate)",
    "active (Active, none) > begin upgrade > upgrading (Active, upgrade)",
    "active (Active, none) > begin promote > promoting (Active, promote)",
    "active (Active, none) > begin terminate > terminating (Active, terminate)",
    "upgrading (Active, upgrade) > end succeeded > active (Active, none)",
    "upgrading (Active, upgrade) > end failed > active (Active, none)",
    "upgrading (Active, upgrade) > end cancelled > active (Active, none)",
    "upgrading (Active, upgrade) > displace the parked operation > terminating (Active, terminate)",
    "promoting (Active, promote) > end succeeded > active (Active, none)",
    "promoting (Active, promote) > end failed > active (Active, none)",
    "promoting (Active, promote) > end cancelled > active (Active, none)",
    "promoting (Active, promote) > displace the parked operation > terminating (Active, terminate)",
    "terminating (New, terminate) > end succeeded > absent",
    "terminating (Created, terminate) > end succeeded > absent",
    "terminating (Created, terminate) > end cancelled > created (Created, none)",
    "terminating (Active, terminate) > end succeeded > absent",
    "terminating (Active, terminate) > end cancelled > active (Active, none)",
];

const OPERATIONS: &[&str] = &[
    "queued > claim > running",
    "queued > cancel > queued",
    "running > claim > running",
    "running > wait > waiting",
    "running > park > parked",
    "running > hand over > queued",
    "running > cancel > running",
    "running > succeed > succeeded",
    "running > fail > failed",
    "running > end cancelled > cancelled",
    "waiting > claim > running",
    "waiting > wake > running",
    "waiting > hand over > queued",
    "waiting > cancel > waiting",
    "parked > retry > queued",
    "parked > cancel > queued",
    "parked > displace > cancelled",
];

const ROLLOUTS: &[&str] = &[
    "waiting > claim > running",
    "waiting > pause > paused",
    "waiting > abort > aborted",
    "running > claim > running",
    "running > wait > waiting",
    "running > pause > paused",
    "running > halt > halted",
    "running > abort > aborted",
    "running > succeed > succeeded",
    "running > fail > failed",
    "paused > resume > waiting",
    "paused > abort > aborted",
    "halted > resume > waiting",
    "halted > abort > aborted",
];

//! Every reachable state of the pure machine, by breadth-first search: a site with its operation, a colour and the
//! fleet with theirs, and a rollout.
//!
//! The search calls the functions that the engine and the services call, and knows no transition itself. From every
//! state there is a way to rest, without a person's help; from every parked one there is a way out with it. The counts
//! are pinned, so that a table that gains or loses a row is seen.

mod campaign;
mod machines;

use std::collections::{BTreeSet, HashMap, VecDeque};

use campaign::Campaign;
use cdm_core::domain::lifecycle::{Event as LifeEvent, Life};
use cdm_core::domain::operation::Event;
use cdm_core::domain::rollout::RolloutEvent;
use cdm_core::domain::{End, Kind, Phase, RolloutStatus, State, Status};
use machines::{Machine, rollout, slot};

/// Who makes an event happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The engine, or time.
    Itself,
    /// A person.
    Person,
}

/// What comes of an event in a state.
pub enum Step<S> {
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
        self.judge(&mut campaign, ended, Machine::ended, &[By::Itself, By::Person]);
        for wrong in self.wrong.drain(..) {
            campaign.run(Err(wrong));
        }
        let resting = self.states.iter().filter(|state| state.rests()).count();
        let counted = (self.states.len(), self.pairs, self.refused, resting);
        if counted != pinned {
            campaign.run(Err(format!("(states, pairs, refused, resting) are {counted:?}, not {pinned:?}")));
        }
        let (states, pairs, refused, resting) = counted;
        campaign.end(&format!("{states} states, {pairs} pairs, {refused} of them refused, {resting} resting"));
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
const SITE: (usize, u64, u64, usize) = (0, 0, 0, 0);
const SERVICES: (usize, u64, u64, usize) = (0, 0, 0, 0);
const ROLLOUT: (usize, u64, u64, usize) = (0, 0, 0, 0);

#[test]
fn sites() {
    let found = Found::search(vec![slot::World::site()]);
    let mut campaign = Campaign::new("states");
    let lives: Vec<Life> = found.states.iter().map(slot::World::life).collect();
    let phases: Vec<Phase> = lives.iter().filter_map(|life| phase(*life)).collect();
    let states: Vec<State> = lives.iter().filter_map(|life| life.state()).collect();
    let kinds: Vec<Kind> = found.states.iter().filter_map(slot::World::kind).collect();
    all_reached(&mut campaign, &[Phase::New, Phase::Created, Phase::Active], &phases);
    all_reached(&mut campaign, &State::ALL, &states);
    all_reached(&mut campaign, &Kind::ALL[..5], &kinds);
    let statuses: Vec<Status> = found.states.iter().flat_map(slot::World::statuses).collect();
    all_reached(&mut campaign, &STATUSES, &statuses);
    found.end(campaign, SITE);
}

#[test]
fn services() {
    let found = Found::search(vec![slot::World::colour(), slot::World::fleet()]);
    let mut campaign = Campaign::new("states-services");
    let kinds: Vec<Kind> = found.states.iter().filter_map(slot::World::kind).collect();
    all_reached(&mut campaign, &Kind::ALL[5..], &kinds);
    let statuses: Vec<Status> = found.states.iter().flat_map(slot::World::statuses).collect();
    all_reached(&mut campaign, &STATUSES, &statuses);
    found.end(campaign, SERVICES);
}

#[test]
fn rollouts() {
    let found = Found::search(rollout::World::all());
    let mut campaign = Campaign::new("states-rollout");
    let statuses: Vec<RolloutStatus> = found.states.iter().map(rollout::World::status).collect();
    all_reached(&mut campaign, &RolloutStatus::ALL, &statuses);
    found.end(campaign, ROLLOUT);
}

fn phase(life: Life) -> Option<Phase> {
    match life {
        Life::Absent => None,
        Life::Present { phase, .. } => Some(phase),
    }
}

//! The search itself: what a machine is, and which of its states have a way to rest and to an end.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;

use crate::campaign::Campaign;

/// Who makes an event happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The engine, or time.
    Itself,
    /// A person.
    Person,
    /// A person who gives up on a rollout.
    Abort,
}

/// A state of a machine. Two with the same key are one.
pub(crate) trait Machine: Sized {
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
pub(crate) enum Step<S> {
    /// This state.
    To(S),
    /// It is refused, and says so.
    Refused,
    /// Something that must not be.
    Wrong(String),
}

/// What a search has found.
pub(crate) struct Found<S> {
    pub(crate) states: Vec<S>,
    parents: Vec<Option<(usize, String)>>,
    back: Vec<Vec<(usize, By)>>,
    pairs: u64,
    refused: u64,
    wrong: Vec<String>,
}

/// No machine here comes near it; a search that does has lost its bounds.
const MOST: usize = 2_000_000;

impl<S: Machine> Found<S> {
    pub(crate) fn search(starts: Vec<S>) -> Self {
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
    pub(crate) fn judge(&self, campaign: &mut Campaign, what: &str, goal: impl Fn(&S) -> bool, who: &[By]) {
        let trapped: BTreeSet<usize> = self.trapped(goal, who).into_iter().collect();
        for at in 0..self.states.len() {
            let free = !trapped.contains(&at);
            campaign.run(if free { Ok(()) } else { Err(format!("no way to {what}: {}", self.path(at))) });
        }
    }

    pub(crate) fn end(mut self, mut campaign: Campaign, pinned: (usize, u64, u64, usize)) {
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
pub(crate) fn all_reached<T: PartialEq + std::fmt::Debug>(
    campaign: &mut Campaign,
    all: &[T],
    rollback_end: &[T],
) {
    for one in all {
        let there = rollback_end.contains(one);
        campaign.run(if there { Ok(()) } else { Err(format!("{one:?} is not reached")) });
    }
}

/// A refusal, which has to name both.
pub(crate) fn named<S>(error: &dyn std::error::Error, state: &str, event: &str) -> Step<S> {
    let text = error.to_string();
    let both = text.contains(&format!(" {state} ")) && text.contains(&format!("`{event}`"));
    if both {
        Step::Refused
    } else {
        Step::Wrong(format!("the refusal of `{event}` in {state} says: {text}"))
    }
}

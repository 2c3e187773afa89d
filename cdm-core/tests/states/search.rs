//! The search: the interface of a state machine, and the reachability of states at rest and of final states.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;

use cdm_testkit::campaign::Campaign;

/// What causes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The engine, or time.
    System,
    /// A user.
    User,
    /// A user who aborts a rollout.
    Abort,
}

/// A state of a state machine. Two states with the same key are equal.
pub(crate) trait StateMachine: Sized {
    /// Returns the key that identifies the state.
    fn key(&self) -> String;
    /// Returns the possible events and their results.
    fn events(&self) -> Vec<(Trigger, String, Step<Self>)>;
    /// Checks the invariants of the state.
    fn check_invariants(&self) -> Result<(), String>;
    /// Returns whether nothing happens in the state without a user.
    fn rests(&self) -> bool;
    /// Returns whether the state is final.
    fn ended(&self) -> bool;
}

/// The result of an event in a state.
pub(crate) enum Step<S> {
    /// A new state.
    To(S),
    /// The event is rejected with an error that names both.
    Refused,
    /// A violation.
    Wrong(String),
}

/// The result of a search.
pub(crate) struct SearchResult<S> {
    pub(crate) states: Vec<S>,
    parents: Vec<Option<(usize, String)>>,
    back: Vec<Vec<(usize, Trigger)>>,
    pairs: u64,
    refused: u64,
    wrong: Vec<String>,
}

/// Far above the number of states of every machine here; a search that reaches it is unbounded.
const MAX_STATES: usize = 2_000_000;

impl<S: StateMachine> SearchResult<S> {
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
            assert!(found.states.len() < MAX_STATES, "the search is unbounded");
            for (by, event, step) in found.states[at].events() {
                found.pairs += 1;
                match step {
                    Step::Refused => found.refused += 1,
                    Step::Wrong(why) => {
                        let path = found.path(at);
                        found.wrong.push(format!("{why}: {path} > {event}"));
                    }
                    Step::To(state) => {
                        if let Err(why) = state.check_invariants() {
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

    /// Returns the shortest path to a state.
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

    /// Returns the states from which no state of `goal` is reachable if only `who` may act.
    fn trapped(&self, goal: impl Fn(&S) -> bool, who: &[Trigger]) -> Vec<usize> {
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

    /// Counts every state as a run, which fails if no state of `goal` is reachable from it.
    pub(crate) fn check_reachable(
        &self,
        campaign: &mut Campaign,
        what: &str,
        goal: impl Fn(&S) -> bool,
        who: &[Trigger],
    ) {
        let trapped: BTreeSet<usize> = self.trapped(goal, who).into_iter().collect();
        for at in 0..self.states.len() {
            let free = !trapped.contains(&at);
            campaign.run(if free { Ok(()) } else { Err(format!("no way to {what}: {}", self.path(at))) });
        }
    }

    pub(crate) fn end(mut self, mut campaign: Campaign, pinned: (usize, u64, u64, usize)) {
        let (rest, ended) = ("a state at rest", "an end");
        self.check_reachable(&mut campaign, rest, StateMachine::rests, &[Trigger::System]);
        self.check_reachable(
            &mut campaign,
            ended,
            StateMachine::ended,
            &[Trigger::System, Trigger::User, Trigger::Abort],
        );
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
            .end(&format!("{states} states, {pairs} pairs, {refused} of them rejected, {resting} at rest"));
    }
}

/// Fails if one of `all` is not in `reached`.
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

/// Checks that an error names both the state and the event.
pub(crate) fn named<S>(error: &dyn std::error::Error, state: &str, event: &str) -> Step<S> {
    let text = error.to_string();
    let both = text.contains(&format!("`{state}`")) && text.contains(&format!("`{event}`"));
    if both { Step::Refused } else { Step::Wrong(format!("the error for `{event}` in {state} says: {text}")) }
}

//! Every reachable state of the pure state machines, by breadth-first search: a site with its operation, a service and
//! the fleet with theirs, and a rollout.
//!
//! The search calls the functions that the engine and the manager call, and defines no transition itself. From every
//! state, a state at rest is reachable without a user; from every parked state, an end is reachable with a user. The
//! counts are pinned, so that an added or removed row of a table is noticed.

mod records;
mod rollouts;
mod search;
mod tables;

use std::time::Duration;

use cdm_core::domain::lifecycle::Life;
use cdm_core::domain::{
    Actor, OperationKind, Phase, RolloutStatus, State, Status, TerminalStatus, Timestamp, WorkerId,
};
use cdm_testkit::campaign::Campaign;

use records::{RecordState, phase};
use rollouts::RolloutState;
use search::{SearchResult, StateMachine, Trigger, all_reached};

const STATUSES: [Status; 7] = [
    Status::Queued,
    Status::Running,
    Status::Waiting,
    Status::Parked,
    Status::Ended(TerminalStatus::Succeeded),
    Status::Ended(TerminalStatus::Failed),
    Status::Ended(TerminalStatus::Cancelled),
];

/// The number of states, pairs, rejected pairs, and states at rest.
const SITE: (usize, u64, u64, usize) = (2152, 31_075, 19_365, 134);
const SERVICES: (usize, u64, u64, usize) = (499, 7_190, 4_451, 37);
const ROLLOUT: (usize, u64, u64, usize) = (277_893, 2_029_497, 581_701, 30_704);

#[test]
fn sites() {
    let found = SearchResult::search(vec![RecordState::site()]);
    let mut campaign = Campaign::new("states");
    let lives: Vec<Life> = found.states.iter().map(RecordState::life).collect();
    let phases: Vec<Phase> = lives.iter().filter_map(|life| phase(*life)).collect();
    let states: Vec<State> = lives.iter().filter_map(|life| life.state()).collect();
    let kinds: Vec<OperationKind> = found.states.iter().filter_map(RecordState::kind).collect();
    all_reached(&mut campaign, &[Phase::New, Phase::Created, Phase::Active], &phases);
    all_reached(&mut campaign, &State::ALL, &states);
    all_reached(&mut campaign, &OperationKind::ALL[..5], &kinds);
    let statuses: Vec<Status> = found.states.iter().flat_map(RecordState::statuses).collect();
    all_reached(&mut campaign, &STATUSES, &statuses);
    found.end(campaign, SITE);
}

#[test]
fn services() {
    let found = SearchResult::search(vec![RecordState::service(), RecordState::fleet()]);
    let mut campaign = Campaign::new("states-services");
    let kinds: Vec<OperationKind> = found.states.iter().filter_map(RecordState::kind).collect();
    all_reached(&mut campaign, &OperationKind::ALL[5..], &kinds);
    let statuses: Vec<Status> = found.states.iter().flat_map(RecordState::statuses).collect();
    all_reached(&mut campaign, &STATUSES, &statuses);
    found.end(campaign, SERVICES);
}

#[test]
fn rollouts() {
    let found = SearchResult::search(RolloutState::all());
    let mut campaign = Campaign::new("states-rollout");
    let statuses: Vec<RolloutStatus> = found.states.iter().map(RolloutState::status).collect();
    all_reached(&mut campaign, &RolloutStatus::ALL, &statuses);
    found.end(campaign, ROLLOUT);
}

/// A resumed rollout can end without an abort.
#[test]
fn resumed_rollouts_can_end() {
    let found = SearchResult::search(RolloutState::all());
    let mut campaign = Campaign::new("states-rollout-resumed");
    found.check_reachable(
        &mut campaign,
        "an end other than an abort",
        StateMachine::ended,
        &[Trigger::System, Trigger::User],
    );
    campaign.end("no abort is required");
}

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const LONG: Duration = Duration::from_secs(900);

fn worker() -> WorkerId {
    WorkerId::new("worker")
}

fn actor() -> Actor {
    Actor::parse("operator").expect("an actor")
}

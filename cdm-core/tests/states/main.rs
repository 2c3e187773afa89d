//! Every reachable state of the pure machine, by breadth-first search: a site with its operation, a colour and the
//! fleet with theirs, and a rollout.
//!
//! The search calls the functions that the engine and the services call, and knows no transition itself. From every
//! state there is a way to rest, without a person's help; from every parked one there is a way out with it. The counts
//! are pinned, so that a table that gains or loses a row is seen.

#[path = "../campaign/mod.rs"]
mod campaign;
mod records;
mod rollouts;
mod search;
mod tables;

use std::time::Duration;

use cdm_core::domain::lifecycle::Life;
use cdm_core::domain::{
    Actor, OperationKind, Phase, RolloutStatus, State, Status, TerminalStatus, Timestamp, WorkerId,
};

use campaign::Campaign;
use records::{World, phase};
use rollouts::Moving;
use search::{By, Found, Machine, all_reached};

const STATUSES: [Status; 7] = [
    Status::Queued,
    Status::Running,
    Status::Waiting,
    Status::Parked,
    Status::Ended(TerminalStatus::Succeeded),
    Status::Ended(TerminalStatus::Failed),
    Status::Ended(TerminalStatus::Cancelled),
];

/// States, pairs, refused pairs, resting states.
const SITE: (usize, u64, u64, usize) = (2152, 31_075, 19_365, 134);
const SERVICES: (usize, u64, u64, usize) = (499, 7_190, 4_451, 37);
const ROLLOUT: (usize, u64, u64, usize) = (61_150, 376_102, 134_064, 12_084);

#[test]
fn sites() {
    let found = Found::search(vec![World::site()]);
    let mut campaign = Campaign::new("states");
    let lives: Vec<Life> = found.states.iter().map(World::life).collect();
    let phases: Vec<Phase> = lives.iter().filter_map(|life| phase(*life)).collect();
    let states: Vec<State> = lives.iter().filter_map(|life| life.state()).collect();
    let kinds: Vec<OperationKind> = found.states.iter().filter_map(World::kind).collect();
    all_reached(&mut campaign, &[Phase::New, Phase::Created, Phase::Active], &phases);
    all_reached(&mut campaign, &State::ALL, &states);
    all_reached(&mut campaign, &OperationKind::ALL[..5], &kinds);
    let statuses: Vec<Status> = found.states.iter().flat_map(World::statuses).collect();
    all_reached(&mut campaign, &STATUSES, &statuses);
    found.end(campaign, SITE);
}

#[test]
fn services() {
    let found = Found::search(vec![World::service(), World::fleet()]);
    let mut campaign = Campaign::new("states-services");
    let kinds: Vec<OperationKind> = found.states.iter().filter_map(World::kind).collect();
    all_reached(&mut campaign, &OperationKind::ALL[5..], &kinds);
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

/// A resumed rollout can still come to an end of its own.
#[test]
fn rollouts_go_on() {
    let found = Found::search(Moving::all());
    let mut campaign = Campaign::new("states-rollout-resumed");
    found.judge(&mut campaign, "an end other than an abort", Machine::ended, &[By::Itself, By::Person]);
    campaign.end("no abort is needed");
}

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const LONG: Duration = Duration::from_secs(900);

fn worker() -> WorkerId {
    WorkerId::new("worker")
}

fn actor() -> Actor {
    Actor::parse("operator").expect("an actor")
}

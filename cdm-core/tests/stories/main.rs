//! Stories: one statement about the platform per test, executed on the simulated platform, and checked by the final
//! content of the stores, the bucket and the cluster.

mod controls;
mod digests;
mod engine;
mod freezes;
mod gates;
mod grants;
mod outages;
mod pending_flush;
mod plans;
mod retention;
mod rollouts;
mod services;
mod single_connection;
mod sites;
mod waves;
mod webhooks;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cdm_core::domain::operation::Operation;
use cdm_core::domain::rollout::RolloutSpec;
use cdm_core::domain::{Color, OperationId, ReasonCode, Rollout, Site, Status, Uid};
use cdm_core::engine::RunSummary;
use cdm_core::manager::{Accepted, ManagerError};
use cdm_core::ports::{Clock, JobFailure, JobState, PodFailure};
use cdm_testkit::fakes::{ImageScript, JobScript};
use cdm_testkit::faults::{CallSite, Halt};
use cdm_testkit::world::{Process, World, now};

/// Returns the site's record.
fn site(world: &World, id: &str) -> Site {
    let found = world.store.all_sites().into_iter().find(|site| site.id.as_str() == id);
    found.unwrap_or_else(|| panic!("there is no site `{id}`"))
}

fn exists(world: &World, id: &str) -> bool {
    world.store.all_sites().iter().any(|site| site.id.as_str() == id)
}

/// Returns the service to which the cluster routes the site.
fn routed(world: &World, id: &str) -> Option<Color> {
    let uid = site(world, id).uid;
    world.cluster.routes().into_iter().find(|route| route.uid == uid).map(|route| route.service)
}

/// Returns the id of the operation in an accepted response.
fn operation_id(accepted: Result<Accepted, ManagerError>) -> OperationId {
    match accepted {
        Ok(Accepted::Operation(id)) => id,
        other => panic!("no operation: {other:?}"),
    }
}

fn operation(world: &World, id: &OperationId) -> Operation {
    now(world.process().manager.operation(id)).unwrap_or_else(|error| panic!("{id}: {error}"))
}

fn status(world: &World, id: &OperationId) -> Status {
    operation(world, id).state.status
}

/// Returns why the operation waits or is parked.
fn code(world: &World, id: &OperationId) -> Option<ReasonCode> {
    operation(world, id).state.reason.map(|reason| reason.code)
}

/// Asserts that the operation is parked for that reason.
fn assert_parked(world: &World, id: &OperationId, why: ReasonCode) {
    let operation = operation(world, id).state;
    assert_eq!(
        (operation.status, operation.reason.as_ref().map(|reason| reason.code)),
        (Status::Parked, Some(why))
    );
}

fn retry(world: &mut World, id: &OperationId) -> Result<Accepted, ManagerError> {
    let id = id.clone();
    world.request(move |manager, request| {
        let id = id.clone();
        Box::pin(async move { manager.retry(&request, &id).await })
    })
}

fn cancel(world: &mut World, id: &OperationId) -> Result<Accepted, ManagerError> {
    let id = id.clone();
    world.request(move |manager, request| {
        let id = id.clone();
        Box::pin(async move { manager.cancel(&request, &id).await })
    })
}

fn start_rollout(world: &mut World, wanted: &RolloutSpec) -> Result<Accepted, ManagerError> {
    let wanted = wanted.clone();
    world.request(move |manager, request| {
        let wanted = wanted.clone();
        Box::pin(async move { manager.rollout(&request, &wanted, None).await })
    })
}

fn start_as_planned(world: &mut World, wanted: &RolloutSpec, plan: &str) -> Result<Accepted, ManagerError> {
    let (wanted, plan) = (wanted.clone(), plan.to_owned());
    world.request(move |manager, request| {
        let (wanted, plan) = (wanted.clone(), plan.clone());
        Box::pin(async move { manager.rollout(&request, &wanted, Some(&plan)).await })
    })
}

/// Returns the number of an accepted rollout.
fn number(accepted: Result<Accepted, ManagerError>) -> u64 {
    match accepted {
        Ok(Accepted::Rollout(number)) => number,
        other => panic!("no rollout: {other:?}"),
    }
}

fn rollout(world: &World, number: u64) -> Rollout {
    let found = world.store.all_rollouts().into_iter().find(|rollout| rollout.number == number);
    found.unwrap_or_else(|| panic!("there is no rollout {number}"))
}

/// Asserts that no invariant is violated.
fn assert_sound(world: &mut World) {
    let broken: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Lists all resources of a uid; secrets are listed by whether their values differ, not by value.
fn resources_of(world: &World, uid: Uid) -> Vec<String> {
    let mut all: Vec<String> = world
        .store
        .all_sites()
        .iter()
        .filter(|site| site.uid == uid)
        .map(|site| {
            format!(
                "{site:?} {:?}",
                world.store.hostnames().iter().filter(|(_, id)| *id == site.id).collect::<Vec<_>>()
            )
        })
        .collect();
    all.extend(world.objects.keys().into_iter().filter(|key| key.starts_with(&format!("sites/{uid}/"))));
    for (name, value) in world.secrets.values().into_iter().filter(|(name, _)| name.uid == uid) {
        let set = world.databases.password_is(uid, value.password());
        all.push(format!("the secret {name}, the database's: {set}"));
    }
    all.extend(
        world.databases.uids().iter().filter(|stored| **stored == uid).map(|_| "a database".to_owned()),
    );
    all.extend(
        world.cluster.routes().iter().filter(|route| route.uid == uid).map(|route| format!("{route:?}")),
    );
    all.extend(
        world.cluster.jobs().iter().filter(|(_, owner, _)| *owner == Some(uid)).map(|job| format!("{job:?}")),
    );
    all
}

/// Returns scripts for that many jobs, which fail after a second.
fn failing(jobs: usize) -> Vec<JobScript> {
    let result = JobState::Failed { message: "no cache".to_owned(), cause: JobFailure::Other };
    vec![JobScript { takes: Duration::from_secs(1), result }; jobs]
}

/// Returns a script whose pods fail permanently after 20 seconds.
fn never_ready(blames_image: bool, message: &str) -> ImageScript {
    let failure = PodFailure { definite: true, blames_image, message: message.to_owned() };
    ImageScript { ready_after: None, failure: Some((Duration::from_secs(20), failure)) }
}

/// Returns the calls that `act` makes on a new platform, in order.
fn calls(before: impl FnOnce(&mut World), act: impl FnOnce(&mut World)) -> Vec<CallSite> {
    let mut world = World::new(1);
    before(&mut world);
    world.faults.start_trace();
    act(&mut world);
    let calls = world.faults.trace();
    // Tests iterate over the calls, and would test nothing.
    assert!(!calls.is_empty(), "no call was made");
    calls
}

/// Returns the index of the first call of that name.
fn first(calls: &[CallSite], name: &str) -> usize {
    calls.iter().position(|call| call.name == name).unwrap_or_else(|| panic!("no call of `{name}`"))
}

/// A future that a test polls manually.
struct ManualPoll<T>(Pin<Box<dyn Future<Output = T>>>);

/// The state of a future after a poll.
enum PollState<T> {
    /// The future is done.
    Done(T),
    /// The future is paused in a call until the fault injector resumes it.
    Paused,
    /// The future waits for time to pass.
    Pending,
}

impl<T> ManualPoll<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self(Box::pin(future))
    }

    fn poll(&mut self, world: &World) -> PollState<T> {
        let polled = self.0.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match (polled, world.faults.take_halt()) {
            (Poll::Ready(value), _) => PollState::Done(value),
            (Poll::Pending, Some(Halt::Paused | Halt::Crashed)) => PollState::Paused,
            (Poll::Pending, None) => PollState::Pending,
        }
    }

    /// Advances time until the future is paused; returns `false` if it finishes first.
    fn runs_until_paused(&mut self, world: &World) -> bool {
        for _ in 0..10_000 {
            match self.poll(world) {
                PollState::Done(_) => return false,
                PollState::Paused => return true,
                PollState::Pending => advance_to_next_event(world),
            }
        }
        panic!("neither done nor paused");
    }

    /// Advances time until the future is done.
    fn finish(mut self, world: &World) -> T {
        world.faults.release();
        for _ in 0..10_000 {
            match self.poll(world) {
                PollState::Done(value) => return value,
                PollState::Paused | PollState::Pending => advance_to_next_event(world),
            }
        }
        panic!("not done");
    }
}

/// Runs one turn of that process's worker.
fn run_once(process: &Process) -> ManualPoll<RunSummary> {
    let worker = Arc::clone(&process.worker);
    ManualPoll::new(async move { worker.run_once().await })
}

/// Advances time to the next moment at which something happens.
fn advance_to_next_event(world: &World) {
    let next = [world.clock.next_sleeper(), world.cluster.next_event()].into_iter().flatten().min();
    match next {
        Some(next) if next > world.clock.monotonic() => world.clock.advance_to(next),
        Some(_) | None => world.clock.advance(Duration::from_millis(1)),
    }
}

//! Workers that die, stop, pause and race, observed from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::operation::Position;
use cdm_core::domain::{
    Color, Epoch, MonotonicTime, OperationId, ReasonCode, RolloutStatus, State, Status, TerminalStatus,
    Timestamp, WorkerId,
};
use cdm_core::engine::{Settings, Worker};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::ports::{CallContext, Clock, Mutation, Outcome, Ports, WriteBatch, WriteId};
use cdm_testkit::clock::SimClock;
use cdm_testkit::faults::{CallSite, Fault, Plan};
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Verb, World, now};

use super::waves::{all, fleet, on_green};
use super::{
    ManualPoll, PollState, advance_to_next_event, assert_parked, assert_sound, calls, code, first, number,
    operation, operation_id, retry, rollout, routed, run_once, site, start_rollout, status,
};

/// Returns the owner of the site's operation.
fn owner(world: &World, id: &str) -> Option<WorkerId> {
    site(world, id).operation.and_then(|operation| operation.owner)
}

/// The simulated clock, with a limit on the number of reads without any passing of time.
#[derive(Debug)]
struct BoundedClock {
    clock: SimClock,
    reads: AtomicU64,
}

impl BoundedClock {
    fn count_read(&self) {
        let reads = self.reads.fetch_add(1, Ordering::SeqCst);
        assert!(reads < 20_000, "a worker loops without waiting");
    }
}

#[async_trait]
impl Clock for BoundedClock {
    fn wall(&self) -> Timestamp {
        self.count_read();
        self.clock.wall()
    }

    fn monotonic(&self) -> MonotonicTime {
        self.count_read();
        self.clock.monotonic()
    }

    async fn sleep_until(&self, until: MonotonicTime) {
        self.clock.sleep_until(until).await;
    }
}

/// Starts a worker as a server does.
pub(super) fn server(world: &World, name: &str) -> (Arc<Worker>, ManualPoll<()>) {
    let clock = BoundedClock { clock: world.clock.clone(), reads: AtomicU64::new(0) };
    let ports = Ports { clock: Arc::new(clock), ..world.ports().clone() };
    let platform = PipelineSettings::default();
    let rollouts = Arc::new(Rollouts::new(platform.clone()));
    let pipelines = Arc::new(registry(&platform));
    let worker = Arc::new(Worker::new(WorkerId::new(name), ports, pipelines, rollouts, Settings::default()));
    let run = Arc::clone(&worker);
    (worker, ManualPoll::new(async move { run.run().await }))
}

fn run_turns(world: &mut World) {
    let _ = world.run_once();
}

#[test]
fn an_operation_that_always_kills_its_worker_is_parked_and_others_continue() {
    let create = |world: &mut World| drop(world.create("a"));
    let crash_call = first(&calls(create, run_turns), "secrets.create");
    let mut world = World::new(1);
    let killer = operation_id(world.create("a"));
    let other = operation_id(world.create("b"));
    for attempt in 1..=8 {
        world.faults.arm(Plan(vec![(crash_call, Fault::CrashBefore)]));
        assert_eq!(world.run_once(), None, "attempt {attempt}");
        assert_eq!(operation(&world, &killer).state.attempts, attempt);
        // The next process takes over from the dead worker by its last heartbeat, and runs the unclaimed work.
        world.faults.arm(Plan::default());
        let _ = world.run_once();
        assert_eq!(status(&world, &other), Status::Ended(TerminalStatus::Succeeded));
        world.clock.advance(Duration::from_secs(30));
    }
    let _ = world.run_once();
    assert_parked(&world, &killer, ReasonCode::AttemptsExhausted);
    let message = operation(&world, &killer).state.reason.unwrap().message;
    assert!(message.contains("8 attempts"), "{message}");
    let _ = retry(&mut world, &killer).unwrap();
    world.run();
    assert_eq!(status(&world, &killer), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

/// Sets the version of the pipeline of a site's operation, as a newer process would have stored it.
fn of_version(world: &World, id: &str, version: u32) {
    let mut site = site(world, id);
    if let Some(operation) = &mut site.operation {
        operation.pipeline = version;
    }
    let deadline = world.clock.monotonic().after(Duration::from_secs(8));
    let call = CallContext {
        deadline,
        write: WriteId(u64::MAX - u64::from(version)),
        fence: cdm_core::domain::Fence::default(),
    };
    let written = now(world.raw().store.write(&call, &WriteBatch::of(vec![Mutation::Site(Box::new(site))])));
    assert_eq!(written, Outcome::Applied(()));
}

#[test]
fn an_operation_of_an_unknown_version_is_not_claimed() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let unknown = operation_id(world.on_site("a", Verb::Promote));
    of_version(&world, "a", 99);
    let before = site(&world, "a");
    let other = operation_id(world.create("b"));
    for _ in 0..20 {
        let _ = world.run_once();
        world.clock.advance(Duration::from_secs(2));
    }
    assert_eq!(status(&world, &other), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!((site(&world, "a"), status(&world, &unknown)), (before, Status::Queued));
    // A process that supports the version starts.
    of_version(&world, "a", 1);
    world.run();
    assert_eq!(status(&world, &unknown), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

#[test]
fn a_server_rarely_reads_an_operation_of_an_unknown_version() {
    let mut world = World::new(1);
    world.create_active_site("a");
    let _ = operation_id(world.on_site("a", Verb::Promote));
    of_version(&world, "a", 99);
    // Five scans of several calls each take place in ten seconds.
    const MAX_CALLS: usize = 300;
    world.faults.arm(Plan(vec![(MAX_CALLS, Fault::Paused(255))]));
    let (worker, mut server) = server(&world, "server");
    let end = world.clock.monotonic().after(Duration::from_secs(10));
    while world.clock.monotonic() < end {
        match server.poll(&world) {
            PollState::Pending => advance_to_next_event(&world),
            PollState::Paused => {
                let remaining = end.since(world.clock.monotonic());
                panic!("{MAX_CALLS} calls, and {remaining:?} of ten seconds remain");
            }
            PollState::Done(()) => panic!("the server has stopped"),
        }
    }
    worker.stop();
    server.finish(&world);
    of_version(&world, "a", 1);
    world.run();
    assert_sound(&mut world);
}

/// Creates the site `a` and queues its provision.
fn provision(world: &mut World) -> OperationId {
    let _ = world.create("a");
    world.run();
    operation_id(world.on_site("a", Verb::Provision))
}

#[test]
fn a_stopping_worker_hands_over_at_the_next_step() {
    let queued = |world: &mut World| drop(provision(world));
    let ensure = first(&calls(queued, run_turns), "databases.ensure");
    let mut world = World::new(1);
    let provision = provision(&mut world);
    world.faults.arm(Plan(vec![(ensure, Fault::Paused(255))]));
    let (first, mut server) = server(&world, "server");
    assert!(server.runs_until_paused(&world));
    first.stop();
    let stopped = world.clock.monotonic();
    server.finish(&world);
    let state = operation(&world, &provision).state;
    assert_eq!((state.status, state.owner, state.position), (Status::Queued, None, Position::Forward(1)));
    world.restart();
    let _ = world.run_once();
    assert_eq!(owner(&world, "a").as_ref(), Some(world.process().worker.lease().worker()));
    assert_eq!(code(&world, &provision), Some(ReasonCode::JobRunning));
    assert!(world.clock.monotonic().since(stopped) < Duration::from_secs(1));
    world.run();
    let state = operation(&world, &provision).state;
    assert_eq!(state.status, Status::Ended(TerminalStatus::Succeeded));
    assert!(state.steps.iter().all(|step| step.attempts == 1), "{:?}", state.steps);
    assert_sound(&mut world);
}

#[test]
fn a_stopping_worker_releases_waiting_operations() {
    let mut world = World::new(1);
    let provision = provision(&mut world);
    let (first, mut server) = server(&world, "server");
    while code(&world, &provision) != Some(ReasonCode::JobRunning) {
        assert!(matches!(server.poll(&world), PollState::Pending));
    }
    world.restart();
    // The second worker sees the heartbeat of the first one, and claims nothing.
    let _ = world.run_once();
    assert_eq!(owner(&world, "a").as_ref(), Some(first.lease().worker()));
    let stopped = world.clock.monotonic();
    first.stop();
    server.finish(&world);
    let _ = world.run_once();
    assert_eq!(owner(&world, "a").as_ref(), Some(world.process().worker.lease().worker()));
    assert!(world.clock.monotonic().since(stopped) < Duration::from_secs(1));
    world.run();
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

#[test]
fn a_stopping_worker_releases_its_rollout_between_two_sites() {
    let mut world = fleet(12);
    let number = number(start_rollout(&mut world, &all(0)));
    let (first, mut server) = server(&world, "server");
    // A call takes longer than a poll.
    world.faults.use_one_connection();
    while on_green(&world, 12).is_empty() {
        assert!(matches!(server.poll(&world), PollState::Pending));
    }
    world.faults.use_many_connections();
    first.stop();
    server.finish(&world);
    let rollout_then = rollout(&world, number);
    assert_eq!((rollout_then.status, rollout_then.owner), (RolloutStatus::Waiting, None));
    assert!(on_green(&world, 12).len() < 12);
    world.restart();
    let stopped = world.clock.monotonic();
    let _ = world.run_once();
    assert!(
        on_green(&world, 12).len() == 12 && world.clock.monotonic().since(stopped) < Duration::from_secs(20)
    );
    world.run();
    assert_eq!(rollout(&world, number).status, RolloutStatus::Succeeded);
    assert_sound(&mut world);
}

#[test]
fn a_rollout_of_a_dead_worker_is_taken_over_within_a_second_after_the_lease() {
    let settings = Settings::default();
    // The second worker starts, and the first one dies, at every point of a heartbeat interval.
    let points = || (0..10).map(|n| Duration::from_millis(10 + 500 * n));
    for (comes, dies_after) in
        points().flat_map(|comes| points().map(move |dying_worker| (comes, dying_worker)))
    {
        let mut world = fleet(20);
        super::pending_flush::slow_flushes(&world, 2);
        let number = number(start_rollout(&mut world, &all(0)));
        let (first, mut dying_worker) = server(&world, "first");
        let owner = |world: &World| rollout(world, number).owner;
        let first_worker = Some(first.lease().worker().clone());
        while owner(&world) != first_worker {
            assert!(matches!(dying_worker.poll(&world), PollState::Pending));
        }
        let started = world.clock.monotonic();
        while world.clock.monotonic() < started.after(comes) {
            assert!(matches!(dying_worker.poll(&world), PollState::Pending));
            world.clock.advance(Duration::from_millis(10));
        }
        let (second, mut live_worker) = server(&world, "second");
        while world.clock.monotonic() < started.after(Duration::from_secs(10) + dies_after) {
            assert!(
                matches!(dying_worker.poll(&world), PollState::Pending)
                    && matches!(live_worker.poll(&world), PollState::Pending)
            );
            world.clock.advance(Duration::from_millis(10));
        }
        assert_eq!(owner(&world), first_worker);
        drop(dying_worker);
        let died = world.clock.monotonic();
        while owner(&world) == first_worker {
            assert!(matches!(live_worker.poll(&world), PollState::Pending));
            advance_to_next_event(&world);
        }
        let took = world.clock.monotonic().since(died);
        assert!(took <= settings.lease + Duration::from_secs(1), "{comes:?}, {dies_after:?}: {took:?}");
        second.stop();
        live_worker.finish(&world);
        assert_sound(&mut world);
    }
}

/// Creates `a` on blue, to be promoted to green.
fn promote(world: &mut World) -> OperationId {
    world.create_active_site("a");
    world.select(Color::Green).unwrap();
    world.run();
    operation_id(world.on_site("a", Verb::Promote))
}

fn promote_calls() -> Vec<CallSite> {
    calls(|world| drop(promote(world)), World::run)
}

#[test]
fn a_worker_that_lost_its_lease_changes_nothing() {
    let (calls, mut paused) = (promote_calls().len(), 0);
    for call in 0..calls {
        let mut world = World::new(1);
        let promoted = promote(&mut world);
        world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
        let lost = world.process();
        let mut slow = run_once(&lost);
        while !slow.runs_until_paused(&world) {
            world.clock.advance(Duration::from_secs(2));
            slow = run_once(&lost);
            if world.is_quiescent() {
                break;
            }
        }
        paused += world.faults.fired();
        world.restart();
        let _ = world.run_once();
        world.clock.advance(Duration::from_secs(60));
        world.run();
        assert_eq!(status(&world, &promoted), Status::Ended(TerminalStatus::Succeeded), "call {call}");
        let before = world.log.len();
        let record = site(&world, "a");
        let _ = slow.finish(&world);
        let after = world.log.since(before);
        let changes: Vec<_> = after
            .iter()
            .filter(|effect| !matches!(effect.kind, EffectKind::ServiceRead(..) | EffectKind::Rejected(_)))
            .collect();
        assert!(changes.is_empty(), "call {call}: {changes:#?}");
        assert_eq!((site(&world, "a"), routed(&world, "a")), (record, Some(Color::Green)), "call {call}");
        assert_sound(&mut world);
    }
    // The operation ends without the last calls of the trace.
    assert!(paused > calls / 2, "the worker was paused in {paused} of {calls} runs");
}

#[test]
fn of_two_workers_one_runs_an_operation_in_every_interleaving() {
    let (calls, mut paused) = (promote_calls().len(), 0);
    for call in 0..calls {
        let mut world = World::new(1);
        let promoted = promote(&mut world);
        world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
        let both = [world.process(), world.start()];
        for (one, other) in [(0, 1), (1, 0)].into_iter().cycle().take(80) {
            if world.is_quiescent() {
                break;
            }
            let mut slow = run_once(&both[one]);
            if slow.runs_until_paused(&world) {
                // The fault injector has no further fault: this worker finishes.
                assert!(!run_once(&both[other]).runs_until_paused(&world), "call {call}");
                paused += 1;
                let _ = slow.finish(&world);
            }
            world.clock.advance(Duration::from_millis(500));
        }
        let operation = operation(&world, &promoted).state;
        assert_eq!(operation.status, Status::Ended(TerminalStatus::Succeeded), "call {call}");
        assert!(operation.steps.iter().all(|step| step.attempts == 1), "call {call}: {:?}", operation.steps);
        assert_eq!(operation.epoch, Epoch(1), "call {call}");
        assert_sound(&mut world);
    }
    assert_eq!(paused, calls, "one of the workers was paused once in each run");
}

#[test]
fn calls_to_a_throttling_backend_are_retried_without_parking() {
    let length = calls(|world| drop(provision(world)), World::run).len();
    for from in 0..length {
        let mut world = World::new(1);
        let provision = provision(&mut world);
        world.faults.arm(Plan((from..from + 5).map(|call| (call, Fault::Throttled)).collect()));
        world.run();
        assert!(world.faults.fired() > 0, "from call {from}");
        let operation = operation(&world, &provision).state;
        assert_eq!(operation.status, Status::Ended(TerminalStatus::Succeeded), "from call {from}");
        assert_eq!(site(&world, "a").state(), State::Active);
        let parked = world.log.since(0).into_iter().any(|effect| match effect.kind {
            EffectKind::Site(_, Some(site)) => {
                site.operation.as_ref().is_some_and(|operation| operation.status == Status::Parked)
            }
            _ => false,
        });
        assert!(!parked, "from call {from}");
        assert_sound(&mut world);
    }
}

const HOUR: i64 = 3_600_000;

#[test]
fn a_jump_of_the_wall_clock_takes_no_operation_from_a_live_worker() {
    let ensure = first(&calls(|world| drop(provision(world)), run_turns), "databases.ensure");
    let mut world = World::new(1);
    let provision = provision(&mut world);
    world.faults.arm(Plan(vec![(ensure, Fault::Paused(255))]));
    let first = world.process();
    let mut slow = run_once(&first);
    assert!(slow.runs_until_paused(&world));
    world.restart();
    for jump in [HOUR, -HOUR, -HOUR, HOUR, HOUR, -HOUR].into_iter().cycle().take(18) {
        world.clock.skew_wall(jump);
        world.clock.advance(Duration::from_secs(4));
        // The worker's call hangs, but its heartbeats continue.
        assert!(matches!(slow.poll(&world), PollState::Pending));
        let _ = world.run_once();
        assert_eq!(owner(&world, "a").as_ref(), Some(first.worker.lease().worker()));
        assert_eq!(operation(&world, &provision).state.epoch, Epoch(1));
    }
    let _ = slow.finish(&world);
    assert!(operation(&world, &provision).state.position > Position::Forward(0));
    world.run();
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

#[test]
fn a_jump_of_the_wall_clock_does_not_change_the_end_of_a_lease() {
    let ensure = first(&calls(|world| drop(provision(world)), run_turns), "databases.ensure");
    for jump in [HOUR, 0, -HOUR] {
        let mut world = World::new(1);
        let provision = provision(&mut world);
        world.faults.arm(Plan(vec![(ensure, Fault::CrashBefore)]));
        assert_eq!(world.run_once(), None);
        let _ = world.run_once();
        world.clock.skew_wall(jump);
        for seconds in [1, 10, 9] {
            world.clock.advance(Duration::from_secs(seconds));
            let _ = world.run_once();
            assert_eq!(operation(&world, &provision).state.epoch, Epoch(1), "{jump}");
        }
        world.clock.advance(Duration::from_secs(1));
        let _ = world.run_once();
        assert_eq!(operation(&world, &provision).state.epoch, Epoch(2), "{jump}");
        assert_eq!(owner(&world, "a").as_ref(), Some(world.process().worker.lease().worker()));
        world.run();
        assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded), "{jump}");
        assert_sound(&mut world);
    }
}

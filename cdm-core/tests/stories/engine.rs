//! Workers that die, stop, stand still and race, told from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::operation::Position;
use cdm_core::domain::{
    Color, MonotonicTime, OperationId, ReasonCode, RolloutStatus, State, Status, TerminalStatus, Timestamp,
    WorkerId,
};
use cdm_core::engine::{Settings, Worker};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::ports::{CallContext, Clock, Mutation, Outcome, Ports, WriteBatch, WriteId};
use cdm_testkit::clock::SimClock;
use cdm_testkit::faults::{CallSite, Fault, Plan};
use cdm_testkit::log::What;
use cdm_testkit::world::{Verb, World, now};

use super::waves::{all, fleet, on_green};
use super::{
    Hand, Left, assert_parked, assert_sound, begun, calls, code, first, number, operation, pass, retry, roll,
    rollout, routed, run_once, site, status,
};

/// Who has the operation on the site.
fn owner(world: &World, id: &str) -> Option<WorkerId> {
    site(world, id).operation.and_then(|operation| operation.owner)
}

/// The world's clock, for a worker that must not ask it for ever without letting time pass.
#[derive(Debug)]
struct StepTimeouts {
    clock: SimClock,
    asked: AtomicU64,
}

impl StepTimeouts {
    fn spent(&self) {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(asked < 20_000, "a worker goes round and round without letting time pass");
    }
}

#[async_trait]
impl Clock for StepTimeouts {
    fn wall(&self) -> Timestamp {
        self.spent();
        self.clock.wall()
    }

    fn monotonic(&self) -> MonotonicTime {
        self.spent();
        self.clock.monotonic()
    }

    async fn sleep_until(&self, until: MonotonicTime) {
        self.clock.sleep_until(until).await;
    }
}

/// A worker as a server runs it.
pub(super) fn server(world: &World, name: &str) -> (Arc<Worker>, Hand<()>) {
    let clock = StepTimeouts { clock: world.clock.clone(), asked: AtomicU64::new(0) };
    let ports = Ports { clock: Arc::new(clock), ..world.ports().clone() };
    let platform = PipelineSettings::default();
    let rollouts = Arc::new(Rollouts::new(platform.clone()));
    let pipelines = Arc::new(registry(&platform));
    let worker = Arc::new(Worker::new(WorkerId::new(name), ports, pipelines, rollouts, Settings::default()));
    let run = Arc::clone(&worker);
    (worker, Hand::new(async move { run.run().await }))
}

fn turns(world: &mut World) {
    let _ = world.run_once();
}

#[test]
fn an_operation_that_kills_its_worker_every_time_is_parked_and_others_go_on() {
    let create = |world: &mut World| drop(world.create("a"));
    let deadly = first(&calls(create, turns), "secrets.create");
    let mut world = World::new(1);
    let killer = begun(world.create("a"));
    let other = begun(world.create("b"));
    for attempt in 1..=8 {
        world.faults.arm(Plan(vec![(deadly, Fault::CrashBefore)]));
        assert_eq!(world.run_once(), None, "attempt {attempt}");
        assert_eq!(operation(&world, &killer).state.attempts, attempt);
        // The next process sees the lost one's last sign of life, and does what nobody has meanwhile.
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

/// Has the site's operation be of that version of its pipeline, as a newer process would have accepted it.
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
fn an_operation_of_an_unknown_version_is_left_alone_while_others_run() {
    let mut world = World::new(1);
    world.settle_site("a");
    let unknown = begun(world.on_site("a", Verb::Promote));
    of_version(&world, "a", 99);
    let before = site(&world, "a");
    let other = begun(world.create("b"));
    for _ in 0..20 {
        let _ = world.run_once();
        world.clock.advance(Duration::from_secs(2));
    }
    assert_eq!(status(&world, &other), Status::Ended(TerminalStatus::Succeeded));
    assert_eq!((site(&world, "a"), status(&world, &unknown)), (before, Status::Queued));
    // A process that knows it comes.
    of_version(&world, "a", 1);
    world.run();
    assert_eq!(status(&world, &unknown), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

#[test]
fn a_server_does_not_ask_for_an_operation_of_an_unknown_version_again_and_again() {
    let mut world = World::new(1);
    world.settle_site("a");
    let _ = begun(world.on_site("a", Verb::Promote));
    of_version(&world, "a", 99);
    // Five looks, of some calls each, are due in ten seconds.
    const MOST: usize = 300;
    world.faults.arm(Plan(vec![(MOST, Fault::Paused(255))]));
    let (worker, mut server) = server(&world, "server");
    let end = world.clock.monotonic().after(Duration::from_secs(10));
    while world.clock.monotonic() < end {
        match server.poll(&world) {
            Left::Waits => pass(&world),
            Left::Still => {
                let left = end.since(world.clock.monotonic());
                panic!("{MOST} calls, and {left:?} of ten seconds are left");
            }
            Left::Done(()) => panic!("the server has stopped"),
        }
    }
    worker.stop();
    server.finish(&world);
    of_version(&world, "a", 1);
    world.run();
    assert_sound(&mut world);
}

/// A created site `a` whose provision is queued.
fn provision(world: &mut World) -> OperationId {
    let _ = world.create("a");
    world.run();
    begun(world.on_site("a", Verb::Provision))
}

#[test]
fn a_worker_told_to_stop_hands_over_at_the_next_step_and_another_goes_on_at_once() {
    let queued = |world: &mut World| drop(provision(world));
    let ensure = first(&calls(queued, turns), "databases.ensure");
    let mut world = World::new(1);
    let provision = provision(&mut world);
    world.faults.arm(Plan(vec![(ensure, Fault::Paused(255))]));
    let (first, mut server) = server(&world, "server");
    assert!(server.stands_still(&world));
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
fn a_worker_told_to_stop_leaves_what_waits_and_another_has_it_without_waiting_for_the_lease() {
    let mut world = World::new(1);
    let provision = provision(&mut world);
    let (first, mut server) = server(&world, "server");
    while code(&world, &provision) != Some(ReasonCode::JobRunning) {
        assert!(matches!(server.poll(&world), Left::Waits));
    }
    world.restart();
    // The second one sees the first one's sign of life, and keeps its hands off.
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
fn a_worker_told_to_stop_gives_its_rollout_back_between_two_sites() {
    let mut world = fleet(12);
    let number = number(roll(&mut world, &all(0)));
    let (first, mut server) = server(&world, "server");
    // A call takes longer than a poll.
    world.faults.narrow();
    while on_green(&world, 12).is_empty() {
        assert!(matches!(server.poll(&world), Left::Waits));
    }
    world.faults.widen();
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
fn a_rollout_whose_worker_dies_is_taken_over_within_a_second_after_the_lease() {
    let settings = Settings::default();
    // The second one comes, and the first one dies, at every point of a beat.
    let points = || (0..10).map(|n| Duration::from_millis(10 + 500 * n));
    for (comes, dies_after) in points().flat_map(|comes| points().map(move |dies| (comes, dies))) {
        let mut world = fleet(20);
        super::pending_flush::slowly(&world, 2);
        let number = number(roll(&mut world, &all(0)));
        let (first, mut dies) = server(&world, "first");
        let owner = |world: &World| rollout(world, number).owner;
        let mine = Some(first.lease().worker().clone());
        while owner(&world) != mine {
            assert!(matches!(dies.poll(&world), Left::Waits));
        }
        let begun = world.clock.monotonic();
        while world.clock.monotonic() < begun.after(comes) {
            assert!(matches!(dies.poll(&world), Left::Waits));
            world.clock.advance(Duration::from_millis(10));
        }
        let (second, mut lives) = server(&world, "second");
        while world.clock.monotonic() < begun.after(Duration::from_secs(10) + dies_after) {
            assert!(matches!(dies.poll(&world), Left::Waits) && matches!(lives.poll(&world), Left::Waits));
            world.clock.advance(Duration::from_millis(10));
        }
        assert_eq!(owner(&world), mine);
        drop(dies);
        let died = world.clock.monotonic();
        while owner(&world) == mine {
            assert!(matches!(lives.poll(&world), Left::Waits));
            pass(&world);
        }
        let took = world.clock.monotonic().since(died);
        assert!(took <= settings.lease + Duration::from_secs(1), "{comes:?}, {dies_after:?}: {took:?}");
        second.stop();
        lives.finish(&world);
        assert_sound(&mut world);
    }
}

/// `a` lives on blue, and is to be promoted to green.
fn promote(world: &mut World) -> OperationId {
    world.settle_site("a");
    world.select(Color::Green).unwrap();
    world.run();
    begun(world.on_site("a", Verb::Promote))
}

fn promote_calls() -> Vec<CallSite> {
    calls(|world| drop(promote(world)), World::run)
}

#[test]
fn a_worker_that_lost_its_lease_at_any_call_changes_nothing_any_more() {
    for call in 0..promote_calls().len() {
        let mut world = World::new(1);
        let promoted = promote(&mut world);
        world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
        let lost = world.process();
        let mut slow = run_once(&lost);
        while !slow.stands_still(&world) {
            world.clock.advance(Duration::from_secs(2));
            slow = run_once(&lost);
            if world.rests() {
                break;
            }
        }
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
            .filter(|effect| !matches!(effect.what, What::Looked(..) | What::Refused(_)))
            .collect();
        assert!(changes.is_empty(), "call {call}: {changes:#?}");
        assert_eq!((site(&world, "a"), routed(&world, "a")), (record, Some(Color::Green)), "call {call}");
        assert_sound(&mut world);
    }
}

#[test]
fn of_two_workers_on_one_store_one_runs_an_operation_however_they_interleave() {
    for call in 0..promote_calls().len() {
        let mut world = World::new(1);
        let promoted = promote(&mut world);
        world.faults.arm(Plan(vec![(call, Fault::Paused(255))]));
        let both = [world.process(), world.start()];
        for (one, other) in [(0, 1), (1, 0)].into_iter().cycle().take(80) {
            if world.rests() {
                break;
            }
            let mut slow = run_once(&both[one]);
            if slow.stands_still(&world) {
                // The gate has no more in store: this one comes to its end.
                assert!(!run_once(&both[other]).stands_still(&world), "call {call}");
                let _ = slow.finish(&world);
            }
            world.clock.advance(Duration::from_millis(500));
        }
        let operation = operation(&world, &promoted).state;
        assert_eq!(operation.status, Status::Ended(TerminalStatus::Succeeded), "call {call}");
        assert!(operation.steps.iter().all(|step| step.attempts == 1), "call {call}: {:?}", operation.steps);
        assert_eq!(operation.epoch, 1, "call {call}");
        assert_sound(&mut world);
    }
}

#[test]
fn a_backend_that_asks_for_fewer_calls_is_asked_again_and_no_operation_is_parked_or_failed() {
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
        let parked = world.log.since(0).into_iter().any(|effect| match effect.what {
            What::Site(_, Some(site)) => {
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
fn a_wall_clock_that_jumps_an_hour_takes_no_operation_from_a_worker_that_lives() {
    let ensure = first(&calls(|world| drop(provision(world)), turns), "databases.ensure");
    let mut world = World::new(1);
    let provision = provision(&mut world);
    world.faults.arm(Plan(vec![(ensure, Fault::Paused(255))]));
    let first = world.process();
    let mut slow = run_once(&first);
    assert!(slow.stands_still(&world));
    world.restart();
    for jump in [HOUR, -HOUR, -HOUR, HOUR, HOUR, -HOUR].into_iter().cycle().take(18) {
        world.clock.skew_wall(jump);
        world.clock.advance(Duration::from_secs(4));
        // Its call hangs, but it gives signs of life.
        assert!(matches!(slow.poll(&world), Left::Waits));
        let _ = world.run_once();
        assert_eq!(owner(&world, "a").as_ref(), Some(first.worker.lease().worker()));
        assert_eq!(operation(&world, &provision).state.epoch, 1);
    }
    let _ = slow.finish(&world);
    assert!(operation(&world, &provision).state.position > Position::Forward(0));
    world.run();
    assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded));
    assert_sound(&mut world);
}

#[test]
fn a_wall_clock_that_jumps_an_hour_back_or_forth_neither_delays_nor_hastens_the_end_of_a_lease() {
    let ensure = first(&calls(|world| drop(provision(world)), turns), "databases.ensure");
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
            assert_eq!(operation(&world, &provision).state.epoch, 1, "{jump}");
        }
        world.clock.advance(Duration::from_secs(1));
        let _ = world.run_once();
        assert_eq!(operation(&world, &provision).state.epoch, 2, "{jump}");
        assert_eq!(owner(&world, "a").as_ref(), Some(world.process().worker.lease().worker()));
        world.run();
        assert_eq!(status(&world, &provision), Status::Ended(TerminalStatus::Succeeded), "{jump}");
        assert_sound(&mut world);
    }
}

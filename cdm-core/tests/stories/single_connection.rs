//! A backend with a single connection: the future that holds the connection must be polled until it releases it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use cdm_core::domain::RolloutStatus;
use cdm_core::ports::Clock;
use cdm_testkit::world::{Verb, World};

use super::engine::server;
use super::waves::{all, fleet, nth};
use super::{
    ManualPoll, advance_to_next_event, assert_sound, number, operation_id, rollout, site, start_rollout,
};

/// Records whether a future requested to be polled again.
#[derive(Debug, Default)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs a server with one connection until the condition holds, for at most one minute.
fn runs_until(world: &World, mut server: ManualPoll<()>, done: impl Fn(&World) -> bool) {
    world.faults.use_one_connection();
    let end = world.clock.monotonic().after(Duration::from_secs(60));
    let woken = Arc::new(WakeFlag::default());
    let waker = Waker::from(Arc::clone(&woken));
    while !done(world) {
        assert!(world.clock.monotonic() < end, "the condition does not hold after a minute");
        assert!(
            server.0.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(),
            "the server has stopped"
        );
        if !woken.0.swap(false, Ordering::SeqCst) {
            advance_to_next_event(world);
        }
    }
}

#[test]
fn a_scanning_worker_does_not_block_its_operations() {
    let mut world = fleet(6);
    for n in 0..6 {
        let _ = operation_id(world.on_site(&nth(n), Verb::Promote));
    }
    let (_, running) = server(&world, "server");
    runs_until(&world, running, |world| (0..6).all(|n| site(world, &nth(n)).operation.is_none()));
    assert_sound(&mut world);
}

#[test]
fn a_rollout_that_checks_its_conditions_does_not_block_its_sites() {
    let mut world = fleet(12);
    let it = number(start_rollout(&mut world, &all(0)));
    let (_, running) = server(&world, "server");
    runs_until(&world, running, |world| rollout(world, it).status == RolloutStatus::Succeeded);
    assert_sound(&mut world);
}

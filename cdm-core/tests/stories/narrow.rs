//! A backend with a single connection: whoever has it must be let go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use cdm_core::domain::RolloutStatus;
use cdm_core::ports::Clock;
use cdm_testkit::world::{Verb, World};

use super::engine::server;
use super::waves::{all, fleet, nth};
use super::{Hand, assert_sound, begun, number, pass, roll, rollout, site};

/// Whether a future wants to be polled again at once.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Lets a server that has one connection run until it is so, a minute at most.
fn runs_until(world: &World, mut server: Hand<()>, done: impl Fn(&World) -> bool) {
    world.faults.narrow();
    let end = world.clock.monotonic().after(Duration::from_secs(60));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    while !done(world) {
        assert!(world.clock.monotonic() < end, "after a minute it is not so");
        assert!(
            server.0.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(),
            "the server has stopped"
        );
        if !woken.0.swap(false, Ordering::SeqCst) {
            pass(world);
        }
    }
}

#[test]
fn a_worker_that_looks_for_work_lets_the_work_go_on() {
    let mut world = fleet(6);
    for n in 0..6 {
        let _ = begun(world.on_site(&nth(n), Verb::Promote));
    }
    let (_, running) = server(&world, "server");
    runs_until(&world, running, |world| (0..6).all(|n| site(world, &nth(n)).operation.is_none()));
    assert_sound(&mut world);
}

#[test]
fn a_rollout_that_looks_whether_it_may_go_on_lets_its_sites_go_on() {
    let mut world = fleet(12);
    let it = number(roll(&mut world, &all(0)));
    let (_, running) = server(&world, "server");
    runs_until(&world, running, |world| rollout(world, it).status == RolloutStatus::Succeeded);
    assert_sound(&mut world);
}

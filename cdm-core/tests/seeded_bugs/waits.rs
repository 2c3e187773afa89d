//! What waits: bugs that let it spin, count or be written without end.

use std::time::Duration;

use cdm_core::domain::{Color, State};
use cdm_core::ports::Clock;
use cdm_testkit::faults::{Outage, OutageKind};
use cdm_testkit::log::What;
use cdm_testkit::world::{Verb, World};

use super::{expect, seen_in};

/// The databases are away for longer than all attempts take.
pub(crate) fn outage_in_provision() -> Vec<String> {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    world.on_site("rrr", Verb::Provision).expect("it is accepted");
    let (before, lasts) = (world.log.len(), Duration::from_secs(240));
    let outage = Outage { port: "databases", kind: OutageKind::Refused, from: 0, lasts, crash: None };
    world.faults.outage(Some(outage));
    let until = world.clock.monotonic().after(lasts);
    while world.clock.monotonic() < until {
        world.run_once();
        world.clock.advance(Duration::from_millis(500));
    }
    let written = world.log.since(before);
    let written = written.iter().filter(|effect| matches!(effect.what, What::Site(..))).count();
    let (_, calls) = world.faults.outage_calls();
    let mut seen = seen_in(&mut world);
    expect(&mut seen, world.parked().is_empty(), "an operation is parked by an outage");
    expect(&mut seen, calls <= 30, "a backend that is away is asked without a growing pause");
    expect(&mut seen, written <= 3, "an unchanged wait is written again and again");
    world.run();
    let active = world.store.all_sites().iter().all(|site| site.state() == State::Active);
    expect(&mut seen, active, "the site is not active after the outage");
    seen
}

/// The canary changes under every write.
pub(crate) fn conflicts() -> Vec<String> {
    let mut world = World::new(1);
    let lasts = Duration::from_secs(3_600);
    let outage =
        Outage { port: "cluster.set_canary", kind: OutageKind::Conflict, from: 0, lasts, crash: None };
    world.faults.outage(Some(outage));
    world.select(Color::Green).expect("it is accepted");
    for _ in 0..150 {
        world.run_once();
        world.clock.advance(Duration::from_secs(2));
    }
    let mut seen: Vec<String> = world.checker.violations().iter().map(ToString::to_string).collect();
    expect(&mut seen, world.parked().len() == 1, "an operation without attempts left is not parked");
    seen
}

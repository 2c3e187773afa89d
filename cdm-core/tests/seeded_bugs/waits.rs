//! Scenarios that catch bugs in waiting: steps that spin, consume attempts, or are written without end.

use std::time::Duration;

use cdm_core::domain::{Color, State};
use cdm_core::ports::Clock;
use cdm_testkit::faults::{Outage, OutageKind};
use cdm_testkit::log::EffectKind;
use cdm_testkit::world::{Verb, World};

use super::{expect, violations};

/// The databases are unavailable for longer than all attempts take.
pub(crate) fn outage_in_provision() -> Vec<String> {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    world.on_site("rrr", Verb::Provision).expect("the request is accepted");
    let (before, lasts) = (world.log.len(), Duration::from_secs(240));
    let outage = Outage { port: "databases", kind: OutageKind::Refused, from: 0, lasts, crash: None };
    world.faults.outage(Some(outage));
    let until = world.clock.monotonic().after(lasts);
    while world.clock.monotonic() < until {
        world.run_once();
        world.clock.advance(Duration::from_millis(500));
    }
    let written = world.log.since(before);
    let written = written.iter().filter(|effect| matches!(effect.kind, EffectKind::Site(..))).count();
    let (_, calls) = world.faults.outage_calls();
    let mut findings = violations(&mut world);
    expect(&mut findings, world.parked().is_empty(), "an operation is parked by an outage");
    expect(&mut findings, calls <= 30, "an unavailable backend is called without growing pauses");
    expect(&mut findings, written <= 3, "an unchanged wait is written again and again");
    world.run();
    let active = world.store.all_sites().iter().all(|site| site.state() == State::Active);
    expect(&mut findings, active, "the site is not active after the outage");
    findings
}

/// The canary changes before every write.
pub(crate) fn conflicts() -> Vec<String> {
    let mut world = World::new(1);
    let lasts = Duration::from_secs(3_600);
    let outage =
        Outage { port: "cluster.set_canary", kind: OutageKind::Conflict, from: 0, lasts, crash: None };
    world.faults.outage(Some(outage));
    world.select(Color::Green).expect("the request is accepted");
    for _ in 0..150 {
        world.run_once();
        world.clock.advance(Duration::from_secs(2));
    }
    let mut findings: Vec<String> = world.checker.violations().iter().map(ToString::to_string).collect();
    expect(&mut findings, world.parked().len() == 1, "an operation without attempts left is not parked");
    findings
}

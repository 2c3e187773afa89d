//! Do the campaigns bite? Each bug of the catalogue is switched on alone, and has to be caught by the test that is named
//! for it here.

#![allow(clippy::print_stdout, reason = "which test saw what of each bug is the campaign's result")]

#[path = "../campaign/mod.rs"]
mod campaign;
mod digests;
mod installs;
mod waits;

use std::time::Duration;

use campaign::{Campaign, caught};
use cdm_core::bugs::{Bug, plant};
use cdm_core::domain::rollout::{Budget, HealthGate, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, OperationKind, RolloutStatus, State, Status, TerminalStatus};
use cdm_core::manager::{Accepted, NewFreeze, RolloutRequest, RolloutScope};
use cdm_core::ports::{Clock, JobFailure, JobState};
use cdm_testkit::fakes::{Answer, Away, FakePostman, JobScript};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::{Scenario, Summary, Verb, Wake, World, digest, now, scenarios, zombie};

/// What catches a bug: answers what it saw, and nothing when all was well.
type Test = fn() -> Vec<String>;

/// Every bug, the test that has to catch it, and that test's name.
fn catalogue() -> Vec<(Bug, &'static str, Test)> {
    vec![
        (Bug::ClaimIgnoresGrant, "a rollout aborted after its owner was lost", aborted_after_loss),
        (Bug::CompleteIgnoresFence, "a site moved again after an owner was lost", moved_again_after_loss),
        (Bug::PrefixWithoutSlash, "NoForeign in a terminate", || compared("terminate")),
        (Bug::HoldIgnored, "a deploy beside a promote", deploy_beside_promote),
        (Bug::RollbackTakesAny, "the end state of a rollback", || compared("rollback")),
        (Bug::RolledBackIsHealthy, "two rollbacks in a row", digests::rolled_back_twice),
        (
            Bug::VerdictOnRolloutsDigest,
            "a gate that halts on an accepted digest",
            digests::accepted_and_condemned,
        ),
        (Bug::WindowIgnoresDigest, "another digest between two waves", digests::changed_between_waves),
        (Bug::PauseForgotten, "a paused rollout", paused_rollout),
        (Bug::BudgetIgnored, "a rollout over its budget", over_budget),
        (Bug::JournalAfterEffect, "JournalFirst in a provision", || compared("provision")),
        (Bug::TimeoutIsFailure, "single faults of a promote", || singles("promote")),
        (Bug::TakeOverKeepsEpoch, "interleavings of a promote", || zombies("promote")),
        (Bug::LeaseIgnored, "interleavings of a provision", || zombies("provision")),
        (Bug::WaitCountsAttempts, "an outage in a provision", waits::outage_in_provision),
        (Bug::WaitAlwaysStored, "an outage in a provision", waits::outage_in_provision),
        (Bug::PauseDoesNotGrow, "an outage in a provision", waits::outage_in_provision),
        (Bug::IllegalTransitionSwallowed, "BoundedWrites in a select that meets conflicts", waits::conflicts),
        (Bug::AttemptsUncounted, "an operation that kills its worker", poison),
        (Bug::UnknownVersionRun, "an operation of another version", unknown_version),
        (Bug::ConflictOverwritten, "a cancel beside a running step", || cancel_beside_step()),
        (Bug::CancelIgnored, "the end state of a cancelled promote", || compared("promote-cancelled")),
        (Bug::RouteBeforeReady, "a promote to a service that is not ready", not_ready),
        (Bug::RouteFenceIgnored, "interleavings of a promote", || zombies("promote")),
        (Bug::SecretRedrawn, "the stored password in a provision", || compared("provision")),
        (Bug::HalfDeletePage, "NoOrphans after a terminate", || compared("terminate")),
        (Bug::DeleteErrorsIgnored, "keys that are not deleted at once", stubborn_keys),
        (Bug::DataBeforeRoute, "DestroyLast in a terminate", || compared("terminate")),
        (Bug::JobRestarted, "single faults of a provision", || singles("provision")),
        (Bug::JobNotAwaited, "an installation that fails", failing_installation),
        (Bug::UndoLeavesRoute, "the end state of a cancelled promote", || compared("promote-cancelled")),
        (Bug::FailedImageStays, "the end state of a broken deploy", || compared("deploy-broken")),
        (Bug::SecretInReason, "NoSecretOut in a provision", || compared("provision")),
        (Bug::WindowNotSettled, "a rollout aborted after its owner was lost", aborted_after_loss),
        (Bug::WindowOverrun, "WaveBound in a rollout", || compared("rollout-promote")),
        (Bug::NameNotUid, "a site created again during a rollout", created_again),
        (Bug::HostnamesKept, "NoOrphans after a terminate", || compared("terminate")),
        (Bug::OldAnswerCounts, "a route that does not come round", || gated(lagging)),
        (Bug::UnhealthyStays, "the end state of a gate that halts", || compared("rollout-gated-halts")),
        (Bug::InconclusiveIsFailure, "a site that cannot be asked", || gated(away)),
        (Bug::GateAcquits, "the verdict of a gate that halts", image_rejected),
        (Bug::FreezeIgnored, "a rollout in a freeze", frozen),
        (Bug::BakeSkipped, "the time between two waves", baking),
        (Bug::TrailingForgotten, "NoStaleCache after a rollout", || compared("rollout-promote")),
        (Bug::AddressProvesInstall, "SignIn after an installation that was cut short", installs::cut_short),
        (Bug::ExitProvesFlush, "a flush that ended before it flushed", installs::unflushed),
        (Bug::ActiveDatabaseRenewed, "KeptDatabase of a site that was active", installs::kept),
        (Bug::WebhookImpatient, "a receiver that fails", failing_receiver),
        (Bug::WebhookPlaceFirst, "a receiver that fails", failing_receiver),
    ]
}

#[test]
fn seeded_bugs() {
    let catalogue = catalogue();
    let missing: Vec<_> =
        Bug::ALL.iter().filter(|bug| !catalogue.iter().any(|(known, ..)| known == *bug)).collect();
    assert!(missing.is_empty(), "no test is named for {missing:?}");
    let mut sound: Vec<&str> = Vec::new();
    let mut campaign = Campaign::new("seeded-bugs");
    for (bug, name, test) in &catalogue {
        // Without the bug the same test has to be content, or it would prove nothing.
        if !sound.contains(name) {
            let seen = caught(test).unwrap_or_else(|panic| vec![panic]);
            campaign.run(if seen.is_empty() {
                Ok(())
            } else {
                Err(format!("{name} without a bug: {seen:#?}"))
            });
            sound.push(name);
        }
        plant(Some(*bug));
        let seen = caught(test).unwrap_or_else(|panic| vec![panic]);
        plant(None);
        // Where an invariant is named, it has to be that one.
        let word = name.split(' ').next().unwrap_or_default();
        let invariant = word.chars().filter(|letter| letter.is_uppercase()).count() > 1;
        let seen: Vec<String> =
            seen.into_iter().filter(|seen| !invariant || seen.starts_with(word)).collect();
        if let Some(first) = seen.first() {
            println!("  {bug:?} is caught by {name}: {}", first.chars().take(120).collect::<String>());
        }
        campaign.run(if seen.is_empty() { Err(format!("{bug:?} is not caught by {name}")) } else { Ok(()) });
    }
    campaign.end(&format!("{} bugs, each caught by the test named for it", catalogue.len()));
}

fn scenario(name: &str) -> Scenario {
    scenarios().into_iter().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

/// What `act` comes to, and what was broken on the way.
fn played(scenario: &Scenario, plan: Plan) -> (Summary, Vec<String>) {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.faults.arm(plan);
    (scenario.act)(&mut world);
    world.converge();
    let violations = world.violations().iter().map(ToString::to_string).collect();
    (Summary::of(&world), violations)
}

fn without_bugs<T>(run: impl FnOnce() -> T) -> T {
    let planted = Bug::ALL.iter().copied().find(|bug| cdm_core::bugs::planted(*bug));
    plant(None);
    let result = run();
    plant(planted);
    result
}

/// Plays a scenario without faults, and compares it with the same one without the bug.
fn compared(name: &str) -> Vec<String> {
    let scenario = scenario(name);
    let (reference, _) = without_bugs(|| played(&scenario, Plan::default()));
    let (summary, mut seen) = played(&scenario, Plan::default());
    seen.extend(reference.difference(&summary));
    seen
}

fn calls(scenario: &Scenario) -> Vec<cdm_testkit::faults::CallSite> {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.faults.start_trace();
    (scenario.act)(&mut world);
    world.faults.trace()
}

/// Plays a scenario with each single fault, until something is wrong.
fn singles(name: &str) -> Vec<String> {
    let scenario = scenario(name);
    let (reference, calls) = without_bugs(|| (played(&scenario, Plan::default()).0, calls(&scenario)));
    for (at, call) in calls.iter().enumerate() {
        for fault in Fault::KINDS.into_iter().filter(|fault| call.takes(*fault)) {
            let (summary, mut seen) = played(&scenario, Plan(vec![(at, fault)]));
            seen.extend(reference.difference(&summary));
            if !seen.is_empty() {
                return seen;
            }
        }
    }
    Vec::new()
}

/// Plays a scenario with a worker that stands still at each call and goes on at each of some moments, until something is
/// wrong.
fn zombies(name: &str) -> Vec<String> {
    let scenario = scenario(name);
    let (reference, calls) = without_bugs(|| (played(&scenario, Plan::default()).0, calls(&scenario).len()));
    for at in 0..calls {
        let mut wakes = vec![Wake::AtRest];
        let effects = match caught(|| zombie(&scenario, at, Wake::AtRest)) {
            Ok(woken) => woken.effects,
            Err(panic) => return vec![panic],
        };
        wakes.extend((0..effects).map(Wake::After));
        if name == "provision" {
            wakes.push(Wake::Terminated);
        }
        for wake in wakes {
            let woken = zombie(&scenario, at, wake);
            let mut seen: Vec<String> = woken.violations.iter().map(ToString::to_string).collect();
            if wake != Wake::Terminated {
                seen.extend(reference.difference(&woken.summary));
            }
            if !seen.is_empty() {
                return seen;
            }
        }
    }
    Vec::new()
}

fn seen_in(world: &mut World) -> Vec<String> {
    world.violations().iter().map(ToString::to_string).collect()
}

fn expect(seen: &mut Vec<String>, locked_color: bool, what: &str) {
    if !locked_color {
        seen.push(what.to_owned());
    }
}

fn on_green() -> World {
    let mut world = World::new(1);
    world.settle_site("rrr");
    world.select(Color::Green).expect("green is selected");
    world.run();
    world
}

/// A promote that stands between its look and its write, while a deploy is asked for on the same colour.
fn deploy_beside_promote() -> Vec<String> {
    let scenario = scenario("promote");
    let moves = without_bugs(|| calls(&scenario)).iter().position(|call| call.name == "cluster.move_route");
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.faults.arm(Plan(vec![(moves.expect("a promote moves a route"), Fault::Paused(u8::MAX))]));
    world.on_site("rrr", Verb::Promote).expect("it is accepted");
    world.run_once();
    // The promote's worker stands still with its hold; a deploy to the same colour has to wait for it.
    world.deploy(digest(1), Color::Green, false).expect("it is accepted");
    for _ in 0..3 {
        world.run_once();
    }
    world.finish_zombies();
    let seen = seen_in(&mut world);
    seen.into_iter().filter(|seen| seen.starts_with("RouteReady")).collect()
}

fn fleet(sites: &[&str]) -> World {
    let mut world = World::new(1);
    for id in sites {
        world.settle_site(id);
    }
    world.select(Color::Green).expect("green is selected");
    world.run();
    world
}

fn rollout(world: &mut World, wanted: RolloutRequest) -> u64 {
    let accepted = world.ask(move |manager, request| {
        let wanted = wanted.clone();
        Box::pin(async move { manager.rollout(&request, &wanted).await })
    });
    match accepted {
        Ok(Accepted::Rollout(number)) => number,
        other => panic!("no rollout: {other:?}"),
    }
}

fn in_two_waves() -> RolloutRequest {
    RolloutRequest {
        promote: true,
        scope: RolloutScope::All,
        waves: vec![WaveTarget::Count(2), WaveTarget::Percent(100)],
        budget: Budget::Count(0),
        max_concurrent: 1,
        ..RolloutRequest::default()
    }
}

fn status(world: &World, number: u64) -> RolloutStatus {
    let all = world.store.all_rollouts();
    all.iter().find(|rollout| rollout.number == number).expect("the rollout").status
}

/// The calls of that name in a promotion of a fleet, one site at a time.
fn calls_of_fleet(name: &str) -> Vec<usize> {
    without_bugs(|| {
        let mut world = fleet(&["a", "b", "c"]);
        world.faults.start_trace();
        rollout(&mut world, RolloutRequest { waves: Vec::new(), ..in_two_waves() });
        world.run();
        let calls = world.faults.trace();
        calls.iter().enumerate().filter(|(_, call)| call.name == name).map(|(at, _)| at).collect()
    })
}

/// The owner stands still with a claim under way; its successor is asked to abort; then the first one goes on.
fn aborted_after_loss() -> Vec<String> {
    let mut seen = Vec::new();
    for at in calls_of_fleet("store.claim") {
        let mut world = fleet(&["a", "b", "c"]);
        world.faults.arm(Plan(vec![(at, Fault::Paused(u8::MAX))]));
        let number = rollout(&mut world, RolloutRequest { waves: Vec::new(), ..in_two_waves() });
        world.run_once();
        let abort =
            world.ask(move |manager, request| Box::pin(async move { manager.abort(&request, number).await }));
        abort.expect("it is asked to abort");
        world.run();
        expect(&mut seen, status(&world, number) == RolloutStatus::Aborted, "the rollout was not aborted");
        world.finish_zombies();
        world.converge();
        seen.extend(seen_in(&mut world));
    }
    seen
}

/// The owner stands still with a completion under way; its successor finishes; the site is moved back by itself; then
/// the first one goes on.
fn moved_again_after_loss() -> Vec<String> {
    let mut seen = Vec::new();
    for at in calls_of_fleet("store.complete") {
        let mut world = fleet(&["a", "b", "c"]);
        world.faults.arm(Plan(vec![(at, Fault::Paused(u8::MAX))]));
        rollout(&mut world, RolloutRequest { waves: Vec::new(), ..in_two_waves() });
        world.run();
        world.select(Color::Blue).expect("blue is selected");
        world.run();
        for id in ["a", "b", "c"] {
            world.on_site(id, Verb::Promote).expect("it is accepted");
        }
        world.run();
        world.finish_zombies();
        world.converge();
        seen.extend(seen_in(&mut world));
    }
    seen
}

/// Someone asks for a pause while the rollout's owner stands still in its first window.
fn paused_rollout() -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let number = rollout(&mut world, in_two_waves());
    // Held back by a target that is not ready, it has a window but moves nobody.
    world.cluster.break_service(Color::Green, None);
    world.run_once();
    let _ = world.ask(move |manager, request| Box::pin(async move { manager.pause(&request, number).await }));
    world.cluster.mend_service(Color::Green);
    world.run();
    let mut seen = seen_in(&mut world);
    expect(&mut seen, status(&world, number) == RolloutStatus::Paused, "the rollout did not pause");
    seen
}

/// A rollout with a gate that cannot speak: it has to pause, and nobody has failed.
fn gated(silence: fn(&World)) -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    silence(&world);
    let number = rollout(&mut world, RolloutRequest { gate: HealthGate::new("/").ok(), ..in_two_waves() });
    world.run();
    let mut seen = seen_in(&mut world);
    expect(&mut seen, status(&world, number) == RolloutStatus::Paused, "the rollout did not pause");
    seen
}

/// Visitors see the old service for longer than a gate waits.
fn lagging(world: &World) {
    world.probe.lag(Duration::from_secs(600), &world.cluster.routes());
}

fn away(world: &World) {
    for site in world.store.all_sites() {
        world.probe.away(site.uid, Away::Yes);
    }
}

/// An image that is ready and answers 500.
fn image_rejected() -> Vec<String> {
    let mut world = fleet(&["a", "b"]);
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    world.probe.break_digest(digest(1));
    let _ = rollout(&mut world, RolloutRequest { gate: HealthGate::new("/").ok(), ..in_two_waves() });
    world.run();
    let service = now(world.raw().store.service(Color::Green)).expect("a colour");
    let bad = service.releases.iter().any(|release| release.verdict == Verdict::Bad);
    let mut seen = seen_in(&mut world);
    expect(&mut seen, bad, "the image is not bad");
    seen
}

/// A freeze comes after the rollout was accepted, before anyone is moved.
fn frozen() -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let number = rollout(&mut world, in_two_waves());
    let wanted = NewFreeze { sites: None, reason: "a sale".to_owned(), until: None };
    let _ = world.ask(move |manager, request| {
        let wanted = wanted.clone();
        Box::pin(async move { manager.freeze(&request, &wanted).await })
    });
    for _ in 0..20 {
        let _ = world.run_once();
    }
    let mut seen = seen_in(&mut world);
    expect(&mut seen, status(&world, number) == RolloutStatus::Waiting, "the rollout went on");
    seen
}

fn baking() -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let begun = world.clock.monotonic();
    let _ = rollout(&mut world, RolloutRequest { bake: Duration::from_secs(600), ..in_two_waves() });
    world.run();
    let mut seen = seen_in(&mut world);
    let took = world.clock.monotonic().since(begun);
    expect(&mut seen, took >= Duration::from_secs(600), "the next wave did not wait");
    seen
}

fn failing_receiver() -> Vec<String> {
    const URL: &str = "https://hooks.example.com/";
    let (mut world, mut seen, postman) = (World::new(1), Vec::new(), FakePostman::default());
    let _ = world.hook(URL, &[]).expect("a webhook");
    world.settle_site("rrr");
    postman.answer(URL, Some(Answer::Loses));
    now(world.dispatcher(&postman).run_once());
    now(world.dispatcher(&postman).run_once());
    expect(&mut seen, postman.brought(URL).len() == 1, "it was asked again at once");
    postman.answer(URL, None);
    world.clock.advance(Duration::from_secs(5));
    now(world.dispatcher(&postman).run_once());
    let ids: Vec<String> = postman.brought(URL).into_iter().map(|message| message.id).collect();
    expect(&mut seen, ids.len() > 1 && ids[0] == ids[1], "a message that may not have arrived is lost");
    seen
}

/// Two sites of the first wave have lost their routes.
fn over_budget() -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let sites = world.store.all_sites();
    let site = sites.iter().find(|site| site.id.as_str() == "a").expect("the site");
    let call = cdm_core::ports::CallContext {
        deadline: cdm_core::domain::MonotonicTime::from_millis(u64::MAX),
        write: cdm_core::ports::WriteId(u64::MAX),
        fence: cdm_core::domain::Fence::default(),
    };
    let _ = cdm_testkit::world::now(world.raw().cluster.release(&call, site.uid));
    let number = rollout(&mut world, in_two_waves());
    world.run();
    let mut seen = Vec::new();
    expect(&mut seen, status(&world, number) == RolloutStatus::Halted, "the rollout did not halt");
    seen
}

/// A step at whose first call the worker dies, each time.
fn poison() -> Vec<String> {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    world.on_site("rrr", Verb::Provision).expect("it is accepted");
    for _ in 0..400 {
        world.faults.crash_at("databases.ensure");
        world.run_once();
        if world.rests() {
            break;
        }
        world.clock.advance(Duration::from_secs(5));
    }
    let mut seen = Vec::new();
    expect(&mut seen, world.parked().len() == 1, "an operation that kills its worker is not parked");
    seen
}

/// An operation that a newer process has accepted.
fn unknown_version() -> Vec<String> {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    world.on_site("rrr", Verb::Provision).expect("it is accepted");
    world.edit_site("rrr", |site| {
        if let Some(operation) = &mut site.operation {
            operation.pipeline = 99;
        }
    });
    let before = world.log.len();
    for _ in 0..20 {
        world.run_once();
    }
    let touched = world.log.since(before);
    touched.iter().take(1).map(|effect| format!("{effect:?}")).collect()
}

/// Someone cancels while a step runs: the request must survive what the worker writes next.
fn cancel_beside_step() -> Vec<String> {
    let mut seen = Vec::new();
    let scenario = scenario("promote");
    let writes: Vec<usize> = without_bugs(|| calls(&scenario))
        .iter()
        .enumerate()
        .filter(|(_, call)| call.name == "store.write")
        .map(|(at, _)| at)
        .collect();
    for at in writes.into_iter().skip(2) {
        let mut world = World::new(1);
        (scenario.before)(&mut world);
        world.faults.arm(Plan(vec![(at, Fault::Paused(u8::MAX))]));
        world.on_site("rrr", Verb::Promote).expect("it is accepted");
        world.run_once();
        if !world.has_zombie() {
            continue;
        }
        let sites = world.store.all_sites();
        let site = sites.iter().find(|site| site.id.as_str() == "rrr").expect("the site");
        let Some(state) = &site.operation else { continue };
        let id =
            cdm_core::domain::OperationId::on(state.number, cdm_core::domain::Subject::Site(site.id.clone()));
        let asked = world.ask(move |manager, request| {
            let id = id.clone();
            Box::pin(async move { manager.cancel(&request, &id).await })
        });
        if asked.is_err() {
            continue;
        }
        world.finish_zombies();
        world.converge();
        let ended = world.log.since(0).into_iter().rev().find_map(|effect| match effect.what {
            cdm_testkit::log::What::Ended(operation)
                if operation.state.input.kind() == OperationKind::Promote =>
            {
                Some(operation.state.status)
            }
            _ => None,
        });
        if ended != Some(Status::Ended(TerminalStatus::Cancelled)) {
            seen.push(format!("a cancel beside the write at {at} was lost: {ended:?}"));
        }
    }
    seen
}

fn not_ready() -> Vec<String> {
    let mut world = on_green();
    world.cluster.break_service(Color::Green, None);
    world.on_site("rrr", Verb::Promote).expect("it is accepted");
    for _ in 0..5 {
        world.run_once();
    }
    seen_in(&mut world).into_iter().filter(|seen| seen.starts_with("RouteReady")).collect()
}

fn stubborn_keys() -> Vec<String> {
    let scenario = scenario("terminate");
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.objects.fail_keys(2);
    (scenario.act)(&mut world);
    world.converge();
    seen_in(&mut world)
}

fn failing_installation() -> Vec<String> {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    let failed = || JobScript {
        takes: Duration::from_secs(1),
        result: JobState::Failed { message: "no database".to_owned(), cause: JobFailure::Other },
    };
    world.cluster.script_job("install", vec![failed(), failed(), failed()]);
    world.on_site("rrr", Verb::Provision).expect("it is accepted");
    world.run();
    let mut seen = seen_in(&mut world);
    let state = world.store.all_sites().first().map(|site| site.state());
    expect(&mut seen, state == Some(State::Provisioning), "a site whose installation failed went on");
    seen
}

/// A site is terminated and created again under the same id while a rollout is paused before it.
fn created_again() -> Vec<String> {
    let mut world = fleet(&["a", "b"]);
    world.cluster.break_service(Color::Green, None);
    let number = rollout(&mut world, RolloutRequest { waves: Vec::new(), ..in_two_waves() });
    world.run_once();
    let pause =
        world.ask(move |manager, request| Box::pin(async move { manager.pause(&request, number).await }));
    pause.expect("it is asked to pause");
    world.run();
    world.on_site("b", Verb::Terminate).expect("it is accepted");
    world.run();
    // On blue, where the new one shall stay.
    world.select(Color::Blue).expect("blue is selected");
    world.run();
    world.settle_site("b");
    world.cluster.mend_service(Color::Green);
    let resume =
        world.ask(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }));
    resume.expect("it goes on");
    world.run();
    let mut seen = seen_in(&mut world);
    expect(
        &mut seen,
        status(&world, number) == RolloutStatus::Succeeded,
        "the rollout stumbled over a stranger",
    );
    let sites = world.store.all_sites();
    let b = sites.iter().find(|site| site.id.as_str() == "b").expect("the site");
    expect(&mut seen, b.service == Color::Blue, "a rollout moved a site that was created after it");
    seen
}

/// A person's verdict holds: kept here because a planted bug in the choice of a rollback needs a bad digest to choose.
#[test]
fn a_bad_digest_is_never_chosen() {
    let scenario = scenario("rollback");
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    (scenario.act)(&mut world);
    let service = cdm_testkit::world::now(world.raw().store.service(Color::Blue)).expect("the colour");
    let bad = service.releases.iter().find(|release| Some(release.digest) == service.running);
    assert_ne!(bad.map(|release| release.verdict), Some(Verdict::Bad));
}

//! Tests the campaigns: each planted bug is enabled alone, and the test that is named for it here must catch it.

#![allow(clippy::print_stdout, reason = "the campaign prints which test caught each bug")]

mod digests;
mod installs;
mod waits;

use std::time::Duration;

use cdm_core::bugs::{Bug, plant};
use cdm_core::domain::rollout::{Budget, HealthGate, RolloutKind, RolloutSpec, WaveTarget};
use cdm_core::domain::service::Verdict;
use cdm_core::domain::{Color, OperationKind, RolloutStatus, State, Status, TerminalStatus};
use cdm_core::manager::{Accepted, NewFreeze, RolloutScope};
use cdm_core::ports::{Clock, JobFailure, JobState};
use cdm_testkit::campaign::{Campaign, catch_panic};
use cdm_testkit::fakes::{FakeWebhookSender, JobScript, ReceiverBehavior, Unreachable};
use cdm_testkit::faults::{Fault, Plan};
use cdm_testkit::world::{Scenario, Summary, Verb, Wake, World, digest, now, scenarios, zombie};

/// A test that catches a bug: returns its findings, or nothing without the bug.
type Test = fn() -> Vec<String>;

/// Returns every bug with the name of the test that must catch it, and the test.
fn catalog() -> Vec<(Bug, &'static str, Test)> {
    vec![
        (Bug::ClaimIgnoresGrant, "a rollout aborted after its owner was lost", aborted_after_loss),
        (Bug::CompleteIgnoresFence, "a site moved again after an owner was lost", moved_again_after_loss),
        (Bug::PrefixWithoutSlash, "NoForeign in a terminate", || compare_without_bug("terminate")),
        (Bug::HoldIgnored, "a deploy during a promote", deploy_during_promote),
        (Bug::RollbackTakesAny, "the end state of a rollback", || compare_without_bug("rollback")),
        (Bug::RolledBackIsHealthy, "two rollbacks in a row", digests::rolled_back_twice),
        (
            Bug::VerdictOnRolloutsDigest,
            "a gate that halts on an accepted digest",
            digests::accepted_and_rejected,
        ),
        (Bug::WindowIgnoresDigest, "another digest between two waves", digests::changed_between_waves),
        (Bug::PauseForgotten, "a paused rollout", paused_rollout),
        (Bug::BudgetIgnored, "a rollout over its budget", over_budget),
        (Bug::JournalAfterEffect, "JournalFirst in a provision", || compare_without_bug("provision")),
        (Bug::TimeoutIsFailure, "single faults of a promote", || singles("promote")),
        (Bug::TakeOverKeepsEpoch, "interleavings of a promote", || zombies("promote")),
        (Bug::LeaseIgnored, "interleavings of a provision", || zombies("provision")),
        (Bug::WaitCountsAttempts, "an outage in a provision", waits::outage_in_provision),
        (Bug::WaitAlwaysStored, "an outage in a provision", waits::outage_in_provision),
        (Bug::PauseDoesNotGrow, "an outage in a provision", waits::outage_in_provision),
        (Bug::IllegalTransitionSwallowed, "BoundedWrites in a select that meets conflicts", waits::conflicts),
        (Bug::AttemptsUncounted, "an operation that kills its worker", poison),
        (Bug::UnknownVersionRun, "an operation of another version", unknown_version),
        (Bug::ConflictOverwritten, "a cancel during a running step", || cancel_during_step()),
        (Bug::CancelIgnored, "the end state of a cancelled promote", || {
            compare_without_bug("promote-cancelled")
        }),
        (Bug::RouteBeforeReady, "a promote to a service that is not ready", not_ready),
        (Bug::RouteFenceIgnored, "interleavings of a promote", || zombies("promote")),
        (Bug::SecretRedrawn, "the stored password in a provision", || compare_without_bug("provision")),
        (Bug::HalfDeletePage, "NoOrphans after a terminate", || compare_without_bug("terminate")),
        (Bug::DeleteErrorsIgnored, "keys that are not deleted at once", stubborn_keys),
        (Bug::DataBeforeRoute, "DestroyLast in a terminate", || compare_without_bug("terminate")),
        (Bug::JobRestarted, "single faults of a provision", || singles("provision")),
        (Bug::JobNotAwaited, "an installation that fails", failing_installation),
        (Bug::UndoLeavesRoute, "the end state of a cancelled promote", || {
            compare_without_bug("promote-cancelled")
        }),
        (Bug::FailedImageStays, "the end state of a broken deploy", || compare_without_bug("deploy-broken")),
        (Bug::SecretInReason, "NoSecretOut in a provision", || compare_without_bug("provision")),
        (Bug::WindowNotSettled, "a rollout aborted after its owner was lost", aborted_after_loss),
        (Bug::WindowOverrun, "WaveBound in a rollout", || compare_without_bug("rollout-promote")),
        (Bug::NameNotUid, "a site created again during a rollout", created_again),
        (Bug::HostnamesKept, "NoOrphans after a terminate", || compare_without_bug("terminate")),
        (Bug::OldAnswerCounts, "a route that does not settle", || gated(lagging)),
        (Bug::UnhealthyStays, "the end state of a gate that halts", || {
            compare_without_bug("rollout-gated-halts")
        }),
        (Bug::InconclusiveIsFailure, "a site that cannot be probed", || gated(away)),
        (Bug::GateAcquits, "the verdict of a gate that halts", image_rejected),
        (Bug::FreezeIgnored, "a rollout in a freeze", frozen),
        (Bug::BakeSkipped, "the time between two waves", baking),
        (Bug::TrailingForgotten, "NoStaleCache after a rollout", || compare_without_bug("rollout-promote")),
        (Bug::AddressProvesInstall, "SignIn after an installation that was cut short", installs::cut_short),
        (Bug::ExitProvesFlush, "a flush that ended before it flushed", installs::unflushed),
        (Bug::ActiveDatabaseRenewed, "KeptDatabase of a site that was active", installs::kept),
        (Bug::WebhookImpatient, "a receiver that fails", failing_receiver),
        (Bug::WebhookPlaceFirst, "a receiver that fails", failing_receiver),
    ]
}

#[test]
fn seeded_bugs() {
    let catalog = catalog();
    let missing: Vec<_> =
        Bug::ALL.iter().filter(|bug| !catalog.iter().any(|(known, ..)| known == *bug)).collect();
    assert!(missing.is_empty(), "no test is named for {missing:?}");
    let mut passed: Vec<&str> = Vec::new();
    let mut campaign = Campaign::new("seeded-bugs");
    for (bug, name, test) in &catalog {
        // Without the bug, the same test must have no findings, otherwise it proves nothing.
        if !passed.contains(name) {
            let findings = catch_panic(test).unwrap_or_else(|panic| vec![panic]);
            campaign.run(if findings.is_empty() {
                Ok(())
            } else {
                Err(format!("{name} without a bug: {findings:#?}"))
            });
            passed.push(name);
        }
        plant(Some(*bug));
        let findings = catch_panic(test).unwrap_or_else(|panic| vec![panic]);
        plant(None);
        // If the name contains an invariant, that invariant must be violated.
        let first_word = name.split(' ').next().unwrap_or_default();
        let invariant = first_word.chars().filter(|character| character.is_uppercase()).count() > 1;
        let findings: Vec<String> =
            findings.into_iter().filter(|findings| !invariant || findings.starts_with(first_word)).collect();
        if let Some(first) = findings.first() {
            println!("  {bug:?} is caught by {name}: {}", first.chars().take(120).collect::<String>());
        }
        campaign.run(if findings.is_empty() {
            Err(format!("{bug:?} is not caught by {name}"))
        } else {
            Ok(())
        });
    }
    campaign.end(&format!("{} bugs, each caught by the test named for it", catalog.len()));
}

fn scenario(name: &str) -> Scenario {
    scenarios().into_iter().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

/// Returns the summary of a run, and the violations.
fn run_scenario(scenario: &Scenario, plan: Plan) -> (Summary, Vec<String>) {
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

/// Runs a scenario without faults, and compares it to the same scenario without the bug.
fn compare_without_bug(name: &str) -> Vec<String> {
    let scenario = scenario(name);
    let (reference, _) = without_bugs(|| run_scenario(&scenario, Plan::default()));
    let (summary, mut findings) = run_scenario(&scenario, Plan::default());
    findings.extend(reference.difference(&summary));
    findings
}

fn calls(scenario: &Scenario) -> Vec<cdm_testkit::faults::CallSite> {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.faults.start_trace();
    (scenario.act)(&mut world);
    world.faults.trace()
}

/// Runs a scenario with each single fault, until there is a finding.
fn singles(name: &str) -> Vec<String> {
    let scenario = scenario(name);
    let (reference, calls) = without_bugs(|| (run_scenario(&scenario, Plan::default()).0, calls(&scenario)));
    for (at, call) in calls.iter().enumerate() {
        for fault in Fault::KINDS.into_iter().filter(|fault| call.supports(*fault)) {
            let (summary, mut findings) = run_scenario(&scenario, Plan(vec![(at, fault)]));
            findings.extend(reference.difference(&summary));
            if !findings.is_empty() {
                return findings;
            }
        }
    }
    Vec::new()
}

/// Runs a scenario with a worker that pauses at each call and resumes at several later points, until there is a
/// finding.
fn zombies(name: &str) -> Vec<String> {
    let scenario = scenario(name);
    let (reference, calls) =
        without_bugs(|| (run_scenario(&scenario, Plan::default()).0, calls(&scenario).len()));
    for at in 0..calls {
        let mut wakes = vec![Wake::Quiescent];
        let effects = match catch_panic(|| zombie(&scenario, at, Wake::Quiescent)) {
            Ok(woken) => woken.effects,
            Err(panic) => return vec![panic],
        };
        wakes.extend((0..effects).map(Wake::After));
        if name == "provision" {
            wakes.push(Wake::Terminated);
        }
        for wake in wakes {
            let woken = zombie(&scenario, at, wake);
            let mut findings: Vec<String> = woken.violations.iter().map(ToString::to_string).collect();
            if wake != Wake::Terminated {
                findings.extend(reference.difference(&woken.summary));
            }
            if !findings.is_empty() {
                return findings;
            }
        }
    }
    Vec::new()
}

fn violations(world: &mut World) -> Vec<String> {
    world.violations().iter().map(ToString::to_string).collect()
}

fn expect(findings: &mut Vec<String>, condition: bool, what: &str) {
    if !condition {
        findings.push(what.to_owned());
    }
}

fn on_green() -> World {
    let mut world = World::new(1);
    world.create_active_site("rrr");
    world.select(Color::Green).expect("green is selected");
    world.run();
    world
}

/// A promote is paused between its read and its write, while a deploy to the same service is requested.
fn deploy_during_promote() -> Vec<String> {
    let scenario = scenario("promote");
    let moves = without_bugs(|| calls(&scenario)).iter().position(|call| call.name == "cluster.move_route");
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.faults.arm(Plan(vec![(moves.expect("a promote moves a route"), Fault::Paused(u8::MAX))]));
    world.on_site("rrr", Verb::Promote).expect("the request is accepted");
    world.run_once();
    // The promote's worker is paused and holds the service lock; a deploy to the same service must wait.
    world.deploy(digest(1), Color::Green, false).expect("the request is accepted");
    for _ in 0..3 {
        world.run_once();
    }
    world.finish_zombies();
    let findings = violations(&mut world);
    findings.into_iter().filter(|findings| findings.starts_with("RouteReady")).collect()
}

fn fleet(sites: &[&str]) -> World {
    let mut world = World::new(1);
    for id in sites {
        world.create_active_site(id);
    }
    world.select(Color::Green).expect("green is selected");
    world.run();
    world
}

fn rollout(world: &mut World, requested: RolloutSpec) -> u64 {
    let accepted = world.request(move |manager, request| {
        let requested = requested.clone();
        Box::pin(async move { manager.rollout(&request, &requested, None).await })
    });
    match accepted {
        Ok(Accepted::Rollout(number)) => number,
        other => panic!("no rollout: {other:?}"),
    }
}

fn in_two_waves() -> RolloutSpec {
    RolloutSpec {
        kind: RolloutKind::Promote,
        scope: RolloutScope::All,
        waves: vec![WaveTarget::Count(2), WaveTarget::Percent(100)],
        budget: Budget::Count(0),
        max_concurrent: 1,
        ..RolloutSpec::default()
    }
}

fn status(world: &World, number: u64) -> RolloutStatus {
    let all = world.store.all_rollouts();
    all.iter().find(|rollout| rollout.number == number).expect("the rollout").status
}

/// Returns the calls of that name in a promotion of a fleet, one site at a time.
fn calls_of_fleet(name: &str) -> Vec<usize> {
    without_bugs(|| {
        let mut world = fleet(&["a", "b", "c"]);
        world.faults.start_trace();
        rollout(&mut world, RolloutSpec { waves: Vec::new(), ..in_two_waves() });
        world.run();
        let calls = world.faults.trace();
        calls.iter().enumerate().filter(|(_, call)| call.name == name).map(|(at, _)| at).collect()
    })
}

/// The owner is paused during a claim; its successor receives an abort; then the first owner resumes.
fn aborted_after_loss() -> Vec<String> {
    let mut findings = Vec::new();
    for at in calls_of_fleet("store.claim") {
        let mut world = fleet(&["a", "b", "c"]);
        world.faults.arm(Plan(vec![(at, Fault::Paused(u8::MAX))]));
        let number = rollout(&mut world, RolloutSpec { waves: Vec::new(), ..in_two_waves() });
        world.run_once();
        let abort = world
            .request(move |manager, request| Box::pin(async move { manager.abort(&request, number).await }));
        abort.expect("the abort is accepted");
        world.run();
        expect(
            &mut findings,
            status(&world, number) == RolloutStatus::Aborted,
            "the rollout was not aborted",
        );
        world.finish_zombies();
        world.converge();
        findings.extend(violations(&mut world));
    }
    findings
}

/// The owner is paused during a release; its successor finishes; a single promote moves the site back; then the first
/// owner resumes.
fn moved_again_after_loss() -> Vec<String> {
    let mut findings = Vec::new();
    for at in calls_of_fleet("store.complete") {
        let mut world = fleet(&["a", "b", "c"]);
        world.faults.arm(Plan(vec![(at, Fault::Paused(u8::MAX))]));
        rollout(&mut world, RolloutSpec { waves: Vec::new(), ..in_two_waves() });
        world.run();
        world.select(Color::Blue).expect("blue is selected");
        world.run();
        for id in ["a", "b", "c"] {
            world.on_site(id, Verb::Promote).expect("the request is accepted");
        }
        world.run();
        world.finish_zombies();
        world.converge();
        findings.extend(violations(&mut world));
    }
    findings
}

/// A pause is requested while the owner of the rollout is paused in its first window.
fn paused_rollout() -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let number = rollout(&mut world, in_two_waves());
    // The target is not ready, so the owner has a window but moves no site.
    world.cluster.break_service(Color::Green, None);
    world.run_once();
    let _ =
        world.request(move |manager, request| Box::pin(async move { manager.pause(&request, number).await }));
    world.cluster.repair_service(Color::Green);
    world.run();
    let mut findings = violations(&mut world);
    expect(&mut findings, status(&world, number) == RolloutStatus::Paused, "the rollout did not pause");
    findings
}

/// A rollout whose gate is inconclusive must pause, and no site has failed.
fn gated(silence: fn(&World)) -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    silence(&world);
    let number = rollout(&mut world, RolloutSpec { gate: HealthGate::new("/").ok(), ..in_two_waves() });
    world.run();
    let mut findings = violations(&mut world);
    expect(&mut findings, status(&world, number) == RolloutStatus::Paused, "the rollout did not pause");
    findings
}

/// Requests reach the old service for longer than the gate's timeout.
fn lagging(world: &World) {
    world.probe.delay_routes(Duration::from_secs(600), &world.cluster.routes());
}

fn away(world: &World) {
    for site in world.store.all_sites() {
        world.probe.set_unreachable(site.uid, Unreachable::Yes);
    }
}

/// An image that is ready and responds with 500.
fn image_rejected() -> Vec<String> {
    let mut world = fleet(&["a", "b"]);
    let _ = world.deploy(digest(1), Color::Green, false);
    world.run();
    world.probe.break_digest(digest(1));
    let _ = rollout(&mut world, RolloutSpec { gate: HealthGate::new("/").ok(), ..in_two_waves() });
    world.run();
    let service = now(world.raw().store.service(Color::Green)).expect("a service");
    let bad = service.releases.iter().any(|release| release.verdict == Verdict::Bad);
    let mut findings = violations(&mut world);
    expect(&mut findings, bad, "the image is not bad");
    findings
}

/// A freeze is created after the rollout was accepted and before a site is moved.
fn frozen() -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let number = rollout(&mut world, in_two_waves());
    let requested = NewFreeze { sites: None, reason: "a sale".to_owned(), until: None };
    let _ = world.request(move |manager, request| {
        let requested = requested.clone();
        Box::pin(async move { manager.freeze(&request, &requested).await })
    });
    for _ in 0..20 {
        let _ = world.run_once();
    }
    let mut findings = violations(&mut world);
    expect(&mut findings, status(&world, number) == RolloutStatus::Waiting, "the rollout continued");
    findings
}

fn baking() -> Vec<String> {
    let mut world = fleet(&["a", "b", "c", "d"]);
    let begun = world.clock.monotonic();
    let _ = rollout(&mut world, RolloutSpec { bake: Duration::from_secs(600), ..in_two_waves() });
    world.run();
    let mut findings = violations(&mut world);
    let took = world.clock.monotonic().since(begun);
    expect(&mut findings, took >= Duration::from_secs(600), "the next wave did not wait");
    findings
}

fn failing_receiver() -> Vec<String> {
    const URL: &str = "https://hooks.example.com/";
    let (mut world, mut findings, postman) = (World::new(1), Vec::new(), FakeWebhookSender::default());
    let _ = world.add_webhook(URL, &[]).expect("a webhook");
    world.create_active_site("rrr");
    postman.set_receiver(URL, Some(ReceiverBehavior::LosesResponse));
    now(world.dispatcher(&postman).run_once());
    now(world.dispatcher(&postman).run_once());
    expect(&mut findings, postman.sent(URL).len() == 1, "the delivery was retried at once");
    postman.set_receiver(URL, None);
    world.clock.advance(Duration::from_secs(5));
    now(world.dispatcher(&postman).run_once());
    let ids: Vec<String> = postman.sent(URL).into_iter().map(|message| message.id).collect();
    expect(&mut findings, ids.len() > 1 && ids[0] == ids[1], "a message that may not have arrived is lost");
    findings
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
    let mut findings = Vec::new();
    expect(&mut findings, status(&world, number) == RolloutStatus::Halted, "the rollout did not halt");
    findings
}

/// The worker dies at the first call of a step, each time.
fn poison() -> Vec<String> {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    world.on_site("rrr", Verb::Provision).expect("the request is accepted");
    for _ in 0..400 {
        world.faults.crash_at("databases.ensure");
        world.run_once();
        if world.is_quiescent() {
            break;
        }
        world.clock.advance(Duration::from_secs(5));
    }
    let mut findings = Vec::new();
    expect(&mut findings, world.parked().len() == 1, "an operation that kills its worker is not parked");
    findings
}

/// An operation that a newer process has accepted.
fn unknown_version() -> Vec<String> {
    let mut world = World::new(1);
    let _ = world.create("rrr");
    world.run();
    world.on_site("rrr", Verb::Provision).expect("the request is accepted");
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

/// A cancel is requested while a step runs: the worker's next write must preserve the request.
fn cancel_during_step() -> Vec<String> {
    let mut findings = Vec::new();
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
        world.on_site("rrr", Verb::Promote).expect("the request is accepted");
        world.run_once();
        if !world.has_zombie() {
            continue;
        }
        let sites = world.store.all_sites();
        let site = sites.iter().find(|site| site.id.as_str() == "rrr").expect("the site");
        let Some(state) = &site.operation else { continue };
        let id =
            cdm_core::domain::OperationId::on(state.number, cdm_core::domain::Subject::Site(site.id.clone()));
        let accepted = world.request(move |manager, request| {
            let id = id.clone();
            Box::pin(async move { manager.cancel(&request, &id).await })
        });
        if accepted.is_err() {
            continue;
        }
        world.finish_zombies();
        world.converge();
        let ended = world.log.since(0).into_iter().rev().find_map(|effect| match effect.kind {
            cdm_testkit::log::EffectKind::Ended(operation)
                if operation.state.input.kind() == OperationKind::Promote =>
            {
                Some(operation.state.status)
            }
            _ => None,
        });
        if ended != Some(Status::Ended(TerminalStatus::Cancelled)) {
            findings.push(format!("a cancel during the write at {at} was lost: {ended:?}"));
        }
    }
    findings
}

fn not_ready() -> Vec<String> {
    let mut world = on_green();
    world.cluster.break_service(Color::Green, None);
    world.on_site("rrr", Verb::Promote).expect("the request is accepted");
    for _ in 0..5 {
        world.run_once();
    }
    violations(&mut world).into_iter().filter(|findings| findings.starts_with("RouteReady")).collect()
}

fn stubborn_keys() -> Vec<String> {
    let scenario = scenario("terminate");
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.objects.fail_keys(2);
    (scenario.act)(&mut world);
    world.converge();
    violations(&mut world)
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
    world.on_site("rrr", Verb::Provision).expect("the request is accepted");
    world.run();
    let mut findings = violations(&mut world);
    let state = world.store.all_sites().first().map(|site| site.state());
    expect(&mut findings, state == Some(State::Provisioning), "a site whose installation failed continued");
    findings
}

/// A site is terminated and created again under the same id while a rollout is paused before it.
fn created_again() -> Vec<String> {
    let mut world = fleet(&["a", "b"]);
    world.cluster.break_service(Color::Green, None);
    let number = rollout(&mut world, RolloutSpec { waves: Vec::new(), ..in_two_waves() });
    world.run_once();
    let pause =
        world.request(move |manager, request| Box::pin(async move { manager.pause(&request, number).await }));
    pause.expect("the pause is accepted");
    world.run();
    world.on_site("b", Verb::Terminate).expect("the request is accepted");
    world.run();
    // The new site is created on blue, and must stay there.
    world.select(Color::Blue).expect("blue is selected");
    world.run();
    world.create_active_site("b");
    world.cluster.repair_service(Color::Green);
    let resume = world
        .request(move |manager, request| Box::pin(async move { manager.resume(&request, number).await }));
    resume.expect("the resume is accepted");
    world.run();
    let mut findings = violations(&mut world);
    expect(
        &mut findings,
        status(&world, number) == RolloutStatus::Succeeded,
        "the rollout failed on a site with the same id",
    );
    let sites = world.store.all_sites();
    let b = sites.iter().find(|site| site.id.as_str() == "b").expect("the site");
    expect(&mut findings, b.service == Color::Blue, "a rollout moved a site that was created after it");
    findings
}

/// The verdict of an operator is respected. The test is here because a planted bug in the choice of a rollback needs a
/// bad digest.
#[test]
fn a_bad_digest_is_never_chosen() {
    let scenario = scenario("rollback");
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    (scenario.act)(&mut world);
    let service = cdm_testkit::world::now(world.raw().store.service(Color::Blue)).expect("the service");
    let bad = service.releases.iter().find(|release| Some(release.digest) == service.running);
    assert_ne!(bad.map(|release| release.verdict), Some(Verdict::Bad));
}

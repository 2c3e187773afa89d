//! Two workers on one operation, and on one rollout. The first worker pauses at each of its calls in turn, for longer
//! than its lease, and the second takes over. The first resumes at every point of the second's work, after it, after
//! the site was terminated, and after the same id was created again. The resumed worker must change nothing.

use cdm_testkit::campaign::{Campaign, catch_panic, full};
use cdm_testkit::world::{Scenario, Summary, Wake, World, scenarios, zombie};

/// Number of points of the successor's work that are tested for each call in the sampled campaign.
const POINTS: usize = 8;

struct Reference {
    scenario: Scenario,
    summary: Summary,
    calls: usize,
}

fn reference(scenario: Scenario) -> Reference {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.faults.start_trace();
    (scenario.act)(&mut world);
    let calls = world.faults.trace().len();
    Reference { scenario, summary: Summary::of(&world), calls }
}

fn run_zombie(reference: &Reference, at: usize, wake: Wake) -> Result<usize, String> {
    let name = reference.scenario.name;
    let result = catch_panic(|| zombie(&reference.scenario, at, wake));
    let woken = result.map_err(|panic| format!("{name} at {at}, {wake:?}: {panic}"))?;
    let mut wrong: Vec<String> = woken.violations.iter().map(ToString::to_string).collect();
    if matches!(wake, Wake::Quiescent | Wake::After(_)) {
        let expected = &reference.summary;
        wrong.extend(if reference.scenario.same_effects {
            expected.difference(&woken.summary)
        } else {
            expected.clone().end_state().difference(&woken.summary.end_state())
        });
    }
    if wake == Wake::Quiescent && !woken.paused {
        wrong.push("no worker was paused".to_owned());
    }
    if wrong.is_empty() {
        Ok(woken.effects)
    } else {
        Err(format!("{name} at {at}, {wake:?}:\n    {}", wrong.join("\n    ")))
    }
}

#[test]
fn interleavings() {
    let references: Vec<Reference> = scenarios().into_iter().map(reference).collect();
    let all: Vec<(&Reference, usize)> =
        references.iter().flat_map(|reference| (0..reference.calls).map(move |at| (reference, at))).collect();
    let runs = std::sync::atomic::AtomicUsize::new(0);
    let campaign = Campaign::new("interleavings").over(&all, |(reference, at)| {
        let count = |n: usize| runs.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        count(1);
        let effects = run_zombie(reference, *at, Wake::Quiescent)?;
        let step = if full() { 1 } else { effects.div_ceil(POINTS).max(1) };
        for after in (0..effects).step_by(step) {
            count(1);
            run_zombie(reference, *at, Wake::After(after))?;
        }
        let of_site =
            matches!(reference.scenario.name, "provision" | "upgrade" | "promote" | "deploy-promote");
        if of_site {
            count(2);
            run_zombie(reference, *at, Wake::Terminated)?;
            run_zombie(reference, *at, Wake::Recreated)?;
        }
        Ok(())
    });
    let runs = runs.into_inner();
    campaign
        .end(&format!("a run is a call at which a worker pauses; {runs} schedules of it and its successor"));
}

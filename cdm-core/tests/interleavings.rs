//! Two workers over one operation, and over one rollout: the first stands still at each of its calls in turn, for longer
//! than its lease; the second takes over; the first goes on at every point of what the second does, and after it, and
//! after the site was terminated, and after the same id was created again. It must change nothing.

mod campaign;

use campaign::{Campaign, caught, full};
use cdm_testkit::world::{Scenario, Summary, Wake, World, scenarios, zombie};

/// How many points of the successor's work are tried for each call, when not all are.
const POINTS: usize = 8;

struct Story {
    scenario: Scenario,
    summary: Summary,
    calls: usize,
}

fn story(scenario: Scenario) -> Story {
    let mut world = World::new(1);
    (scenario.before)(&mut world);
    world.faults.start_trace();
    (scenario.act)(&mut world);
    let calls = world.faults.trace().len();
    Story { scenario, summary: Summary::of(&world), calls }
}

fn woken(story: &Story, at: usize, wake: Wake) -> Result<usize, String> {
    let name = story.scenario.name;
    let result = caught(|| zombie(&story.scenario, at, wake));
    let woken = result.map_err(|panic| format!("{name} at {at}, {wake:?}: {panic}"))?;
    let mut wrong: Vec<String> = woken.violations.iter().map(ToString::to_string).collect();
    if matches!(wake, Wake::AtRest | Wake::After(_)) {
        let reference = &story.summary;
        wrong.extend(if story.scenario.same_way {
            reference.difference(&woken.summary)
        } else {
            reference.clone().end_state().difference(&woken.summary.end_state())
        });
    }
    if wake == Wake::AtRest && !woken.stood_still {
        wrong.push("nobody stood still".to_owned());
    }
    if wrong.is_empty() {
        Ok(woken.effects)
    } else {
        Err(format!("{name} at {at}, {wake:?}:\n    {}", wrong.join("\n    ")))
    }
}

#[test]
fn interleavings() {
    let stories: Vec<Story> = scenarios().into_iter().map(story).collect();
    let all: Vec<(&Story, usize)> =
        stories.iter().flat_map(|story| (0..story.calls).map(move |at| (story, at))).collect();
    let runs = std::sync::atomic::AtomicUsize::new(0);
    let campaign = Campaign::new("interleavings").over(&all, |(story, at)| {
        let count = |n: usize| runs.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        count(1);
        let effects = woken(story, *at, Wake::AtRest)?;
        let step = if full() { 1 } else { effects.div_ceil(POINTS).max(1) };
        for after in (0..effects).step_by(step) {
            count(1);
            woken(story, *at, Wake::After(after))?;
        }
        let of_site = matches!(story.scenario.name, "provision" | "upgrade" | "promote" | "deploy-promote");
        if of_site {
            count(2);
            woken(story, *at, Wake::Terminated)?;
            woken(story, *at, Wake::Recreated)?;
        }
        Ok(())
    });
    let runs = runs.into_inner();
    campaign.end(&format!(
        "a run is a call at which a worker stands still; {runs} schedules of it and its successor"
    ));
}

//! Waves, budgets, and the order of decisions after a report.

use cdm_core::domain::rollout::{
    Budget, Control, Counts, IllegalRollout, Interruption, MemberFailure, MemberOutcome, Progress,
    ProgressSample, Report, ReportedOutcome, RolloutEvent, RolloutMember, RolloutPhase, RolloutSpec, Timing,
    WaveTarget, Window, plan_waves,
};
use cdm_core::domain::{
    Color, Direction, ReasonCode, Rollout, RolloutKind, RolloutScope, RolloutStatus, SiteId, Timestamp, Uid,
    WorkerId,
};
use cdm_core::pipelines::NewRollout;
use proptest::prelude::*;

use super::{NOW, actor, seeded};

fn targets(texts: &[&str]) -> Vec<WaveTarget> {
    texts.iter().map(|text| WaveTarget::parse(text).expect("a wave")).collect()
}

/// Returns the sizes of the waves.
fn sizes(texts: &[&str], total: u32) -> Vec<u32> {
    let waves = plan_waves(&targets(texts), total).expect("waves");
    let starts = std::iter::once(0).chain(waves.iter().map(|wave| wave.end));
    waves.iter().zip(starts).map(|(wave, start)| wave.end - start).collect()
}

#[test]
fn waves() {
    assert_eq!(sizes(&["1", "10%", "100%"], 400), [1, 39, 360]);
    assert_eq!(sizes(&["1", "10%", "100%"], 401), [1, 40, 360], "10% of 401 is rounded up");
    assert_eq!(sizes(&["1", "10%", "100%"], 5), [1, 4], "an empty wave is left out");
    assert_eq!(sizes(&["25", "100%"], 10), [10]);
    assert_eq!(sizes(&["100%"], 7), [7]);
    assert_eq!(sizes(&[], 7), [7]);
    assert_eq!(sizes(&["1", "100%"], 0), [] as [u32; 0]);
    assert_eq!(sizes(&["1%", "100%"], u32::MAX), [42_949_673, u32::MAX - 42_949_673]);
}

#[test]
fn invalid_waves_are_rejected() {
    for list in [&["10%"][..], &["1", "99%"], &["5"], &["100%", "5"]] {
        let error = plan_waves(&targets(list), 400).expect_err("the last is not 100%");
        assert_eq!(error.rule(), "the last wave must be `100%`", "{list:?}");
    }
    for list in [&["20%", "10%", "100%"][..], &["10%", "10%", "100%"], &["100%", "100%"]] {
        assert!(plan_waves(&targets(list), 400).is_err(), "{list:?}");
    }
}

/// Counts must grow, as percentages must.
#[test]
fn counts_that_do_not_grow_are_rejected() {
    for list in [&["25", "10", "100%"][..], &["5", "5", "100%"]] {
        assert!(plan_waves(&targets(list), 400).is_err(), "{list:?} is accepted as {:?}", sizes(list, 400));
    }
}

#[test]
fn wave_targets_are_parsed() {
    assert_eq!(WaveTarget::parse("25"), Ok(WaveTarget::Count(25)));
    assert_eq!(WaveTarget::parse("1%"), Ok(WaveTarget::Percent(1)));
    assert_eq!(WaveTarget::parse("100%"), Ok(WaveTarget::Percent(100)));
    for wrong in ["", "0", "0%", "101%", "256%", "-1", "1.5", "10 %", " 1", "%", "%5", "ten", "4294967296"] {
        assert!(WaveTarget::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn budgets() {
    for (budget, size, allowed) in [
        (Budget::Count(0), 100, 0),
        (Budget::Count(3), 100, 3),
        (Budget::Percent(0), 100, 0),
        (Budget::Percent(5), 100, 5),
        (Budget::Percent(5), 39, 1),
        (Budget::Percent(5), 19, 0),
        (Budget::Percent(100), 39, 39),
        (Budget::Percent(50), u32::MAX, u32::MAX / 2),
    ] {
        assert_eq!(budget.allows(size), allowed, "{budget:?} of {size}");
    }
}

fn wave_lists() -> impl Strategy<Value = Vec<WaveTarget>> {
    let percents = prop::collection::btree_set(1..100_u8, 0..4);
    (prop::option::of(1..30_u32), percents).prop_map(|(count, percents)| {
        let count = count.map(WaveTarget::Count).into_iter();
        count.chain(percents.into_iter().map(WaveTarget::Percent)).chain([WaveTarget::Percent(100)]).collect()
    })
}

fn outcome() -> impl Strategy<Value = MemberOutcome> {
    prop::sample::select(vec![
        MemberOutcome::Moved,
        MemberOutcome::Moved,
        MemberOutcome::Moved,
        MemberOutcome::InPlace,
        MemberOutcome::Failed,
        MemberOutcome::Parked,
        MemberOutcome::SkippedGone,
        MemberOutcome::SkippedInactive,
        MemberOutcome::SkippedBusy,
    ])
}

/// Returns a rollout that a worker owns, with its first window granted.
fn running(total: u32, waves: &[WaveTarget], budget: Budget, auto_rollback: bool) -> Rollout {
    let member = |random: u32| {
        RolloutMember::new(
            SiteId::parse(&format!("s{random}")).expect("a site id"),
            Uid::from_parts(1, random.into()),
        )
    };
    let draft = NewRollout {
        number: 7,
        spec: RolloutSpec {
            kind: RolloutKind::Promote,
            scope: RolloutScope::All,
            waves: waves.to_vec(),
            budget,
            auto_rollback,
            ..RolloutSpec::default()
        },
        target: Color::Green,
        members: (0..total).map(member).collect(),
        after: None,
        retry_of: None,
        first_number: 8,
        requested_by: actor(),
        now: NOW,
    };
    let rollout = draft.record().expect("waves");
    send(&rollout, &RolloutEvent::Claim(WorkerId::new("worker")), NOW).expect("the claim is legal")
}

/// Returns the rollout after an event.
fn send(rollout: &Rollout, event: &RolloutEvent, at: Timestamp) -> Result<Rollout, IllegalRollout> {
    rollout.advance(event, &Timing::default(), at).map(|(next, _)| next)
}

/// Returns a report of these outcomes, each with the earlier outcome of the site. No cache has to be flushed.
fn report(
    outcomes: impl IntoIterator<Item = (u32, Option<MemberOutcome>, MemberOutcome)>,
    open: Option<u32>,
) -> Report {
    let outcomes = outcomes.into_iter().map(|(ordinal, before, outcome)| {
        let site = SiteId::parse(&format!("s{ordinal}")).expect("a site id");
        let site = MemberFailure { site, outcome, why: None };
        ReportedOutcome { ordinal, before, digest: None, site }
    });
    Report { outcomes: outcomes.collect(), open, ..Report::default() }
}

fn starts(rollout: &Rollout) -> Vec<u32> {
    std::iter::once(0).chain(rollout.waves.iter().map(|wave| wave.end)).collect()
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn waves_cover_all_sites_in_order(list in wave_lists(), total in 1..3_000_u32) {
        let waves = plan_waves(&list, total).expect("waves");
        let ends: Vec<u32> = waves.iter().map(|wave| wave.end).collect();
        prop_assert_eq!(ends.last(), Some(&total));
        prop_assert!(ends.is_sorted_by(|a, b| a < b) && ends[0] > 0, "{ends:?}");
        for wave in &waves {
            let exact = match WaveTarget::parse(&wave.name).expect("its own name") {
                WaveTarget::Count(count) => u64::from(count.min(total)) * 100,
                WaveTarget::Percent(percent) => u64::from(total) * u64::from(percent),
            };
            let end = u64::from(wave.end) * 100;
            prop_assert!((exact..exact + 100).contains(&end), "{} of {total} ends at {}", wave.name, wave.end);
        }
    }

    #[test]
    fn wave_targets_round_trip_as_text(text in "\\PC{0,4}|[0-9]{1,10}%?|\\+?[0-9]{1,3}%?") {
        if let Ok(reach) = WaveTarget::parse(&text) {
            let end = reach.end(1_000);
            prop_assert!((1..=1_000).contains(&end), "{text} ends at {end}");
            prop_assert_eq!(WaveTarget::parse(&reach.to_string()), Ok(reach));
        }
    }

    #[test]
    fn budgets_are_rounded_down(percent in 0..=100_u8, size in any::<u32>()) {
        let allowed = u64::from(Budget::Percent(percent).allows(size));
        let exact = u64::from(size) * u64::from(percent);
        prop_assert!(allowed * 100 <= exact && exact < (allowed + 1) * 100);
    }

    #[test]
    fn windows_and_counts(
        list in wave_lists(),
        total in 1..700_u32,
        drawn in prop::collection::vec(outcome(), 700),
        allowed in 0..4_u32,
        auto_rollback in any::<bool>(),
    ) {
        let mut rollout = running(total, &list, Budget::Count(allowed), auto_rollback);
        let mut outcomes: Vec<Option<MemberOutcome>> = vec![None; total as usize];
        let (mut last, mut granted) = (Window::default(), 0);
        while rollout.status == RolloutStatus::Running {
            let window = rollout.window();
            let Window { start, end } = window;
            prop_assert!(granted <= 2 * total, "the rollout does not end");
            granted += 1;
            prop_assert!(start < end && end <= total && end - start <= Window::size(rollout.spec.max_concurrent), "{window:?}");
            if rollout.direction() == Direction::Forward {
                let mut ends = rollout.waves.iter().map(|wave| wave.end);
                prop_assert!(!ends.any(|wave| start < wave && wave < end), "{window:?}");
                prop_assert_eq!(start, last.end);
            }
            last = window;
            let mut resolved = Vec::new();
            for ordinal in start..end {
                let before = outcomes[ordinal as usize];
                let now = match (rollout.direction(), before) {
                    (Direction::Forward, _) => drawn[ordinal as usize],
                    (Direction::Rollback, Some(MemberOutcome::Moved)) => MemberOutcome::Returned,
                    (Direction::Rollback, _) => continue,
                };
                outcomes[ordinal as usize] = Some(now);
                resolved.push((ordinal, before, now));
            }
            rollout = send(&rollout, &RolloutEvent::SitesMoved(report(resolved, None)), NOW).unwrap();
            for (wave, start) in rollout.waves.iter().zip(starts(&rollout)) {
                let mut recount = Counts::default();
                let sites = &outcomes[start as usize..wave.end as usize];
                sites.iter().flatten().for_each(|outcome| recount.add(*outcome));
                prop_assert_eq!(recount, wave.counts);
            }
            let counts = rollout.counts();
            prop_assert_eq!(counts.resolved() + rollout.running() + rollout.pending(), total);
        }
        let over = rollout.waves.iter().any(|wave| {
            let of_wave = rollout.waves.iter().position(|other| other == wave).expect("itself");
            let sites = &outcomes[starts(&rollout)[of_wave] as usize..wave.end as usize];
            let failed = sites.iter().flatten().filter(|outcome| **outcome == MemberOutcome::Failed).count();
            failed > allowed as usize
        });
        let expected = match (over, auto_rollback) {
            (false, _) => RolloutStatus::Succeeded,
            (true, false) => RolloutStatus::Halted,
            (true, true) => RolloutStatus::Failed,
        };
        prop_assert_eq!(rollout.status, expected);
        if over {
            prop_assert_eq!(rollout.reason.as_ref().map(|reason| reason.code), Some(ReasonCode::BudgetExceeded));
        }
        if rollout.status == RolloutStatus::Failed {
            prop_assert!(!outcomes.contains(&Some(MemberOutcome::Moved)), "a moved site was not rolled back");
        }
    }
}

#[test]
fn an_abort_outranks_a_pause_outranks_the_budget_outranks_a_grant() {
    let grants = [WaveTarget::Count(1), WaveTarget::Percent(100)];
    for whole in [false, true] {
        for over in [false, true] {
            for control in [None, Some(Control::Pause), Some(Control::Abort)] {
                let mut rollout = running(10, &grants, Budget::Count(0), false);
                rollout.control = control;
                let outcome = if over { MemberOutcome::Failed } else { MemberOutcome::Moved };
                let report = report([(0, None, outcome)], (!whole).then_some(0));
                let event = match (control, over) {
                    _ if whole => RolloutEvent::SitesMoved(report),
                    (Some(_), _) => RolloutEvent::Interrupted(report, Interruption::ControlRequested),
                    (None, true) => RolloutEvent::Interrupted(report, Interruption::Budget),
                    (None, false) => RolloutEvent::SitesMoved(report),
                };
                let rollout = send(&rollout, &event, NOW).unwrap();
                let expected = match (control, over) {
                    (Some(Control::Abort), _) => RolloutStatus::Aborted,
                    (Some(Control::Pause), _) => RolloutStatus::Paused,
                    (None, true) => RolloutStatus::Halted,
                    (None, false) => RolloutStatus::Running,
                };
                assert_eq!(rollout.status, expected, "{control:?}, over budget: {over}, whole: {whole}");
                let granted = expected == RolloutStatus::Running && whole;
                let window = if granted { Window { start: 1, end: 10 } } else { Window { start: 0, end: 1 } };
                assert_eq!(rollout.window(), window, "{control:?}, over budget: {over}, whole: {whole}");
                assert_eq!(rollout.control, None);
            }
        }
    }
}

#[test]
fn an_owned_rollout_gets_a_request_and_an_unowned_one_changes_at_once() {
    let owned = running(10, &[], Budget::Count(0), false);
    let owned = send(&owned, &RolloutEvent::Pause, NOW).unwrap();
    assert_eq!((owned.status, owned.control), (RolloutStatus::Running, Some(Control::Pause)));
    let owned = send(&owned, &RolloutEvent::Abort, NOW).unwrap();
    let owned = send(&owned, &RolloutEvent::Pause, NOW).unwrap();
    assert_eq!(owned.control, Some(Control::Abort), "a later pause does not take an abort back");
    assert!(send(&owned, &RolloutEvent::Resume(None), NOW).is_err());
    let ended = send(&owned, &RolloutEvent::SitesMoved(Report::default()), NOW).unwrap();
    assert_eq!((ended.status, ended.finished_at), (RolloutStatus::Aborted, Some(NOW)));
    for event in [RolloutEvent::Pause, RolloutEvent::Resume(None), RolloutEvent::Abort] {
        let error = send(&ended, &event, NOW).expect_err("the rollout has ended").to_string();
        assert!(error.contains("aborted") && error.contains(event.as_str()), "{error}");
    }

    // A waiting rollout that has begun may have claimed sites: its next owner resolves them before it stops.
    let owned = running(10, &[], Budget::Count(0), false);
    let stopping = RolloutEvent::Interrupted(report([], Some(0)), Interruption::Stopping);
    let waiting = send(&owned, &stopping, NOW).unwrap();
    assert_eq!((waiting.status, waiting.owner.clone()), (RolloutStatus::Waiting, None));
    let waiting = send(&waiting, &RolloutEvent::Abort, NOW).unwrap();
    assert_eq!((waiting.status, waiting.control), (RolloutStatus::Waiting, Some(Control::Abort)));

    let phase = RolloutPhase::Moving(Progress::default());
    let fresh = Rollout { status: RolloutStatus::Waiting, phase, control: None, ..waiting };
    let fresh = send(&fresh, &RolloutEvent::Pause, NOW).unwrap();
    assert_eq!((fresh.status, fresh.control), (RolloutStatus::Paused, None));
    let fresh = send(&fresh, &RolloutEvent::Resume(None), NOW).unwrap();
    assert_eq!(fresh.status, RolloutStatus::Waiting);
    let fresh = send(&fresh, &RolloutEvent::Abort, NOW).unwrap();
    assert_eq!((fresh.status, fresh.finished_at), (RolloutStatus::Aborted, Some(NOW)));
}

/// The number of progress samples stays small however long the rollout takes. They cover it from start to end; while
/// the rollout makes no progress, the last sample is extended.
#[test]
fn progress_is_recorded_in_few_samples() {
    let total = 10_000;
    let mut rollout = running(total, &[], Budget::Count(total), false);
    rollout.samples.clear();
    let at = |step: u64| Timestamp::from_millis(1_000 * step);
    for step in 0..500_u32 {
        let outcome = if step % 50 == 0 { MemberOutcome::Failed } else { MemberOutcome::Moved };
        let moved = RolloutEvent::SitesMoved(report([(step, None, outcome); 20], Some(0)));
        rollout = send(&rollout, &moved, at(u64::from(step))).unwrap();
    }
    assert!(
        rollout.samples.len() <= ProgressSample::KEPT && rollout.samples.len() > ProgressSample::KEPT / 3,
        "{}",
        rollout.samples.len()
    );
    assert!(rollout.samples.is_sorted_by_key(|sample| (sample.at, sample.succeeded, sample.failed)));
    let (first, last) = (rollout.samples[0], rollout.samples[rollout.samples.len() - 1]);
    assert_eq!((first.at, last.at), (at(0), at(499)));
    assert_eq!((last.succeeded, last.failed), (9_800, 200));
    let before = rollout.samples.len();
    for step in 500..600 {
        let moved = RolloutEvent::SitesMoved(report([], Some(0)));
        rollout = send(&rollout, &moved, at(step)).unwrap();
    }
    assert!(rollout.samples.len() <= before + 1, "a rollout without progress needs at most one new sample");
    assert_eq!(rollout.samples.last().map(|sample| sample.at), Some(at(599)));
}

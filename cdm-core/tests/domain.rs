//! What the pure domain promises, as tables and as properties: waves, budgets, the rollout's checkpoints, holds,
//! rollbacks, names that are parsed back, and the rules by which a site is claimed and let go.

use cdm_core::domain::colour::{ColourChange, rollback_choice};
use cdm_core::domain::operation::{Home, Position, Slot, Task};
use cdm_core::domain::rollout::{
    Budget, Control, Outcome, Reach, RolloutEvent, RolloutMember, Tally, Window, cut,
};
use cdm_core::domain::site::{Claim, ClaimRefused, Claimed, Complete, Settled, Want};
use cdm_core::domain::{
    Actor, Code, Colour, Digest, Fence, Grant, Hold, HoldMode, Hostnames, JobName, Kind, Leg, ObjectPrefix,
    OperationId, Phase, Release, Rollout, RolloutKind, RolloutStatus, Routed, Selector, Site, SiteId,
    SiteName, Status, Subject, Theme, Timestamp, Uid, Verdict, WorkerId,
};
use cdm_core::pipelines::Draft;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The same cases in every run, unless `PROPTEST_RNG_SEED` asks for others.
fn seeded() -> ProptestConfig {
    let environment = ProptestConfig::default();
    let rng_seed = match environment.rng_seed {
        RngSeed::Random => RngSeed::Fixed(0x646f_6d61),
        chosen @ RngSeed::Fixed(_) => chosen,
    };
    ProptestConfig { rng_seed, failure_persistence: None, ..environment }
}

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn actor() -> Actor {
    Actor::parse("operator").expect("an actor")
}

fn site_id() -> impl Strategy<Value = SiteId> {
    "[a-z](-?[a-z0-9]){0,15}".prop_map(|text| SiteId::parse(&text).expect("a site id"))
}

fn reaches(texts: &[&str]) -> Vec<Reach> {
    texts.iter().map(|text| Reach::parse(text).expect("a wave")).collect()
}

/// The sizes of the waves.
fn sizes(texts: &[&str], total: u32) -> Vec<u32> {
    let waves = cut(&reaches(texts), total).expect("waves");
    let starts = std::iter::once(0).chain(waves.iter().map(|wave| wave.end));
    waves.iter().zip(starts).map(|(wave, start)| wave.end - start).collect()
}

#[test]
fn waves() {
    assert_eq!(sizes(&["1", "10%", "100%"], 400), [1, 39, 360]);
    assert_eq!(sizes(&["1", "10%", "100%"], 401), [1, 40, 360], "10% of 401 is rounded up");
    assert_eq!(sizes(&["1", "10%", "100%"], 5), [1, 4], "a wave that comes out empty is left out");
    assert_eq!(sizes(&["25", "100%"], 10), [10]);
    assert_eq!(sizes(&["100%"], 7), [7]);
    assert_eq!(sizes(&[], 7), [7]);
    assert_eq!(sizes(&["1", "100%"], 0), [] as [u32; 0]);
    assert_eq!(sizes(&["1%", "100%"], u32::MAX), [42_949_673, u32::MAX - 42_949_673]);
}

#[test]
fn waves_that_are_refused() {
    for list in [&["10%"][..], &["1", "99%"], &["5"], &["100%", "5"]] {
        let error = cut(&reaches(list), 400).expect_err("the last is not 100%");
        assert_eq!(error.rule(), "the last wave is `100%`", "{list:?}");
    }
    for list in [&["20%", "10%", "100%"][..], &["10%", "10%", "100%"], &["100%", "100%"]] {
        assert!(cut(&reaches(list), 400).is_err(), "{list:?}");
    }
}

/// That counts do not grow is told as well as that percentages do not.
#[test]
fn counts_that_do_not_grow_are_refused() {
    for list in [&["25", "10", "100%"][..], &["5", "5", "100%"]] {
        assert!(cut(&reaches(list), 400).is_err(), "{list:?} is accepted as {:?}", sizes(list, 400));
    }
}

#[test]
fn reaches_are_parsed() {
    assert_eq!(Reach::parse("25"), Ok(Reach::Count(25)));
    assert_eq!(Reach::parse("1%"), Ok(Reach::Percent(1)));
    assert_eq!(Reach::parse("100%"), Ok(Reach::Percent(100)));
    for wrong in ["", "0", "0%", "101%", "256%", "-1", "1.5", "10 %", " 1", "%", "%5", "ten", "4294967296"] {
        assert!(Reach::parse(wrong).is_err(), "{wrong:?}");
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

fn wave_lists() -> impl Strategy<Value = Vec<Reach>> {
    let percents = prop::collection::btree_set(1..100_u8, 0..4);
    (prop::option::of(1..30_u32), percents).prop_map(|(count, percents)| {
        let count = count.map(Reach::Count).into_iter();
        count.chain(percents.into_iter().map(Reach::Percent)).chain([Reach::Percent(100)]).collect()
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Moved,
        Outcome::Moved,
        Outcome::Moved,
        Outcome::InPlace,
        Outcome::Failed,
        Outcome::Parked,
        Outcome::SkippedGone,
        Outcome::SkippedInactive,
        Outcome::SkippedBusy,
    ])
}

/// A rollout that a worker has, with its first window granted.
fn running(total: u32, waves: &[Reach], budget: Budget, auto_return: bool) -> Rollout {
    let member = |random: u32| RolloutMember {
        id: SiteId::parse(&format!("s{random}")).expect("a site id"),
        uid: Uid::from_parts(1, random.into()),
        outcome: None,
    };
    let draft = Draft {
        number: 7,
        kind: RolloutKind::Promote,
        target: Selector::Green,
        digest: None,
        members: (0..total).map(member).collect(),
        waves: waves.to_vec(),
        max_concurrent: 64,
        budget,
        auto_return,
        after: None,
        retry_of: None,
        first_number: 8,
        requested_by: actor(),
        now: NOW,
    };
    let mut rollout = draft.head().expect("waves");
    rollout.claim(&WorkerId::new("worker"), NOW);
    rollout.open();
    rollout
}

fn starts(rollout: &Rollout) -> Vec<u32> {
    std::iter::once(0).chain(rollout.waves.iter().map(|wave| wave.end)).collect()
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn waves_cover_all_sites_in_order(list in wave_lists(), total in 1..3_000_u32) {
        let waves = cut(&list, total).expect("waves");
        let ends: Vec<u32> = waves.iter().map(|wave| wave.end).collect();
        prop_assert_eq!(ends.last(), Some(&total));
        prop_assert!(ends.is_sorted_by(|a, b| a < b) && ends[0] > 0, "{ends:?}");
        for wave in &waves {
            let exact = match Reach::parse(&wave.name).expect("its own name") {
                Reach::Count(count) => u64::from(count.min(total)) * 100,
                Reach::Percent(percent) => u64::from(total) * u64::from(percent),
            };
            let end = u64::from(wave.end) * 100;
            prop_assert!((exact..exact + 100).contains(&end), "{} of {total} ends at {}", wave.name, wave.end);
        }
    }

    #[test]
    fn reaches_are_what_they_show(text in "\\PC{0,4}|[0-9]{1,10}%?|\\+?[0-9]{1,3}%?") {
        if let Ok(reach) = Reach::parse(&text) {
            let end = reach.end(1_000);
            prop_assert!((1..=1_000).contains(&end), "{text} ends at {end}");
            prop_assert_eq!(Reach::parse(&reach.to_string()), Ok(reach));
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
        auto_return in any::<bool>(),
    ) {
        let mut rollout = running(total, &list, Budget::Count(allowed), auto_return);
        let mut outcomes: Vec<Option<Outcome>> = vec![None; total as usize];
        let (mut last, mut granted) = (Window::default(), 0);
        while rollout.status == RolloutStatus::Running {
            let Window { start, end } = rollout.window;
            prop_assert!(granted <= 2 * total, "it does not end");
            granted += 1;
            prop_assert!(start < end && end <= total && end - start <= Window::SIZE, "{:?}", rollout.window);
            if rollout.leg == Leg::Out {
                let mut ends = rollout.waves.iter().map(|wave| wave.end);
                prop_assert!(!ends.any(|wave| start < wave && wave < end), "{:?}", rollout.window);
                prop_assert_eq!(start, last.end);
            }
            last = rollout.window;
            for ordinal in start..end {
                let before = outcomes[ordinal as usize];
                let now = match (rollout.leg, before) {
                    (Leg::Out, _) => drawn[ordinal as usize],
                    (Leg::Back, Some(Outcome::Moved)) => Outcome::Returned,
                    (Leg::Back, _) => continue,
                };
                outcomes[ordinal as usize] = Some(now);
                rollout.count(ordinal, before, now);
            }
            rollout.proceed(true, NOW);
            for (wave, start) in rollout.waves.iter().zip(starts(&rollout)) {
                let mut recount = Tally::default();
                let sites = &outcomes[start as usize..wave.end as usize];
                sites.iter().flatten().for_each(|outcome| recount.add(*outcome));
                prop_assert_eq!(recount, wave.tally);
            }
            let tally = rollout.tally();
            prop_assert_eq!(tally.resolved() + rollout.running() + rollout.pending(), total);
        }
        let over = rollout.waves.iter().any(|wave| {
            let of_wave = rollout.waves.iter().position(|other| other == wave).expect("itself");
            let sites = &outcomes[starts(&rollout)[of_wave] as usize..wave.end as usize];
            let failed = sites.iter().flatten().filter(|outcome| **outcome == Outcome::Failed).count();
            failed > allowed as usize
        });
        let expected = match (over, auto_return) {
            (false, _) => RolloutStatus::Succeeded,
            (true, false) => RolloutStatus::Halted,
            (true, true) => RolloutStatus::Failed,
        };
        prop_assert_eq!(rollout.status, expected);
        if over {
            prop_assert_eq!(rollout.reason.as_ref().map(|reason| reason.code), Some(Code::BudgetExceeded));
        }
        if rollout.status == RolloutStatus::Failed {
            prop_assert!(!outcomes.contains(&Some(Outcome::Moved)), "a moved site was not returned");
        }
    }
}

#[test]
fn an_abort_outranks_a_pause_outranks_the_budget_outranks_a_grant() {
    let grants = [Reach::Count(1), Reach::Percent(100)];
    for whole in [false, true] {
        for over in [false, true] {
            for control in [None, Some(Control::Pause), Some(Control::Abort)] {
                let mut rollout = running(10, &grants, Budget::Count(0), false);
                rollout.count(0, None, if over { Outcome::Failed } else { Outcome::Moved });
                rollout.control = control;
                rollout.proceed(whole, NOW);
                let expected = match (control, over) {
                    (Some(Control::Abort), _) => RolloutStatus::Aborted,
                    (Some(Control::Pause), _) => RolloutStatus::Paused,
                    (None, true) => RolloutStatus::Halted,
                    (None, false) => RolloutStatus::Running,
                };
                assert_eq!(rollout.status, expected, "{control:?}, over budget: {over}, whole: {whole}");
                let granted = expected == RolloutStatus::Running && whole;
                let window = if granted { Window { start: 1, end: 10 } } else { Window { start: 0, end: 1 } };
                assert_eq!(rollout.window, window, "{control:?}, over budget: {over}, whole: {whole}");
                assert_eq!(rollout.control, None);
            }
        }
    }
}

#[test]
fn an_owner_is_asked_and_the_unowned_changes_at_once() {
    let mut owned = running(10, &[], Budget::Count(0), false);
    assert_eq!(owned.ask(RolloutEvent::Pause, NOW), Ok(()));
    assert_eq!((owned.status, owned.control), (RolloutStatus::Running, Some(Control::Pause)));
    assert_eq!(owned.ask(RolloutEvent::Abort, NOW), Ok(()));
    assert_eq!(owned.ask(RolloutEvent::Pause, NOW), Ok(()));
    assert_eq!(owned.control, Some(Control::Abort), "a later pause does not take an abort back");
    assert!(owned.ask(RolloutEvent::Resume, NOW).is_err());
    owned.proceed(true, NOW);
    assert_eq!((owned.status, owned.finished_at), (RolloutStatus::Aborted, Some(NOW)));
    for event in [RolloutEvent::Pause, RolloutEvent::Resume, RolloutEvent::Abort] {
        let error = owned.ask(event, NOW).expect_err("it has ended").to_string();
        assert!(error.contains("aborted") && error.contains(event.as_str()), "{error}");
    }

    // A waiting rollout that has begun may have claimed sites: its next owner settles them before it stops.
    let mut waiting = running(10, &[], Budget::Count(0), false);
    waiting.settle(RolloutEvent::Wait, None, NOW);
    waiting.owner = None;
    assert_eq!(waiting.ask(RolloutEvent::Abort, NOW), Ok(()));
    assert_eq!((waiting.status, waiting.control), (RolloutStatus::Waiting, Some(Control::Abort)));

    let mut fresh = Rollout { status: RolloutStatus::Waiting, owner: None, ..waiting };
    (fresh.window, fresh.control) = (Window::default(), None);
    assert_eq!(fresh.ask(RolloutEvent::Pause, NOW), Ok(()));
    assert_eq!((fresh.status, fresh.control), (RolloutStatus::Paused, None));
    assert_eq!(fresh.ask(RolloutEvent::Resume, NOW), Ok(()));
    assert_eq!(fresh.status, RolloutStatus::Waiting);
    assert_eq!(fresh.ask(RolloutEvent::Abort, NOW), Ok(()));
    assert_eq!((fresh.status, fresh.finished_at), (RolloutStatus::Aborted, Some(NOW)));
}

fn digest(letter: u8) -> Digest {
    Digest::parse(&format!("{letter:x}").repeat(64)).expect("a digest")
}

/// A colour with these releases, newest first.
fn colour(selector: Selector, releases: &[(u8, Verdict)]) -> Colour {
    let mut colour = Colour::new(selector);
    for (index, (letter, verdict)) in releases.iter().enumerate() {
        colour.releases.push(Release {
            digest: digest(*letter),
            at: NOW,
            by: actor(),
            number: 1_000 - index as u64,
            verdict: *verdict,
            reason: None,
            ready_at: None,
        });
    }
    colour
}

fn releases() -> impl Strategy<Value = Vec<(u8, Verdict)>> {
    let verdict = prop::sample::select(vec![Verdict::Unknown, Verdict::Healthy, Verdict::Bad]);
    prop::collection::vec((0..8_u8, verdict), 0..8)
}

#[test]
fn a_rollback_takes_the_newest_healthy_digest() {
    use Verdict::{Bad, Healthy, Unknown};
    let own = colour(Selector::Blue, &[(1, Healthy), (2, Bad), (3, Unknown), (4, Healthy), (5, Healthy)]);
    let other = colour(Selector::Green, &[(6, Healthy)]);
    let none = colour(Selector::Green, &[]);
    assert_eq!(rollback_choice(&own, &other, Some(digest(1))), Some(digest(4)));
    assert_eq!(rollback_choice(&own, &other, None), Some(digest(1)));
    assert_eq!(rollback_choice(&none, &other, Some(digest(1))), Some(digest(6)));
    assert_eq!(rollback_choice(&none, &other, Some(digest(6))), None);
    assert_eq!(rollback_choice(&none, &none, None), None);
    let elsewhere_bad = colour(Selector::Green, &[(4, Bad), (6, Healthy)]);
    assert_eq!(rollback_choice(&own, &elsewhere_bad, Some(digest(1))), Some(digest(5)));
}

#[test]
fn a_digest_is_healthy_when_it_was_ready_as_it_was_replaced() {
    let mut blue = colour(Selector::Blue, &[(1, Verdict::Unknown), (2, Verdict::Bad)]);
    blue.apply(&ColourChange::Replaced { previous: Some(digest(1)), was_ready: false });
    assert_eq!(blue.releases[0].verdict, Verdict::Unknown);
    blue.apply(&ColourChange::Replaced { previous: Some(digest(1)), was_ready: true });
    blue.apply(&ColourChange::Replaced { previous: Some(digest(2)), was_ready: true });
    assert_eq!((blue.releases[0].verdict, blue.releases[1].verdict), (Verdict::Healthy, Verdict::Bad));
    for number in 2_000..2_200 {
        let release = Release { number, digest: digest(3), ..blue.releases[0].clone() };
        blue.apply(&ColourChange::Released(release.clone()));
        blue.apply(&ColourChange::Released(release));
    }
    assert_eq!(blue.releases.len(), Colour::HISTORY);
    assert_eq!((blue.running, blue.releases[0].number), (Some(digest(3)), 2_199));
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn a_rollback_is_never_bad_and_never_what_runs(
        own in releases(),
        other in releases(),
        running in prop::option::of(0..8_u8),
    ) {
        let running = running.map(digest);
        let (blue, green) = (colour(Selector::Blue, &own), colour(Selector::Green, &other));
        let bad = |candidate: Digest| {
            own.iter().chain(&other).any(|(letter, verdict)| digest(*letter) == candidate && *verdict == Verdict::Bad)
        };
        let fit = |(letter, verdict): &&(u8, Verdict)| {
            let candidate = digest(*letter);
            *verdict == Verdict::Healthy && !bad(candidate) && Some(candidate) != running
        };
        let first = |list: &[(u8, Verdict)]| list.iter().find(fit).map(|(letter, _)| digest(*letter));
        let expected = first(&own).or_else(|| first(&other));
        prop_assert_eq!(rollback_choice(&blue, &green, running), expected);
    }

    #[test]
    fn holds(asked in prop::collection::vec((1..5_u64, 0..3_u8), 0..40)) {
        let mut hold = Hold::default();
        for (number, what) in asked {
            let before = hold.clone();
            match what {
                0 => {
                    let taken = hold.take(number, HoldMode::Shared);
                    prop_assert_eq!(taken, before.deploy.is_none());
                    prop_assert!(!taken || hold.moves.contains(&number));
                }
                1 => {
                    let taken = hold.take(number, HoldMode::Alone);
                    let free = before.deploy.is_none_or(|holder| holder == number);
                    prop_assert_eq!(taken, before.moves.is_empty() && free);
                    prop_assert!(!taken || hold.deploy == Some(number));
                }
                _ => {
                    hold.release(number);
                    prop_assert!(!hold.moves.contains(&number) && hold.deploy != Some(number));
                }
            }
            prop_assert!(hold.deploy.is_none() || hold.moves.is_empty(), "both ways at once: {hold:?}");
            let mode = if what == 0 { HoldMode::Shared } else { HoldMode::Alone };
            if what < 2 && before != hold {
                let once = hold.clone();
                prop_assert!(hold.take(number, mode), "taken twice is taken once");
                prop_assert_eq!(once, hold.clone());
            } else if what < 2 && before == hold && hold.deploy != Some(number) && !hold.moves.contains(&number) {
                prop_assert!(!hold.take(number, mode), "refused once, and then not");
            }
        }
    }

    #[test]
    fn operation_ids_are_parsed_back(
        number in any::<u64>(),
        site in site_id(),
        selector in prop::sample::select(Selector::ALL.to_vec()),
        rollout in any::<u64>(),
        ordinal in any::<u32>(),
    ) {
        for home in [
            Home::Subject(Subject::Site(site.clone())),
            Home::Subject(Subject::Colour(selector)),
            Home::Subject(Subject::Fleet),
            Home::Rollout(rollout, ordinal),
        ] {
            let id = OperationId { number, home };
            prop_assert_eq!(OperationId::parse(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn operation_ids_have_one_spelling(text in "op-[+0]?[0-9]{1,3}-(fleet|site-[a-z]{1,3}|service-(blue|green)|rollout-[+0]?[0-9]{1,2}-[+0]?[0-9]{1,2})") {
        if let Some(id) = OperationId::parse(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn fences_are_parsed_back_and_ordered(number in any::<u64>(), epoch in any::<u64>(), other in any::<(u64, u64)>()) {
        let fence = Fence::new(number, epoch);
        prop_assert_eq!(Fence::parse(&fence.to_string()), Some(fence));
        prop_assert_eq!(fence.cmp(&Fence::new(other.0, other.1)), (number, epoch).cmp(&other));
    }

    #[test]
    fn fences_have_one_spelling(text in "[+0]?[0-9]{1,3}\\.[+0]?[0-9]{1,3}|\\PC{0,6}") {
        if let Some(fence) = Fence::parse(&text) {
            prop_assert_eq!(fence.to_string(), text);
        }
    }

    #[test]
    fn job_names(
        site in site_id(),
        job in prop::sample::select(vec!["install", "activate-theme", "flush-caches"]),
        number in prop_oneof![any::<u64>(), 1..1_000_000_u64],
        start in any::<u32>(),
        attempt in prop_oneof![any::<u32>(), 0..4_u32],
    ) {
        let retry = if attempt > 1 { format!("-r{attempt}") } else { String::new() };
        let tail = format!("-{job}-{number}{retry}");
        for name in [JobName::of_site(&site, job, number, attempt), JobName::of_window(job, number, start, attempt)] {
            let text = name.as_str();
            prop_assert!(text.len() <= JobName::LIMIT, "{text}");
            prop_assert!(text.ends_with(&tail), "{text} lost {tail}");
            prop_assert!(text.starts_with(|first: char| first.is_ascii_lowercase()), "{text}");
            prop_assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{text}");
            prop_assert!(!text[..text.len() - tail.len()].ends_with('-'), "{text}");
        }
        // With any number that a platform comes to, a site's id and a window's start are kept whole.
        let (number, attempt) = (number % 1_000_000_000, attempt % 10);
        let (named, head) = (JobName::of_site(&site, job, number, attempt), format!("{site}-{job}-"));
        prop_assert!(named.as_str().starts_with(&head), "{named}");
        let window = JobName::of_window(job, number, start, attempt);
        let head = format!("rollout-{start}-{job}-");
        prop_assert!(window.as_str().starts_with(&head), "{window}");
    }

    #[test]
    fn prefixes_are_never_prefixes_of_each_other(a in any::<(u64, u128)>(), b in any::<(u64, u128)>()) {
        let (a, b) = (Uid::from_parts(a.0, a.1), Uid::from_parts(b.0, b.1));
        prop_assume!(a != b);
        let (one, two) = (ObjectPrefix::of(a), ObjectPrefix::of(b));
        prop_assert!(!one.to_string().starts_with(&two.to_string()) && !two.to_string().starts_with(&one.to_string()));
        prop_assert!(one.holds(&one.marker()) && !one.holds(&two.marker()));
    }
}

#[test]
fn fences_are_ordered_by_number_then_epoch() {
    assert!(Fence::new(2, 1) > Fence::new(1, 9) && Fence::new(1, 10) > Fence::new(1, 9));
    for wrong in ["", ".", "1", "1.", ".1", "1.2.3", "-1.2", "1,2", " 1.2", "18446744073709551616.1"] {
        assert_eq!(Fence::parse(wrong), None, "{wrong:?}");
    }
    assert!(Grant { rollout: 1, leg: Leg::Back, term: 1 } > Grant { rollout: 1, leg: Leg::Out, term: 9 });
    assert!(Grant { rollout: 2, leg: Leg::Out, term: 1 } > Grant { rollout: 1, leg: Leg::Back, term: 9 });
}

#[test]
fn a_site_called_ab_is_not_touched_by_one_called_a() {
    let site = |id: &str, random| Site { uid: Uid::from_parts(1, random), ..active(id) };
    let (a, ab) = (site("a", 1), site("ab", 2));
    let (one, two) = (a.prefix().to_string(), ab.prefix().to_string());
    assert!(one != two && !one.starts_with(&two) && !two.starts_with(&one));
    assert!(one.ends_with('/') && !a.prefix().holds(&ab.prefix().marker()));
}

fn active(id: &str) -> Site {
    Site {
        id: SiteId::parse(id).expect("a site id"),
        uid: Uid::from_parts(1, 1),
        name: SiteName::parse("Shop").expect("a name"),
        theme: Theme::parse("plain").expect("a theme"),
        hostnames: Hostnames::parse(&["shop.example"], "shop.example").expect("a hostname"),
        service: Selector::Blue,
        route: Some(Routed { service: Selector::Blue, fence: Fence::new(3, 2) }),
        phase: Phase::Active,
        slot: None,
        grant: Grant::default(),
        settled: None,
        created_at: NOW,
        updated_at: NOW,
        version: 5,
    }
}

const fn grant(leg: Leg, term: u64) -> Grant {
    Grant { rollout: 7, leg, term }
}

fn claim(site: &Site, grant: Grant, want: Want) -> Claim {
    Claim {
        id: site.id.clone(),
        uid: site.uid,
        grant,
        want,
        ordinal: 0,
        number: 8,
        owner: WorkerId::new(&format!("worker-{}", grant.term)),
        requested_by: actor(),
        at: NOW,
    }
}

const OUT: Want = Want::Promote(Selector::Green);
const BACK: Want = Want::Promote(Selector::Blue);

fn complete(site: &Site, grant: Grant, epoch: u64, outcome: Option<Outcome>, service: Selector) -> Complete {
    let fence = Fence::new(8, epoch);
    let route = Some(Routed { service, fence });
    Complete { id: site.id.clone(), grant, fence, outcome, service: Some(service), route, at: NOW }
}

fn epoch(claimed: Result<Claimed, ClaimRefused>) -> u64 {
    match claimed {
        Ok(Claimed::Taken { epoch, .. }) => epoch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_site_is_claimed_moved_and_let_go() {
    let mut site = active("shop");
    let (mine, course) = (grant(Leg::Out, 1), claim(&active("shop"), grant(Leg::Out, 1), OUT));
    let Ok(Claimed::Taken { course, route, epoch, version }) = site.claim(&course) else {
        panic!("not taken")
    };
    assert_eq!((course.from, course.to, course.routed), (Selector::Blue, Selector::Green, Selector::Blue));
    assert_eq!((route, epoch, version), (site.route, Leg::Out.first_epoch(), site.version + 1));
    let slot = site.slot.clone().expect("an operation");
    assert_eq!(
        (slot.status, slot.task.kind(), slot.fence()),
        (Status::Running, Kind::Promote, Fence::new(8, 1))
    );

    let done = complete(&site, mine, 1, Some(Outcome::Moved), Selector::Green);
    for wrong in [
        Complete { grant: grant(Leg::Out, 2), ..done.clone() },
        Complete { fence: Fence::new(8, 2), ..done.clone() },
        Complete { fence: Fence::new(9, 1), ..done.clone() },
    ] {
        let before = site.clone();
        assert_eq!(site.complete(&wrong), Err(ClaimRefused::Fenced));
        assert_eq!(site, before, "a refusal writes nothing");
    }
    assert_eq!(site.complete(&done), Ok(()));
    let settled = Settled { rollout: 7, leg: Leg::Out, outcome: Outcome::Moved };
    assert_eq!((site.service, site.settled, site.slot.is_none()), (Selector::Green, Some(settled), true));
    assert_eq!(site.complete(&done), Err(ClaimRefused::Fenced), "let go twice");
    let again = claim(&site, grant(Leg::Out, 2), OUT);
    assert_eq!(site.claim(&again), Err(ClaimRefused::Settled(Outcome::Moved)));
}

#[test]
fn a_lost_owner_is_kept_out() {
    // It had begun: the next owner takes the claim over, under a fence of its own.
    let mut site = active("shop");
    let first = epoch(site.claim(&claim(&active("shop"), grant(Leg::Out, 1), OUT)));
    let taken = claim(&site, grant(Leg::Out, 2), Want::Settle);
    let second = epoch(site.claim(&taken));
    assert!(second > first);
    let term = site.slot.as_ref().and_then(|slot| slot.member).map(|member| member.term);
    assert_eq!(term, Some(2));
    let late = claim(&site, grant(Leg::Out, 1), OUT);
    assert_eq!(site.claim(&late), Err(ClaimRefused::Fenced));
    let stale = complete(&site, grant(Leg::Out, 1), first, Some(Outcome::Moved), Selector::Green);
    assert_eq!(site.complete(&stale), Err(ClaimRefused::Fenced));
    let fresh = complete(&site, grant(Leg::Out, 2), second, Some(Outcome::Moved), Selector::Green);
    assert_eq!(site.complete(&fresh), Ok(()));

    // It had not begun: it cannot any more, and the site is as it was.
    let mut site = active("shop");
    let barred = claim(&site, grant(Leg::Out, 2), Want::Settle);
    assert_eq!(site.claim(&barred), Ok(Claimed::Barred));
    assert_eq!((site.slot.is_none(), site.service), (true, Selector::Blue));
    let late = claim(&site, grant(Leg::Out, 1), OUT);
    assert_eq!(site.claim(&late), Err(ClaimRefused::Fenced));

    // Another operation is at work: that is no obstacle to keeping an owner out, but one to moving.
    let mut busy = active("shop");
    let _ = epoch(busy.claim(&Claim { number: 99, ..claim(&active("shop"), grant(Leg::Out, 1), OUT) }));
    let want = claim(&busy, grant(Leg::Out, 1), OUT);
    assert_eq!(busy.claim(&want), Err(ClaimRefused::Busy));
    let settle = claim(&busy, grant(Leg::Out, 3), Want::Settle);
    assert_eq!(busy.claim(&settle), Ok(Claimed::Barred));
    let late = claim(&busy, grant(Leg::Out, 2), OUT);
    assert_eq!(busy.claim(&late), Err(ClaimRefused::Fenced));
}

#[test]
fn legs_never_share_a_fence() {
    let mut site = active("shop");
    let mut seen = Vec::new();
    for (leg, want, target) in [(Leg::Out, OUT, Selector::Green), (Leg::Back, BACK, Selector::Blue)] {
        for term in 1..=5 {
            let claim = claim(&site, grant(leg, term), want);
            seen.push(epoch(site.claim(&claim)));
        }
        let last = *seen.last().expect("claims");
        let outcome = if leg == Leg::Out { Outcome::Moved } else { Outcome::Returned };
        assert_eq!(site.complete(&complete(&site, grant(leg, 5), last, Some(outcome), target)), Ok(()));
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    assert_eq!(site.service, Selector::Blue);
    let out = claim(&site, grant(Leg::Out, 6), OUT);
    assert_eq!(site.claim(&out), Err(ClaimRefused::Fenced), "the way back outranks the way out");
}

#[test]
fn a_site_that_cannot_be_moved_says_why() {
    let mine = grant(Leg::Out, 1);
    let other = Claim { uid: Uid::from_parts(1, 2), ..claim(&active("shop"), mine, OUT) };
    assert_eq!(active("shop").claim(&other), Err(ClaimRefused::Gone));
    let mut created = Site { phase: Phase::Created, ..active("shop") };
    assert_eq!(created.claim(&claim(&active("shop"), mine, OUT)), Err(ClaimRefused::NotActive));
    assert_eq!((created.slot, created.grant), (None, Grant::default()), "a refusal writes nothing");
    let mut going = active("shop");
    going.slot = Some(terminate());
    assert_eq!(going.claim(&claim(&active("shop"), mine, OUT)), Err(ClaimRefused::Gone));
    // What was taken and not moved is let go as it was, and is still to come.
    let mut site = active("shop");
    let first = epoch(site.claim(&claim(&active("shop"), mine, OUT)));
    let undone =
        Complete { service: None, route: None, ..complete(&site, mine, first, None, Selector::Green) };
    assert_eq!(site.complete(&undone), Ok(()));
    let as_it_was = Site { grant: mine, ..active("shop") };
    assert_eq!(site, as_it_was);
}

fn terminate() -> Slot {
    Slot {
        number: 3,
        task: Task::Terminate,
        pipeline: 1,
        epoch: 1,
        owner: None,
        status: Status::Queued,
        position: Position::Forward(0),
        attempts: 0,
        job: 1,
        wake: None,
        waiting_since: None,
        reason: None,
        cancel: false,
        holds: None,
        member: None,
        steps: Vec::new(),
        requested_by: actor(),
        retry_of: None,
        created_at: NOW,
        started_at: None,
    }
}

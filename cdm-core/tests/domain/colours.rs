//! Rollbacks, verdicts and holds.

use cdm_core::domain::colour::{ColourChange, rollback_choice};
use cdm_core::domain::{Colour, Digest, Hold, HoldMode, Release, Selector, Verdict};
use proptest::prelude::*;

use super::{NOW, actor, seeded};

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
    let verdict =
        prop::sample::select(vec![Verdict::Unknown, Verdict::Healthy, Verdict::RolledBack, Verdict::Bad]);
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
    let replaced = |previous, was_ready| ColourChange::Replaced {
        previous: Some(digest(previous)),
        was_ready,
        at: NOW,
        by: actor(),
        rolled_back: false,
    };
    blue.apply(&replaced(1, false));
    assert_eq!(blue.releases[0].verdict, Verdict::Unknown);
    blue.apply(&replaced(1, true));
    blue.apply(&replaced(2, true));
    assert_eq!((blue.releases[0].verdict, blue.releases[1].verdict), (Verdict::Healthy, Verdict::Bad));
    for number in 2_000..2_200 {
        let release = Release { number, digest: digest(3), ..blue.releases[0].clone() };
        blue.apply(&ColourChange::Released(release.clone()));
        blue.apply(&ColourChange::Released(release));
    }
    assert_eq!(blue.releases.len(), Colour::HISTORY);
    assert_eq!((blue.running, blue.releases[0].number), (Some(digest(3)), 2_199));
}

#[test]
fn a_digest_found_running_is_kept_and_can_be_rolled_back_to() {
    let (mut blue, none) = (Colour::new(Selector::Blue), Colour::new(Selector::Green));
    let previous = Some(digest(1));
    let found =
        ColourChange::Replaced { previous, was_ready: true, at: NOW, by: actor(), rolled_back: false };
    blue.apply(&found);
    blue.apply(&found);
    let kept: Vec<_> = blue.releases.iter().map(|release| (release.digest, release.verdict)).collect();
    assert_eq!(kept, [(digest(1), Verdict::Healthy)]);
    assert_eq!(rollback_choice(&blue, &none, Some(digest(2))), Some(digest(1)));
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
            let against = |verdict: &Verdict| matches!(verdict, Verdict::Bad | Verdict::RolledBack);
            own.iter().chain(&other).any(|(letter, verdict)| digest(*letter) == candidate && against(verdict))
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
}

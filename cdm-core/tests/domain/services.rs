//! Rollbacks, verdicts and service locks.

use cdm_core::domain::service::{ServiceChange, rollback_choice};
use cdm_core::domain::{Color, Digest, LockMode, Release, Service, ServiceLock, Verdict};
use proptest::prelude::*;

use super::{NOW, actor, seeded};

fn digest(hex_digit: u8) -> Digest {
    Digest::parse(&format!("{hex_digit:x}").repeat(64)).expect("a digest")
}

/// Returns the record of a service with these releases, newest first.
fn service(color: Color, releases: &[(u8, Verdict)]) -> Service {
    let mut service = Service::new(color);
    for (index, (hex_digit, verdict)) in releases.iter().enumerate() {
        service.releases.push(Release {
            digest: digest(*hex_digit),
            at: NOW,
            by: actor(),
            number: 1_000 - index as u64,
            verdict: *verdict,
            reason: None,
            ready_at: None,
        });
    }
    service
}

fn releases() -> impl Strategy<Value = Vec<(u8, Verdict)>> {
    let verdict =
        prop::sample::select(vec![Verdict::Unknown, Verdict::Healthy, Verdict::RolledBack, Verdict::Bad]);
    prop::collection::vec((0..8_u8, verdict), 0..8)
}

#[test]
fn a_rollback_takes_the_newest_healthy_digest() {
    use Verdict::{Bad, Healthy, Unknown};
    let own = service(Color::Blue, &[(1, Healthy), (2, Bad), (3, Unknown), (4, Healthy), (5, Healthy)]);
    let other = service(Color::Green, &[(6, Healthy)]);
    let none = service(Color::Green, &[]);
    assert_eq!(rollback_choice(&own, &other, Some(digest(1))), Some(digest(4)));
    assert_eq!(rollback_choice(&own, &other, None), Some(digest(1)));
    assert_eq!(rollback_choice(&none, &other, Some(digest(1))), Some(digest(6)));
    assert_eq!(rollback_choice(&none, &other, Some(digest(6))), None);
    assert_eq!(rollback_choice(&none, &none, None), None);
    let elsewhere_bad = service(Color::Green, &[(4, Bad), (6, Healthy)]);
    assert_eq!(rollback_choice(&own, &elsewhere_bad, Some(digest(1))), Some(digest(5)));
}

#[test]
fn a_digest_that_was_ready_when_replaced_is_healthy() {
    let mut blue = service(Color::Blue, &[(1, Verdict::Unknown), (2, Verdict::Bad)]);
    let replaced = |previous, was_ready| ServiceChange::Replaced {
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
        blue.apply(&ServiceChange::Released(release.clone()));
        blue.apply(&ServiceChange::Released(release));
    }
    assert_eq!(blue.releases.len(), Service::HISTORY);
    assert_eq!((blue.running, blue.releases[0].number), (Some(digest(3)), 2_199));
}

#[test]
fn a_digest_found_running_is_kept_and_can_be_rolled_back_to() {
    let (mut blue, none) = (Service::new(Color::Blue), Service::new(Color::Green));
    let previous = Some(digest(1));
    let found =
        ServiceChange::Replaced { previous, was_ready: true, at: NOW, by: actor(), rolled_back: false };
    blue.apply(&found);
    blue.apply(&found);
    let kept: Vec<_> = blue.releases.iter().map(|release| (release.digest, release.verdict)).collect();
    assert_eq!(kept, [(digest(1), Verdict::Healthy)]);
    assert_eq!(rollback_choice(&blue, &none, Some(digest(2))), Some(digest(1)));
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn a_rollback_never_selects_a_bad_or_the_running_digest(
        own in releases(),
        other in releases(),
        running in prop::option::of(0..8_u8),
    ) {
        let running = running.map(digest);
        let (blue, green) = (service(Color::Blue, &own), service(Color::Green, &other));
        let bad = |candidate: Digest| {
            let against = |verdict: &Verdict| matches!(verdict, Verdict::Bad | Verdict::RolledBack);
            own.iter().chain(&other).any(|(hex_digit, verdict)| digest(*hex_digit) == candidate && against(verdict))
        };
        let fit = |(hex_digit, verdict): &&(u8, Verdict)| {
            let candidate = digest(*hex_digit);
            *verdict == Verdict::Healthy && !bad(candidate) && Some(candidate) != running
        };
        let first = |list: &[(u8, Verdict)]| list.iter().find(fit).map(|(hex_digit, _)| digest(*hex_digit));
        let expected = first(&own).or_else(|| first(&other));
        prop_assert_eq!(rollback_choice(&blue, &green, running), expected);
    }

    #[test]
    fn locked_color(requests in prop::collection::vec((1..5_u64, 0..3_u8), 0..40)) {
        let mut lock = ServiceLock::default();
        for (number, what) in requests {
            let before = lock.clone();
            match what {
                0 => {
                    let taken = lock.acquire(number, LockMode::Shared);
                    prop_assert_eq!(taken, before.deploy.is_none());
                    prop_assert!(!taken || lock.moves.contains(&number));
                }
                1 => {
                    let taken = lock.acquire(number, LockMode::Exclusive);
                    let free = before.deploy.is_none_or(|holder| holder == number);
                    prop_assert_eq!(taken, before.moves.is_empty() && free);
                    prop_assert!(!taken || lock.deploy == Some(number));
                }
                _ => {
                    lock.release(number);
                    prop_assert!(!lock.moves.contains(&number) && lock.deploy != Some(number));
                }
            }
            prop_assert!(lock.deploy.is_none() || lock.moves.is_empty(), "a deploy and moves hold the lock at once: {lock:?}");
            let mode = if what == 0 { LockMode::Shared } else { LockMode::Exclusive };
            if what < 2 && before != lock {
                let once = lock.clone();
                prop_assert!(lock.acquire(number, mode), "acquiring a held lock again succeeds");
                prop_assert_eq!(once, lock.clone());
            } else if what < 2 && before == lock && lock.deploy != Some(number) && !lock.moves.contains(&number) {
                prop_assert!(!lock.acquire(number, mode), "a rejected acquire succeeds when repeated");
            }
        }
    }
}

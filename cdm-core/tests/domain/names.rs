//! Names that are written as text and parsed back: operation ids, fences, jobs and prefixes.

use cdm_core::domain::operation::OperationParent;
use cdm_core::domain::{
    ClaimToken, Color, Direction, Epoch, Fence, JobName, ObjectPrefix, OperationId, Site, SiteId, Subject,
    Term, Uid,
};
use proptest::prelude::*;

use super::claims::active;
use super::seeded;

fn site_id() -> impl Strategy<Value = SiteId> {
    "[a-z](-?[a-z0-9]){0,15}".prop_map(|text| SiteId::parse(&text).expect("a site id"))
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn operation_ids_are_parsed_back(
        number in any::<u64>(),
        site in site_id(),
        color in prop::sample::select(Color::ALL.to_vec()),
        rollout in any::<u64>(),
        ordinal in any::<u32>(),
    ) {
        for parent in [
            OperationParent::Subject(Subject::Site(site.clone())),
            OperationParent::Subject(Subject::Service(color)),
            OperationParent::Subject(Subject::Fleet),
            OperationParent::Rollout(rollout, ordinal),
        ] {
            let id = OperationId { number, parent };
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
        let fence = Fence::new(number, Epoch(epoch));
        prop_assert_eq!(Fence::parse(&fence.to_string()), Some(fence));
        prop_assert_eq!(fence.cmp(&Fence::new(other.0, Epoch(other.1))), (number, epoch).cmp(&other));
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
            prop_assert_eq!(JobName::parse(text), Some(name.clone()));
            prop_assert!(text.ends_with(&tail), "{text} lost {tail}");
            prop_assert!(text.starts_with(|first: char| first.is_ascii_lowercase()), "{text}");
            prop_assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{text}");
            prop_assert!(!text[..text.len() - tail.len()].ends_with('-'), "{text}");
        }
        // With every number that occurs in practice, the site id and the start of the window are not truncated.
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
    assert!(
        Fence::new(2, Epoch(1)) > Fence::new(1, Epoch(9))
            && Fence::new(1, Epoch(10)) > Fence::new(1, Epoch(9))
    );
    for wrong in ["", ".", "1", "1.", ".1", "1.2.3", "-1.2", "1,2", " 1.2", "18446744073709551616.1"] {
        assert_eq!(Fence::parse(wrong), None, "{wrong:?}");
    }
    assert!(
        ClaimToken { rollout: 1, direction: Direction::Rollback, term: Term(1) }
            > ClaimToken { rollout: 1, direction: Direction::Forward, term: Term(9) }
    );
    assert!(
        ClaimToken { rollout: 2, direction: Direction::Forward, term: Term(1) }
            > ClaimToken { rollout: 1, direction: Direction::Rollback, term: Term(9) }
    );
}

#[test]
fn site_ab_is_not_affected_by_site_a() {
    let site = |id: &str, random| Site { uid: Uid::from_parts(1, random), ..active(id) };
    let (a, ab) = (site("a", 1), site("ab", 2));
    let (one, two) = (a.prefix().to_string(), ab.prefix().to_string());
    assert!(one != two && !one.starts_with(&two) && !two.starts_with(&one));
    assert!(one.ends_with('/') && !a.prefix().holds(&ab.prefix().marker()));
}

#[test]
fn other_names_are_not_parsed_as_job_names() {
    for text in ["", "x", "-1", "a-b-c", "A-install-1", "rrr-install-007"] {
        assert_eq!(JobName::parse(text), None, "{text}");
    }
}

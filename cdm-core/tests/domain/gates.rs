//! What an answer says of a service: for it, against it, or nothing.

use std::time::Duration;

use cdm_core::domain::Color::{self, Blue, Green};
use cdm_core::domain::rollout::{HealthGate, Judgement, ProbeResponse};
use proptest::prelude::*;

use super::seeded;

fn gate() -> HealthGate {
    HealthGate::new("/up").and_then(|gate| gate.with_text("fine")).expect("a gate")
}

fn answer(status: u16, by: Option<Color>) -> ProbeResponse {
    ProbeResponse { status, contains: status == 200, took: Duration::from_millis(80), by }
}

fn healthy(said: &Judgement) -> bool {
    matches!(said, Judgement::Healthy)
}

fn unhealthy(said: &Judgement) -> bool {
    matches!(said, Judgement::Unhealthy(_))
}

#[test]
fn a_services_own_answer_is_a_verdict_at_once() {
    for settled in [false, true] {
        assert!(healthy(&gate().judge(&answer(200, Some(Green)), Green, None, settled)));
        assert!(unhealthy(&gate().judge(&answer(500, Some(Green)), Green, None, settled)));
        // What a gateway may have answered is held against nobody, whatever it says of itself.
        assert!(matches!(
            gate().judge(&answer(503, Some(Green)), Green, None, settled),
            Judgement::NotYet(_)
        ));
    }
    let without_text = ProbeResponse { contains: false, ..answer(200, Some(Green)) };
    assert!(unhealthy(&gate().judge(&without_text, Green, None, false)));
}

#[test]
fn an_answer_from_nobody_known_counts_when_the_route_had_its_time() {
    assert!(healthy(&gate().judge(&answer(200, None), Green, None, true)));
    assert!(unhealthy(&gate().judge(&answer(500, None), Green, None, true)));
    for status in 502..=504 {
        assert!(matches!(gate().judge(&answer(status, None), Green, None, true), Judgement::NotYet(_)));
    }
}

#[test]
fn what_answers_in_the_place_of_a_service_that_was_asked_itself_says_nothing_of_it() {
    for by in [None, Some(Blue)] {
        for status in [200, 404, 500, 503] {
            assert!(matches!(gate().judge_direct(&answer(status, by), Green), Judgement::NotYet(_)));
        }
    }
    assert!(healthy(&gate().judge_direct(&answer(200, Some(Green)), Green)));
    assert!(unhealthy(&gate().judge_direct(&answer(503, Some(Green)), Green)));
}

#[test]
fn a_slow_answer_is_held_against_a_site_only_when_the_route_had_its_time() {
    let gate = gate().with_latency(2_000).expect("a ratio");
    let slow = ProbeResponse { took: Duration::from_millis(201), ..answer(200, Some(Green)) };
    let before = Some(Duration::from_millis(100));
    assert!(matches!(gate.judge(&slow, Green, before, false), Judgement::NotYet(_)));
    assert!(unhealthy(&gate.judge(&slow, Green, before, true)));
    assert!(healthy(&gate.judge(&slow, Green, None, true)));
    let just = ProbeResponse { took: Duration::from_millis(200), ..slow };
    assert!(healthy(&gate.judge(&just, Green, before, true)));
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn an_answer_of_the_old_service_is_never_a_verdict(
        status in 100_u16..600,
        contains: bool,
        took in 0_u64..60_000,
        before in proptest::option::of(0_u64..60_000),
        settled: bool,
    ) {
        let took = Duration::from_millis(took);
        let old = ProbeResponse { status, contains, took, by: Some(Blue) };
        let said = gate().judge(&old, Green, before.map(Duration::from_millis), settled);
        prop_assert!(matches!(said, Judgement::NotYet(_)));
    }
}

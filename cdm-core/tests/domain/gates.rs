//! What a response says about the health of a service: healthy, unhealthy, or undecided.

use std::time::Duration;

use cdm_core::domain::Color::{self, Blue, Green};
use cdm_core::domain::rollout::{HealthGate, Judgement, ProbeResponse};
use proptest::prelude::*;

use super::seeded;

fn gate() -> HealthGate {
    HealthGate::new("/up").and_then(|gate| gate.with_text("fine")).expect("a gate")
}

fn response(status: u16, by: Option<Color>) -> ProbeResponse {
    ProbeResponse { status, contains: status == 200, took: Duration::from_millis(80), by }
}

fn healthy(judgement: &Judgement) -> bool {
    matches!(judgement, Judgement::Healthy)
}

fn unhealthy(judgement: &Judgement) -> bool {
    matches!(judgement, Judgement::Unhealthy(_))
}

#[test]
fn a_response_of_the_service_is_a_verdict_at_once() {
    for settled in [false, true] {
        assert!(healthy(&gate().judge(&response(200, Some(Green)), Green, None, settled)));
        assert!(unhealthy(&gate().judge(&response(500, Some(Green)), Green, None, settled)));
        // A response that a gateway may have sent does not count against a service, even with the header of the
        // service.
        assert!(matches!(
            gate().judge(&response(503, Some(Green)), Green, None, settled),
            Judgement::NotYet(_)
        ));
    }
    let without_text = ProbeResponse { contains: false, ..response(200, Some(Green)) };
    assert!(unhealthy(&gate().judge(&without_text, Green, None, false)));
}

#[test]
fn a_response_of_unknown_origin_counts_once_the_route_has_settled() {
    assert!(healthy(&gate().judge(&response(200, None), Green, None, true)));
    assert!(unhealthy(&gate().judge(&response(500, None), Green, None, true)));
    for status in 502..=504 {
        assert!(matches!(gate().judge(&response(status, None), Green, None, true), Judgement::NotYet(_)));
    }
}

#[test]
fn a_response_of_another_server_to_a_direct_request_is_undecided() {
    for by in [None, Some(Blue)] {
        for status in [200, 404, 500, 503] {
            assert!(matches!(gate().judge_direct(&response(status, by), Green), Judgement::NotYet(_)));
        }
    }
    assert!(healthy(&gate().judge_direct(&response(200, Some(Green)), Green)));
    assert!(unhealthy(&gate().judge_direct(&response(503, Some(Green)), Green)));
}

#[test]
fn a_slow_response_counts_only_once_the_route_has_settled() {
    let gate = gate().with_latency(2_000).expect("a ratio");
    let slow = ProbeResponse { took: Duration::from_millis(201), ..response(200, Some(Green)) };
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
    fn a_response_of_the_old_service_is_never_a_verdict(
        status in 100_u16..600,
        contains: bool,
        took in 0_u64..60_000,
        before in proptest::option::of(0_u64..60_000),
        settled: bool,
    ) {
        let took = Duration::from_millis(took);
        let old = ProbeResponse { status, contains, took, by: Some(Blue) };
        let judgement = gate().judge(&old, Green, before.map(Duration::from_millis), settled);
        prop_assert!(matches!(judgement, Judgement::NotYet(_)));
    }
}

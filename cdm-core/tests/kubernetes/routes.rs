//! Routes: a stranger's stays a stranger's, and a move is one request.

use cdm_core::domain::{Color, Fence};
use cdm_core::ports::{Clock, ClusterOps, ErrorKind, Outcome};
use cdm_testkit::kubernetes::{Fault, Matching, Moment, Trouble};
use serde_json::{Value, json};

use crate::lab::{Lab, NAMESPACE, gateway, ingress};

fn kind_of<T: std::fmt::Debug>(outcome: Outcome<T>) -> ErrorKind {
    match outcome {
        Outcome::NotApplied(error) => error.kind,
        other => panic!("not refused: {other:?}"),
    }
}

fn stranger(name: &str, host: &str) -> [Value; 2] {
    let metadata = json!({ "name": name, "namespace": NAMESPACE });
    let backend = json!({ "service": { "name": "shop", "port": { "number": 80 } } });
    let paths = json!([{ "path": "/", "pathType": "Prefix", "backend": backend }]);
    [
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata,
            "spec": { "rules": [{ "host": host, "http": { "paths": paths } }] },
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata,
            "spec": { "hostnames": [host], "rules": [{ "backendRefs": [{ "name": "shop", "port": 80 }] }] },
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_hostname_is_foreign() {
    for (at, route) in [ingress(), gateway()].into_iter().enumerate() {
        let lab = Lab::start(route).await;
        lab.api.put(&stranger("shop", "www.rrr.example.com")[at]).expect("a stranger's route");
        let spec = lab.route_spec(lab.cx().uid(), &["rrr.example.com", "www.rrr.example.com"]);
        assert_eq!(kind_of(lab.cluster.put_route(&lab.cx().call(), &spec).await), ErrorKind::Foreign);
        assert_eq!(lab.cluster.route(spec.uid).await, Ok(None));
        let free = lab.route_spec(lab.cx().uid(), &["sss.example.com"]);
        assert_eq!(lab.cluster.put_route(&lab.cx().call(), &free).await, Outcome::Applied(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_the_routes_name_that_cdm_did_not_make_is_left_alone() {
    for (at, route) in [ingress(), gateway()].into_iter().enumerate() {
        let lab = Lab::start(route).await;
        let uid = lab.cx().uid();
        let theirs = stranger(&format!("cdm-{uid}"), "other.example.com")[at].clone();
        lab.api.put(&theirs).expect("a stranger's route");
        let resource = ["ingresses", "httproutes"][at];
        let before = lab.api.object(resource, NAMESPACE, &format!("cdm-{uid}"));
        let spec = lab.route_spec(uid, &["rrr.example.com"]);
        assert_eq!(kind_of(lab.cluster.put_route(&lab.cx().call(), &spec).await), ErrorKind::Foreign);
        assert_eq!(lab.cluster.route(uid).await.map_err(|error| error.kind), Err(ErrorKind::Foreign));
        let moved = lab.cluster.move_route(&lab.cx().call(), uid, Fence::default(), Color::Green).await;
        assert_eq!(kind_of(moved), ErrorKind::Foreign);
        assert_eq!(lab.cluster.release(&lab.cx().call(), uid).await, Outcome::Applied(()));
        assert_eq!(lab.api.object(resource, NAMESPACE, &format!("cdm-{uid}")), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_that_are_alike_cost_one_request_a_move() {
    for route in [ingress(), gateway()] {
        let resource = if route == gateway() { "httproutes" } else { "ingresses" };
        let lab = Lab::start(route).await;
        let mut moves = Vec::new();
        for number in 0..5 {
            let (www, host) = (format!("www.s{number}.example.com"), format!("s{number}.example.com"));
            let spec = lab.route_spec(lab.cx().uid(), &[&host, &www]);
            let call = lab.cx().call();
            assert_eq!(lab.cluster.put_route(&call, &spec).await, Outcome::Applied(()));
            moves.push((spec.uid, call.fence));
        }
        lab.api.forget_requests();
        for (uid, fence) in &moves {
            let moved = lab.cluster.move_route(&lab.cx().call(), *uid, *fence, Color::Green).await;
            assert_eq!(moved, Outcome::Applied(()));
        }
        // The first of them finds out how many hostnames its kind has.
        let more = if resource == "ingresses" { 2 } else { 0 };
        assert_eq!(lab.api.requests().len(), 5 + more);
        for (uid, _) in moves {
            let object = lab.api.object(resource, NAMESPACE, &format!("cdm-{uid}")).expect("a route");
            let text = object["spec"].to_string();
            assert!(text.contains("\"green\"") && !text.contains("\"blue\""), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_someone_pointed_elsewhere_is_not_believed() {
    let lab = Lab::start(ingress()).await;
    let spec = lab.route_spec(lab.cx().uid(), &["rrr.example.com", "www.rrr.example.com"]);
    assert_eq!(lab.cluster.put_route(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    let mut object = lab.api.object("ingresses", NAMESPACE, &format!("cdm-{}", spec.uid)).expect("a route");
    object["spec"]["rules"][1]["http"]["paths"][0]["backend"]["service"]["name"] = json!("shop");
    object["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    lab.api.put(&object).expect("an edit");
    let seen = lab.cluster.route(spec.uid).await;
    assert_eq!(seen.map_err(|error| error.kind), Err(ErrorKind::Foreign));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_site_has_belongs_to_its_anchor_and_goes_with_it() {
    let lab = Lab::start(ingress()).await;
    let uid = lab.cx().uid();
    let spec = lab.route_spec(uid, &["rrr.example.com"]);
    assert_eq!(lab.cluster.put_route(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    let anchor = lab.api.object("configmaps", NAMESPACE, &format!("cdm-{uid}")).expect("an anchor");
    let route = lab.api.object("ingresses", NAMESPACE, &format!("cdm-{uid}")).expect("a route");
    assert_eq!(route["metadata"]["ownerReferences"][0]["uid"], anchor["metadata"]["uid"]);
    assert_eq!(lab.cluster.release(&lab.cx().call(), uid).await, Outcome::Applied(()));
    // What a call that had seen the old anchor still creates.
    let mut late = route;
    late["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    lab.api.put(&late).expect("a late create");
    lab.cx()
        .until("a late create is collected", async || {
            let left = lab.api.object("ingresses", NAMESPACE, &format!("cdm-{uid}"));
            left.is_none().then_some(())
        })
        .await;
    let tombstone = lab.api.object("configmaps", NAMESPACE, &format!("cdm-{uid}")).expect("a tombstone");
    assert_ne!(tombstone["metadata"]["uid"], anchor["metadata"]["uid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_are_swept_when_they_have_stood_long_enough() {
    let lab = Lab::start(ingress()).await;
    let (old, young) = (lab.cx().uid(), lab.cx().uid());
    let days = |days: u64| lab.bench.clock.wall().millis() - days * 24 * 3_600_000;
    for (uid, released) in [(old, days(2)), (young, days(0))] {
        let labels = json!({
            "app.kubernetes.io/managed-by": "cdm",
            "app.kubernetes.io/component": "tombstone",
            "cdm/uid": uid.to_string(),
        });
        let annotations = json!({ "cdm/released": released.to_string() });
        let name = format!("cdm-{uid}");
        let metadata =
            json!({ "name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations });
        let tombstone = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
        lab.api.put(&tombstone).expect("a tombstone");
    }
    assert_eq!(lab.cluster.release(&lab.cx().call(), lab.cx().uid()).await, Outcome::Applied(()));
    let stands = |uid| lab.api.object("configmaps", NAMESPACE, &format!("cdm-{uid}")).is_some();
    assert_eq!((stands(old), stands(young)), (false, true));
}

/// More routes of strangers than one page of a list has.
const MORE_THAN_A_PAGE: usize = 501;

#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_next_page_has_expired_begins_again() {
    for (expirations, done) in [(1, true), (3, true), (4, false)] {
        let lab = Lab::start(ingress()).await;
        for n in 0..MORE_THAN_A_PAGE {
            let [theirs, _] = stranger(&format!("shop-{n}"), &format!("shop-{n}.example.org"));
            lab.api.put(&theirs).expect("a stranger's route");
        }
        let uid = lab.cx().uid();
        let spec = lab.route_spec(uid, &["rrr.example.com"]);
        for n in 0..expirations {
            // The first list is the one by the site's own hostname; then each time a first page and a second one.
            let second_page =
                Fault::next(Matching::of("list", "ingresses"), Moment::Before, Trouble::Compaction);
            lab.api.fault(second_page.after(2 + 2 * n));
        }
        let outcome = lab.cluster.put_route(&lab.cx().call(), &spec).await;
        assert_eq!(lab.api.faults(), 0, "{expirations}: a page was not asked for");
        match outcome {
            Outcome::Applied(()) => assert!(done, "{expirations}"),
            Outcome::NotApplied(error) | Outcome::Unknown(error) => {
                assert!(!done && error.kind == ErrorKind::Unavailable, "{expirations}: {error:?}");
            }
        }
        assert_eq!(lab.cluster.route(uid).await.expect("an answer").is_some(), done, "{expirations}");
        lab.assert_allowed();
    }
}

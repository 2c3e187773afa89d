//! Routes: foreign routes are never changed, and a move is one request.

use cdm_core::domain::{Color, Fence};
use cdm_core::ports::{Clock, ClusterOps, ErrorKind, Outcome};
use cdm_testkit::kubernetes::{Fault, FaultKind, FaultTiming, RequestMatcher};
use serde_json::{Value, json};

use crate::env::{NAMESPACE, TestEnv, gateway, ingress};

fn kind_of<T: std::fmt::Debug>(outcome: Outcome<T>) -> ErrorKind {
    match outcome {
        Outcome::NotApplied(error) => error.kind,
        other => panic!("not rejected: {other:?}"),
    }
}

fn foreign_route(name: &str, host: &str) -> [Value; 2] {
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
async fn a_hostname_of_another_object_is_foreign() {
    for (at, route) in [ingress(), gateway()].into_iter().enumerate() {
        let env = TestEnv::start(route).await;
        env.api.put(&foreign_route("shop", "www.rrr.example.com")[at]).expect("a foreign route");
        let spec = env.route_spec(env.cx().uid(), &["rrr.example.com", "www.rrr.example.com"]);
        assert_eq!(kind_of(env.cluster.put_route(&env.cx().call(), &spec).await), ErrorKind::Foreign);
        assert_eq!(env.cluster.route(spec.uid).await, Ok(None));
        let free = env.route_spec(env.cx().uid(), &["sss.example.com"]);
        assert_eq!(env.cluster.put_route(&env.cx().call(), &free).await, Outcome::Applied(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_object_with_the_name_of_a_route_is_not_changed() {
    for (at, route) in [ingress(), gateway()].into_iter().enumerate() {
        let env = TestEnv::start(route).await;
        let uid = env.cx().uid();
        let foreign = foreign_route(&format!("cdm-{uid}"), "other.example.com")[at].clone();
        env.api.put(&foreign).expect("a foreign route");
        let resource = ["ingresses", "httproutes"][at];
        let before = env.api.object(resource, NAMESPACE, &format!("cdm-{uid}"));
        let spec = env.route_spec(uid, &["rrr.example.com"]);
        assert_eq!(kind_of(env.cluster.put_route(&env.cx().call(), &spec).await), ErrorKind::Foreign);
        assert_eq!(env.cluster.route(uid).await.map_err(|error| error.kind), Err(ErrorKind::Foreign));
        let moved = env.cluster.move_route(&env.cx().call(), uid, Fence::default(), Color::Green).await;
        assert_eq!(kind_of(moved), ErrorKind::Foreign);
        assert_eq!(env.cluster.release(&env.cx().call(), uid).await, Outcome::Applied(()));
        assert_eq!(env.api.object(resource, NAMESPACE, &format!("cdm-{uid}")), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_of_similar_sites_take_one_request_each() {
    for route in [ingress(), gateway()] {
        let resource = if route == gateway() { "httproutes" } else { "ingresses" };
        let env = TestEnv::start(route).await;
        let mut moves = Vec::new();
        for number in 0..5 {
            let (www, host) = (format!("www.s{number}.example.com"), format!("s{number}.example.com"));
            let spec = env.route_spec(env.cx().uid(), &[&host, &www]);
            let call = env.cx().call();
            assert_eq!(env.cluster.put_route(&call, &spec).await, Outcome::Applied(()));
            moves.push((spec.uid, call.fence));
        }
        env.api.forget_requests();
        for (uid, fence) in &moves {
            let moved = env.cluster.move_route(&env.cx().call(), *uid, *fence, Color::Green).await;
            assert_eq!(moved, Outcome::Applied(()));
        }
        // The first call determines how many hostnames the objects of its kind have.
        let more = if resource == "ingresses" { 2 } else { 0 };
        assert_eq!(env.api.requests().len(), 5 + more);
        for (uid, _) in moves {
            let object = env.api.object(resource, NAMESPACE, &format!("cdm-{uid}")).expect("a route");
            let text = object["spec"].to_string();
            assert!(text.contains("\"green\"") && !text.contains("\"blue\""), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_edited_by_hand_is_reported() {
    let env = TestEnv::start(ingress()).await;
    let spec = env.route_spec(env.cx().uid(), &["rrr.example.com", "www.rrr.example.com"]);
    assert_eq!(env.cluster.put_route(&env.cx().call(), &spec).await, Outcome::Applied(()));
    let mut object = env.api.object("ingresses", NAMESPACE, &format!("cdm-{}", spec.uid)).expect("a route");
    object["spec"]["rules"][1]["http"]["paths"][0]["backend"]["service"]["name"] = json!("shop");
    object["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    env.api.put(&object).expect("an edit");
    let seen = env.cluster.route(spec.uid).await;
    assert_eq!(seen.map_err(|error| error.kind), Err(ErrorKind::Foreign));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_site_are_owned_by_its_anchor_and_deleted_with_it() {
    let env = TestEnv::start(ingress()).await;
    let uid = env.cx().uid();
    let spec = env.route_spec(uid, &["rrr.example.com"]);
    assert_eq!(env.cluster.put_route(&env.cx().call(), &spec).await, Outcome::Applied(()));
    let anchor = env.api.object("configmaps", NAMESPACE, &format!("cdm-{uid}")).expect("an anchor");
    let route = env.api.object("ingresses", NAMESPACE, &format!("cdm-{uid}")).expect("a route");
    assert_eq!(route["metadata"]["ownerReferences"][0]["uid"], anchor["metadata"]["uid"]);
    assert_eq!(env.cluster.release(&env.cx().call(), uid).await, Outcome::Applied(()));
    // The object that a call creates which has read the old anchor.
    let mut late = route;
    late["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    env.api.put(&late).expect("a late create");
    env.cx()
        .until("a late create is collected", async || {
            let remaining = env.api.object("ingresses", NAMESPACE, &format!("cdm-{uid}"));
            remaining.is_none().then_some(())
        })
        .await;
    let tombstone = env.api.object("configmaps", NAMESPACE, &format!("cdm-{uid}")).expect("a tombstone");
    assert_ne!(tombstone["metadata"]["uid"], anchor["metadata"]["uid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_tombstones_are_deleted() {
    let env = TestEnv::start(ingress()).await;
    let (old, recent) = (env.cx().uid(), env.cx().uid());
    let days = |days: u64| env.suite.clock.wall().millis() - days * 24 * 3_600_000;
    for (uid, released) in [(old, days(2)), (recent, days(0))] {
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
        env.api.put(&tombstone).expect("a tombstone");
    }
    assert_eq!(env.cluster.release(&env.cx().call(), env.cx().uid()).await, Outcome::Applied(()));
    let exists = |uid| env.api.object("configmaps", NAMESPACE, &format!("cdm-{uid}")).is_some();
    assert_eq!((exists(old), exists(recent)), (false, true));
}

/// More foreign routes than a page of a list holds.
const MORE_THAN_A_PAGE: usize = 501;

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_an_expired_page_starts_over() {
    for (expirations, done) in [(1, true), (3, true), (4, false)] {
        let env = TestEnv::start(ingress()).await;
        for n in 0..MORE_THAN_A_PAGE {
            let [foreign, _] = foreign_route(&format!("shop-{n}"), &format!("shop-{n}.example.org"));
            env.api.put(&foreign).expect("a foreign route");
        }
        let uid = env.cx().uid();
        let spec = env.route_spec(uid, &["rrr.example.com"]);
        for n in 0..expirations {
            // The first list selects by the site's own hostname; then each attempt has a first and a second page.
            let second_page = Fault::next(
                RequestMatcher::of("list", "ingresses"),
                FaultTiming::Before,
                FaultKind::Compaction,
            );
            env.api.fault(second_page.after(2 + 2 * n));
        }
        let outcome = env.cluster.put_route(&env.cx().call(), &spec).await;
        assert_eq!(env.api.faults(), 0, "{expirations}: a page was not requested");
        match outcome {
            Outcome::Applied(()) => assert!(done, "{expirations}"),
            Outcome::NotApplied(error) | Outcome::Unknown(error) => {
                assert!(!done && error.kind == ErrorKind::Unavailable, "{expirations}: {error:?}");
            }
        }
        assert_eq!(env.cluster.route(uid).await.expect("a response").is_some(), done, "{expirations}");
        env.assert_allowed();
    }
}

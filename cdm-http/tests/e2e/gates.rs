//! Rollouts with a health gate on the local cluster: real pages through a real router.

use cdm_core::adapters::embedded::ImageSpec;
use cdm_core::domain::Digest;
use reqwest::Method;
use serde_json::{Value, json};

use cdm_testkit::server::{Server, declare, directory, new_site};

async fn fleet(server: &Server, sites: usize) {
    for n in 0..sites {
        let id = format!("s{n}");
        server.ask(Method::POST, "/sites/create", Some(&new_site(&id))).await;
        server.done(Method::POST, &format!("/sites/{id}/provision"), None).await;
    }
}

async fn deploy(server: &Server, hex_digit: &str, service: &str) {
    let body = json!({"imageTag": hex_digit.repeat(64), "service": service});
    server.done(Method::POST, "/services", Some(&body)).await;
}

async fn roll_out(server: &Server, body: &Value) -> Value {
    let (_, accepted) = server.ask(Method::PUT, "/services", Some(body)).await;
    server.wait_until_at_rest(&format!("/rollouts/{}", accepted["id"].as_str().unwrap_or_default())).await
}

/// Returns the status and the service of every site's page.
async fn pages(server: &Server, sites: usize) -> Vec<(u16, String)> {
    let mut seen = Vec::new();
    for n in 0..sites {
        let page = server.page(&format!("s{n}.example.com")).await;
        let service = page.headers()["x-cdm-service"].to_str().expect("a service").to_owned();
        seen.push((page.status().as_u16(), service));
    }
    seen
}

#[tokio::test]
async fn the_gate_rejects_an_image_that_returns_500() {
    let dir = directory();
    let server = Server::start(dir.path());
    fleet(&server, 5).await;
    deploy(&server, "a", "blue").await;
    let failing = ImageSpec { answers: 500, ..ImageSpec::default() };
    declare(&dir.path().join("data"), Digest::parse(&"b".repeat(64)).expect("a digest"), failing).await;
    deploy(&server, "b", "green").await;
    server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;

    let gate = json!({"path": "/", "contains": "The site", "maxLatencyRatio": 100, "settle": 20});
    let body = json!({"promote": true, "scope": "inactive", "waves": ["1", "100%"], "autoRollback": true,
        "gate": gate});
    let ended = roll_out(&server, &body).await;
    assert_eq!(
        (&ended["status"], &ended["reason"]["code"]),
        (&"failed".into(), &"budget_exceeded".into()),
        "{ended}"
    );
    assert_eq!((&ended["failed"], &ended["pending"]), (&1.into(), &4.into()), "{ended}");
    assert_eq!(pages(&server, 5).await, vec![(200, "blue".to_owned()); 5]);
    let history = server.get("/services/green/history").await;
    assert_eq!(history["items"][0]["verdict"], "bad", "{history}");
    let members = format!("/operations?rollout={}", ended["id"].as_str().unwrap());
    let members = server.get(&members).await;
    let reason = &members["items"][0]["reason"];
    assert_eq!(reason["code"], "gate_failed", "{members}");
    assert!(reason["message"].as_str().unwrap().contains("answers 500 instead of 200"), "{members}");

    // A good image passes the same gate.
    deploy(&server, "c", "green").await;
    let ended = roll_out(&server, &body).await;
    assert_eq!((&ended["status"], &ended["succeeded"]), (&"succeeded".into(), &5.into()), "{ended}");
    assert_eq!(pages(&server, 5).await, vec![(200, "green".to_owned()); 5]);
}

#[tokio::test]
async fn an_image_deployed_in_place_that_returns_500_is_rolled_back() {
    let dir = directory();
    let server = Server::start(dir.path());
    fleet(&server, 3).await;
    deploy(&server, "a", "blue").await;
    let failing = ImageSpec { answers: 500, ..ImageSpec::default() };
    declare(&dir.path().join("data"), Digest::parse(&"b".repeat(64)).expect("a digest"), failing).await;
    let body = json!({"promote": true, "scope": "active", "imageTag": "b".repeat(64), "autoRollback": true,
        "gate": {"path": "/"}, "bake": 1});
    let ended = roll_out(&server, &body).await;
    assert_eq!(
        (&ended["status"], &ended["reason"]["code"]),
        (&"failed".into(), &"budget_exceeded".into()),
        "{ended}"
    );
    let rollback = format!("/operations/{}", ended["rollback"].as_str().expect("a deploy"));
    assert_eq!(server.wait_until_at_rest(&rollback).await["status"], "succeeded");
    let services = server.get("/services").await;
    assert!(services["services"]["blue"]["image"].as_str().unwrap().contains(&"a".repeat(64)), "{services}");
    assert_eq!(pages(&server, 3).await, vec![(200, "blue".to_owned()); 3]);
}

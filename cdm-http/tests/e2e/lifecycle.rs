//! The lifecycle of sites and services, observed from outside.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use cdm_testkit::server::{Server, directory, new_site};

fn digest(hex_digit: &str) -> String {
    hex_digit.repeat(64)
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_site_is_created_provisioned_served_moved_and_terminated() {
    let dir = directory();
    let server = Server::start(dir.path());
    let (status, site) = server.ask(Method::POST, "/sites/create", Some(&new_site("rrr"))).await;
    assert_eq!((status, &site["state"]), (StatusCode::CREATED, &"created".into()), "{site}");
    assert_eq!((&site["service"], &site["routedService"]), (&"blue".into(), &Value::Null));
    assert_eq!(server.page("rrr.example.com").await.status(), StatusCode::NOT_FOUND);

    let operation = server.done(Method::POST, "/sites/rrr/provision", None).await;
    let steps: Vec<_> = operation["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    assert_eq!(steps, ["CreateDatabase", "CreateObjects", "Install", "Ingress", "ActivateTheme"]);
    let page = server.page("rrr.example.com").await;
    assert_eq!((page.status(), header(&page, "x-cdm-service").as_str()), (StatusCode::OK, "blue"));
    assert!(page.text().await.unwrap().contains("The site rrr"));
    let moved = server.page("www.rrr.example.com").await;
    assert_eq!(moved.status(), StatusCode::MOVED_PERMANENTLY);
    assert!(header(&moved, "location").contains("//rrr.example.com"));
    let log = format!("/operations/{}/steps/Install/log", operation["id"].as_str().unwrap());
    let log = server.ask_as(Some(cdm_testkit::server::ADMIN), Method::GET, &log, None).await;
    assert!(log.text().await.unwrap().contains("WordPress"), "the job's log is kept");

    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!((status, &selected["changed"]), (StatusCode::OK, &true.into()), "{selected}");
    let (status, again) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!((status, &again["changed"]), (StatusCode::OK, &false.into()), "{again}");
    let deploy = json!({"imageTag": format!("sha256:{}", digest("a"))});
    server.done(Method::POST, "/services", Some(&deploy)).await;
    server.done(Method::PUT, "/sites/rrr/promote", None).await;
    let page = server.page("rrr.example.com").await;
    assert_eq!(header(&page, "x-cdm-service"), "green");
    assert!(header(&page, "x-cdm-digest").contains(&digest("a")));

    let (status, first) = server.ask(Method::DELETE, "/sites/rrr", None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    let path = format!("/operations/{}", first["id"].as_str().unwrap());
    let ended = server.wait_until_at_rest(&path).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(server.ask(Method::GET, "/sites/rrr", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.page("rrr.example.com").await.status(), StatusCode::NOT_FOUND);
    let audit = server.get("/audit?site=rrr").await;
    assert!(!audit["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_fleet_is_moved_and_a_bad_image_is_rolled_back() {
    let dir = directory();
    let server = Server::start(dir.path());
    for n in 0..6 {
        let id = format!("s{n}");
        server.ask(Method::POST, "/sites/create", Some(&new_site(&id))).await;
        server.done(Method::POST, &format!("/sites/{id}/provision"), None).await;
    }
    server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    let body = json!({"promote": "true", "scope": "inactive", "waves": ["1", "50%", "100%"]});
    let (status, rollout) = server.ask(Method::PUT, "/services", Some(&body)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{rollout}");
    let path = format!("/rollouts/{}", rollout["id"].as_str().unwrap());
    let now = server.wait_until_at_rest(&path).await;
    assert_eq!((&now["status"], &now["succeeded"]), (&"succeeded".into(), &6.into()), "{now}");
    for n in 0..6 {
        let page = server.page(&format!("s{n}.example.com")).await;
        assert_eq!(header(&page, "x-cdm-service"), "green");
    }
    server.done(Method::POST, "/services", Some(&json!({"imageTag": digest("b")}))).await;
    let (status, back) = server.ask(Method::POST, "/services/rollback?wait=30s", Some(&json!({}))).await;
    assert_eq!((status, &back["status"]), (StatusCode::OK, &"succeeded".into()), "{back}");
    let page = server.page("s0.example.com").await;
    assert!(!header(&page, "x-cdm-digest").contains(&digest("b")));
}

#[tokio::test]
async fn of_two_requests_for_one_id_or_one_hostname_one_wins() {
    let dir = directory();
    let server = Server::start(dir.path());
    let same = new_site("same");
    let (one, two) = tokio::join!(
        server.ask(Method::POST, "/sites/create", Some(&same)),
        server.ask(Method::POST, "/sites/create", Some(&same)),
    );
    let mut codes = [one.0.as_u16(), two.0.as_u16()];
    codes.sort_unstable();
    assert_eq!(codes, [201, 409], "{} {}", one.1, two.1);
    let (mut left, mut right) = (new_site("left"), new_site("right"));
    for site in [&mut left, &mut right] {
        site["hostnames"] = json!(["shared.example.com"]);
        site["canonicalHostname"] = json!("shared.example.com");
    }
    let (one, two) = tokio::join!(
        server.ask(Method::POST, "/sites/create", Some(&left)),
        server.ask(Method::POST, "/sites/create", Some(&right)),
    );
    let loser = if one.0 == StatusCode::CONFLICT { &one.1 } else { &two.1 };
    let mut codes = [one.0.as_u16(), two.0.as_u16()];
    codes.sort_unstable();
    assert_eq!((codes, &loser["code"]), ([201, 409], &"hostname_taken".into()));
}

#[tokio::test]
async fn no_output_contains_a_secret() {
    let dir = directory();
    let server = Server::start(dir.path());
    let mut output = String::new();
    for id in ["aa", "ab"] {
        output += &server.ask(Method::POST, "/sites/create", Some(&new_site(id))).await.1.to_string();
        output += &server.done(Method::POST, &format!("/sites/{id}/provision"), None).await.to_string();
        output += &server.page(&format!("{id}.example.com")).await.text().await.unwrap();
    }
    for path in ["/sites", "/operations", "/services", "/audit", "/tokens", "/metrics", "/readyz"] {
        let response = server.ask_as(Some(cdm_testkit::server::ADMIN), Method::GET, path, None).await;
        output += &response.text().await.unwrap();
    }
    for operation in server.get("/operations").await["items"].as_array().unwrap() {
        let events = format!("/operations/{}/events", operation["id"].as_str().unwrap());
        let events = server.ask_as(Some(cdm_testkit::server::ADMIN), Method::GET, &events, None).await;
        output += &events.text().await.unwrap();
    }
    assert!(output.contains("event: end"), "the streams were not read");
    let arguments = server.arguments();
    assert!(arguments.contains("--config"), "{arguments}");
    output += &arguments;
    output += &server.log.lock().unwrap();
    let data = dir.path().join("data");
    let secrets = cdm_testkit::server::passwords(&data).await;
    assert_eq!(secrets.len(), 4, "two of each site");
    for secret in secrets.iter().map(String::as_str).chain([cdm_testkit::server::ADMIN]) {
        assert!(!output.contains(secret), "a secret is in the output");
        for (file, bytes) in cdm_testkit::server::files(&data) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret is stored unencrypted in {}", file.display());
        }
    }
}

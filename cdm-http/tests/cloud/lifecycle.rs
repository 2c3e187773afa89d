//! The lifecycle of a site, with an inspection of the backends from outside after every step.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::platform::{Outside, Platform};
use cdm_testkit::server::{Server, new_site};

/// Returns the service to which an Ingress routes each host.
fn backends(ingress: &Value) -> Vec<(String, String)> {
    let rules = ingress["spec"]["rules"].as_array().expect("rules");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let backend = |rule: &Value| text(&rule["http"]["paths"][0]["backend"]["service"]["name"]);
    rules.iter().map(|rule| (text(&rule["host"]), backend(rule))).collect()
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_created_and_terminated_on_real_backends() {
    let Some(platform) = Platform::open().await else { return };
    let inspect = || tokio::task::block_in_place(|| platform.outside());
    let server = tokio::task::block_in_place(|| platform.start());
    let ready = server.get("/readyz").await;
    assert_eq!(ready["status"], "ready", "{ready}");
    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "blue"}))).await;
    assert_eq!(status, StatusCode::OK, "{selected}");
    assert_eq!(selected["changed"], false, "`--bootstrap` has written the whole state: {selected}");

    let site = created(&server, &inspect()).await;
    let uid = site["uid"].as_str().expect("a uid").to_owned();
    server.done(Method::POST, "/sites/rrr/provision", None).await;
    let outside = inspect();
    let database = site["database"]["name"].as_str().expect("a name");
    for names in [&outside.databases, &outside.users] {
        assert!(names.iter().any(|name| name == database), "{database} is not in {names:?}");
    }
    assert!(
        outside.aws["objects"].to_string().contains(&format!("sites/{uid}/")),
        "{}",
        outside.aws["objects"]
    );
    let [ingress] = outside.ingresses.as_slice() else { panic!("{:?}", outside.ingresses) };
    let hosts = |service: &str| {
        ["rrr.example.com", "www.rrr.example.com"].map(|host| (host.to_owned(), service.to_owned())).to_vec()
    };
    assert_eq!(backends(ingress), hosts("blue"));
    let item = &outside.aws["items"]["S#rrr/SITE"];
    assert_eq!((&item["service"], &item["routedService"]), (&"blue".into(), &"blue".into()), "{item}");
    assert_eq!(outside.aws["items"]["H#www.rrr.example.com/HOST"]["site"], "rrr");

    server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    let deploy = json!({"imageTag": "a".repeat(64)});
    server.done(Method::POST, "/services", Some(&deploy)).await;
    server.done(Method::PUT, "/sites/rrr/promote", None).await;
    let outside = inspect();
    assert_eq!(backends(&outside.ingresses[0]), hosts("green"));
    assert_eq!(outside.aws["items"]["S#rrr/SITE"]["routedService"], "green");
    let canary =
        platform.kubernetes.object("configmaps", super::platform::NAMESPACE, "canary-env").expect("a canary");
    let canary = canary["data"]["canaryEnv"].as_str().expect("a text");
    assert!(canary.contains("green") && canary.contains(&"a".repeat(64)), "{canary}");

    let (_, first) = server.ask(Method::DELETE, "/sites/rrr", None).await;
    let path = format!("/operations/{}", first["id"].as_str().expect("an operation"));
    let ended = server.wait_until_at_rest(&path).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_nothing_left(&inspect(), &uid);
    assert_eq!(platform.wordpress.violations(), Vec::<String>::new());
    no_secret_in(&server, &outside);
}

/// Creates the site, and inspects its items and secrets.
async fn created(server: &Server, before: &Outside) -> Value {
    assert_eq!(before.aws["secrets"], json!({}));
    let (status, site) = server.ask(Method::POST, "/sites/create", Some(&new_site("rrr"))).await;
    assert_eq!((status, &site["state"]), (StatusCode::CREATED, &"created".into()), "{site}");
    site
}

/// Asserts that only the secrets in their recovery window and the tombstones remain.
fn assert_nothing_left(outside: &Outside, uid: &str) {
    // The database server also has databases of other tests.
    for names in [&outside.databases, &outside.users] {
        assert!(!names.iter().any(|name| name.contains(uid)), "{names:?}");
    }
    assert!(
        outside.ingresses.is_empty() && outside.secrets.is_empty() && outside.jobs.is_empty(),
        "{outside:?}"
    );
    assert_eq!((&outside.aws["objects"], &outside.aws["secrets"]), (&json!([]), &json!({})));
    let deleting: Vec<_> = outside.aws["deleting"].as_array().expect("names").iter().collect();
    assert_eq!(deleting.len(), 2, "{deleting:?}");
    assert!(deleting.iter().all(|name| name.to_string().contains(uid)), "{deleting:?}");
    let items = names(&outside.aws["items"]);
    assert!(!items.contains(&"S#rrr/SITE") && !items.iter().any(|key| key.starts_with("H#")), "{items:?}");
}

/// Asserts that no password is in the log, the arguments, an Ingress, a Job or an item.
fn no_secret_in(server: &Server, outside: &Outside) {
    let mut shown = server.log.lock().expect("the log").clone();
    shown.push_str(&server.arguments());
    shown.push_str(&format!("{:?}{:?}{}", outside.ingresses, outside.jobs, outside.aws["items"]));
    let secrets = outside.aws["secrets"].as_object().expect("secrets");
    assert_eq!(secrets.len(), 2, "while the site existed");
    for secret in secrets.values() {
        let password = secret["password"].as_str().expect("a password");
        assert!(password.len() >= 20 && !shown.contains(password), "a password is visible");
    }
}

//! A site from its creation to its end, with a look from outside at what is really there after every step.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::place::{Outside, Place};
use super::server::{Server, new_site};

/// Where an Ingress points, by host.
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
async fn a_site_lives_and_ends_on_the_real_parts() {
    let Some(place) = Place::open().await else { return };
    let look = || tokio::task::block_in_place(|| place.outside());
    let server = tokio::task::block_in_place(|| place.serve());
    let ready = server.get("/readyz").await;
    assert_eq!(ready["status"], "ready", "{ready}");
    let (status, selected) = server.ask(Method::POST, "/services", Some(&json!({"selector": "blue"}))).await;
    assert_eq!(status, StatusCode::OK, "{selected}");
    assert_eq!(selected["changed"], false, "`--bootstrap` has written the whole state: {selected}");

    let site = created(&server, &look()).await;
    let uid = site["uid"].as_str().expect("a uid").to_owned();
    server.done(Method::POST, "/sites/rrr/provision", None).await;
    let there = look();
    let database = site["database"]["name"].as_str().expect("a name");
    for names in [&there.databases, &there.users] {
        assert!(names.iter().any(|name| name == database), "{database} is not in {names:?}");
    }
    assert!(there.aws["objects"].to_string().contains(&format!("sites/{uid}/")), "{}", there.aws["objects"]);
    let [ingress] = there.ingresses.as_slice() else { panic!("{:?}", there.ingresses) };
    let hosts = |service: &str| {
        ["rrr.example.com", "www.rrr.example.com"].map(|host| (host.to_owned(), service.to_owned())).to_vec()
    };
    assert_eq!(backends(ingress), hosts("blue"));
    let item = &there.aws["items"]["S#rrr/SITE"];
    assert_eq!((&item["service"], &item["routedService"]), (&"blue".into(), &"blue".into()), "{item}");
    assert_eq!(there.aws["items"]["H#www.rrr.example.com/HOST"]["site"], "rrr");

    server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    let deploy = json!({"imageTag": "a".repeat(64)});
    server.done(Method::POST, "/services", Some(&deploy)).await;
    server.done(Method::PUT, "/sites/rrr/promote", None).await;
    let there = look();
    assert_eq!(backends(&there.ingresses[0]), hosts("green"));
    assert_eq!(there.aws["items"]["S#rrr/SITE"]["routedService"], "green");
    let canary =
        place.kubernetes.object("configmaps", super::place::NAMESPACE, "canary-env").expect("a canary");
    let canary = canary["data"]["canaryEnv"].as_str().expect("a text");
    assert!(canary.contains("green") && canary.contains(&"a".repeat(64)), "{canary}");

    let (_, first) = server.ask(Method::DELETE, "/sites/rrr", None).await;
    let path = format!("/operations/{}", first["id"].as_str().expect("an operation"));
    let ended = server.rested(&path).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    nothing_is_left(&look(), &uid);
    assert_eq!(place.wordpress.violations(), Vec::<String>::new());
    no_secret_in(&server, &there);
}

/// Creates the site, and looks at its items and secrets.
async fn created(server: &Server, before: &Outside) -> Value {
    assert_eq!(before.aws["secrets"], json!({}));
    let (status, site) = server.ask(Method::POST, "/sites/create", Some(&new_site("rrr"))).await;
    assert_eq!((status, &site["state"]), (StatusCode::CREATED, &"created".into()), "{site}");
    site
}

/// Only the secrets in their recovery window, and what tells that they are gone.
fn nothing_is_left(there: &Outside, uid: &str) {
    // The server has databases of other tests too.
    for names in [&there.databases, &there.users] {
        assert!(!names.iter().any(|name| name.contains(uid)), "{names:?}");
    }
    assert!(there.ingresses.is_empty() && there.secrets.is_empty() && there.jobs.is_empty(), "{there:?}");
    assert_eq!((&there.aws["objects"], &there.aws["secrets"]), (&json!([]), &json!({})));
    let deleting: Vec<_> = there.aws["deleting"].as_array().expect("names").iter().collect();
    assert_eq!(deleting.len(), 2, "{deleting:?}");
    assert!(deleting.iter().all(|name| name.to_string().contains(uid)), "{deleting:?}");
    let items = names(&there.aws["items"]);
    assert!(!items.contains(&"S#rrr/SITE") && !items.iter().any(|key| key.starts_with("H#")), "{items:?}");
}

/// No password is in the log, the arguments, an Ingress, a Job or an item.
fn no_secret_in(server: &Server, there: &Outside) {
    let mut shown = server.log.lock().expect("the log").clone();
    shown.push_str(&server.arguments());
    shown.push_str(&format!("{:?}{:?}{}", there.ingresses, there.jobs, there.aws["items"]));
    let secrets = there.aws["secrets"].as_object().expect("secrets");
    assert_eq!(secrets.len(), 2, "while the site lived");
    for secret in secrets.values() {
        let password = secret["password"].as_str().expect("a password");
        assert!(password.len() >= 20 && !shown.contains(password), "a password is to be seen");
    }
}

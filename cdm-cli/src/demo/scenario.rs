//! The scenario of the demo: the lifecycle of sites on blue and green, and two broken images.

use cdm_core::domain::Digest;
use reqwest::Method;
use serde_json::{Value, json};

use super::Reporter;
use super::platform::{DemoError, DemoPlatform};

/// How an image is broken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flaw {
    /// Its pods never become ready.
    NeverReady,
    /// Its pods become ready, and respond to visitors with an error.
    Failing,
}

const SITES: [&str; 3] = ["bakery", "bikes", "books"];

fn host(site: &str) -> String {
    format!("{site}.example.com")
}

fn image(letter: &str) -> Result<Digest, DemoError> {
    Ok(Digest::parse(&letter.repeat(64))?)
}

/// Runs the scenario to its end.
pub(super) async fn execute(platform: &DemoPlatform, reporter: &mut Reporter<'_>) -> Result<(), DemoError> {
    reporter.print("Cloud Deployment Manager: a platform in one process, observed from outside.")?;
    reporter.print(&platform.addresses())?;
    create_and_provision(platform, reporter).await?;
    move_to_green(platform, reporter).await?;
    broken_images(platform, reporter).await?;
    terminate(platform, reporter).await
}

async fn create_and_provision(platform: &DemoPlatform, reporter: &mut Reporter<'_>) -> Result<(), DemoError> {
    reporter.chapter("Three sites are created and provisioned on blue, the active canary service")?;
    for id in SITES {
        let body = json!({
            "id": id,
            "name": format!("The {id} of the town"),
            "theme": "twentytwentyfive",
            "hostnames": [host(id), format!("www.{}", host(id))],
            "canonicalHostname": host(id),
        });
        let (status, site) = platform.send(Method::POST, "/sites/create", Some(&body)).await?;
        reporter.check(&format!("{id} is created"), observed(status == 201, || summarize(&site)))?;
        check_succeeded(
            platform,
            reporter,
            &format!("{id} is provisioned"),
            Method::POST,
            &format!("/sites/{id}/provision"),
            None,
        )
        .await?;
        check_page(platform, reporter, id, "blue", None).await?;
    }
    let response = platform.get_page(&format!("www.{}", host("books"))).await?;
    let there = response.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
    let moved = response.status().as_u16() == 301 && there.contains(&host("books"));
    reporter.check("www. redirects to the canonical hostname", observed(moved, || format!("301 to {there}")))
}

async fn move_to_green(platform: &DemoPlatform, reporter: &mut Reporter<'_>) -> Result<(), DemoError> {
    reporter.chapter("Green becomes the canary and gets a new image, and the sites move to it")?;
    let (status, selected) =
        platform.send(Method::POST, "/services", Some(&json!({"selector": "green"}))).await?;
    reporter.check("green is the active canary", observed(status == 200, || summarize(&selected)))?;
    let good = image("a")?;
    let deploy = json!({"imageTag": good.to_string()});
    check_succeeded(
        platform,
        reporter,
        "a new image is deployed to green",
        Method::POST,
        "/services",
        Some(&deploy),
    )
    .await?;
    check_page(platform, reporter, "bakery", "blue", None).await?;
    check_succeeded(platform, reporter, "bakery is promoted", Method::PUT, "/sites/bakery/promote", None)
        .await?;
    check_page(platform, reporter, "bakery", "green", Some(good)).await?;
    check_page(platform, reporter, "books", "blue", None).await?;
    let body = json!({"promote": true, "scope": "inactive", "waves": ["1", "100%"]});
    let rollout = rollout(platform, &body).await?;
    let all = rollout["status"] == "succeeded" && rollout["succeeded"] == 2;
    reporter.check("a rollout moves the others, in waves", observed(all, || summarize(&rollout)))?;
    for id in SITES {
        check_page(platform, reporter, id, "green", Some(good)).await?;
    }
    Ok(())
}

async fn broken_images(platform: &DemoPlatform, reporter: &mut Reporter<'_>) -> Result<(), DemoError> {
    let (good, stuck, failing) = (image("a")?, image("b")?, image("c")?);
    platform.declare(stuck, Flaw::NeverReady).await?;
    platform.declare(failing, Flaw::Failing).await?;
    reporter.chapter("An image that never becomes ready is detected")?;
    let (_, operation) = platform
        .send(Method::POST, "/services?wait=30s", Some(&json!({"imageTag": stuck.to_string()})))
        .await?;
    reporter.check(
        "its deploy fails and is undone",
        observed(operation["status"] == "failed", || summarize(&operation)),
    )?;
    check_page(platform, reporter, "books", "green", Some(good)).await?;
    platform.send(Method::POST, "/services", Some(&json!({"selector": "blue"}))).await?;
    reporter.print("       (blue is the canary again, so that there are sites to move to it)")?;
    let body = json!({"imageTag": stuck.to_string(), "promote": true, "scope": "inactive"});
    let rollout = rollout(platform, &body).await?;
    let none = rollout["status"] == "failed" && rollout["succeeded"] == 0;
    reporter.check("a rollout that begins with it moves no site", observed(none, || summarize(&rollout)))?;
    check_page(platform, reporter, "books", "green", Some(good)).await?;
    platform.send(Method::POST, "/services", Some(&json!({"selector": "green"}))).await?;

    reporter.chapter("An image that becomes ready but responds with errors is rolled back")?;
    let body = json!({"imageTag": failing.to_string()});
    check_succeeded(platform, reporter, "it is deployed to green", Method::POST, "/services", Some(&body))
        .await?;
    let status = platform.get_page(&host("books")).await?.status();
    reporter.check("visitors see the error", observed(status.as_u16() == 500, || status.to_string()))?;
    let path = format!("/services/history/{failing}");
    let verdict = json!({"verdict": "bad", "reason": "visitors see errors"});
    let (status, marked) = platform.send(Method::POST, &path, Some(&verdict)).await?;
    let kept = marked["items"][0]["verdict"].as_str().unwrap_or("nothing").to_owned();
    reporter.check("it is marked bad", observed(status == 200 && kept == "bad", || kept))?;
    check_succeeded(
        platform,
        reporter,
        "green is rolled back",
        Method::POST,
        "/services/rollback",
        Some(&json!({})),
    )
    .await?;
    check_page(platform, reporter, "books", "green", Some(good)).await
}

async fn terminate(platform: &DemoPlatform, reporter: &mut Reporter<'_>) -> Result<(), DemoError> {
    reporter.chapter("One site is terminated; the other sites are not affected")?;
    check_succeeded(platform, reporter, "bakery is terminated", Method::DELETE, "/sites/bakery", None)
        .await?;
    let (status, _) = platform.send(Method::GET, "/sites/bakery", None).await?;
    reporter.check("its record is gone", observed(status == 404, || status.to_string()))?;
    let status = platform.get_page(&host("bakery")).await?.status();
    reporter.check("its route is gone", observed(status.as_u16() == 404, || status.to_string()))?;
    for id in ["bikes", "books"] {
        check_page(platform, reporter, id, "green", Some(image("a")?)).await?;
    }
    let (_, audit) = platform.send(Method::GET, "/audit?limit=1000", None).await?;
    let entries = audit["items"].as_array().map_or(0, Vec::len);
    reporter.check("the audit log has the requests", observed(entries >= 15, || format!("{entries} entries")))
}

/// Sends a request for an operation, waits until it ends or parks, and checks that it succeeded.
async fn check_succeeded(
    platform: &DemoPlatform,
    reporter: &mut Reporter<'_>,
    claim: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(), DemoError> {
    let (_, operation) = platform.send(method, &format!("{path}?wait=60s"), body).await?;
    reporter.check(claim, observed(operation["status"] == "succeeded", || summarize(&operation)))
}

/// Starts a rollout, follows its events to the end, and returns it.
async fn rollout(platform: &DemoPlatform, body: &Value) -> Result<Value, DemoError> {
    let (_, rollout) = platform.send(Method::PUT, "/services", Some(body)).await?;
    let Some(id) = rollout["id"].as_str() else { return Ok(rollout) };
    platform.follow(&format!("/rollouts/{id}/events")).await?;
    Ok(platform.send(Method::GET, &format!("/rollouts/{id}"), None).await?.1)
}

/// Requests a page of a site, and checks which service and which image responded.
async fn check_page(
    platform: &DemoPlatform,
    reporter: &mut Reporter<'_>,
    site: &str,
    service: &str,
    digest: Option<Digest>,
) -> Result<(), DemoError> {
    let response = platform.get_page(&host(site)).await?;
    let status = response.status().as_u16();
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (by, image, whose) = (header("x-cdm-service"), header("x-cdm-digest"), header("x-cdm-site"));
    let right = status == 200 && by == service && whose == site;
    let right = right
        && digest.is_none_or(|digest| image.ends_with(digest.to_string().trim_start_matches("sha256:")));
    let short: String = image.trim_start_matches("sha256:").chars().take(12).collect();
    reporter.check(
        &format!("{site} is served by {service}"),
        observed(right, || format!("{status}, {by}, image {short}")),
    )
}

fn observed(holds: bool, what: impl FnOnce() -> String) -> Result<String, String> {
    if holds { Ok(what()) } else { Err(what()) }
}

/// Summarizes a response on one line.
fn summarize(response: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let reason = text(&response["reason"]["message"]);
    let parts =
        [&response["id"], &response["status"], &response["state"], &response["message"], &response["detail"]];
    let parts = parts.into_iter().filter_map(text).chain(reason);
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { response.to_string() } else { parts.join(", ") }
}

//! The scenario of the demo: the lifecycle of sites on blue and green, and two broken images.

use cdm_core::domain::Digest;
use cdm_http::api::audit::AuditEntry;
use cdm_http::api::list::Listing;
use cdm_http::api::operation::{Operation, OperationStatus};
use cdm_http::api::rollout::{Rollout, RolloutStatus, Scope, ScopeName, StartRollout};
use cdm_http::api::services::{self, DeployImage, Flag, Mark, MarkVerdict, Release, SelectService, Verdict};
use cdm_http::api::site::CreateSite;
use cdm_http::api::{ServiceName, SiteId};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Reporter;
use super::platform::{DemoError, DemoPlatform, Flaw};

/// A request without a body.
const NO_BODY: Option<&()> = None;

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
        let body = CreateSite {
            id: SiteId::from(id),
            name: format!("The {id} of the town"),
            theme: "twentytwentyfive".to_owned(),
            hostnames: vec![host(id), format!("www.{}", host(id))],
            canonical_hostname: host(id),
            service: None,
        };
        let (status, site) = platform.send(Method::POST, "/sites/create", Some(&body)).await?;
        reporter.check(&format!("{id} is created"), observed(status == 201, || summarize(&site)))?;
        check_succeeded(
            platform,
            reporter,
            &format!("{id} is provisioned"),
            Method::POST,
            &format!("/sites/{id}/provision"),
            NO_BODY,
        )
        .await?;
        check_page(platform, reporter, id, ServiceName::Blue, None).await?;
    }
    let response = platform.get_page(&format!("www.{}", host("books"))).await?;
    let there = response.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
    let moved = response.status().as_u16() == 301 && there.contains(&host("books"));
    reporter.check("www. redirects to the canonical hostname", observed(moved, || format!("301 to {there}")))
}

async fn move_to_green(platform: &DemoPlatform, reporter: &mut Reporter<'_>) -> Result<(), DemoError> {
    reporter.chapter("Green becomes the canary and gets a new image, and the sites move to it")?;
    let (status, selected) =
        platform.send(Method::POST, "/services", Some(&select(ServiceName::Green))).await?;
    reporter.check("green is the active canary", observed(status == 200, || summarize(&selected)))?;
    let good = image("a")?;
    check_succeeded(
        platform,
        reporter,
        "a new image is deployed to green",
        Method::POST,
        "/services",
        Some(&deploy(good)),
    )
    .await?;
    check_page(platform, reporter, "bakery", ServiceName::Blue, None).await?;
    check_succeeded(platform, reporter, "bakery is promoted", Method::PUT, "/sites/bakery/promote", NO_BODY)
        .await?;
    check_page(platform, reporter, "bakery", ServiceName::Green, Some(good)).await?;
    check_page(platform, reporter, "books", ServiceName::Blue, None).await?;
    let waves = Some(vec!["1".to_owned(), "100%".to_owned()]);
    let body = StartRollout { waves, ..promote_inactive(None) };
    let (json, rollout) = rollout(platform, &body).await?;
    let all = rollout
        .is_some_and(|rollout| rollout.status == RolloutStatus::Succeeded && rollout.counts.succeeded == 2);
    reporter.check("a rollout moves the others, in waves", observed(all, || summarize(&json)))?;
    for id in SITES {
        check_page(platform, reporter, id, ServiceName::Green, Some(good)).await?;
    }
    Ok(())
}

async fn broken_images(platform: &DemoPlatform, reporter: &mut Reporter<'_>) -> Result<(), DemoError> {
    let (good, stuck, failing) = (image("a")?, image("b")?, image("c")?);
    platform.declare(stuck, Flaw::NeverReady).await?;
    platform.declare(failing, Flaw::Failing).await?;
    reporter.chapter("An image that never becomes ready is detected")?;
    let (_, operation) = platform.send(Method::POST, "/services?wait=30s", Some(&deploy(stuck))).await?;
    reporter.check(
        "its deploy fails and is undone",
        observed(has_status(&operation, &OperationStatus::Failed), || summarize(&operation)),
    )?;
    check_page(platform, reporter, "books", ServiceName::Green, Some(good)).await?;
    platform.send(Method::POST, "/services", Some(&select(ServiceName::Blue))).await?;
    reporter.print("       (blue is the canary again, so that there are sites to move to it)")?;
    let (json, rollout) = rollout(platform, &promote_inactive(Some(stuck))).await?;
    let none = rollout
        .is_some_and(|rollout| rollout.status == RolloutStatus::Failed && rollout.counts.succeeded == 0);
    reporter.check("a rollout that begins with it moves no site", observed(none, || summarize(&json)))?;
    check_page(platform, reporter, "books", ServiceName::Green, Some(good)).await?;
    platform.send(Method::POST, "/services", Some(&select(ServiceName::Green))).await?;

    reporter.chapter("An image that becomes ready but responds with errors is rolled back")?;
    check_succeeded(
        platform,
        reporter,
        "it is deployed to green",
        Method::POST,
        "/services",
        Some(&deploy(failing)),
    )
    .await?;
    let status = platform.get_page(&host("books")).await?.status();
    reporter.check("visitors see the error", observed(status.as_u16() == 500, || status.to_string()))?;
    let path = format!("/services/history/{failing}");
    let verdict = Mark { verdict: MarkVerdict::Bad, reason: "visitors see errors".to_owned() };
    let (status, marked) = platform.send(Method::POST, &path, Some(&verdict)).await?;
    let marked = Listing::<Release>::deserialize(&marked).ok();
    let kept = marked.and_then(|releases| releases.items.into_iter().next()).map(|release| release.verdict);
    let bad = status == 200 && kept == Some(Verdict::Bad);
    let kept = kept.map_or_else(|| "nothing".to_owned(), |verdict| verdict.to_string());
    reporter.check("it is marked bad", observed(bad, || kept))?;
    check_succeeded(
        platform,
        reporter,
        "green is rolled back",
        Method::POST,
        "/services/rollback",
        Some(&services::Rollback { service: None }),
    )
    .await?;
    check_page(platform, reporter, "books", ServiceName::Green, Some(good)).await
}

async fn terminate(platform: &DemoPlatform, reporter: &mut Reporter<'_>) -> Result<(), DemoError> {
    reporter.chapter("One site is terminated; the other sites are not affected")?;
    check_succeeded(platform, reporter, "bakery is terminated", Method::DELETE, "/sites/bakery", NO_BODY)
        .await?;
    let (status, _) = platform.send(Method::GET, "/sites/bakery", NO_BODY).await?;
    reporter.check("its record is gone", observed(status == 404, || status.to_string()))?;
    let status = platform.get_page(&host("bakery")).await?.status();
    reporter.check("its route is gone", observed(status.as_u16() == 404, || status.to_string()))?;
    for id in ["bikes", "books"] {
        check_page(platform, reporter, id, ServiceName::Green, Some(image("a")?)).await?;
    }
    let (_, audit) = platform.send(Method::GET, "/audit?limit=1000", NO_BODY).await?;
    let entries = Listing::<AuditEntry>::deserialize(&audit).map_or(0, |entries| entries.items.len());
    reporter.check("the audit log has the requests", observed(entries >= 15, || format!("{entries} entries")))
}

/// Sends a request for an operation, waits until it ends or parks, and checks that it succeeded.
async fn check_succeeded(
    platform: &DemoPlatform,
    reporter: &mut Reporter<'_>,
    claim: &str,
    method: Method,
    path: &str,
    body: Option<&(impl Serialize + Sync)>,
) -> Result<(), DemoError> {
    let (_, operation) = platform.send(method, &format!("{path}?wait=60s"), body).await?;
    let succeeded = has_status(&operation, &OperationStatus::Succeeded);
    reporter.check(claim, observed(succeeded, || summarize(&operation)))
}

/// Returns whether a response is an operation with this status.
fn has_status(json: &Value, status: &OperationStatus) -> bool {
    Operation::deserialize(json).is_ok_and(|operation| operation.status == *status)
}

fn select(service: ServiceName) -> SelectService {
    SelectService { service }
}

fn deploy(digest: Digest) -> DeployImage {
    DeployImage { image_tag: digest.to_string(), promote: None, service: None }
}

/// Returns the request of a rollout that promotes the sites on the other service, and that deploys `image` first.
fn promote_inactive(image: Option<Digest>) -> StartRollout {
    StartRollout {
        image_tag: image.map(|digest| digest.to_string()),
        promote: Flag::Bool(true),
        scope: Some(Scope::Named(ScopeName::Inactive)),
        ..StartRollout::default()
    }
}

/// Starts a rollout, follows its events to the end, and returns its JSON and the rollout; no rollout if the request was
/// rejected.
async fn rollout(
    platform: &DemoPlatform,
    body: &StartRollout,
) -> Result<(Value, Option<Rollout>), DemoError> {
    let (_, started) = platform.send(Method::PUT, "/services", Some(body)).await?;
    let Ok(Rollout { id, .. }) = Rollout::deserialize(&started) else { return Ok((started, None)) };
    platform.follow(&format!("/rollouts/{id}/events")).await?;
    let (_, ended) = platform.send(Method::GET, &format!("/rollouts/{id}"), NO_BODY).await?;
    let rollout = Rollout::deserialize(&ended).ok();
    Ok((ended, rollout))
}

/// Requests a page of a site, and checks which service and which image responded.
async fn check_page(
    platform: &DemoPlatform,
    reporter: &mut Reporter<'_>,
    site: &str,
    service: ServiceName,
    digest: Option<Digest>,
) -> Result<(), DemoError> {
    let response = platform.get_page(&host(site)).await?;
    let status = response.status().as_u16();
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (by, image, whose) = (header("x-cdm-service"), header("x-cdm-digest"), header("x-cdm-site"));
    let right = status == 200 && by == service.as_str() && whose == site;
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

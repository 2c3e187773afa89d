//! The story: a site's life on blue and green, and two images that are no good.

use cdm_core::domain::Digest;
use reqwest::Method;
use serde_json::{Value, json};

use super::Narrator;
use super::stage::{Stage, Trouble};

/// What is wrong with an image.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flaw {
    /// Its pods never get ready.
    NeverReady,
    /// Its pods get ready, and answer visitors with an error.
    Failing,
}

const SITES: [&str; 3] = ["bakery", "bikes", "books"];

fn host(site: &str) -> String {
    format!("{site}.example.com")
}

fn image(letter: &str) -> Result<Digest, Trouble> {
    Ok(Digest::parse(&letter.repeat(64))?)
}

/// Plays it from the first site to the last page.
pub(super) async fn play(stage: &Stage, to: &mut Narrator<'_>) -> Result<(), Trouble> {
    to.say("Cloud Deployment Manager: a platform in one process, observed from outside.")?;
    to.say(&stage.addresses())?;
    create_and_provision(stage, to).await?;
    move_to_green(stage, to).await?;
    broken_images(stage, to).await?;
    terminate(stage, to).await
}

async fn create_and_provision(stage: &Stage, to: &mut Narrator<'_>) -> Result<(), Trouble> {
    to.chapter("Three sites are created and provisioned on blue, the active canary service")?;
    for id in SITES {
        let body = json!({
            "id": id,
            "name": format!("The {id} of the town"),
            "theme": "twentytwentyfive",
            "hostnames": [host(id), format!("www.{}", host(id))],
            "canonicalHostname": host(id),
        });
        let (status, site) = stage.ask(Method::POST, "/sites/create", Some(&body)).await?;
        to.check(&format!("{id} is created"), is(status == 201, || brief(&site)))?;
        done(
            stage,
            to,
            &format!("{id} is provisioned"),
            Method::POST,
            &format!("/sites/{id}/provision"),
            None,
        )
        .await?;
        page(stage, to, id, "blue", None).await?;
    }
    let answer = stage.visit(&format!("www.{}", host("books"))).await?;
    let there = answer.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
    let moved = answer.status().as_u16() == 301 && there.contains(&host("books"));
    to.check("www. leads to the canonical hostname", is(moved, || format!("301 to {there}")))
}

async fn move_to_green(stage: &Stage, to: &mut Narrator<'_>) -> Result<(), Trouble> {
    to.chapter("Green becomes the canary, gets a new image, and takes the sites over")?;
    let (status, selected) =
        stage.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await?;
    to.check("green is the active canary", is(status == 200, || brief(&selected)))?;
    let good = image("a")?;
    let deploy = json!({"imageTag": good.to_string()});
    done(stage, to, "a new image is deployed to green", Method::POST, "/services", Some(&deploy)).await?;
    page(stage, to, "bakery", "blue", None).await?;
    done(stage, to, "bakery is promoted", Method::PUT, "/sites/bakery/promote", None).await?;
    page(stage, to, "bakery", "green", Some(good)).await?;
    page(stage, to, "books", "blue", None).await?;
    let body = json!({"promote": true, "scope": "inactive", "waves": ["1", "100%"]});
    let rollout = rollout(stage, &body).await?;
    let all = rollout["status"] == "succeeded" && rollout["succeeded"] == 2;
    to.check("a rollout moves the others, in waves", is(all, || brief(&rollout)))?;
    for id in SITES {
        page(stage, to, id, "green", Some(good)).await?;
    }
    Ok(())
}

async fn broken_images(stage: &Stage, to: &mut Narrator<'_>) -> Result<(), Trouble> {
    let (good, stuck, failing) = (image("a")?, image("b")?, image("c")?);
    stage.declare(stuck, Flaw::NeverReady).await?;
    stage.declare(failing, Flaw::Failing).await?;
    to.chapter("An image that never gets ready is caught")?;
    let (_, operation) =
        stage.ask(Method::POST, "/services?wait=30s", Some(&json!({"imageTag": stuck.to_string()}))).await?;
    to.check("its deploy fails and is undone", is(operation["status"] == "failed", || brief(&operation)))?;
    page(stage, to, "books", "green", Some(good)).await?;
    stage.ask(Method::POST, "/services", Some(&json!({"selector": "blue"}))).await?;
    to.say("       (blue is the canary again, so that there are sites to be moved to it)")?;
    let body = json!({"imageTag": stuck.to_string(), "promote": true, "scope": "inactive"});
    let rollout = rollout(stage, &body).await?;
    let none = rollout["status"] == "failed" && rollout["succeeded"] == 0;
    to.check("a rollout that begins with it moves no site", is(none, || brief(&rollout)))?;
    page(stage, to, "books", "green", Some(good)).await?;
    stage.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await?;

    to.chapter("An image that gets ready but answers with errors is rolled back")?;
    let body = json!({"imageTag": failing.to_string()});
    done(stage, to, "it is deployed to green", Method::POST, "/services", Some(&body)).await?;
    let status = stage.visit(&host("books")).await?.status();
    to.check("visitors see the error", is(status.as_u16() == 500, || status.to_string()))?;
    let path = format!("/services/history/{failing}");
    let verdict = json!({"verdict": "bad", "reason": "visitors see errors"});
    let (status, marked) = stage.ask(Method::POST, &path, Some(&verdict)).await?;
    let kept = marked["items"][0]["verdict"].as_str().unwrap_or("nothing").to_owned();
    to.check("it is marked bad", is(status == 200 && kept == "bad", || kept))?;
    done(stage, to, "green is rolled back", Method::POST, "/services/rollback", Some(&json!({}))).await?;
    page(stage, to, "books", "green", Some(good)).await
}

async fn terminate(stage: &Stage, to: &mut Narrator<'_>) -> Result<(), Trouble> {
    to.chapter("One site is terminated; its neighbours notice nothing")?;
    done(stage, to, "bakery is terminated", Method::DELETE, "/sites/bakery", None).await?;
    let (status, _) = stage.ask(Method::GET, "/sites/bakery", None).await?;
    to.check("its record is gone", is(status == 404, || status.to_string()))?;
    let status = stage.visit(&host("bakery")).await?.status();
    to.check("its route is gone", is(status.as_u16() == 404, || status.to_string()))?;
    for id in ["bikes", "books"] {
        page(stage, to, id, "green", Some(image("a")?)).await?;
    }
    let (_, audit) = stage.ask(Method::GET, "/audit?limit=1000", None).await?;
    let entries = audit["items"].as_array().map_or(0, Vec::len);
    to.check("who did what is on record", is(entries >= 15, || format!("{entries} entries")))
}

/// Asks for long work and waits until it rests.
async fn done(
    stage: &Stage,
    to: &mut Narrator<'_>,
    claim: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(), Trouble> {
    let (_, operation) = stage.ask(method, &format!("{path}?wait=60s"), body).await?;
    to.check(claim, is(operation["status"] == "succeeded", || brief(&operation)))
}

/// Starts a rollout and follows it to its rest, by its events.
async fn rollout(stage: &Stage, body: &Value) -> Result<Value, Trouble> {
    let (_, rollout) = stage.ask(Method::PUT, "/services", Some(body)).await?;
    let Some(id) = rollout["id"].as_str() else { return Ok(rollout) };
    stage.follow(&format!("/rollouts/{id}/events")).await?;
    Ok(stage.ask(Method::GET, &format!("/rollouts/{id}"), None).await?.1)
}

/// Visits a site, and checks which service and which image answered.
async fn page(
    stage: &Stage,
    to: &mut Narrator<'_>,
    site: &str,
    service: &str,
    digest: Option<Digest>,
) -> Result<(), Trouble> {
    let answer = stage.visit(&host(site)).await?;
    let status = answer.status().as_u16();
    let header = |name: &str| {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (by, image, whose) = (header("x-cdm-service"), header("x-cdm-digest"), header("x-cdm-site"));
    let right = status == 200 && by == service && whose == site;
    let right = right
        && digest.is_none_or(|digest| image.ends_with(digest.to_string().trim_start_matches("sha256:")));
    let short: String = image.trim_start_matches("sha256:").chars().take(12).collect();
    to.check(
        &format!("{site} is served by {service}"),
        is(right, || format!("{status}, {by}, image {short}")),
    )
}

fn is(holds: bool, what: impl FnOnce() -> String) -> Result<String, String> {
    if holds { Ok(what()) } else { Err(what()) }
}

/// What matters of an answer, on one line.
fn brief(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let reason = text(&answer["reason"]["message"]);
    let parts = [&answer["id"], &answer["status"], &answer["state"], &answer["message"], &answer["detail"]];
    let parts = parts.into_iter().filter_map(text).chain(reason);
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { answer.to_string() } else { parts.join(", ") }
}

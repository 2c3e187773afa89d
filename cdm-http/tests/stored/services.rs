//! The scenes with operations on the services: deploys and selects in every status.
//!
//! A select ends as `succeeded` or, before its first step, as `cancelled`; it never fails.

use cdm_core::adapters::embedded::{ImageSpec, Readiness};
use cdm_core::domain::Digest;
use cdm_testkit::faults::Fault;
use serde_json::{Value, json};

use super::make::{begin_deploy, begin_select, create, demand, deploy, digest, live, nth, select};
use super::stage::Stage;

pub(crate) async fn play(name: &str, stage: &Stage) {
    match name {
        "services-idle" => idle(stage).await,
        "services-queued" => queued(stage).await,
        "services-running" => running(stage).await,
        "services-waiting" => waiting(stage).await,
        "services-parked" => parked(stage).await,
        _ => panic!("no scene `{name}`"),
    }
}

/// Declares how an image behaves.
pub(crate) async fn declare(stage: &Stage, letter: char, image: ImageSpec) {
    let cluster = stage.process.local_cluster().expect("the local cluster");
    cluster.declare(Digest::parse(&digest(letter)).expect("a digest"), image).await.expect("an image");
}

/// An image whose pods take a while.
pub(crate) fn slow() -> ImageSpec {
    ImageSpec { start: Some(std::time::Duration::from_millis(600)), ..ImageSpec::default() }
}

/// An image whose pods never become ready.
pub(crate) fn broken() -> ImageSpec {
    ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() }
}

/// An image that answers every page with an error.
pub(crate) fn failing() -> ImageSpec {
    ImageSpec { answers: 500, ..ImageSpec::default() }
}

pub(crate) fn has_status(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |answer| answer["status"] == wanted
}

/// Everything that ends: a deploy that succeeds, one that fails and is undone, a canceled one, one that moves the routes of
/// its sites, a rollback, and marks.
async fn idle(stage: &Stage) {
    live(stage, &["s1", "s2"], "blue").await;
    deploy(stage, "green", 'a').await;
    select(stage, "green").await;
    declare(stage, 'f', broken()).await;
    let failed = deploy(stage, "green", 'f').await;
    demand(stage, &failed, "failed").await;
    let canceled = begin_deploy(stage, "green", 'b').await;
    stage.accepted(&format!("POST /operations/{canceled}/cancel"), None).await;
    stage.run().await;
    demand(stage, &canceled, "cancelled").await;
    let asked = json!({"imageTag": digest('d'), "service": "blue", "promote": true});
    let moving = stage.accepted("POST /services", Some(asked)).await;
    stage.run().await;
    demand(stage, &moving, "succeeded").await;
    let rollback = stage.accepted("POST /services/rollback", Some(json!({"service": "blue"}))).await;
    stage.run().await;
    demand(stage, &rollback, "succeeded").await;
    for (letter, verdict) in [('a', "healthy"), ('d', "bad")] {
        let mark = json!({"verdict": verdict, "reason": "a person has looked"});
        stage.done(&format!("POST /services/history/{}", digest(letter)), Some(mark)).await;
    }
}

/// No worker has begun.
async fn queued(stage: &Stage) {
    deploy(stage, "green", 'a').await;
    begin_deploy(stage, "green", 'b').await;
    begin_deploy(stage, "blue", 'b').await;
    let canceled = begin_select(stage, "green").await;
    stage.ask(&format!("POST /operations/{canceled}/cancel"), None).await;
}

/// Workers crashed: in a deploy, in the undo of a deploy, and in a select.
async fn running(stage: &Stage) {
    deploy(stage, "green", 'a').await;
    let select = begin_select(stage, "green").await;
    stage.crash("cluster.set_canary").await;
    demand(stage, &select, "running").await;
    let forward = begin_deploy(stage, "blue", 'b').await;
    stage.crash("cluster.set_image").await;
    demand(stage, &forward, "running").await;
    declare(stage, 'f', broken()).await;
    let undo = begin_deploy(stage, "green", 'f').await;
    stage.crash_once(&format!("/operations/{undo}"), has_status("waiting"), "cluster.set_image").await;
    demand(stage, &undo, "running").await;
}

/// Deploys wait for their pods, one of them with a request to cancel; a select waits for the cluster.
async fn waiting(stage: &Stage) {
    select(stage, "green").await;
    let trace = {
        begin_select(stage, "blue").await;
        stage.trace().await
    };
    let select = begin_select(stage, "green").await;
    stage.fail(nth(&trace, "cluster.set_canary", 0), Fault::Transient).await;
    demand(stage, &select, "waiting").await;
    declare(stage, 'c', slow()).await;
    for service in ["green", "blue"] {
        let deploy = begin_deploy(stage, service, 'c').await;
        stage.until(&format!("/operations/{deploy}"), has_status("waiting")).await;
        if service == "blue" {
            stage.done(&format!("POST /operations/{deploy}/cancel"), None).await;
            demand(stage, &deploy, "waiting").await;
        }
    }
}

/// The cluster denied a deploy and a select; a deploy displaced a parked one; an image does not have the theme of a site.
async fn parked(stage: &Stage) {
    select(stage, "green").await;
    begin_select(stage, "blue").await;
    let trace = stage.trace().await;
    let select = begin_select(stage, "green").await;
    stage.fail(nth(&trace, "cluster.set_canary", 0), Fault::Permanent).await;
    demand(stage, &select, "parked").await;
    begin_deploy(stage, "blue", 'a').await;
    let trace = stage.trace().await;
    let call = nth(&trace, "cluster.set_image", 0);
    for (service, letter) in [("blue", 'b'), ("green", 'b')] {
        let deploy = begin_deploy(stage, service, letter).await;
        stage.fail(call, Fault::Permanent).await;
        demand(stage, &deploy, "parked").await;
        if service == "green" {
            begin_deploy(stage, service, 'c').await;
            demand(stage, &deploy, "cancelled").await;
            stage.run().await;
        }
    }
    declare(stage, 'a', ImageSpec { themes: Some(Vec::new()), ..ImageSpec::default() }).await;
    create(stage, "s1", "blue").await;
    stage.run().await;
    let provision = stage.accepted("POST /sites/s1/provision", None).await;
    stage.run().await;
    let operation = stage.get(&format!("/operations/{provision}")).await;
    assert_eq!(operation["reason"]["code"], "theme_missing", "{operation}");
}

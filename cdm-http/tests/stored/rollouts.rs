//! The scenes with rollouts, one for each phase in which a rollout can be stored.

use cdm_core::adapters::embedded::ImageSpec;
use cdm_testkit::faults::Fault;
use serde_json::{Value, json};

use super::make::{begin_deploy, demand, deploy, digest, live, nth, rests, select};
use super::services::{broken, declare, failing, has_status, slow};
use super::stage::Stage;

/// Sites of a rollout. The page of `s3` does not have the text that the gate of these scenes looks for.
const SITES: [&str; 4] = ["s1", "s2", "s3", "s4"];

pub(crate) async fn play(name: &str, stage: Stage) -> Stage {
    match name {
        "rollouts-ended" => ended(&stage).await,
        "rollout-aborting" => asked(&stage, "abort").await,
        "rollout-accepted" => accepted(&stage).await,
        "rollout-baking" => drop(baking(&stage, &json!({"bake": 15})).await),
        "rollout-deploying" => deploying(&stage).await,
        "rollout-digest-changed" => drop(digest_changed(&stage).await),
        "rollout-flushing" => flushing(&stage).await,
        "rollout-frozen" => frozen(&stage).await,
        "rollout-gate" => gate(&stage, ("probe.probe", 1), Fault::CrashBefore, "running").await,
        "rollout-halted" => halted(&stage).await,
        "rollout-held" => held(&stage).await,
        "rollout-hooks" => hooks(&stage).await,
        "rollout-inconclusive" => gate(&stage, ("probe.probe", 0), Fault::Permanent, "paused").await,
        "rollout-moving" => drop(moving(&stage).await),
        "rollout-not-ready" => return not_ready(stage).await,
        "rollout-paused" => paused(&stage).await,
        "rollout-pausing" => asked(&stage, "pause").await,
        "rollout-pending" => drop(start(&stage, &json!({})).await),
        "rollout-returning" => drop(returning(&stage).await),
        "rollout-returning-pausing" => {
            let id = returning(&stage).await;
            stage.done(&format!("POST /rollouts/{id}/pause"), None).await;
        }
        _ => panic!("no scene `{name}`"),
    }
    stage
}

/// Sites on blue, and green as the canary with an image.
async fn fleet(stage: &Stage) {
    live(stage, &SITES, "blue").await;
    deploy(stage, "green", 'a').await;
    select(stage, "green").await;
}

/// A fleet, and a rollout that no worker has begun.
async fn start(stage: &Stage, with: &Value) -> String {
    fleet(stage).await;
    begin(stage, with).await
}

/// Sends a request for a rollout: the usual one, with some fields set.
async fn begin(stage: &Stage, with: &Value) -> String {
    let mut body = json!({"promote": true, "scope": "inactive", "waves": ["2", "100%"], "maxConcurrent": 1});
    for (name, value) in with.as_object().expect("fields") {
        body[name] = value.clone();
    }
    stage.accepted("PUT /services", Some(body)).await
}

fn path(id: &str) -> String {
    format!("/rollouts/{id}")
}

fn has_reason(code: &'static str) -> impl Fn(&Value) -> bool {
    move |answer| answer["reason"]["code"] == code
}

/// Between two waves.
async fn baking(stage: &Stage, with: &Value) -> String {
    let id = start(stage, with).await;
    let rollout = stage.until(&path(&id), has_reason("baking")).await;
    assert_eq!((&rollout["status"], &rollout["succeeded"]), (&"waiting".into(), &2.into()), "{rollout}");
    id
}

/// The worker crashed in the second wave.
async fn moving(stage: &Stage) -> String {
    let id = baking(stage, &json!({"bake": 1})).await;
    stage.crash("cluster.move_route").await;
    assert_eq!(stage.get(&path(&id)).await["status"], "running");
    id
}

/// The worker crashed, and a request to pause or abort came afterwards.
async fn asked(stage: &Stage, verb: &str) {
    let id = moving(stage).await;
    let rollout = stage.done(&format!("POST /rollouts/{id}/{verb}"), None).await;
    assert_eq!(rollout["status"], "running", "{rollout}");
}

async fn paused(stage: &Stage) {
    let id = baking(stage, &json!({"bake": 1})).await;
    stage.done(&format!("POST /rollouts/{id}/pause"), None).await;
    stage.until(&path(&id), has_status("paused")).await;
}

async fn frozen(stage: &Stage) {
    let id = baking(stage, &json!({"bake": 1})).await;
    stage.done("POST /freezes", Some(json!({"reason": "a busy week"}))).await;
    stage.until(&path(&id), has_reason("frozen")).await;
}

/// The deploy of the rollout's own image comes first.
async fn deploying(stage: &Stage) {
    fleet(stage).await;
    declare(stage, 'b', slow()).await;
    let id = begin(stage, &json!({"imageTag": digest('b')})).await;
    stage.until(&path(&id), has_reason("deploying")).await;
}

/// A deploy holds the target.
async fn held(stage: &Stage) {
    fleet(stage).await;
    declare(stage, 'b', slow()).await;
    let deploy = begin_deploy(stage, "green", 'b').await;
    stage.until(&format!("/operations/{deploy}"), has_status("waiting")).await;
    let id = begin(stage, &json!({})).await;
    stage.until(&path(&id), has_reason("colour_held")).await;
}

/// The target runs another digest than the rollout was started for.
async fn digest_changed(stage: &Stage) -> String {
    let id = baking(stage, &json!({"bake": 1})).await;
    let deploy = begin_deploy(stage, "green", 'b').await;
    stage.until(&format!("/operations/{deploy}"), rests).await;
    demand(stage, &deploy, "succeeded").await;
    stage.until(&path(&id), has_reason("digest_changed")).await;
    id
}

/// A person has accepted that digest, and no worker has gone on.
async fn accepted(stage: &Stage) {
    let id = digest_changed(stage).await;
    let resume = json!({"acceptDigest": digest('b')});
    let rollout = stage.done(&format!("POST /rollouts/{id}/resume"), Some(resume)).await;
    assert!(rollout["acceptedDigest"].is_string(), "{rollout}");
}

/// The pods of the target are not ready.
async fn not_ready(stage: Stage) -> Stage {
    let id = start(&stage, &json!({})).await;
    // Pods that are there stay ready; those of a new process are not.
    declare(&stage, 'a', broken()).await;
    let stage = stage.reopen().await;
    stage.until(&path(&id), has_reason("service_not_ready")).await;
    stage
}

/// The worker crashed while it flushed the caches of one wave and moved the next.
async fn flushing(stage: &Stage) {
    let id = start(stage, &json!({})).await;
    stage.crash("cluster.run_job").await;
    let rollout = stage.get(&path(&id)).await;
    assert_eq!((&rollout["status"], &rollout["succeeded"]), (&"running".into(), &2.into()), "{rollout}");
}

/// A rollout of one site with a gate, whose probe fails: before the move, or after it.
async fn gate(stage: &Stage, (call, number): (&str, usize), fault: Fault, status: &str) {
    fleet(stage).await;
    let of = |site: &str| json!({"scope": {"sites": [site]}, "waves": ["100%"], "gate": {"path": "/"}});
    let whole = begin(stage, &of("s1")).await;
    let trace = stage.trace().await;
    assert_eq!(stage.get(&path(&whole)).await["status"], "succeeded");
    let id = begin(stage, &of("s2")).await;
    stage.fail(nth(&trace, call, number), fault).await;
    assert_eq!(stage.get(&path(&id)).await["status"], status);
}

/// The fields of a rollout whose gate fails for the third site.
fn gated(with: &Value) -> Value {
    let mut body = json!({"gate": {"path": "/", "contains": "Site", "maxLatencyRatio": 100, "settle": 5}});
    for (name, value) in with.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

async fn halted(stage: &Stage) {
    let id = start(stage, &gated(&json!({}))).await;
    let rollout = stage.until(&path(&id), has_status("halted")).await;
    assert_eq!(rollout["reason"]["code"], "budget_exceeded", "{rollout}");
}

/// The gate failed, and the worker crashed while it moved the sites back.
async fn returning(stage: &Stage) -> String {
    let id = baking(stage, &gated(&json!({"autoRollback": true, "bake": 1}))).await;
    stage.crash("cluster.move_route").await;
    let rollout = stage.get(&path(&id)).await;
    assert_eq!((&rollout["status"], &rollout["failed"]), (&"running".into(), &1.into()), "{rollout}");
    id
}

/// The rollout that flushes the caches of a deploy's sites.
async fn hooks(stage: &Stage) {
    live(stage, &["s1", "s2"], "blue").await;
    let deploy = begin_deploy(stage, "blue", 'b').await;
    stage.crash("cluster.run_job").await;
    demand(stage, &deploy, "succeeded").await;
    let rollout = &stage.get("/rollouts").await["items"][0];
    assert_eq!((&rollout["kind"], &rollout["status"]), (&"flush".into(), &"running".into()), "{rollout}");
}

/// Rollouts that have ended in every way, with members of every outcome.
async fn ended(stage: &Stage) {
    fleet(stage).await;
    live(stage, &["busy", "frozen", "gone"], "blue").await;
    // Busy: a parked promote is on the site. Frozen: a freeze names the site.
    let model = stage.accepted("PUT /sites/gone/promote", None).await;
    let trace = stage.trace().await;
    demand(stage, &model, "succeeded").await;
    let busy = stage.accepted("PUT /sites/busy/promote", None).await;
    stage.fail(nth(&trace, "cluster.move_route", 0), Fault::Permanent).await;
    demand(stage, &busy, "parked").await;
    let freeze = json!({"reason": "a launch", "sites": ["frozen"]});
    let freeze = stage.accepted("POST /freezes", Some(freeze)).await;
    let partial =
        json!({"scope": "all", "failureBudget": "50%", "waves": ["1", "50%", "100%"], "maxConcurrent": 2});
    let partial = begin(stage, &gated(&partial)).await;
    let rollout = stage.until(&path(&partial), has_status("succeeded")).await;
    assert_eq!((&rollout["failed"], &rollout["skipped"]), (&1.into(), &2.into()), "{rollout}");
    stage.done(&format!("DELETE /freezes/{freeze}"), None).await;
    stage.done("DELETE /sites/gone", None).await;
    stage.run().await;
    let again = stage.accepted(&format!("POST /rollouts/{partial}/retry"), None).await;
    stage.until(&path(&again), has_status("succeeded")).await;
    // Aborted before it began.
    let early = begin(stage, &json!({"scope": "all", "promote": false})).await;
    stage.done(&format!("POST /rollouts/{early}/abort"), None).await;
    // Whole: the sites change their service, but not their routes.
    let whole =
        begin(stage, &json!({"promote": false, "scope": {"sites": ["s1", "s2"]}, "waves": ["100%"]})).await;
    stage.until(&path(&whole), has_status("succeeded")).await;
    // Its image does not get ready.
    declare(stage, 'f', broken()).await;
    let failed = begin(stage, &json!({"scope": "active", "imageTag": digest('f')})).await;
    let rollout = stage.until(&path(&failed), has_status("failed")).await;
    assert_eq!(rollout["reason"]["code"], "image_not_ready", "{rollout}");
    // The gate fails for sites that were in place, and the digest before is put back.
    declare(stage, 'e', failing()).await;
    let returned =
        json!({"scope": "active", "imageTag": digest('e'), "autoRollback": true, "gate": {"path": "/"}});
    let returned = begin(stage, &returned).await;
    let rollout = stage.until(&path(&returned), has_status("failed")).await;
    let deploy = format!("/operations/{}", rollout["rollback"].as_str().expect("a deploy"));
    stage.until(&deploy, has_status("succeeded")).await;
    // The gate fails, and the sites that were moved go back.
    declare(stage, 'd', ImageSpec::default()).await;
    deploy_and_select(stage).await;
    let back =
        begin(stage, &gated(&json!({"scope": {"sites": ["s1", "s2", "s3"]}, "autoRollback": true}))).await;
    let rollout = stage.until(&path(&back), has_status("failed")).await;
    assert_eq!(rollout["status"], "failed", "{rollout}");
    plans(stage).await;
}

async fn deploy_and_select(stage: &Stage) {
    deploy(stage, "blue", 'd').await;
    let moves = json!({"scope": {"sites": ["s3", "s4"]}, "waves": ["100%"]});
    let moves = begin(stage, &moves).await;
    stage.until(&path(&moves), has_status("succeeded")).await;
    select(stage, "blue").await;
}

/// A plan that was made is applied, and refused once the fleet has changed.
async fn plans(stage: &Stage) {
    let plan = json!({"promote": true, "scope": {"sites": ["s4"]}, "dryRun": true});
    let planned = stage.done("PUT /services", Some(plan)).await;
    let apply = json!({"promote": true, "scope": {"sites": ["s4"]}, "planHash": planned["planHash"]});
    let applied = stage.accepted("PUT /services", Some(apply.clone())).await;
    stage.until(&path(&applied), has_status("succeeded")).await;
    let (_, refused) = stage.ask("PUT /services", Some(apply)).await;
    assert_eq!(refused["code"], "plan_changed", "{refused}");
}

//! The scene with operations on sites: of every kind, in every status.

use cdm_testkit::faults::Fault;

use super::make::{create, demand, deploy, live, nth, select};
use super::stage::Stage;

/// Kinds of operations on sites, each with the call that fails.
const KINDS: [(&str, &str); 5] = [
    ("create", "secrets.create"),
    ("provision", "databases.ensure"),
    ("upgrade", "cluster.run_job"),
    ("promote", "cluster.move_route"),
    ("terminate", "databases.remove"),
];

/// The statuses in which a fault leaves an operation.
const FAULTS: [(&str, Fault); 3] =
    [("running", Fault::CrashBefore), ("waiting", Fault::Transient), ("parked", Fault::Permanent)];

/// No operation on a site fails by itself: what cannot go on parks.
pub(crate) async fn all(stage: &Stage) {
    deploy(stage, "green", 'a').await;
    select(stage, "green").await;
    for (kind, call) in KINDS {
        statuses(stage, kind, call).await;
    }
    canceled(stage).await;
    retried(stage).await;
    for (kind, _) in KINDS {
        begin(stage, kind, &format!("queued-{kind}"), Ready::Made).await;
    }
}

/// Whether the site of an operation is made first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    No,
    Made,
}

/// Makes the site that an operation of the kind needs.
async fn prepare(stage: &Stage, kind: &str, id: &str) {
    match kind {
        "create" => {}
        "provision" => {
            create(stage, id, "blue").await;
            stage.run().await;
        }
        _ => live(stage, &[id], "blue").await,
    }
}

/// Sends a request for an operation, and returns its id.
async fn begin(stage: &Stage, kind: &str, id: &str, ready: Ready) -> String {
    let site = match ready {
        Ready::No => {
            prepare(stage, kind, id).await;
            id.to_owned()
        }
        // No worker may run any more: a site that was made before is taken.
        Ready::Made if kind == "create" => id.to_owned(),
        Ready::Made => format!("spare-{kind}"),
    };
    match kind {
        "create" => {
            create(stage, &site, "blue").await;
            let operation = stage.get(&format!("/sites/{site}")).await;
            operation["operation"].as_str().expect("an operation").to_owned()
        }
        "provision" => stage.accepted(&format!("POST /sites/{site}/provision"), None).await,
        "terminate" => stage.accepted(&format!("DELETE /sites/{site}"), None).await,
        _ => stage.accepted(&format!("PUT /sites/{site}/{kind}"), None).await,
    }
}

/// Leaves an operation of the kind in every status but `queued`; a worker would run that one.
async fn statuses(stage: &Stage, kind: &str, call: &str) {
    if kind != "create" {
        prepare(stage, kind, &format!("spare-{kind}")).await;
    }
    let done = begin(stage, kind, &format!("done-{kind}"), Ready::No).await;
    let trace = stage.trace().await;
    demand(stage, &done, "succeeded").await;
    // Canceled before its first step.
    let canceled = begin(stage, kind, &format!("cancelled-{kind}"), Ready::No).await;
    stage.accepted(&format!("POST /operations/{canceled}/cancel"), None).await;
    stage.run().await;
    demand(stage, &canceled, "cancelled").await;
    for (word, fault) in FAULTS {
        let id = begin(stage, kind, &format!("{word}-{kind}"), Ready::No).await;
        stage.fail(nth(&trace, call, 0), fault).await;
        demand(stage, &id, word).await;
    }
}

/// Operations whose retry succeeded: a parked one, and one that ended, which is repeated by a new operation; and a parked
/// one that was retried and has not begun again.
async fn retried(stage: &Stage) {
    let list = stage.get("/operations?kind=upgrade&status=cancelled").await;
    let ended = list["items"][0]["id"].as_str().expect("an operation");
    let repeated = stage.accepted(&format!("POST /operations/{ended}/retry"), None).await;
    stage.run().await;
    demand(stage, &repeated, "succeeded").await;
    let done = begin(stage, "promote", "retry-model", Ready::No).await;
    let trace = stage.trace().await;
    demand(stage, &done, "succeeded").await;
    for (site, ends) in [("retry-done", true), ("retry-queued", false)] {
        let id = begin(stage, "promote", site, Ready::No).await;
        stage.fail(nth(&trace, "cluster.move_route", 0), Fault::Permanent).await;
        demand(stage, &id, "parked").await;
        stage.accepted(&format!("POST /operations/{id}/retry"), None).await;
        if ends {
            stage.run().await;
            demand(stage, &id, "succeeded").await;
        }
    }
}

/// Operations with a request to cancel: one whose worker crashed before it saw the request, one whose undo crashed, one
/// that was undone, and a parked one that a terminate displaced.
async fn canceled(stage: &Stage) {
    let done = begin(stage, "promote", "cancel-model", Ready::No).await;
    let trace = stage.trace().await;
    demand(stage, &done, "succeeded").await;
    let call = nth(&trace, "cluster.move_route", 0);
    let asked = begin(stage, "promote", "cancel-asked", Ready::No).await;
    stage.fail(call, Fault::CrashBefore).await;
    stage.accepted(&format!("POST /operations/{asked}/cancel"), None).await;
    demand(stage, &asked, "running").await;
    for (site, ends) in [("cancel-undone", true), ("cancel-undoing", false)] {
        let id = begin(stage, "promote", site, Ready::No).await;
        let flushes = nth(&trace, "cluster.run_job", 0);
        stage.fail(flushes, Fault::Permanent).await;
        demand(stage, &id, "parked").await;
        stage.accepted(&format!("POST /operations/{id}/cancel"), None).await;
        if ends {
            stage.run().await;
            demand(stage, &id, "cancelled").await;
        } else {
            stage.crash("cluster.move_route").await;
            demand(stage, &id, "running").await;
        }
    }
    let displaced = begin(stage, "promote", "displaced", Ready::No).await;
    stage.fail(call, Fault::Permanent).await;
    demand(stage, &displaced, "parked").await;
    stage.accepted("DELETE /sites/displaced", None).await;
    stage.run().await;
    demand(stage, &displaced, "cancelled").await;
}

//! Complete objects of the API, with the fields that a test changes.

use serde_json::{Value, json};

const TIME: &str = "2030-01-01T00:00:00.000Z";

/// Returns the object with these fields replaced or added.
fn with(mut object: Value, changes: Value) -> Value {
    let fields = object.as_object_mut().expect("an object");
    fields.extend(changes.as_object().expect("an object").clone());
    object
}

pub(crate) fn site(changes: Value) -> Value {
    let site = json!({
        "id": "shop", "uid": "01kb2m4x9q7r3t5v6w8y0z1a2b", "name": "The shop", "theme": "t", "hostnames": ["a.example"],
        "canonicalHostname": "a.example", "service": "blue", "routedService": "green", "state": "active",
        "operation": null, "operationStatus": null, "database": { "name": "d" },
        "secrets": { "database": "s/database", "cms": "s/cms" }, "objectPrefix": "sites/shop/", "createdAt": TIME,
        "updatedAt": TIME, "version": 1
    });
    with(site, changes)
}

pub(crate) fn operation(changes: Value) -> Value {
    let operation = json!({
        "id": "op-1", "number": 1, "kind": "provision", "site": "shop", "service": "blue", "rollout": null,
        "retryOf": null, "digest": null, "status": "succeeded", "steps": [], "reason": null, "requestedBy": "ci",
        "createdAt": TIME, "startedAt": null, "finishedAt": null
    });
    with(operation, changes)
}

pub(crate) fn step(name: &str, status: &str) -> Value {
    json!({
        "name": name, "status": status, "attempts": 1, "job": null, "startedAt": null, "finishedAt": null,
        "message": null
    })
}

pub(crate) fn reason(code: &str, message: &str) -> Value {
    json!({ "code": code, "message": message, "since": TIME, "until": null, "clears": "it depends" })
}

pub(crate) fn rollout(changes: Value) -> Value {
    let rollout = json!({
        "id": "rollout-1", "kind": "promote", "promote": true, "imageTag": null, "service": "green", "digest": null,
        "acceptedDigest": null, "scope": "inactive", "status": "succeeded", "partial": false, "waves": [],
        "total": 0, "succeeded": 0, "failed": 0, "running": 0, "pending": 0, "skipped": 0, "parked": 0,
        "failures": [], "maxConcurrent": 64, "failureBudget": "0", "autoRollback": false, "gate": null, "bake": 0,
        "rollback": null, "after": null, "retryOf": null, "reason": null, "requestedBy": "ci", "createdAt": TIME,
        "startedAt": null, "finishedAt": null
    });
    with(rollout, changes)
}

pub(crate) fn services(changes: Value) -> Value {
    let services = json!({
        "canary": { "selector": "green", "image": "r@sha256:b" }, "services": {}, "rollout": null, "freezes": []
    });
    with(services, changes)
}

pub(crate) fn selected() -> Value {
    let canary = json!({ "selector": "green", "image": null });
    json!({ "message": "done", "changed": true, "canary": canary, "warnings": [] })
}

pub(crate) fn token(changes: Value) -> Value {
    let token = json!({
        "id": "t-1", "name": "ci", "role": "viewer", "loopbackOnly": false, "createdBy": "local", "createdAt": TIME,
        "expiresAt": null, "revokedAt": null
    });
    with(token, changes)
}

pub(crate) fn user(changes: Value) -> Value {
    let user = json!({
        "name": "ada", "actor": "user:ada", "role": "viewer", "createdBy": "local", "createdAt": TIME,
        "removedAt": null, "secondFactor": "none", "identity": "none", "sessions": []
    });
    with(user, changes)
}

pub(crate) fn webhook(changes: Value) -> Value {
    let webhook = json!({
        "id": "webhook-7", "url": "https://a.b/c", "events": ["rollout.halted"], "createdBy": "local",
        "createdAt": TIME, "state": "active", "failures": 0, "reason": null, "nextAttemptAt": null, "stoppedAt": null
    });
    with(webhook, changes)
}

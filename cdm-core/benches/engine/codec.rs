//! The cost of a call to a client apart from the network: encoding the request and decoding the response.
//!
//! Requests are encoded from the caller's arguments: to DynamoDB's JSON for the store, to a JSON Patch or a Job for
//! the cluster. Responses are texts of realistic shape and length, created once. Signing, TLS and HTTP are left out,
//! so the caller's own share appears larger than in production.

use std::hint::black_box;

use cdm_core::domain::operation::{Operation, OperationState};
use cdm_core::domain::rollout::RolloutPage;
use cdm_core::domain::{Color, Fence, Rollout, Service, Site};
use cdm_core::ports::{CallContext, JobSpec, Mutation, WriteBatch};
use cdm_testkit::fixtures;
use serde_json::{Value, json};

use crate::tap::{PortCall, Tap};

/// Encodes and decodes for every call.
#[derive(Debug)]
pub(crate) struct Codec {
    site: String,
    rollout: String,
    page: String,
    service_record: String,
    route: String,
    service: String,
    job: String,
}

impl Codec {
    pub(crate) fn new() -> Self {
        let mut site = fixtures::site("site-000001");
        site.operation = Some(fixtures::operation(1, cdm_core::domain::OperationInput::Terminate));
        let kind = cdm_core::domain::RolloutKind::Promote;
        let rollout = fixtures::rollout(1, kind, Color::Green, 1_000);
        let members = vec![site.clone(); RolloutPage::SIZE as usize];
        let item = |value: Value| json!({ "Item": value }).to_string();
        Self {
            rollout: item(rollout_item(&rollout)),
            page: item(page_item(&fixtures::page(1, 0, &members))),
            service_record: item(service_item(&Service::new(Color::Green))),
            route: kubernetes("networking.k8s.io/v1", "Ingress", &site.uid.to_string()),
            service: kubernetes("apps/v1", "Deployment", "green-deployment"),
            job: kubernetes("batch/v1", "Job", "flush-caches-1-0-1"),
            site: json!({ "Attributes": site_item(&site) }).to_string(),
        }
    }

    fn exchange(&self, port_call: PortCall<'_>) -> (Option<Value>, &str) {
        match port_call {
            PortCall::Claim(call, claim) => {
                let values = json!({
                    ":uid": s(claim.uid), ":grant": s(claim_token(&claim.claim_token)), ":number": n(claim.number),
                    ":owner": s(&claim.owner), ":ordinal": n(claim.ordinal), ":want": s(format!("{:?}", claim.intent)),
                    ":by": s(&claim.requested_by), ":at": n(claim.at.millis()), ":write": n(call.write.0),
                    ":one": n(1u32), ":active": s("active"),
                });
                let set = "SET slot = :slot, #g = :grant, updatedAt = :at, writeId = :write ADD version :one";
                let when = "uid = :uid AND phase = :active AND #g <= :grant AND attribute_not_exists(slot)";
                (Some(update(claim.id.as_str(), set, when, values, "ALL_NEW")), &self.site)
            }
            PortCall::ReleaseClaim(call, complete) => {
                let route = complete.route.map(|route| s(format!("{} {}", route.service, route.fence)));
                let values = json!({
                    ":grant": s(claim_token(&complete.claim_token)), ":fence": s(complete.fence),
                    ":service": complete.service.map(s), ":route": route,
                    ":settled": s(format!("{:?}", complete.outcome)), ":at": n(complete.at.millis()),
                    ":write": n(call.write.0), ":one": n(1u32),
                });
                let set = "SET service = :service, route = :route, settled = :settled, updatedAt = :at, \
                           writeId = :write REMOVE slot ADD version :one";
                let when = "slot.fence = :fence AND #g = :grant";
                (Some(update(complete.id.as_str(), set, when, values, "NONE")), "{}")
            }
            PortCall::Write(call, batch) => (Some(transaction(call, batch)), "{}"),
            PortCall::Heartbeat(call, worker, count) => {
                let item =
                    json!({ "pk": s(format!("W#{worker}")), "count": count.map(n), "w": n(call.write.0) });
                (Some(json!({ "TableName": "cdm", "Item": item })), "{}")
            }
            PortCall::MoveRoute(call, uid, expect, to) => {
                (Some(patch(call, uid.to_string(), expect, to)), &self.route)
            }
            PortCall::RunJob(call, spec) => (Some(job(call, spec)), &self.job),
            PortCall::Site(id) => (Some(key("S", id.as_str())), &self.site),
            PortCall::ServiceRecord(color) => (Some(key("C", color.as_str())), &self.service_record),
            PortCall::Fleet => (Some(key("F", "fleet")), &self.service_record),
            PortCall::Rollout(number) => (Some(key("R", &number.to_string())), &self.rollout),
            PortCall::RolloutPage(number, page) => (Some(key("R", &format!("{number}#{page}"))), &self.page),
            PortCall::PendingWork | PortCall::Heartbeats => (Some(key("L", "live")), &self.service_record),
            // A read from the API server has no body.
            PortCall::Service(_) => (None, &self.service),
            PortCall::Route(_) => (None, &self.route),
            PortCall::Job(_) => (None, &self.job),
            PortCall::Changes(_) | PortCall::Other(_) => (None, "{}"),
        }
    }
}

impl Tap for Codec {
    fn on_call(&self, port_call: PortCall<'_>) {
        let (request, response) = self.exchange(port_call);
        if let Some(request) = request {
            black_box(request.to_string());
        }
        match serde_json::from_str::<Value>(response) {
            Ok(response) => drop(black_box(response)),
            Err(error) => panic!("invalid JSON in a response: {error}"),
        }
    }
}

fn s(text: impl ToString) -> Value {
    json!({ "S": text.to_string() })
}

fn n(number: impl Into<u64>) -> Value {
    json!({ "N": number.into().to_string() })
}

fn claim_token(claim_token: &cdm_core::domain::ClaimToken) -> String {
    format!("{:012}.{:?}.{}", claim_token.rollout, claim_token.direction, claim_token.term)
}

fn key(kind: &str, of: &str) -> Value {
    json!({ "TableName": "cdm", "Key": { "pk": s(format!("{kind}#{of}")), "sk": s("HEAD") }, "ConsistentRead": true })
}

fn update(site: &str, set: &str, when: &str, values: Value, response: &str) -> Value {
    json!({
        "TableName": "cdm",
        "Key": { "pk": s(format!("S#{site}")), "sk": s("SITE") },
        "UpdateExpression": set,
        "ConditionExpression": when,
        "ExpressionAttributeNames": { "#g": "grant" },
        "ExpressionAttributeValues": values,
        "ReturnValues": response,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    })
}

fn transaction(call: &CallContext, batch: &WriteBatch) -> Value {
    let put = |item: Value| {
        json!({ "Put": {
            "TableName": "cdm", "Item": item, "ConditionExpression": "version = :version",
            "ExpressionAttributeValues": { ":version": n(1u32), ":write": n(call.write.0) },
        } })
    };
    let mut items: Vec<Value> = batch
        .writes
        .iter()
        .map(|write| match write {
            Mutation::CreateSite(site) | Mutation::Site(site) => put(site_item(site)),
            Mutation::RemoveSite(id, ..) => json!({ "Delete": key("S", id.as_str()) }),
            Mutation::Service(service) => put(service_item(service)),
            Mutation::Fleet(fleet) => put(json!({ "pk": s("F"), "version": n(fleet.version) })),
            Mutation::Webhooks(webhooks) => put(json!({ "pk": s("F"), "version": n(webhooks.version) })),
            Mutation::Users(users) => put(json!({ "pk": s("F"), "version": n(users.version) })),
            Mutation::CreateRollout(rollout) | Mutation::Rollout(rollout) => put(rollout_item(rollout)),
            Mutation::RolloutPage(page) => put(page_item(page)),
            Mutation::History(operation) => put(history_item(operation)),
        })
        .collect();
    items.extend(batch.events.iter().map(|event| {
        put(json!({ "pk": s(format!("E#{}", event.at.millis() / 3_600_000)), "what": s(&event.what) }))
    }));
    json!({ "TransactItems": items })
}

fn site_item(site: &Site) -> Value {
    let hosts: Vec<Value> = site.hostnames.all().iter().map(s).collect();
    json!({
        "pk": s(format!("S#{}", site.id)), "sk": s("SITE"), "uid": s(site.uid), "name": s(&site.name),
        "theme": s(&site.theme), "hostnames": { "L": hosts }, "service": s(site.service),
        "route": site.route.map(|route| s(format!("{} {}", route.service, route.fence))),
        "phase": s(format!("{:?}", site.phase)), "grant": s(claim_token(&site.claim_token)),
        "slot": site.operation.as_ref().map(state_map), "settled": s(format!("{:?}", site.last_outcome)),
        "createdAt": n(site.created_at.millis()), "updatedAt": n(site.updated_at.millis()),
        "version": n(site.version),
    })
}

fn state_map(operation: &OperationState) -> Value {
    let steps: Vec<Value> = operation
        .steps
        .iter()
        .map(|step| {
            json!({ "M": {
                "name": s(&step.name), "status": s(step.status.as_str()), "attempts": n(step.attempts),
                "job": step.job.as_ref().map(s), "log": step.log.as_ref().map(s),
                "startedAt": step.started_at.map(|at| n(at.millis())),
                "finishedAt": step.finished_at.map(|at| n(at.millis())),
                "message": step.message.as_ref().map(s),
            } })
        })
        .collect();
    json!({ "M": {
        "number": n(operation.number), "task": s(format!("{:?}", operation.input)), "pipeline": n(operation.pipeline),
        "epoch": n(operation.epoch), "owner": operation.owner.as_ref().map(s), "status": s(operation.status),
        "position": s(format!("{:?}", operation.position)), "attempts": n(operation.attempts), "job": n(operation.job),
        "wake": operation.next_poll_at.map(|at| n(at.millis())), "cancel": { "BOOL": operation.cancel },
        "member": operation.member.map(|member| s(format!("{}.{}", member.rollout, member.ordinal))),
        "steps": { "L": steps }, "requestedBy": s(&operation.requested_by),
        "createdAt": n(operation.created_at.millis()),
    } })
}

fn service_item(service: &Service) -> Value {
    let moves: Vec<Value> = service.lock.moves.iter().map(|number| n(*number)).collect();
    json!({
        "pk": s(format!("C#{}", service.color)), "sk": s("SVC"), "moves": { "L": moves },
        "deploy": service.lock.deploy.map(n), "running": service.running.map(s), "version": n(service.version),
    })
}

fn rollout_item(rollout: &Rollout) -> Value {
    let waves: Vec<Value> = rollout
        .waves
        .iter()
        .map(|wave| {
            let counts = wave.counts;
            json!({ "M": {
                "name": s(&wave.name), "end": n(wave.end), "succeeded": n(counts.succeeded),
                "failed": n(counts.failed), "skipped": n(counts.skipped), "parked": n(counts.parked),
            } })
        })
        .collect();
    json!({
        "pk": s(format!("R#{}", rollout.number)), "sk": s("HEAD"), "status": s(rollout.status.as_str()),
        "target": s(rollout.target), "digest": rollout.spec.digest.map(s), "waves": { "L": waves },
        "owner": rollout.owner.as_ref().map(s), "term": n(rollout.term),
        "window": s(format!("{}-{}", rollout.window().start, rollout.window().end)), "job": n(rollout.phase.progress().round),
        "total": n(rollout.total), "flushing": { "BOOL": rollout.phase.is_flushing() },
        "unsettled": { "BOOL": rollout.needs_recovery }, "requestedBy": s(&rollout.requested_by),
        "createdAt": n(rollout.created_at.millis()), "version": n(rollout.version),
    })
}

/// The members of a page are stored as one text, as short as possible, because it is written twice for each page.
fn page_item(page: &RolloutPage) -> Value {
    let members: Vec<String> = page
        .members
        .iter()
        .map(|member| {
            format!("{} {} {}", member.id, member.uid, member.outcome.map_or(0, |outcome| outcome as u8))
        })
        .collect();
    json!({ "pk": s(format!("R#{}", page.rollout)), "sk": s(format!("P#{}", page.page)), "sites": s(members.join("\n")) })
}

fn history_item(operation: &Operation) -> Value {
    json!({
        "pk": s(&operation.id), "sk": s("OP"), "slot": state_map(&operation.state),
        "finishedAt": operation.finished_at.map(|at| n(at.millis())),
    })
}

fn patch(call: &CallContext, uid: String, expect: Fence, to: Color) -> Value {
    let fence = "/metadata/annotations/cdm.example.org~1fence";
    json!([
        { "op": "test", "path": "/metadata/labels/cdm.example.org~1uid", "value": uid },
        { "op": "test", "path": fence, "value": expect.to_string() },
        { "op": "replace", "path": fence, "value": call.fence.to_string() },
        { "op": "replace", "path": "/spec/rules/0/http/paths/0/backend/service/name", "value": to.as_str() },
    ])
}

fn job(call: &CallContext, spec: &JobSpec) -> Value {
    let args = format!("{:?}", spec.kind);
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": spec.name.as_str(), "annotations": { "cdm.example.org/fence": call.fence.to_string() } },
        "spec": { "backoffLimit": 0, "template": { "spec": {
            "restartPolicy": "Never",
            "containers": [{ "name": "job", "image": spec.service.as_str(), "args": [args] }],
        } } },
    })
}

/// Returns an object as an API server returns it, including the fields that the API server adds.
fn kubernetes(version: &str, kind: &str, name: &str) -> String {
    let managed = |manager: &str| {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": version, "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": { "f:metadata": { "f:annotations": { "f:cdm.example.org/fence": {} } },
                          "f:spec": { "f:rules": {}, "f:template": { "f:spec": { "f:containers": {} } } } },
        })
    };
    json!({
        "apiVersion": version, "kind": kind,
        "metadata": {
            "name": name, "namespace": "sites", "uid": "0d3a5c2e-7f0e-4f0b-9a53-0f4fb4a3d8b1",
            "resourceVersion": "123456", "generation": 7, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "cdm.example.org/uid": name, "app.kubernetes.io/managed-by": "cdm" },
            "annotations": { "cdm.example.org/fence": "123.1" },
            "managedFields": [managed("cdm"), managed("controller")],
        },
        "spec": { "ingressClassName": "nginx", "rules": [{ "host": "site-000001.example.org", "http": { "paths": [
            { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "green", "port": { "number": 80 } } } }
        ] } }] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } },
    })
    .to_string()
}

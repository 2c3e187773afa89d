//! Routes of the two services.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::operation::{Status, TerminalStatus};
use cdm_core::domain::{Color, Digest};
use cdm_core::manager::{Action, DeployRequest, FleetView, Request};

use super::response::{DEFAULT_WAIT, operation_response};
use crate::api::freeze::Freeze;
use crate::api::list::Listing;
use crate::api::operation::Operation;
use crate::api::plan::Plan;
use crate::api::rollout::{Rollout, StartRollout};
use crate::api::services::{
    Canary, ChangeServices, Changed, Flag, Mark, Release, Rollback, Selected, Service, Services,
    ServicesChange, digest,
};
use crate::api::{OperationId, RolloutId, ServiceName};
use crate::app::{AppState, SharedState};
use crate::auth::CallerRequest;
use crate::error::ApiError;
use crate::extract::{JsonBody, NoQuery, PathParam, PathSegment, QueryParams, WaitParam, parse_field};

/// Returns both services and the active canary.
#[utoipa::path(get, path = "/services", operation_id = "getServices", tag = "services", responses((status = 200, body = Services)))]
pub(crate) async fn show(
    State(server): State<SharedState>,
    _: QueryParams<NoQuery>,
) -> Result<Json<Services>, ApiError> {
    Ok(Json(shown(&server, &server.app.manager.services().await?)))
}

/// Returns the API's representation of both services, the unfinished rollout and the freezes.
pub(crate) fn shown(server: &AppState, view: &FleetView) -> Services {
    let mut services = BTreeMap::new();
    for status in &view.services {
        let observed = &status.view;
        let service = Service {
            image: server.image(observed.digest),
            desired: observed.desired,
            updated: observed.updated,
            ready: observed.ready,
            available: observed.available,
            sites: status.sites,
            verdict: status.verdict.into(),
            operation: status.operation.as_ref().map(OperationId::from),
        };
        services.insert(ServiceName::from(observed.color), service);
    }
    let freezes = view.freezes.iter().map(Freeze::from).collect();
    let rollout = view.rollout.map(RolloutId::from_number);
    Services { canary: canary(server, view), services, rollout, freezes }
}

const ONLY_WITH_IMAGE: &str = "the field is allowed only with `imageTag`";

fn canary(server: &AppState, view: &FleetView) -> Canary {
    Canary { service: view.canary.into(), image: server.image(view.image) }
}

/// Selects the active canary, or deploys an image.
///
/// With `selector`, the service becomes the active canary: 200 once the change is complete. With `imageTag`, the digest is
/// deployed to the active canary, or to `service`: 202 with the operation, or 200 if it ends within `wait`. A request
/// contains either `selector` or `imageTag`.
#[utoipa::path(post, path = "/services", operation_id = "changeServices", tag = "services", request_body(content = ServicesChange, examples(
    ("select" = (summary = "Make green the active canary", value = json!({"selector": "green"}))),
    ("deploy" = (summary = "Deploy an image to the active canary", value = json!({
        "imageTag": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}))),
    ("deploy-and-promote" = (summary = "Deploy an image to blue, and route the sites on blue to it", value = json!({
        "imageTag": "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "promote": true, "service": "blue"}))))), params(WaitParam), responses(
    (status = 200, body = Changed),
    (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn change(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    QueryParams(wait): QueryParams<WaitParam>,
    JsonBody(body): JsonBody<ChangeServices>,
) -> Result<Response, ApiError> {
    let wait = wait.duration()?;
    match (&body.selector, &body.image_tag) {
        (Some(_), Some(_)) => {
            Err(ApiError::field("selector", "`selector` and `imageTag` exclude each other; send one of them"))
        }
        (None, None) if body.promote.is_some() => Err(ApiError::field("promote", ONLY_WITH_IMAGE)),
        (None, None) => Err(ApiError::field("selector", "`selector` or `imageTag` is required")),
        (Some(_), None) if body.promote.is_some() => Err(ApiError::field("promote", ONLY_WITH_IMAGE)),
        (Some(_), None) if body.service.is_some() => Err(ApiError::field("service", ONLY_WITH_IMAGE)),
        (Some(name), None) => {
            let color = parse_field("selector", Color::parse(name.as_str()))?;
            select(&server, &request, color, wait.unwrap_or(DEFAULT_WAIT)).await
        }
        (None, Some(image)) => {
            let service = body.service.as_ref().map(|name| Color::parse(name.as_str())).transpose();
            let promote = body.promote.is_some_and(Flag::is_set);
            let deploy = DeployRequest {
                digest: digest(image, server.repository())?,
                service: parse_field("service", service)?,
                promote,
            };
            server.accepted_response(server.app.manager.deploy(&request, deploy).await?, wait).await
        }
    }
}

async fn select(
    server: &AppState,
    request: &Request,
    color: Color,
    wait: std::time::Duration,
) -> Result<Response, ApiError> {
    let selected = server.app.manager.select(request, color).await?;
    let message = match &selected.operation {
        None => format!("{color} is already the active canary"),
        Some(id) => {
            let operation = server.wait_for_operation(id, wait).await?;
            if operation.state.status != Status::Ended(TerminalStatus::Succeeded) {
                return Ok(operation_response(StatusCode::ACCEPTED, &operation));
            }
            format!("{color} is the active canary now")
        }
    };
    let canary = canary(server, &server.app.manager.services().await?);
    let changed = selected.operation.is_some();
    Ok(Json(Selected { message, changed, canary, warnings: selected.warnings }).into_response())
}

/// Starts a rollout to the active canary.
///
/// With `dryRun`, nothing is changed, and the response is 200 with the plan. If the `planHash` of the plan is sent with the
/// real request, and the rollout would now differ from the plan, the request is rejected with `plan_changed`.
///
/// The request fixes the target, the digest and the sites of the rollout; sites that are created later are not part of it.
/// With `imageTag`, which needs the role `admin`, the digest is deployed first if the service runs another digest.
#[utoipa::path(put, path = "/services", operation_id = "startRollout", tag = "rollouts", request_body(content = StartRollout, examples(
    ("move" = (summary = "Move the sites on the inactive service in three waves, and move them back if two sites of a wave fail",
        value = json!({"promote": true, "scope": "inactive", "waves": ["1", "10%", "100%"], "failureBudget": 1,
            "autoRollback": true}))),
    ("upgrade" = (summary = "Assign the sites on the active canary to it again, and flush their caches; `promote` as a string, which older clients send",
        value = json!({"promote": "false"}))),
    ("gated" = (summary = "Check each site before and after its move, and bake the first wave for ten minutes",
        value = json!({"promote": true, "scope": "inactive", "waves": ["1%", "100%"], "bake": 600,
            "gate": {"path": "/", "maxLatencyRatio": 3}, "autoRollback": true}))),
    ("plan" = (summary = "Plan the move; nothing is changed", value = json!({"promote": true, "scope": "inactive",
        "waves": ["1", "10%", "100%"], "dryRun": true}))),
    ("sites" = (summary = "Promote two sites", value = json!({"promote": true, "scope": {"sites": ["rrr", "tulips"]}}))),
    ("image" = (summary = "Deploy an image to the active canary first; needs the role `admin`", value = json!({
        "imageTag": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", "promote": true,
        "scope": "all", "maxConcurrent": 16, "failureBudget": "5%"}))))), responses(
    (status = 200, body = Plan, description = "With `dryRun`: the plan"),
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn roll_out(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    _: QueryParams<NoQuery>,
    JsonBody(body): JsonBody<StartRollout>,
) -> Result<Response, ApiError> {
    let manager = &server.app.manager;
    if body.image_tag.is_some() {
        manager.authorize(&request, Action::StartRolloutWithImage, "fleet").await?;
    }
    let requested = body.parse(server.repository())?;
    if body.dry_run.unwrap_or(false) {
        return Ok(Json(Plan::from(&manager.plan(&request, &requested).await?)).into_response());
    }
    server
        .accepted_response(manager.rollout(&request, &requested, body.plan_hash.as_deref()).await?, None)
        .await
}

/// Rolls a service back: deploys the newest healthy digest other than the running one.
///
/// The history of the service is searched first, then the history of the other service. Digests that are marked bad are
/// skipped. Database schemas are not reverted, so an image must work with the schema of the next version.
#[utoipa::path(post, path = "/services/rollback", operation_id = "rollBackService", tag = "services", request_body(content = Rollback, examples(
    ("canary" = (summary = "The active canary", value = json!({}))),
    ("named" = (summary = "One service", value = json!({"service": "blue"}))))), params(WaitParam), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn rollback(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    QueryParams(wait): QueryParams<WaitParam>,
    JsonBody(body): JsonBody<Rollback>,
) -> Result<Response, ApiError> {
    let wait = wait.duration()?;
    let service = body.service.as_ref().map(|name| Color::parse(name.as_str())).transpose();
    let service = parse_field("service", service)?;
    server.accepted_response(server.app.manager.rollback(&request, service).await?, wait).await
}

/// Lists the deploys to a service, newest first; the last 100 are stored.
#[utoipa::path(get, path = "/services/{selector}/history", operation_id = "getServiceHistory", tag = "services",
    params(("selector" = ServiceName, Path, description = "The service.")), responses((status = 200, body = Listing<Release>)))]
pub(crate) async fn history(
    State(server): State<SharedState>,
    PathParam(color): PathParam<Color>,
    _: QueryParams<NoQuery>,
) -> Result<Json<Listing<Release>>, ApiError> {
    let releases = server.app.manager.history(color).await?;
    let items = releases.iter().map(|release| Release::new(color, release)).collect();
    Ok(Json(Listing { items, next: None }))
}

/// An image in a path, unparsed.
#[derive(Debug)]
pub(crate) struct ImageText(String);

impl PathSegment for ImageText {
    fn from_segment(text: &str) -> Result<Self, ApiError> {
        Ok(Self(text.to_owned()))
    }
}

/// Sets the verdict on a digest, for both services, and returns its releases.
#[utoipa::path(post, path = "/services/history/{digest}", operation_id = "markDigest", tag = "services", request_body(content = Mark, examples(
    ("bad" = (summary = "Never deploy it again", value = json!({"verdict": "bad", "reason": "the checkout page is blank"}))),
    ("healthy" = (summary = "Allow rollbacks to it", value = json!({"verdict": "healthy", "reason": "a week without complaint"}))))),
    params(
        ("digest" = String, Path, pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$", description = "The digest, in the format of `imageTag`.")), responses((status = 200, body = Listing<Release>), (status = 409)))]
pub(crate) async fn mark(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(ImageText(image)): PathParam<ImageText>,
    _: QueryParams<NoQuery>,
    JsonBody(body): JsonBody<Mark>,
) -> Result<Json<Listing<Release>>, ApiError> {
    let digest = Digest::of_image(&image, server.repository())
        .map_err(|broken| ApiError::field("digest", broken.to_string()))?;
    let reason = reason(&body.reason)?;
    server.app.manager.mark(&request, digest, body.verdict.into(), reason).await?;
    let mut items = Vec::new();
    for color in Color::ALL {
        let releases = server.app.manager.history(color).await?;
        let of_digest = releases.iter().filter(|release| release.digest == digest);
        items.extend(of_digest.map(|release| Release::new(color, release)));
    }
    Ok(Json(Listing { items, next: None }))
}

/// Parses the reason of a verdict; surrounding white space is removed.
pub(crate) fn reason(text: &str) -> Result<&str, ApiError> {
    let reason = text.trim();
    let printable = !reason.chars().any(char::is_control);
    if reason.is_empty() || text.chars().count() > 500 || !printable {
        return Err(ApiError::field("reason", "the reason must have 1 to 500 printable characters"));
    }
    Ok(reason)
}

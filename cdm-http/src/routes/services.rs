//! What is asked of the two services.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::operation::{Status, TerminalStatus};
use cdm_core::domain::{Color, Digest};
use cdm_core::manager::{Action, DeployRequest, FleetView, Request};

use super::{AT_ONCE, told};
use crate::api::freeze::Freeze;
use crate::api::list::Listing;
use crate::api::operation::Operation;
use crate::api::plan::Plan;
use crate::api::rollout::{self, Rollout, StartRollout};
use crate::api::services::ServicesChange;
use crate::api::services::{
    Canary, ChangeServices, Mark, Release, Rollback, Selected, Service, Services, digest,
};
use crate::api::words::ServiceName;
use crate::app::{Server, Shared};
use crate::auth::Asked;
use crate::error::Refusal;
use crate::input::{Body, Named, Nothing, Params, Part, Wait, parsed};

/// Shows both services and the active canary.
#[utoipa::path(get, path = "/services", operation_id = "getServices", tag = "services", responses((status = 200, body = Services)))]
pub(crate) async fn show(
    State(server): State<Shared>,
    _: Params<Nothing>,
) -> Result<Json<Services>, Refusal> {
    Ok(Json(shown(&server, &server.app.manager.services().await?)))
}

/// Both services and what stops moves.
pub(crate) fn shown(server: &Server, view: &FleetView) -> Services {
    let mut services = BTreeMap::new();
    for status in &view.services {
        let seen = &status.view;
        let service = Service {
            image: server.image(seen.digest),
            desired: seen.desired,
            updated: seen.updated,
            ready: seen.ready,
            available: seen.available,
            sites: status.sites,
            verdict: status.verdict.as_str().to_owned(),
            operation: status.operation.as_ref().map(ToString::to_string),
        };
        services.insert(seen.color.to_string(), service);
    }
    let freezes = view.freezes.iter().map(Freeze::from).collect();
    let rollout = view.rollout.map(rollout::id);
    Services { canary: canary(server, view), services, rollout, freezes }
}

fn canary(server: &Server, view: &FleetView) -> Canary {
    Canary { color: view.canary.to_string(), image: server.image(view.image) }
}

/// Selects the active canary, or deploys an image.
///
/// With `selector` the service becomes the active canary: 200 once that is done. With `imageTag` the digest is deployed
/// to the active canary, or to `service`: 202 with the operation, or 200 after `wait`. Either one or the other.
#[utoipa::path(post, path = "/services", operation_id = "changeServices", tag = "services", request_body(content = ServicesChange, examples(
    ("select" = (summary = "Make green the active canary", value = json!({"selector": "green"}))),
    ("deploy" = (summary = "Deploy an image to the active canary", value = json!({
        "imageTag": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}))),
    ("deploy-and-promote" = (summary = "Deploy an image to blue, and route the sites on blue to it", value = json!({
        "imageTag": "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "promote": true, "service": "blue"}))))), params(Wait), responses(
    (status = 200, body = crate::api::services::Changed),
    (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn change(
    State(server): State<Shared>,
    Asked(request): Asked,
    Params(wait): Params<Wait>,
    Body(body): Body<ChangeServices>,
) -> Result<Response, Refusal> {
    let span = wait.span()?;
    match (&body.color, &body.image_tag) {
        (Some(_), Some(_)) => Err(Refusal::field("selector", "either a selector or an image, not both")),
        (None, None) if body.promote.is_some() => Err(Refusal::field("promote", "only with an image")),
        (None, None) => Err(Refusal::field("selector", "a selector or an image is needed")),
        (Some(_), None) if body.promote.is_some() => Err(Refusal::field("promote", "only with an image")),
        (Some(_), None) if body.service.is_some() => Err(Refusal::field("service", "only with an image")),
        (Some(color), None) => {
            let color = parsed("selector", Color::parse(color))?;
            select(&server, &request, color, span.unwrap_or(AT_ONCE)).await
        }
        (None, Some(image)) => {
            let service = body.service.as_deref().map(Color::parse).transpose();
            let promote = body.promote.is_some_and(crate::api::services::Flag::is_set);
            let deploy = DeployRequest {
                digest: digest(image, server.repository())?,
                service: parsed("service", service)?,
                promote,
            };
            server.answer(server.app.manager.deploy(&request, deploy).await?, span).await
        }
    }
}

async fn select(
    server: &Server,
    request: &Request,
    color: Color,
    span: std::time::Duration,
) -> Result<Response, Refusal> {
    let selected = server.app.manager.select(request, color).await?;
    let message = match &selected.operation {
        None => format!("{color} is the active canary already"),
        Some(id) => {
            let operation = server.rested(id, span).await?;
            if operation.state.status != Status::Ended(TerminalStatus::Succeeded) {
                return Ok(told(StatusCode::ACCEPTED, &operation));
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
/// With `dryRun` nothing is changed: 200 with the plan. Its `planHash`, sent with the real request, makes that one refuse
/// with `plan_changed` if it would do something else by now.
///
/// Its target, digest and sites are fixed here; later sites are not in it. With `imageTag`, which takes the role `admin`,
/// the digest is deployed first where the service runs another one.
#[utoipa::path(put, path = "/services", operation_id = "startRollout", tag = "rollouts", request_body(content = StartRollout, examples(
    ("move" = (summary = "Move the sites on the other service in three waves, and take them back if two of a wave fail",
        value = json!({"promote": true, "scope": "inactive", "waves": ["1", "10%", "100%"], "failureBudget": 1,
            "autoRollback": true}))),
    ("upgrade" = (summary = "Assign the sites on the active canary to it again, and flush their caches; as text, as older clients send it",
        value = json!({"promote": "false"}))),
    ("gated" = (summary = "Ask each site before and after its move, and give the first wave ten minutes",
        value = json!({"promote": true, "scope": "inactive", "waves": ["1%", "100%"], "bake": 600,
            "gate": {"path": "/", "maxLatencyRatio": 3}, "autoRollback": true}))),
    ("plan" = (summary = "What the move would do; nothing is changed", value = json!({"promote": true, "scope": "inactive",
        "waves": ["1", "10%", "100%"], "dryRun": true}))),
    ("sites" = (summary = "Promote two sites", value = json!({"promote": true, "scope": {"sites": ["rrr", "tulips"]}}))),
    ("image" = (summary = "Deploy an image to the active canary first; an administrator's", value = json!({
        "imageTag": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", "promote": true,
        "scope": "all", "maxConcurrent": 16, "failureBudget": "5%"}))))), responses(
    (status = 200, body = Plan, description = "With `dryRun`: what would be done"),
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn roll_out(
    State(server): State<Shared>,
    Asked(request): Asked,
    _: Params<Nothing>,
    Body(body): Body<StartRollout>,
) -> Result<Response, Refusal> {
    let services = &server.app.manager;
    if body.image_tag.is_some() {
        services.authorize(&request, Action::StartRolloutWithImage, "fleet").await?;
    }
    let wanted = body.parse(server.repository())?;
    if body.dry_run.unwrap_or(false) {
        return Ok(Json(Plan::from(&services.plan(&request, &wanted).await?)).into_response());
    }
    server.answer(services.rollout(&request, &wanted).await?, None).await
}

/// Deploys the newest healthy digest other than the one that runs.
///
/// Of the service's own history, then of the other's; never one that is marked bad. Database schemas are not reverted:
/// images have to be compatible one version back.
#[utoipa::path(post, path = "/services/rollback", operation_id = "rollBackService", tag = "services", request_body(content = Rollback, examples(
    ("canary" = (summary = "The active canary", value = json!({}))),
    ("named" = (summary = "A service by name", value = json!({"service": "blue"}))))), params(Wait), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn rollback(
    State(server): State<Shared>,
    Asked(request): Asked,
    Params(wait): Params<Wait>,
    Body(body): Body<Rollback>,
) -> Result<Response, Refusal> {
    let span = wait.span()?;
    let service = parsed("service", body.service.as_deref().map(Color::parse).transpose())?;
    server.answer(server.app.manager.rollback(&request, service).await?, span).await
}

/// Lists what was deployed to a service, newest first; at most 100 are kept.
#[utoipa::path(get, path = "/services/{selector}/history", operation_id = "getServiceHistory", tag = "services",
    params(("selector" = ServiceName, Path, description = "Which service.")), responses((status = 200, body = Listing<Release>)))]
pub(crate) async fn history(
    State(server): State<Shared>,
    Part(color): Part<Color>,
    _: Params<Nothing>,
) -> Result<Json<Listing<Release>>, Refusal> {
    let releases = server.app.manager.history(color).await?;
    let items = releases.iter().map(|release| Release::new(color, release)).collect();
    Ok(Json(Listing { items, next: None }))
}

/// An image in a path, as it was written.
#[derive(Debug)]
pub(crate) struct ImageText(String);

impl Named for ImageText {
    fn named(text: &str) -> Result<Self, Refusal> {
        Ok(Self(text.to_owned()))
    }
}

/// Marks a digest, for both services; answers its releases.
#[utoipa::path(post, path = "/services/history/{digest}", operation_id = "markDigest", tag = "services", request_body(content = Mark, examples(
    ("bad" = (summary = "Never again", value = json!({"verdict": "bad", "reason": "the checkout page is blank"}))),
    ("healthy" = (summary = "A rollback may take it", value = json!({"verdict": "healthy", "reason": "a week without complaint"}))))),
    params(
        ("digest" = String, Path, pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$", description = "Which digest, written as an `imageTag`.")), responses((status = 200, body = Listing<Release>), (status = 409)))]
pub(crate) async fn mark(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(ImageText(image)): Part<ImageText>,
    _: Params<Nothing>,
    Body(body): Body<Mark>,
) -> Result<Json<Listing<Release>>, Refusal> {
    let digest = Digest::of_image(&image, server.repository())
        .map_err(|broken| Refusal::field("digest", broken.to_string()))?;
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

/// A reason for a verdict, without white space around it.
pub(crate) fn reason(text: &str) -> Result<&str, Refusal> {
    let reason = text.trim();
    let printable = !reason.chars().any(char::is_control);
    if reason.is_empty() || text.chars().count() > 500 || !printable {
        return Err(Refusal::field("reason", "a reason is 1 to 500 printable characters"));
    }
    Ok(reason)
}

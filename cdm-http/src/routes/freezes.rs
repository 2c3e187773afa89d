//! The routes `/freezes…`: lists, creates and removes freezes.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::response::with_location;
use crate::api::FreezeId;
use crate::api::freeze::{CreateFreeze, Freeze};
use crate::api::list::{Listing, Removed};
use crate::app::SharedState;
use crate::auth::CallerRequest;
use crate::error::ApiError;
use crate::extract::{JsonBody, NoQuery, Numbered, PathParam, QueryParams};

/// Lists the freezes in effect, oldest first; at most 100.
#[utoipa::path(get, path = "/freezes", operation_id = "listFreezes", tag = "freezes", responses(
    (status = 200, body = Listing<Freeze>)))]
pub(crate) async fn list(
    State(server): State<SharedState>,
    _: QueryParams<NoQuery>,
) -> Result<Json<Listing<Freeze>>, ApiError> {
    let items = server.app.manager.freezes().await?.iter().map(Freeze::from).collect();
    Ok(Json(Listing { items, next: None }))
}

/// Freezes all sites or some sites: they are not moved until the freeze ends.
///
/// A promote, an upgrade and a new rollout are rejected with `frozen`. A running rollout waits, and resumes by itself when
/// the freeze expires or is removed. Rollouts skip a frozen site. Deploys, rollbacks, the return of moved sites and aborts
/// are not affected, and neither are the creation, provisioning and termination of sites.
#[utoipa::path(post, path = "/freezes", operation_id = "createFreeze", tag = "freezes", request_body(content = CreateFreeze, examples(
    ("all" = (summary = "All sites, until the freeze is removed", value = json!({"reason": "the shop's busiest week"}))),
    ("some" = (summary = "Two sites, until a date", value = json!({"sites": ["rrr", "tulips"], "reason": "their launch",
        "expiresAt": "2099-12-31T00:00:00Z"}))))), responses(
    (status = 201, body = Freeze)))]
pub(crate) async fn create(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    _: QueryParams<NoQuery>,
    JsonBody(body): JsonBody<CreateFreeze>,
) -> Result<Response, ApiError> {
    let requested = body.parse(server.app.clock.wall())?;
    let freeze = Freeze::from(&server.app.manager.freeze(&request, &requested).await?);
    let location = format!("/freezes/{}", freeze.id);
    Ok(with_location(StatusCode::CREATED, &location, Json(freeze)))
}

/// Removes a freeze; a rollout that waits for it resumes.
#[utoipa::path(delete, path = "/freezes/{id}", operation_id = "removeFreeze", tag = "freezes", params(("id" = String, Path, description = "The id of the freeze.")), responses(
    (status = 200, body = Removed)))]
pub(crate) async fn remove(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(freeze): PathParam<Numbered<FreezeId>>,
    _: QueryParams<NoQuery>,
) -> Result<Json<Removed>, ApiError> {
    server.app.manager.thaw(&request, freeze.number).await?;
    Ok(Json(Removed { id: freeze.id.to_string() }))
}

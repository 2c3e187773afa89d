//! The routes `/rollouts…`: reads rollouts, and pauses, resumes, aborts and retries them.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::RolloutId;
use crate::api::list::Listing;
use crate::api::rollout::{ResumeRollout, Rollout};
use crate::app::{AppState, SharedState};
use crate::auth::CallerRequest;
use crate::error::ApiError;
use crate::extract::{ForceParam, JsonBody, NoQuery, Numbered, Paging, PathParam, QueryParams, cursor};

/// The page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// The maximum number of items. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<String>,
    /// The start of the page: the `next` of an earlier page.
    #[param(pattern = "^([0-9a-f]{2})+$", max_length = 1024, nullable = false)]
    cursor: Option<String>,
}

impl PageParams {
    /// Parses the page of the list that the letter `list` identifies.
    pub(crate) fn paging(&self, list: char) -> Result<Paging, ApiError> {
        Paging::new(list, self.limit.as_deref(), self.cursor.as_deref())
    }
}

/// Returns the API's representation of a rollout.
pub(crate) fn shown(server: &AppState, rollout: &cdm_core::domain::Rollout) -> Rollout {
    Rollout::new(rollout, server.image(rollout.spec.digest))
}

/// Lists rollouts, newest first.
#[utoipa::path(get, path = "/rollouts", operation_id = "listRollouts", tag = "rollouts", params(PageParams), responses(
    (status = 200, body = Listing<Rollout>)))]
pub(crate) async fn list(
    State(server): State<SharedState>,
    QueryParams(page): QueryParams<PageParams>,
) -> Result<Json<Listing<Rollout>>, ApiError> {
    let paging = page.paging('r')?;
    let page = server.app.manager.rollouts(paging.position()?, paging.limit).await?;
    let items = page.items.iter().map(|rollout| shown(&server, rollout)).collect();
    Ok(Json(Listing { items, next: page.next.map(|next| cursor('r', next)) }))
}

/// Returns a rollout with its waves and counts.
#[utoipa::path(get, path = "/rollouts/{id}", operation_id = "getRollout", tag = "rollouts", params(("id" = String, Path, description = "The id of the rollout.")), responses(
    (status = 200, body = Rollout)))]
pub(crate) async fn get(
    State(server): State<SharedState>,
    PathParam(rollout): PathParam<Numbered<RolloutId>>,
    _: QueryParams<NoQuery>,
) -> Result<Json<Rollout>, ApiError> {
    Ok(Json(shown(&server, &server.app.manager.get_rollout(rollout.number).await?)))
}

/// Pauses a rollout: sites in progress are finished, and no further site is started.
#[utoipa::path(post, path = "/rollouts/{id}/pause", operation_id = "pauseRollout", tag = "rollouts", params(("id" = String, Path, description = "The id of the rollout.")), responses(
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn pause(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(rollout): PathParam<Numbered<RolloutId>>,
    _: QueryParams<NoQuery>,
) -> Result<Response, ApiError> {
    server.accepted_response(server.app.manager.pause(&request, rollout.number).await?, None).await
}

/// Resumes a paused or halted rollout.
///
/// While the service runs another digest than the rollout's, no site moves, and a resume returns 409 `digest_changed` with
/// the digest of the service in `running`. If that digest is sent as `acceptDigest`, the rollout continues with it; a
/// waiting rollout accepts it too. A digest that is marked bad needs `force` and the role `admin`.
#[utoipa::path(post, path = "/rollouts/{id}/resume", operation_id = "resumeRollout", tag = "rollouts", request_body(content = Option<ResumeRollout>, examples(
    ("plain" = (summary = "With the digest of the rollout", value = json!({}))),
    ("accept" = (summary = "With the digest that the service runs", value = json!({
        "acceptDigest": "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}))))),
    params(("id" = String, Path, description = "The id of the rollout.")), responses(
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn resume(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(rollout): PathParam<Numbered<RolloutId>>,
    _: QueryParams<NoQuery>,
    JsonBody(body): JsonBody<Option<ResumeRollout>>,
) -> Result<Response, ApiError> {
    let requested = body.unwrap_or_default().parse(server.repository())?;
    server
        .accepted_response(server.app.manager.resume_on(&request, rollout.number, requested).await?, None)
        .await
}

/// Aborts a rollout permanently.
#[utoipa::path(post, path = "/rollouts/{id}/abort", operation_id = "abortRollout", tag = "rollouts", params(("id" = String, Path, description = "The id of the rollout.")), responses(
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn abort(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(rollout): PathParam<Numbered<RolloutId>>,
    _: QueryParams<NoQuery>,
) -> Result<Response, ApiError> {
    server.accepted_response(server.app.manager.abort(&request, rollout.number).await?, None).await
}

/// Starts a new rollout of the sites that failed or were skipped in an ended rollout.
///
/// If the service no longer runs the digest of the ended rollout, the digest is deployed first, which needs the role
/// `admin`. A digest that is marked bad needs `force` and the role `admin`.
#[utoipa::path(post, path = "/rollouts/{id}/retry", operation_id = "retryRollout", tag = "rollouts", params(("id" = String, Path, description = "The id of the rollout."), ForceParam), responses(
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn retry(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(rollout): PathParam<Numbered<RolloutId>>,
    QueryParams(params): QueryParams<ForceParam>,
) -> Result<Response, ApiError> {
    let force = params.force()?;
    server
        .accepted_response(
            server.app.manager.retry_rollout_with(&request, rollout.number, force).await?,
            None,
        )
        .await
}

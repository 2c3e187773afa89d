//! What is asked of rollouts.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::list::Listing;
use crate::api::rollout::{ResumeRollout, Rollout, number};
use crate::app::{Server, Shared};
use crate::auth::Asked;
use crate::error::Refusal;
use crate::input::{Body, Forced, Named, Nothing, Paging, Params, Part, cursor};

/// A rollout's number, from its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RolloutId(pub(crate) u64);

impl Named for RolloutId {
    fn named(text: &str) -> Result<Self, Refusal> {
        number(text).map(Self).ok_or_else(|| Refusal::not_found("the rollout"))
    }
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Pages {
    /// Items at most; 100 where it is left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<String>,
    /// Where to go on: what an earlier page said in `next`.
    #[param(pattern = "^([0-9a-f]{2})+$", max_length = 1024, nullable = false)]
    cursor: Option<String>,
}

impl Pages {
    /// The part of the list that `list` names.
    pub(crate) fn of(&self, list: char) -> Result<Paging, Refusal> {
        Paging::new(list, self.limit.as_deref(), self.cursor.as_deref())
    }
}

pub(crate) fn shown(server: &Server, rollout: &cdm_core::domain::Rollout) -> Rollout {
    Rollout::new(rollout, server.image(rollout.digest))
}

/// Lists rollouts, newest first.
#[utoipa::path(get, path = "/rollouts", operation_id = "listRollouts", tag = "rollouts", params(Pages), responses(
    (status = 200, body = Listing<Rollout>)))]
pub(crate) async fn list(
    State(server): State<Shared>,
    Params(pages): Params<Pages>,
) -> Result<Json<Listing<Rollout>>, Refusal> {
    let paging = pages.of('r')?;
    let page = server.app.manager.rollouts(paging.position()?, paging.limit).await?;
    let items = page.items.iter().map(|rollout| shown(&server, rollout)).collect();
    Ok(Json(Listing { items, next: page.next.map(|next| cursor('r', next)) }))
}

/// Shows a rollout.
#[utoipa::path(get, path = "/rollouts/{id}", operation_id = "getRollout", tag = "rollouts", params(("id" = String, Path, description = "Which rollout.")), responses(
    (status = 200, body = Rollout)))]
pub(crate) async fn get(
    State(server): State<Shared>,
    Part(id): Part<RolloutId>,
    _: Params<Nothing>,
) -> Result<Json<Rollout>, Refusal> {
    Ok(Json(shown(&server, &server.app.manager.get_rollout(id.0).await?)))
}

/// Pauses a rollout: no site is begun after its next checkpoint.
#[utoipa::path(post, path = "/rollouts/{id}/pause", operation_id = "pauseRollout", tag = "rollouts", params(("id" = String, Path, description = "Which rollout.")), responses(
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn pause(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<RolloutId>,
    _: Params<Nothing>,
) -> Result<Response, Refusal> {
    server.answer(server.app.manager.pause(&request, id.0).await?, None).await
}

/// Lets a paused or halted rollout go on.
///
/// While the service runs another digest than the rollout's, no site moves, and a resume answers 409 `digest_changed` with
/// the one that runs in `running`. With that one as `acceptDigest` the rollout goes on with it; a rollout that waits takes
/// this too. A digest that is bad takes `force` and the role `admin`.
#[utoipa::path(post, path = "/rollouts/{id}/resume", operation_id = "resumeRollout", tag = "rollouts", request_body(content = Option<ResumeRollout>, examples(
    ("plain" = (summary = "On the digest that it was started for", value = json!({}))),
    ("accept" = (summary = "On the digest that runs", value = json!({
        "acceptDigest": "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}))))),
    params(("id" = String, Path, description = "Which rollout.")), responses(
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn resume(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<RolloutId>,
    _: Params<Nothing>,
    Body(body): Body<Option<ResumeRollout>>,
) -> Result<Response, Refusal> {
    let wanted = body.unwrap_or_default().parse(server.repository())?;
    server.answer(server.app.manager.resume_on(&request, id.0, wanted).await?, None).await
}

/// Stops a rollout for good.
#[utoipa::path(post, path = "/rollouts/{id}/abort", operation_id = "abortRollout", tag = "rollouts", params(("id" = String, Path, description = "Which rollout.")), responses(
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn abort(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<RolloutId>,
    _: Params<Nothing>,
) -> Result<Response, Refusal> {
    server.answer(server.app.manager.abort(&request, id.0).await?, None).await
}

/// Starts a new rollout with the sites of an ended one that failed or were skipped.
///
/// Where the service does not run the ended one's digest any more, it is deployed first, which takes the role `admin`. A
/// digest that is bad takes `force`, and that role too.
#[utoipa::path(post, path = "/rollouts/{id}/retry", operation_id = "retryRollout", tag = "rollouts", params(("id" = String, Path, description = "Which rollout."), Forced), responses(
    (status = 202, body = Rollout), (status = 409)))]
pub(crate) async fn retry(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<RolloutId>,
    Params(forced): Params<Forced>,
) -> Result<Response, Refusal> {
    let force = forced.force()?;
    server.answer(server.app.manager.retry_rollout_with(&request, id.0, force).await?, None).await
}

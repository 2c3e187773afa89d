//! What is asked of freezes.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::located;
use crate::api::freeze::{CreateFreeze, Freeze, id, number};
use crate::api::list::{Listing, Removed};
use crate::app::Shared;
use crate::auth::Asked;
use crate::error::Refusal;
use crate::input::{Body, Named, Nothing, Params, Part};

/// A freeze's number, from its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FreezeId(u64);

impl Named for FreezeId {
    fn named(text: &str) -> Result<Self, Refusal> {
        number(text).map(Self).ok_or_else(|| Refusal::not_found("the freeze"))
    }
}

/// Lists the freezes that hold, oldest first; there are never more than 100.
#[utoipa::path(get, path = "/freezes", operation_id = "listFreezes", tag = "freezes", responses(
    (status = 200, body = Listing<Freeze>)))]
pub(crate) async fn list(
    State(server): State<Shared>,
    _: Params<Nothing>,
) -> Result<Json<Listing<Freeze>>, Refusal> {
    let items = server.app.manager.freezes().await?.iter().map(Freeze::from).collect();
    Ok(Json(Listing { items, next: None }))
}

/// Stops moves, of all sites or of some.
///
/// A promote, an upgrade and a new rollout are refused with `frozen`; a rollout under way waits, and goes on by itself
/// when the freeze ends or is removed; a frozen site is skipped by rollouts. Deploys, rollbacks, returns and aborts go
/// on, and so do a site's creation, provision and end.
#[utoipa::path(post, path = "/freezes", operation_id = "createFreeze", tag = "freezes", request_body(content = CreateFreeze, examples(
    ("all" = (summary = "Everyone, until someone removes it", value = json!({"reason": "the shop's busiest week"}))),
    ("some" = (summary = "Two sites, until a day", value = json!({"sites": ["rrr", "tulips"], "reason": "their launch",
        "expiresAt": "2099-12-31T00:00:00Z"}))))), responses(
    (status = 201, body = Freeze)))]
pub(crate) async fn create(
    State(server): State<Shared>,
    Asked(request): Asked,
    _: Params<Nothing>,
    Body(body): Body<CreateFreeze>,
) -> Result<Response, Refusal> {
    let wanted = body.parse(server.app.clock.wall())?;
    let freeze = Freeze::from(&server.app.manager.freeze(&request, &wanted).await?);
    let location = format!("/freezes/{}", freeze.id);
    Ok(located(StatusCode::CREATED, &location, Json(freeze)))
}

/// Ends a freeze; a rollout that waits for it goes on.
#[utoipa::path(delete, path = "/freezes/{id}", operation_id = "removeFreeze", tag = "freezes", params(("id" = String, Path, description = "Which freeze.")), responses(
    (status = 200, body = Removed)))]
pub(crate) async fn remove(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(FreezeId(number)): Part<FreezeId>,
    _: Params<Nothing>,
) -> Result<Json<Removed>, Refusal> {
    server.app.manager.thaw(&request, number).await?;
    Ok(Json(Removed { id: id(number) }))
}

//! What is asked of tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::Uid;
use secrecy::ExposeSecret;

use super::once;
use super::rollouts::Pages;
use crate::api::list::Listing;
use crate::api::token::{CreateToken, MadeToken, Token};
use crate::app::Shared;
use crate::auth::Asked;
use crate::error::Refusal;
use crate::input::{Body, Named, Nothing, Params, Part};

impl Named for Uid {
    fn named(text: &str) -> Result<Self, Refusal> {
        Self::parse(text).map_err(|_| Refusal::not_found("the token"))
    }
}

/// Lists tokens in the order of their birth, revoked ones too.
#[utoipa::path(get, path = "/tokens", operation_id = "listTokens", tag = "tokens", params(Pages), responses(
    (status = 200, body = Listing<Token>)))]
pub(crate) async fn list(
    State(server): State<Shared>,
    Asked(request): Asked,
    Params(pages): Params<Pages>,
) -> Result<Json<Listing<Token>>, Refusal> {
    let paging = pages.of('t')?;
    let first = paging.position::<usize>()?.unwrap_or(0);
    let tokens = server.app.access.tokens(&request).await?;
    let items: Vec<Token> = tokens.iter().skip(first).take(paging.limit).map(Token::from).collect();
    let end = first.saturating_add(items.len());
    let next = (end < tokens.len()).then(|| crate::input::cursor('t', end));
    Ok(Json(Listing { items, next }))
}

/// Makes a token; its text is shown this once.
#[utoipa::path(post, path = "/tokens", operation_id = "createToken", tag = "tokens", request_body(content = CreateToken, examples(
    ("pipeline" = (summary = "For a pipeline, for 90 days", value = json!({"name": "pipeline", "role": "operator"}))),
    ("monitoring" = (summary = "For Prometheus, until it is revoked", value = json!({"name": "monitoring", "role": "viewer",
        "expiresAt": "never"}))),
    ("guest" = (summary = "To look, until a day", value = json!({"name": "guest", "role": "viewer",
        "expiresAt": "2099-12-31T00:00:00Z"}))))), responses(
    (status = 201, body = MadeToken), (status = 409)))]
pub(crate) async fn create(
    State(server): State<Shared>,
    Asked(request): Asked,
    _: Params<Nothing>,
    Body(body): Body<CreateToken>,
) -> Result<Response, Refusal> {
    let new = body.parse(server.app.clock.wall())?;
    let (record, text) = server.app.access.create(&request, &new).await?;
    let made = MadeToken { record: Token::from(&record), token: text.expose_secret().to_owned() };
    Ok(once((StatusCode::CREATED, Json(made)).into_response()))
}

/// Ends a token's service, from the next request on.
#[utoipa::path(delete, path = "/tokens/{id}", operation_id = "revokeToken", tag = "tokens", params(("id" = String, Path, description = "Which token: its `id`, not its text.")), responses(
    (status = 200, body = Token)))]
pub(crate) async fn revoke(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<Uid>,
    _: Params<Nothing>,
) -> Result<Json<Token>, Refusal> {
    Ok(Json(Token::from(&server.app.access.revoke(&request, id).await?)))
}

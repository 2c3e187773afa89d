//! The routes `/tokens…`: lists, creates and revokes tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::Uid;
use secrecy::ExposeSecret;

use super::response::no_store;
use super::rollouts::PageParams;
use crate::api::list::Listing;
use crate::api::token::{CreateToken, MadeToken, Token};
use crate::app::SharedState;
use crate::auth::CallerRequest;
use crate::error::ApiError;
use crate::extract::{JsonBody, NoQuery, PathParam, PathSegment, QueryParams};

impl PathSegment for Uid {
    fn from_segment(text: &str) -> Result<Self, ApiError> {
        Self::parse(text).map_err(|_| ApiError::not_found("the token"))
    }
}

/// Lists tokens in the order of their creation, including revoked tokens.
#[utoipa::path(get, path = "/tokens", operation_id = "listTokens", tag = "tokens", params(PageParams), responses(
    (status = 200, body = Listing<Token>)))]
pub(crate) async fn list(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    QueryParams(page): QueryParams<PageParams>,
) -> Result<Json<Listing<Token>>, ApiError> {
    let paging = page.paging('t')?;
    let first = paging.position::<usize>()?.unwrap_or(0);
    let tokens = server.app.access.tokens(&request).await?;
    let items: Vec<Token> = tokens.iter().skip(first).take(paging.limit).map(Token::from).collect();
    let end = first.saturating_add(items.len());
    let next = (end < tokens.len()).then(|| crate::extract::cursor('t', end));
    Ok(Json(Listing { items, next }))
}

/// Creates a token; only this response contains its text.
#[utoipa::path(post, path = "/tokens", operation_id = "createToken", tag = "tokens", request_body(content = CreateToken, examples(
    ("pipeline" = (summary = "For a pipeline, for 90 days", value = json!({"name": "pipeline", "role": "operator"}))),
    ("monitoring" = (summary = "For Prometheus, until it is revoked", value = json!({"name": "monitoring", "role": "viewer",
        "expiresAt": "never"}))),
    ("guest" = (summary = "To read, until a date", value = json!({"name": "guest", "role": "viewer",
        "expiresAt": "2099-12-31T00:00:00Z"}))))), responses(
    (status = 201, body = MadeToken), (status = 409)))]
pub(crate) async fn create(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    _: QueryParams<NoQuery>,
    JsonBody(body): JsonBody<CreateToken>,
) -> Result<Response, ApiError> {
    let new = body.parse(server.app.clock.wall())?;
    let (record, text) = server.app.access.create(&request, &new).await?;
    let made = MadeToken { record: Token::from(&record), token: text.expose_secret().to_owned() };
    Ok(no_store((StatusCode::CREATED, Json(made)).into_response()))
}

/// Revokes a token; it is rejected from the next request on.
#[utoipa::path(delete, path = "/tokens/{id}", operation_id = "revokeToken", tag = "tokens", params(("id" = String, Path, description = "The `id` of the token, not its text.")), responses(
    (status = 200, body = Token)))]
pub(crate) async fn revoke(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(id): PathParam<Uid>,
    _: QueryParams<NoQuery>,
) -> Result<Json<Token>, ApiError> {
    Ok(Json(Token::from(&server.app.access.revoke(&request, id).await?)))
}

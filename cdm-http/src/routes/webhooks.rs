//! The routes `/webhooks…`: lists, creates and removes webhooks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::response::{no_store, with_location};
use crate::api::WebhookId;
use crate::api::list::{Listing, Removed};
use crate::api::webhook::{CreateWebhook, MadeWebhook, Webhook};
use crate::app::SharedState;
use crate::auth::CallerRequest;
use crate::error::ApiError;
use crate::extract::{JsonBody, NoQuery, Numbered, PathParam, QueryParams};

/// Lists the webhooks with their delivery states, oldest first; at most 20.
#[utoipa::path(get, path = "/webhooks", operation_id = "listWebhooks", tag = "webhooks", responses(
    (status = 200, body = Listing<Webhook>)))]
pub(crate) async fn list(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    _: QueryParams<NoQuery>,
) -> Result<Json<Listing<Webhook>>, ApiError> {
    let items = server.app.manager.webhooks(&request).await?.iter().map(Webhook::from).collect();
    Ok(Json(Listing { items, next: None }))
}

/// Creates a webhook, which sends future events to a receiver; only this response contains its signing key.
///
/// Each message is a `POST` of JSON, signed by the Standard Webhooks specification: `webhook-id`, `webhook-timestamp`,
/// `webhook-signature`. Each message is delivered at least once, always with the same `webhook-id`, and in order: the next
/// message is sent after a 2xx response. A failed delivery is retried after 5 seconds, then after increasing times up to
/// an hour. A 410 response, or three days of failures, stop the webhook.
#[utoipa::path(post, path = "/webhooks", operation_id = "createWebhook", tag = "webhooks", request_body(content = CreateWebhook, examples(
    ("usual" = (summary = "Work that ended or needs a user", value = json!({"url": "https://hooks.example.com/cdm"}))),
    ("rollouts" = (summary = "Two events of rollouts", value = json!({"url": "https://hooks.example.com/cdm",
        "events": ["rollout.halted", "rollout.succeeded"]}))))), responses(
    (status = 201, body = MadeWebhook)))]
pub(crate) async fn create(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    _: QueryParams<NoQuery>,
    JsonBody(body): JsonBody<CreateWebhook>,
) -> Result<Response, ApiError> {
    let manager = &server.app.manager;
    let requested = body.parse(|url| manager.may_receive(url))?;
    let (record, key) = manager.create_webhook(&request, &requested).await?;
    let webhook = MadeWebhook::new(&record, &key);
    let location = format!("/webhooks/{}", webhook.record.id);
    Ok(no_store(with_location(StatusCode::CREATED, &location, Json(webhook))))
}

/// Removes a webhook; no further messages are sent.
#[utoipa::path(delete, path = "/webhooks/{id}", operation_id = "removeWebhook", tag = "webhooks", params(("id" = String, Path, description = "The id of the webhook.")), responses(
    (status = 200, body = Removed)))]
pub(crate) async fn remove(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(webhook): PathParam<Numbered<WebhookId>>,
    _: QueryParams<NoQuery>,
) -> Result<Json<Removed>, ApiError> {
    server.app.manager.remove_webhook(&request, webhook.number).await?;
    Ok(Json(Removed { id: webhook.id.to_string() }))
}

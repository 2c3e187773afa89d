//! What is asked of webhooks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{located, once};
use crate::api::list::{Listing, Removed};
use crate::api::webhook::{CreateWebhook, MadeWebhook, Webhook, id, number};
use crate::app::Shared;
use crate::auth::Asked;
use crate::error::Refusal;
use crate::input::{Body, Named, Nothing, Params, Part};

/// A webhook's number, from its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WebhookId(u64);

impl Named for WebhookId {
    fn named(text: &str) -> Result<Self, Refusal> {
        number(text).map(Self).ok_or_else(|| Refusal::not_found("the webhook"))
    }
}

/// Lists the webhooks, oldest first, and how they stand; there are never more than 20.
#[utoipa::path(get, path = "/webhooks", operation_id = "listWebhooks", tag = "webhooks", responses(
    (status = 200, body = Listing<Webhook>)))]
pub(crate) async fn list(
    State(server): State<Shared>,
    Asked(request): Asked,
    _: Params<Nothing>,
) -> Result<Json<Listing<Webhook>>, Refusal> {
    let items = server.app.manager.webhooks(&request).await?.iter().map(Webhook::from).collect();
    Ok(Json(Listing { items, next: None }))
}

/// Tells a receiver what happens from now on; the key that its messages are signed with is shown this once.
///
/// Each message is a `POST` of JSON, signed by the Standard Webhooks specification: `webhook-id`, `webhook-timestamp`,
/// `webhook-signature`. It comes at least once, under the same `webhook-id`, in order; the next one after a 2xx. What
/// fails is tried again after 5 seconds and then ever later, up to an hour; 410, or three days of failures, end it.
#[utoipa::path(post, path = "/webhooks", operation_id = "createWebhook", tag = "webhooks", request_body(content = CreateWebhook, examples(
    ("usual" = (summary = "Whatever ends, or waits for a person", value = json!({"url": "https://hooks.example.com/cdm"}))),
    ("rollouts" = (summary = "Two things about rollouts", value = json!({"url": "https://hooks.example.com/cdm",
        "events": ["rollout.halted", "rollout.succeeded"]}))))), responses(
    (status = 201, body = MadeWebhook)))]
pub(crate) async fn create(
    State(server): State<Shared>,
    Asked(request): Asked,
    _: Params<Nothing>,
    Body(body): Body<CreateWebhook>,
) -> Result<Response, Refusal> {
    let services = &server.app.manager;
    let wanted = body.parse(|url| services.may_receive(url))?;
    let (record, key) = services.create_webhook(&request, &wanted).await?;
    let location = format!("/webhooks/{}", id(record.number));
    Ok(once(located(StatusCode::CREATED, &location, Json(MadeWebhook::new(&record, &key)))))
}

/// Tells a receiver nothing any more.
#[utoipa::path(delete, path = "/webhooks/{id}", operation_id = "removeWebhook", tag = "webhooks", params(("id" = String, Path, description = "Which webhook.")), responses(
    (status = 200, body = Removed)))]
pub(crate) async fn remove(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(WebhookId(number)): Part<WebhookId>,
    _: Params<Nothing>,
) -> Result<Json<Removed>, Refusal> {
    server.app.manager.remove_webhook(&request, number).await?;
    Ok(Json(Removed { id: id(number) }))
}

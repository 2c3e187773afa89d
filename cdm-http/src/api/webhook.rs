//! Webhooks in API requests and responses. Only the response to the creation contains the signing key.

use cdm_core::domain::webhook::{self, DeliveryState, Topic};
use cdm_core::manager::NewWebhook;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::enums::{TopicName, WebhookState};
use super::time;
use crate::error::ApiError;
use crate::extract::Fields;

/// A webhook: a receiver of event messages.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The opaque id of the webhook.
    pub id: String,
    /// The URL that messages are sent to.
    pub url: String,
    /// The kinds of events that are sent.
    #[schema(value_type = Vec<TopicName>)]
    pub events: Vec<&'static str>,
    /// The actor who created the webhook.
    pub created_by: String,
    /// When the webhook was created.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Whether messages are delivered, retried or stopped.
    #[schema(value_type = WebhookState)]
    pub state: &'static str,
    /// The number of consecutive failed attempts.
    pub failures: u32,
    /// Why the last attempt failed, or why the webhook is stopped.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// When the next attempt is made; null unless the last attempt failed.
    #[schema(required = true, format = DateTime)]
    pub next_attempt_at: Option<String>,
    /// When the webhook was stopped; null if it is not stopped.
    #[schema(required = true, format = DateTime)]
    pub stopped_at: Option<String>,
}

impl std::fmt::Debug for Webhook {
    /// Omits the URL, which may contain a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// Formats the id of a webhook.
pub(crate) fn id(number: u64) -> String {
    format!("webhook-{number}")
}

/// Returns the number in the id of a webhook; `None` if the id is not valid.
pub(crate) fn number(id: &str) -> Option<u64> {
    let number = id.strip_prefix("webhook-")?.parse().ok()?;
    (self::id(number) == id).then_some(number)
}

impl From<&webhook::Webhook> for Webhook {
    fn from(webhook: &webhook::Webhook) -> Self {
        let (state, failures, reason, next, stopped) = match &webhook.standing {
            DeliveryState::Active => ("active", 0, None, None, None),
            DeliveryState::Failing { times, next, why, .. } => {
                ("failing", *times, Some(why), Some(*next), None)
            }
            DeliveryState::Stopped { at, why } => ("stopped", 0, Some(why), None, Some(*at)),
        };
        Self {
            id: id(webhook.number),
            url: webhook.url.clone(),
            events: webhook.topics.iter().map(|topic| topic.as_str()).collect(),
            created_by: webhook.by.to_string(),
            created_at: time(webhook.at),
            state,
            failures,
            reason: reason.cloned(),
            next_attempt_at: next.map(time),
            stopped_at: stopped.map(time),
        }
    }
}

/// A new webhook with its signing key.
#[derive(Clone, Serialize, ToSchema)]
pub struct MadeWebhook {
    /// The webhook without its key.
    #[serde(flatten)]
    pub record: Webhook,
    /// The signing key of the messages, `whsec_…`; no other response contains it.
    pub key: String,
}

impl MadeWebhook {
    pub(crate) fn new(record: &webhook::Webhook, key: &webhook::SigningKey) -> Self {
        Self { record: Webhook::from(record), key: key.text().expose_secret().to_owned() }
    }
}

impl std::fmt::Debug for MadeWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeWebhook").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A request to create a webhook.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateWebhook {
    /// The URL that messages are sent to: `https`, with a lower-case hostname that contains a dot. Private addresses are
    /// rejected unless the configuration of the server allows them.
    #[schema(min_length = 1, max_length = 1000)]
    pub url: String,
    /// The kinds of events to send. Default: the end of operations and rollouts, and the states in which they need a user.
    #[schema(value_type = Option<Vec<TopicName>>, min_items = 1, max_items = 15)]
    pub events: Option<Vec<String>>,
}

impl std::fmt::Debug for CreateWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateWebhook").field("events", &self.events).finish_non_exhaustive()
    }
}

impl CreateWebhook {
    pub(crate) fn parse(
        self,
        check_url: impl Fn(&str) -> Result<(), cdm_core::domain::NameError>,
    ) -> Result<NewWebhook, ApiError> {
        let mut fields = Fields::default();
        let url = fields.parse("url", check_url(&self.url));
        if self.events.as_ref().is_some_and(|events| events.is_empty() || events.len() > Topic::ALL.len()) {
            fields
                .reject("events", "the list must have 1 to 15 kinds of events; leave it out for the default");
        }
        let named = self.events.unwrap_or_default();
        let topics: Option<Vec<_>> =
            named.iter().map(|name| fields.parse("events", Topic::parse(name))).collect();
        let parsed = url.zip(topics).map(|((), topics)| NewWebhook { url: self.url, topics });
        fields.finish(parsed)
    }
}

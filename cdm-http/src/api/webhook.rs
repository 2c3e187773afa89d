//! A webhook on the wire; its key only once, when it is made.

use cdm_core::domain::webhook::{self, DeliveryState, Topic};
use cdm_core::manager::NewWebhook;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time;
use super::words::{TopicName, WebhookState};
use crate::error::Refusal;
use crate::input::Fields;

/// A receiver that is told what happens.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its opaque name.
    pub id: String,
    /// Where its messages go.
    pub url: String,
    /// What it is told.
    #[schema(value_type = Vec<TopicName>)]
    pub events: Vec<&'static str>,
    /// Who made it.
    pub created_by: String,
    /// When.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// How it stands.
    #[schema(value_type = WebhookState)]
    pub state: &'static str,
    /// How many attempts in a row have failed.
    pub failures: u32,
    /// Why the last attempt failed, or why it is stopped.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// When the next attempt is made, after one that failed.
    #[schema(required = true, format = DateTime)]
    pub next_attempt_at: Option<String>,
    /// Since when nothing is sent any more.
    #[schema(required = true, format = DateTime)]
    pub stopped_at: Option<String>,
}

impl std::fmt::Debug for Webhook {
    /// Without the address, which may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A webhook's id.
pub(crate) fn id(number: u64) -> String {
    format!("webhook-{number}")
}

/// The number of a webhook's id.
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

/// A webhook that was just made.
#[derive(Clone, Serialize, ToSchema)]
pub struct MadeWebhook {
    /// Its record.
    #[serde(flatten)]
    pub record: Webhook,
    /// What its messages are signed with, `whsec_…`; it is shown this once.
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

/// A webhook to make.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateWebhook {
    /// Where its messages go: `https`, a name with a dot in lower case, no address inside but those of the server's
    /// configuration.
    #[schema(min_length = 1, max_length = 1000)]
    pub url: String,
    /// What it is told; where it is left out: how operations and rollouts came to their end, and what stands still until
    /// somebody asks.
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
        judge: impl Fn(&str) -> Result<(), cdm_core::domain::NameError>,
    ) -> Result<NewWebhook, Refusal> {
        let mut fields = Fields::default();
        let judged = fields.take("url", judge(&self.url));
        if self.events.as_ref().is_some_and(|events| events.is_empty() || events.len() > Topic::ALL.len()) {
            fields.refuse("events", "from 1 to 15 events, or none named for the usual ones");
        }
        let named = self.events.unwrap_or_default();
        let topics: Option<Vec<_>> =
            named.iter().map(|name| fields.take("events", Topic::parse(name))).collect();
        let taken = judged.zip(topics).map(|((), topics)| NewWebhook { url: self.url, topics });
        fields.end(taken)
    }
}

//! Webhooks in API requests and responses. Only the response to the creation contains the signing key.

use cdm_core::domain::webhook::{self, DeliveryState};
use cdm_core::manager::NewWebhook;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ActorName, Fields, InvalidFields, Time, WebhookId, wire_enum};

wire_enum! {
    /// A kind of event that webhooks send.
    pub enum Topic {
        /// An operation was accepted.
        OperationQueued = "operation.queued",
        /// A worker runs a step of an operation.
        OperationRunning = "operation.running",
        /// An operation waits for a condition or its next attempt.
        OperationWaiting = "operation.waiting",
        /// An operation finished a step.
        OperationStep = "operation.step",
        /// An operation waits for a user.
        OperationParked = "operation.parked",
        /// An operation ended: every step has finished.
        OperationSucceeded = "operation.succeeded",
        /// An operation ended without success; the steps that have an undo were undone.
        OperationFailed = "operation.failed",
        /// An operation was canceled.
        OperationCancelled = "operation.cancelled",
        /// A rollout waits for the condition in its reason.
        RolloutWaiting = "rollout.waiting",
        /// A worker runs a rollout, or has granted it another window.
        RolloutRunning = "rollout.running",
        /// A rollout stopped on request or because it needs a user.
        RolloutPaused = "rollout.paused",
        /// A rollout stopped because a wave exceeded its budget.
        RolloutHalted = "rollout.halted",
        /// A rollout ended on request.
        RolloutAborted = "rollout.aborted",
        /// A rollout ended: every site has an outcome.
        RolloutSucceeded = "rollout.succeeded",
        /// A rollout ended: its deploy failed, or its sites were rolled back.
        RolloutFailed = "rollout.failed",
    }
}

impl From<&webhook::Topic> for Topic {
    fn from(topic: &webhook::Topic) -> Self {
        Self::from(topic.as_str())
    }
}

wire_enum! {
    /// The delivery state of a webhook; `failing` is retried, `stopped` is not.
    pub enum WebhookState {
        /// Messages are delivered.
        Active = "active",
        /// The last attempt failed, and is repeated.
        Failing = "failing",
        /// No messages are sent.
        Stopped = "stopped",
    }
}

/// A webhook: a receiver of event messages.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The opaque id of the webhook.
    pub id: WebhookId,
    /// The URL that messages are sent to.
    pub url: String,
    /// The kinds of events that are sent.
    pub events: Vec<Topic>,
    /// The actor who created the webhook.
    pub created_by: ActorName,
    /// When the webhook was created.
    pub created_at: Time,
    /// Whether messages are delivered, retried or stopped.
    pub state: WebhookState,
    /// The number of consecutive failed attempts.
    pub failures: u32,
    /// Why the last attempt failed, or why the webhook is stopped.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// When the next attempt is made; null unless the last attempt failed.
    #[schema(required = true)]
    pub next_attempt_at: Option<Time>,
    /// When the webhook was stopped; null if it is not stopped.
    #[schema(required = true)]
    pub stopped_at: Option<Time>,
}

impl std::fmt::Debug for Webhook {
    /// Omits the URL, which may contain a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

impl From<&webhook::Webhook> for Webhook {
    fn from(webhook: &webhook::Webhook) -> Self {
        let (state, failures, reason, next, stopped) = match &webhook.standing {
            DeliveryState::Active => (WebhookState::Active, 0, None, None, None),
            DeliveryState::Failing { times, next, why, .. } => {
                (WebhookState::Failing, *times, Some(why), Some(*next), None)
            }
            DeliveryState::Stopped { at, why } => (WebhookState::Stopped, 0, Some(why), None, Some(*at)),
        };
        Self {
            id: WebhookId::from_number(webhook.number),
            url: webhook.url.clone(),
            events: webhook.topics.iter().map(Topic::from).collect(),
            created_by: ActorName::from(&webhook.by),
            created_at: webhook.at.into(),
            state,
            failures,
            reason: reason.cloned(),
            next_attempt_at: next.map(Time),
            stopped_at: stopped.map(Time),
        }
    }
}

/// A new webhook with its signing key.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct MadeWebhook {
    /// The webhook without its key.
    #[serde(flatten)]
    pub record: Webhook,
    /// The signing key of the messages, `whsec_…`; no other response contains it.
    pub key: String,
}

impl MadeWebhook {
    /// Returns a new webhook as the API shows it, with its key.
    pub fn new(record: &webhook::Webhook, key: &webhook::SigningKey) -> Self {
        Self { record: Webhook::from(record), key: key.text().expose_secret().to_owned() }
    }
}

impl std::fmt::Debug for MadeWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeWebhook").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A request to create a webhook.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateWebhook {
    /// The URL that messages are sent to: `https`, with a lower-case hostname that contains a dot. Private addresses are
    /// rejected unless the configuration of the server allows them.
    #[schema(min_length = 1, max_length = 1000)]
    pub url: String,
    /// The kinds of events to send. Default: the end of operations and rollouts, and the states in which they need a user.
    #[schema(min_items = 1, max_items = 15)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Topic>>,
}

impl std::fmt::Debug for CreateWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateWebhook").field("events", &self.events).finish_non_exhaustive()
    }
}

impl CreateWebhook {
    /// Validates the request; `check_url` returns the rule that the URL breaks.
    ///
    /// # Errors
    /// The errors of all invalid fields.
    pub fn parse(
        self,
        check_url: impl Fn(&str) -> Result<(), cdm_core::domain::NameError>,
    ) -> Result<NewWebhook, InvalidFields> {
        let mut fields = Fields::default();
        let url = fields.parse("url", check_url(&self.url));
        if self
            .events
            .as_ref()
            .is_some_and(|events| events.is_empty() || events.len() > webhook::Topic::ALL.len())
        {
            fields
                .reject("events", "the list must have 1 to 15 kinds of events; leave it out for the default");
        }
        let named = self.events.unwrap_or_default();
        let topics: Option<Vec<_>> =
            named.iter().map(|name| fields.parse("events", webhook::Topic::parse(name.as_str()))).collect();
        let parsed = url.zip(topics).map(|((), topics)| NewWebhook { url: self.url, topics });
        fields.finish(parsed)
    }
}

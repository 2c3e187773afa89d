//! Delivery of messages to webhook receivers.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::FeedEvent;
use crate::domain::Timestamp;
use crate::domain::webhook::{SigningKey, Topic};

/// Sends messages to the receivers of webhooks.
#[async_trait]
pub trait WebhookSender: Send + Sync + fmt::Debug + 'static {
    /// Sends one message once, within ten seconds. Only `Ok`, which depends on the response's status alone,
    /// guarantees that the receiver has the message. After an error the receiver may have it too, so the message is
    /// sent again under the same id.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    async fn post(&self, message: &Message) -> Result<(), DeliveryError>;
}

/// A message to a receiver.
#[derive(Clone)]
pub struct Message {
    /// The receiver's URL, as the user wrote it.
    pub url: String,
    /// The id of the message, the same for every attempt; see [`crate::domain::webhook::message_id`].
    pub id: String,
    /// When this attempt begins.
    pub at: Timestamp,
    /// The key that signs the message.
    pub key: SigningKey,
    /// The topic of the message.
    pub topic: Topic,
    /// The event that the message reports.
    pub event: FeedEvent,
}

impl fmt::Debug for Message {
    /// Leaves out the URL, which may contain a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("at", &self.at).finish_non_exhaustive()
    }
}

/// Why a delivery failed or may have failed. The error contains no names or addresses, so that it can be shown to
/// users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The configuration does not allow the URL, or no longer allows it. Nothing was sent.
    #[error("the configuration does not allow the address")]
    NotAllowed,
    /// The hostname resolves to a non-public address. No connection was opened and nothing was sent.
    #[error("the hostname resolves to an internal address")]
    PrivateAddress,
    /// No connection could be established. Nothing was sent.
    #[error("{0}")]
    Unreachable(&'static str),
    /// The connection ended or the time limit passed before a response arrived.
    #[error("{0}")]
    NoAnswer(&'static str),
    /// The receiver rejected the message. A redirect also counts as a rejection.
    #[error("the receiver responded with status {status}")]
    Rejected {
        /// The HTTP status of the response.
        status: u16,
        /// The pause that the receiver requests with the header `Retry-After`, if any.
        retry_after: Option<Duration>,
    },
}

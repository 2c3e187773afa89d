//! Messages to receivers outside.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::FeedEvent;
use crate::domain::Timestamp;
use crate::domain::webhook::{SigningKey, Topic};

/// Sends messages to webhooks' receivers.
#[async_trait]
pub trait WebhookSender: Send + Sync + fmt::Debug + 'static {
    /// Sends one message, once, within ten seconds. A receiver has it for certain only after `Ok`, which its status alone
    /// decides; after an error it may have it too, so that it is sent again under the same id.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    async fn post(&self, message: &Message) -> Result<(), DeliveryError>;
}

/// One message.
#[derive(Clone)]
pub struct Message {
    /// The receiver's address, as it was written.
    pub url: String,
    /// The key of the transition.
    pub id: String,
    /// When this attempt begins.
    pub at: Timestamp,
    /// What it is signed with.
    pub key: SigningKey,
    /// What kind it is of.
    pub topic: Topic,
    /// What it tells.
    pub event: FeedEvent,
}

impl fmt::Debug for Message {
    /// Without the address, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("at", &self.at).finish_non_exhaustive()
    }
}

/// Why a message did not arrive, or may not have. Says nothing of names or addresses, so that it may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The address is none that a webhook may have, or not any more. Nothing was sent.
    #[error("the configuration does not allow the address")]
    NotAllowed,
    /// The name leads inside. Nothing was sent, nor was a connection opened.
    #[error("the name has an internal address")]
    PrivateAddress,
    /// No connection came about. Nothing was sent.
    #[error("{0}")]
    Unreachable(&'static str),
    /// The connection ended, or time was up, without an answer.
    #[error("{0}")]
    NoAnswer(&'static str),
    /// The receiver does not take it; redirects are among these.
    #[error("the receiver answers {status}")]
    Rejected {
        /// With which status.
        status: u16,
        /// How long it asks to be left alone (`Retry-After`), where it says so.
        retry_after: Option<Duration>,
    },
}

//! The webhooks' record: what each webhook subscribes to, and how far its messages have been delivered.

use std::fmt;
use std::time::Duration;

use super::Topic;
use crate::domain::name::NameError;
use crate::domain::{Actor, SecretKind, SecretName, Timestamp, Uid, WorkerId};

/// The pause after the first failed attempt. Each further failure doubles the pause.
const INITIAL_BACKOFF: Duration = Duration::from_secs(5);
/// The upper limit of the pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_hours(1);
/// A webhook stops once its attempts have failed for this long.
const GIVE_UP_AFTER: Duration = Duration::from_hours(3 * 24);

/// Every webhook, and the worker that sends the messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    /// The worker whose process sends messages. If two workers believe that they are the dispatcher, receivers get
    /// some messages twice.
    pub dispatcher: Option<WorkerId>,
    /// The webhooks, oldest first.
    pub list: Vec<Webhook>,
    /// The version of the record, raised by every write.
    pub version: u64,
}

/// A receiver, its subscriptions and the state of its deliveries.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The webhook's number, allocated like an operation's.
    pub number: u64,
    /// The uid under which the signing key is stored.
    pub uid: Uid,
    /// The URL that messages are sent to, as the caller wrote it; [`super::Receiver`] has accepted it.
    pub url: String,
    /// The topics that the webhook subscribes to.
    pub topics: Vec<Topic>,
    /// The actor that created the webhook.
    pub by: Actor,
    /// When the webhook was created.
    pub at: Timestamp,
    /// The number of the last feed event that needs no further delivery.
    pub cursor: u64,
    /// The state of deliveries.
    pub standing: DeliveryState,
}

/// The state of a webhook's deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeliveryState {
    /// The last message was delivered, or no message was sent yet.
    #[default]
    Active,
    /// The latest attempts failed; the webhook retries.
    Failing {
        /// The number of consecutive failures.
        times: u32,
        /// When the first of these attempts failed.
        since: Timestamp,
        /// When the next attempt is made.
        next: Timestamp,
        /// The error of the last attempt.
        why: String,
    },
    /// The webhook sends no messages any more.
    Stopped {
        /// When the webhook stopped.
        at: Timestamp,
        /// Why the webhook stopped.
        why: String,
    },
}

impl Webhook {
    /// Returns whether the webhook still sends messages.
    pub const fn is_live(&self) -> bool {
        !matches!(self.standing, DeliveryState::Stopped { .. })
    }

    /// Returns the name of the secret that holds the signing key.
    pub const fn key(&self) -> SecretName {
        SecretName { uid: self.uid, kind: SecretKind::Webhook }
    }

    /// Returns whether an attempt may be made at `now`.
    pub fn due(&self, now: Timestamp) -> bool {
        match &self.standing {
            DeliveryState::Active => true,
            DeliveryState::Failing { next, .. } => *next <= now || crate::bug!(WebhookImpatient),
            DeliveryState::Stopped { .. } => false,
        }
    }

    /// Returns whether the webhook subscribes to `topic`.
    pub fn wants(&self, topic: Topic) -> bool {
        self.topics.contains(&topic)
    }

    /// Advances the cursor to an event that needs no delivery. The cursor never moves backward.
    pub fn pass(&mut self, cursor: u64) {
        self.cursor = self.cursor.max(cursor);
    }

    /// Records that the event at `cursor` was delivered, and advances the cursor.
    pub fn mark_delivered(&mut self, cursor: u64) {
        self.pass(cursor);
        if matches!(self.standing, DeliveryState::Failing { .. }) {
            self.standing = DeliveryState::Active;
        }
    }

    /// Records a failed attempt. `retry_after` (the receiver's `Retry-After`) can lengthen the pause up to one hour,
    /// so that a receiver cannot suspend its webhook with a large value.
    pub fn failed(&mut self, now: Timestamp, why: String, retry_after: Option<Duration>) {
        let (previous, since) = match &self.standing {
            DeliveryState::Failing { times, since, .. } => (*times, *since),
            DeliveryState::Active => (0, now),
            DeliveryState::Stopped { .. } => return,
        };
        self.standing = if now.since(since) >= GIVE_UP_AFTER {
            DeliveryState::Stopped {
                at: now,
                why: format!("no message was delivered for three days; last error: {why}"),
            }
        } else {
            let pause =
                INITIAL_BACKOFF.saturating_mul(1 << previous.min(16)).max(retry_after.unwrap_or_default());
            let pause = pause.min(MAX_BACKOFF);
            DeliveryState::Failing { times: previous.saturating_add(1), since, next: now.after(pause), why }
        };
    }

    /// Stops the webhook; see [`DeliveryState::Stopped`].
    pub fn stop(&mut self, now: Timestamp, why: &str) {
        self.standing = DeliveryState::Stopped { at: now, why: why.to_owned() };
    }
}

impl fmt::Debug for Webhook {
    /// Leaves out the URL, which may contain a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("number", &self.number)
            .field("topics", &self.topics)
            .field("cursor", &self.cursor)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

impl Webhooks {
    /// The maximum number of webhooks.
    pub const MOST: usize = 20;

    /// Adds a webhook to the end of the list.
    ///
    /// # Errors
    /// Returns an error if the list already has [`Webhooks::MOST`] entries.
    pub fn add(&mut self, webhook: Webhook) -> Result<(), NameError> {
        if self.list.len() >= Self::MOST {
            let rule = "a platform has at most 20 webhooks; remove one first";
            return Err(NameError::new("a webhook", rule, ""));
        }
        self.list.push(webhook);
        Ok(())
    }

    /// Returns the webhook with this number.
    pub fn of(&self, number: u64) -> Option<&Webhook> {
        self.list.iter().find(|webhook| webhook.number == number)
    }

    /// Returns the webhook with this number for modification.
    pub fn of_mut(&mut self, number: u64) -> Option<&mut Webhook> {
        self.list.iter_mut().find(|webhook| webhook.number == number)
    }

    /// Returns whether a message may have to be sent, now or later.
    pub fn any_live(&self) -> bool {
        self.list.iter().any(Webhook::is_live)
    }
}

//! The webhooks' record: who is told what, and how far they have been told.

use std::fmt;
use std::time::Duration;

use super::Topic;
use crate::domain::name::NameError;
use crate::domain::{Actor, SecretKind, SecretName, Timestamp, Uid, WorkerId};

/// The pause after the first attempt that failed; each further one doubles it.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// After so long without a message that arrived a webhook is stopped.
const PATIENCE: Duration = Duration::from_hours(3 * 24);

/// Every webhook, and who brings the messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhooks {
    /// The worker whose process sends. Should two believe it of themselves, some messages come twice.
    pub dispatcher: Option<WorkerId>,
    /// The webhooks, oldest first.
    pub list: Vec<Webhook>,
    /// Grows with every write.
    pub version: u64,
}

/// A receiver, and what it is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its number, drawn like an operation's.
    pub number: u64,
    /// What its key is kept under.
    pub uid: Uid,
    /// Where its messages go, as [`super::Receiver`] took it.
    pub url: String,
    /// What it is told.
    pub topics: Vec<Topic>,
    /// Who asked for it.
    pub by: Actor,
    /// Since when.
    pub at: Timestamp,
    /// The feed's events up to this one need not be sent any more.
    pub cursor: u64,
    /// How it stands.
    pub standing: DeliveryState,
}

/// How a webhook stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeliveryState {
    /// The last message arrived, or there was none yet.
    #[default]
    Active,
    /// The last attempts failed.
    Failing {
        /// How many in a row.
        times: u32,
        /// When the first of them did.
        since: Timestamp,
        /// When the next one is made.
        next: Timestamp,
        /// Why the last one did.
        why: String,
    },
    /// Nothing is sent any more.
    Stopped {
        /// Since when.
        at: Timestamp,
        /// Why.
        why: String,
    },
}

impl Webhook {
    /// Whether it is still sent messages.
    pub const fn is_live(&self) -> bool {
        !matches!(self.standing, DeliveryState::Stopped { .. })
    }

    /// The name of its key.
    pub const fn key(&self) -> SecretName {
        SecretName { uid: self.uid, kind: SecretKind::Webhook }
    }

    /// Whether a message may be sent now.
    pub fn due(&self, now: Timestamp) -> bool {
        match &self.standing {
            DeliveryState::Active => true,
            DeliveryState::Failing { next, .. } => *next <= now || crate::bug!(WebhookImpatient),
            DeliveryState::Stopped { .. } => false,
        }
    }

    /// Whether it is told of that.
    pub fn wants(&self, topic: Topic) -> bool {
        self.topics.contains(&topic)
    }

    /// The events up to `place` are none of its topics.
    pub fn pass(&mut self, cursor: u64) {
        self.cursor = self.cursor.max(cursor);
    }

    /// The event at `place` has arrived.
    pub fn mark_delivered(&mut self, cursor: u64) {
        self.pass(cursor);
        if matches!(self.standing, DeliveryState::Failing { .. }) {
            self.standing = DeliveryState::Active;
        }
    }

    /// Another attempt failed. The receiver may ask for a longer pause than the usual one; it is given at most the
    /// longest, so that nobody stops a webhook by a large number.
    pub fn failed(&mut self, now: Timestamp, why: String, retry_after: Option<Duration>) {
        let (before, since) = match &self.standing {
            DeliveryState::Failing { times, since, .. } => (*times, *since),
            DeliveryState::Active => (0, now),
            DeliveryState::Stopped { .. } => return,
        };
        self.standing = if now.since(since) >= PATIENCE {
            DeliveryState::Stopped {
                at: now,
                why: format!("no message arrived for three days; at last: {why}"),
            }
        } else {
            let pause = PAUSE.saturating_mul(1 << before.min(16)).max(retry_after.unwrap_or_default());
            let pause = pause.min(LONGEST_PAUSE);
            DeliveryState::Failing { times: before.saturating_add(1), since, next: now.after(pause), why }
        };
    }

    /// Ends it as [`DeliveryState::Stopped`].
    pub fn stop(&mut self, now: Timestamp, why: &str) {
        self.standing = DeliveryState::Stopped { at: now, why: why.to_owned() };
    }
}

impl fmt::Debug for Webhook {
    /// Without the address, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("number", &self.number)
            .field("topics", &self.topics)
            .field("place", &self.cursor)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

impl Webhooks {
    /// How many there may be.
    pub const MOST: usize = 20;

    /// Adds a webhook.
    ///
    /// # Errors
    /// More than [`Webhooks::MOST`].
    pub fn add(&mut self, webhook: Webhook) -> Result<(), NameError> {
        if self.list.len() >= Self::MOST {
            let rule = "there are at most 20 webhooks; remove one first";
            return Err(NameError::new("a webhook", rule, ""));
        }
        self.list.push(webhook);
        Ok(())
    }

    /// The webhook of that number.
    pub fn of(&self, number: u64) -> Option<&Webhook> {
        self.list.iter().find(|webhook| webhook.number == number)
    }

    /// The webhook of that number, to be changed.
    pub fn of_mut(&mut self, number: u64) -> Option<&mut Webhook> {
        self.list.iter_mut().find(|webhook| webhook.number == number)
    }

    /// Whether something may have to be sent, now or later.
    pub fn any_live(&self) -> bool {
        self.list.iter().any(Webhook::is_live)
    }
}

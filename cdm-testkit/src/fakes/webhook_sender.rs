//! An in-memory webhook sender with scripted receivers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cdm_core::ports::{DeliveryError, Message, WebhookSender};

/// Delivers messages to receivers in memory. Clones share one sender.
#[derive(Clone, Debug, Default)]
pub struct FakeWebhookSender(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    sent: Vec<Message>,
    behaviors: HashMap<String, ReceiverBehavior>,
}

/// How a receiver handles messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverBehavior {
    /// The receiver rejects each message with this error.
    Rejects(DeliveryError),
    /// The receiver accepts each message, and its response is lost.
    LosesResponse,
    /// The receiver never responds.
    Hangs,
}

impl FakeWebhookSender {
    /// Sets the behavior of the receiver at this URL. With `None`, the receiver accepts everything.
    pub fn set_receiver(&self, url: &str, behavior: Option<ReceiverBehavior>) {
        match behavior {
            Some(behavior) => self.lock().behaviors.insert(url.to_owned(), behavior),
            None => self.lock().behaviors.remove(url),
        };
    }

    /// Returns the messages sent to this URL, whether or not the receiver accepted them, in order.
    pub fn sent(&self, url: &str) -> Vec<Message> {
        self.lock().sent.iter().filter(|message| message.url == url).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl WebhookSender for FakeWebhookSender {
    async fn post(&self, message: &Message) -> Result<(), DeliveryError> {
        let behavior = {
            let mut state = self.lock();
            state.sent.push(message.clone());
            state.behaviors.get(&message.url).copied()
        };
        match behavior {
            None => Ok(()),
            Some(ReceiverBehavior::Rejects(error)) => Err(error),
            Some(ReceiverBehavior::LosesResponse) => Err(DeliveryError::NoAnswer("the response timed out")),
            Some(ReceiverBehavior::Hangs) => std::future::pending().await,
        }
    }
}

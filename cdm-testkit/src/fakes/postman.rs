//! A postman in memory, with receivers that say what they are told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cdm_core::ports::{DeliveryError, Message, WebhookSender};

/// Brings messages to receivers in memory; clones are the same postman.
#[derive(Clone, Debug, Default)]
pub struct FakePostman(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    brought: Vec<Message>,
    answers: HashMap<String, Answer>,
}

/// How a receiver takes what it is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does not.
    Refuses(DeliveryError),
    /// It has the message, and its answer is lost.
    Loses,
    /// It never answers.
    Hangs,
}

impl FakePostman {
    /// From now on the receiver of that address does so; `None`: it takes everything.
    pub fn answer(&self, url: &str, answer: Option<Answer>) {
        match answer {
            Some(answer) => self.lock().answers.insert(url.to_owned(), answer),
            None => self.lock().answers.remove(url),
        };
    }

    /// What the receiver of that address was brought, whether it took it or not, in order.
    pub fn brought(&self, url: &str) -> Vec<Message> {
        self.lock().brought.iter().filter(|message| message.url == url).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl WebhookSender for FakePostman {
    async fn post(&self, message: &Message) -> Result<(), DeliveryError> {
        let answer = {
            let mut state = self.lock();
            state.brought.push(message.clone());
            state.answers.get(&message.url).copied()
        };
        match answer {
            None => Ok(()),
            Some(Answer::Refuses(undelivered)) => Err(undelivered),
            Some(Answer::Loses) => Err(DeliveryError::NoAnswer("no answer in time")),
            Some(Answer::Hangs) => std::future::pending().await,
        }
    }
}

//! Webhooks of the simulated platform.

use std::sync::Arc;

use cdm_core::domain::webhook::{SigningKey, Topic, Webhook};
use cdm_core::engine::WebhookDispatcher;
use cdm_core::manager::{ManagerError, NewWebhook};

use super::World;
use crate::fakes::FakePostman;

impl World {
    /// A courier of the process that runs now.
    pub fn dispatcher(&self, postman: &FakePostman) -> Arc<WebhookDispatcher> {
        Arc::new(WebhookDispatcher::new(Arc::clone(&self.process.worker), Arc::new(postman.clone())))
    }

    /// Makes a webhook that is told of these topics, or of the usual ones.
    ///
    /// # Errors
    /// The services' refusal.
    pub fn hook(&mut self, url: &str, topics: &[Topic]) -> Result<(Webhook, SigningKey), ManagerError> {
        let wanted = NewWebhook { url: url.to_owned(), topics: topics.to_vec() };
        self.ask(move |manager, request| {
            let wanted = wanted.clone();
            Box::pin(async move { manager.create_webhook(&request, &wanted).await })
        })
    }
}

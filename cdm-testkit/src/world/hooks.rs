//! Webhooks of the simulated platform.

use std::sync::Arc;

use cdm_core::domain::webhook::{SigningKey, Topic, Webhook};
use cdm_core::engine::Courier;
use cdm_core::services::{NewWebhook, ServiceError};

use super::World;
use crate::fakes::FakePostman;

impl World {
    /// A courier of the process that runs now.
    pub fn courier(&self, postman: &FakePostman) -> Arc<Courier> {
        Arc::new(Courier::new(Arc::clone(&self.process.worker), Arc::new(postman.clone())))
    }

    /// Makes a webhook that is told of these topics, or of the usual ones.
    ///
    /// # Errors
    /// The services' refusal.
    pub fn hook(&mut self, url: &str, topics: &[Topic]) -> Result<(Webhook, SigningKey), ServiceError> {
        let wanted = NewWebhook { url: url.to_owned(), topics: topics.to_vec() };
        self.ask(move |services, request| {
            let wanted = wanted.clone();
            Box::pin(async move { services.create_webhook(&request, &wanted).await })
        })
    }
}

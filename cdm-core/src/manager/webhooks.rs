//! Creates, removes and lists webhooks.

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::submit::Decision;
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::webhook::{DeliveryState, Receiver, SigningKey, Topic, Webhook};
use crate::domain::{Canonical, NameError};
use crate::engine::Backoff;
use crate::ports::{Credentials, ErrorKind, Mutation, Outcome, PortError, StoredSecret, WriteBatch};

/// The maximum number of attempts of a secret store call.
const TRIES: u32 = 5;

/// A webhook to create.
#[derive(Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// The URL to send messages to.
    pub url: String,
    /// The topics to subscribe to. An empty list subscribes to [`Topic::usual`].
    pub topics: Vec<Topic>,
}

impl std::fmt::Debug for NewWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewWebhook").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl Manager {
    /// Creates a webhook, which receives events from now on, and returns its signing key. A repetition under the same
    /// idempotency key returns the same key, and stores the key if the first attempt stopped before it did.
    ///
    /// # Errors
    /// Returns `invalid` for a URL that is not allowed, and if there are too many webhooks.
    pub async fn create_webhook(
        &self,
        request: &Request,
        new: &NewWebhook,
    ) -> Result<(Webhook, SigningKey), ManagerError> {
        let mut topics = if new.topics.is_empty() { Topic::usual() } else { new.topics.clone() };
        topics.sort_unstable();
        topics.dedup();
        let content = Canonical::new().field("url", &new.url).list("topics", &topics);
        let accepted = self
            .submit(request, Action::CreateWebhook, "webhooks", &content, || async {
                self.may_receive(&new.url)?;
                let mut webhooks = self.ports.store.webhooks().await?;
                let cursor = self.ports.store.last_event().await?.unwrap_or(0);
                let number = self.number().await?;
                let now = self.now();
                webhooks.add(Webhook {
                    number,
                    uid: self.ports.entropy.uid(now),
                    url: new.url.clone(),
                    topics: topics.clone(),
                    by: request.actor.clone(),
                    at: now,
                    cursor,
                    standing: DeliveryState::Active,
                })?;
                let batch = WriteBatch::of(vec![Mutation::Webhooks(Box::new(webhooks))]);
                Ok(Decision { batch, accepted: Accepted::Webhook(number) })
            })
            .await?;
        let Accepted::Webhook(number) = accepted else { return Err(ManagerError::Contended) };
        let webhooks = self.ports.store.webhooks().await?;
        let webhook = webhooks.of(number).cloned().ok_or_else(|| no_webhook(number))?;
        let key = self.signing_key(&webhook).await?;
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.wake();
        }
        Ok((webhook, key))
    }

    /// Removes a webhook. Its signing key is deleted first, so that no key remains without a webhook.
    ///
    /// # Errors
    /// Returns `not_found` if the webhook does not exist.
    pub async fn remove_webhook(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.submit(
            request,
            Action::RemoveWebhook,
            &format!("webhook-{number}"),
            &Canonical::new(),
            || async {
                let mut webhooks = self.ports.store.webhooks().await?;
                let webhook = webhooks.of(number).ok_or_else(|| no_webhook(number))?;
                let name = webhook.key();
                let delete_key = || async { self.ports.secrets.schedule_delete(&self.call(), &name).await };
                self.until_applied(delete_key).await?;
                webhooks.list.retain(|webhook| webhook.number != number);
                let batch = WriteBatch::of(vec![Mutation::Webhooks(Box::new(webhooks))]);
                Ok(Decision { batch, accepted: Accepted::Done })
            },
        )
        .await
    }

    /// Checks whether a webhook may use a URL.
    ///
    /// # Errors
    /// Returns the rule that the URL breaks.
    pub fn may_receive(&self, url: &str) -> Result<(), NameError> {
        Receiver::parse(url, &self.receivers).map(drop)
    }

    /// Returns every webhook, oldest first.
    ///
    /// # Errors
    /// Returns `forbidden`, or an error if the store is unavailable.
    pub async fn webhooks(&self, request: &Request) -> Result<Vec<Webhook>, ManagerError> {
        self.authorize(request, Action::ReadWebhooks, "webhooks").await?;
        Ok(self.ports.store.webhooks().await?.list)
    }

    /// Returns a webhook's signing key. If none is stored, generates and stores one.
    async fn signing_key(&self, webhook: &Webhook) -> Result<SigningKey, ManagerError> {
        let name = webhook.key();
        let generated = Sha256::digest(self.ports.entropy.password().expose_secret().as_bytes());
        let generated = SigningKey::new(&generated.into());
        let value = Credentials::Webhook(generated.clone());
        for _ in 0..TRIES {
            match self.ports.secrets.read(&name).await? {
                Some(StoredSecret::Value(Credentials::Webhook(key))) => return Ok(key),
                Some(StoredSecret::Value(_) | StoredSecret::Deleting) => {
                    return Err(no_webhook(webhook.number));
                }
                None => {}
            }
            let create = || async {
                match self.ports.secrets.create(&self.call(), &name, &value).await {
                    Outcome::NotApplied(error) if error.kind == ErrorKind::Exists => Outcome::Applied(false),
                    Outcome::NotApplied(error) => Outcome::NotApplied(error),
                    Outcome::Unknown(error) => Outcome::Unknown(error),
                    Outcome::Applied(()) => Outcome::Applied(true),
                }
            };
            if self.until_applied(create).await? {
                return Ok(generated);
            }
        }
        Err(ManagerError::Unknown)
    }

    /// Repeats an idempotent call of the secret store until it is applied.
    pub(super) async fn until_applied<T, F, Fut>(&self, call: F) -> Result<T, ManagerError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Outcome<T>> + Send,
        T: Send,
    {
        let mut last = None::<PortError>;
        let mut backoff = Backoff::of(&self.settings);
        for _ in 0..TRIES {
            match call().await {
                Outcome::Applied(applied) => return Ok(applied),
                Outcome::NotApplied(error) if !error.is_retryable() => return Err(error.into()),
                // A repetition does not free space.
                Outcome::NotApplied(error) | Outcome::Unknown(error) if error.kind == ErrorKind::Full => {
                    return Err(error.into());
                }
                Outcome::NotApplied(error) | Outcome::Unknown(error) => last = Some(error),
            }
            backoff.wait(&*self.ports.clock).await;
        }
        Err(last.map_or(ManagerError::Unknown, Into::into))
    }
}

fn no_webhook(number: u64) -> ManagerError {
    ManagerError::NotFound { what: format!("the webhook {number}") }
}

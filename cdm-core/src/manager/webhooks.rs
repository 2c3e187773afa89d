//! What may be asked of webhooks.

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::submit::Decision;
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::webhook::{DeliveryState, Receiver, SigningKey, Topic, Webhook};
use crate::domain::{Canonical, NameError};
use crate::ports::{Credentials, ErrorKind, Mutation, Outcome, PortError, StoredSecret, WriteBatch};

/// How often the secret store is asked again.
const TRIES: u32 = 5;

/// A webhook to be made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// Where its messages go.
    pub url: String,
    /// What it is told; none for [`Topic::usual`].
    pub topics: Vec<Topic>,
}

impl std::fmt::Debug for NewWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewWebhook").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl Manager {
    /// Tells a receiver of what happens from now on. Its key is answered this once; a repetition under the request's key
    /// answers it again, and makes up for a first attempt that stopped before it was stored.
    ///
    /// # Errors
    /// `invalid` for an address that no webhook may have, or one webhook too many.
    pub async fn create_webhook(
        &self,
        request: &Request,
        wanted: &NewWebhook,
    ) -> Result<(Webhook, SigningKey), ManagerError> {
        let mut topics = if wanted.topics.is_empty() { Topic::usual() } else { wanted.topics.clone() };
        topics.sort_unstable();
        topics.dedup();
        let content = Canonical::new().field("url", &wanted.url).list("topics", &topics);
        let accepted = self
            .submit(request, Action::CreateWebhook, "webhooks", &content, || async {
                self.may_receive(&wanted.url)?;
                let mut webhooks = self.ports.store.webhooks().await?;
                let cursor = self.ports.store.last_event().await?.unwrap_or(0);
                let number = self.number().await?;
                let now = self.now();
                webhooks.add(Webhook {
                    number,
                    uid: self.ports.entropy.uid(now),
                    url: wanted.url.clone(),
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

    /// Tells a receiver nothing any more. Its key goes first, so that none is left without its webhook.
    ///
    /// # Errors
    /// `not_found`.
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
                let closed = || async { self.ports.secrets.schedule_delete(&self.call(), &name).await };
                self.until_applied(closed).await?;
                webhooks.list.retain(|webhook| webhook.number != number);
                let batch = WriteBatch::of(vec![Mutation::Webhooks(Box::new(webhooks))]);
                Ok(Decision { batch, accepted: Accepted::Done })
            },
        )
        .await
    }

    /// Whether a webhook may have that address.
    ///
    /// # Errors
    /// Why not.
    pub fn may_receive(&self, url: &str) -> Result<(), NameError> {
        Receiver::parse(url, &self.receivers).map(drop)
    }

    /// Every webhook, oldest first.
    ///
    /// # Errors
    /// `forbidden`; when the store does not answer.
    pub async fn webhooks(&self, request: &Request) -> Result<Vec<Webhook>, ManagerError> {
        self.authorize(request, Action::ReadWebhooks, "webhooks").await?;
        Ok(self.ports.store.webhooks().await?.list)
    }

    /// A webhook's key: the stored one, or one that is drawn and stored now.
    async fn signing_key(&self, webhook: &Webhook) -> Result<SigningKey, ManagerError> {
        let name = webhook.key();
        let drawn = Sha256::digest(self.ports.entropy.password().expose_secret().as_bytes());
        let drawn = SigningKey::new(&drawn.into());
        let value = Credentials::Webhook(drawn.clone());
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
                return Ok(drawn);
            }
        }
        Err(ManagerError::Unknown)
    }

    /// Makes a call of the secret store that may be repeated until it is applied.
    pub(super) async fn until_applied<T, F, Fut>(&self, call: F) -> Result<T, ManagerError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Outcome<T>> + Send,
        T: Send,
    {
        let mut last = None::<PortError>;
        let mut pause = self.settings.pause;
        for _ in 0..TRIES {
            match call().await {
                Outcome::Applied(applied) => return Ok(applied),
                Outcome::NotApplied(error) if !error.is_retryable() => return Err(error.into()),
                // Repeated attempts free no space.
                Outcome::NotApplied(error) | Outcome::Unknown(error) if error.kind == ErrorKind::Full => {
                    return Err(error.into());
                }
                Outcome::NotApplied(error) | Outcome::Unknown(error) => last = Some(error),
            }
            let clock = &self.ports.clock;
            clock.sleep_until(clock.monotonic().after(pause)).await;
            pause = (pause * 2).min(self.settings.longest_pause);
        }
        Err(last.map_or(ManagerError::Unknown, Into::into))
    }
}

fn no_webhook(number: u64) -> ManagerError {
    ManagerError::NotFound { what: format!("the webhook {number}") }
}

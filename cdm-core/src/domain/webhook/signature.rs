//! Signatures by the Standard Webhooks specification, version 1: `v1,` and the HMAC-SHA256 of id, time and body.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::domain::Timestamp;
use crate::domain::name::NameError;

/// The key that both sides have: `whsec_` and 24 to 64 bytes in Base64.
#[derive(Clone)]
pub struct SigningKey(SecretString);

impl SigningKey {
    const BEGINNING: &str = "whsec_";

    /// The key of these bytes; 32 is what is drawn for a new webhook.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(format!("{}{}", Self::BEGINNING, STANDARD.encode(bytes)).into())
    }

    /// Takes a key that was kept.
    ///
    /// # Errors
    /// What is none. The error does not repeat it.
    pub fn parse(text: SecretString) -> Result<Self, NameError> {
        match Self::bytes(text.expose_secret()) {
            Some(_) => Ok(Self(text)),
            None => {
                Err(NameError::new("a webhook's key", "a key is `whsec_` and 24 to 64 bytes in Base64", ""))
            }
        }
    }

    /// The key's text, to be kept in the store of secrets and to be shown once.
    pub const fn text(&self) -> &SecretString {
        &self.0
    }

    /// The value of `webhook-signature` for a message; `id` and `at` go into `webhook-id` and, in whole seconds, into
    /// `webhook-timestamp`.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let key = Self::bytes(self.0.expose_secret()).unwrap_or_default();
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
            unreachable!("HMAC takes keys of every length")
        };
        mac.update(format!("{id}.{}.", at.millis() / 1_000).as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    fn bytes(text: &str) -> Option<Vec<u8>> {
        let bytes = STANDARD.decode(text.strip_prefix(Self::BEGINNING)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// The key of a transition at a receiver: the same in every attempt, from every replica, for ever.
pub fn message_id(webhook: u64, event: u64) -> String {
    format!("msg-{webhook}-{event}")
}

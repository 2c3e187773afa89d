//! Signatures by the Standard Webhooks specification, version 1: `v1,` and the HMAC-SHA256 of id, timestamp and body.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::domain::Timestamp;
use crate::domain::name::NameError;

/// A signing key that CDM and the receiver share: `whsec_` and 24 to 64 bytes in Base64.
///
/// A receiver verifies a message by computing the signature of the headers `webhook-id` and `webhook-timestamp` and
/// the raw body, and comparing it with `webhook-signature`:
///
/// ```
/// use cdm_core::domain::Timestamp;
/// use cdm_core::domain::webhook::SigningKey;
///
/// let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into())?;
/// let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
/// let expected = key.sign(id, Timestamp::from_millis(timestamp * 1_000), body.as_bytes());
/// assert_eq!(expected, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
/// # Ok::<(), cdm_core::domain::NameError>(())
/// ```
#[derive(Clone)]
pub struct SigningKey(SecretString);

impl SigningKey {
    const PREFIX: &str = "whsec_";

    /// Creates the key of these bytes. New webhooks use 32 random bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(format!("{}{}", Self::PREFIX, STANDARD.encode(bytes)).into())
    }

    /// Parses the text of a stored key.
    ///
    /// # Errors
    /// Returns an error if the text is not a key. The error does not contain the text.
    pub fn parse(text: SecretString) -> Result<Self, NameError> {
        match Self::bytes(text.expose_secret()) {
            Some(_) => Ok(Self(text)),
            None => {
                Err(NameError::new("a webhook's key", "a key is `whsec_` and 24 to 64 bytes in Base64", ""))
            }
        }
    }

    /// Returns the key's text, which is stored in the secret store and shown to the user once.
    pub const fn text(&self) -> &SecretString {
        &self.0
    }

    /// Returns the value of the header `webhook-signature` for a message. `id` is the value of `webhook-id`; `at`, in
    /// whole seconds, is the value of `webhook-timestamp`.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let key = Self::bytes(self.0.expose_secret()).unwrap_or_default();
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
            unreachable!("HMAC accepts keys of every length")
        };
        mac.update(format!("{id}.{}.", at.millis() / 1_000).as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    fn bytes(text: &str) -> Option<Vec<u8>> {
        let bytes = STANDARD.decode(text.strip_prefix(Self::PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// Returns the id of the message for an event at a webhook. Every attempt of every replica uses the same id, so that
/// a receiver can detect repetitions.
pub fn message_id(webhook: u64, event: u64) -> String {
    format!("msg-{webhook}-{event}")
}

//! Credentials.

use std::fmt;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{CallContext, Outcome, PortError};
use crate::domain::SecretName;
use crate::domain::webhook::SigningKey;

/// Keeps credentials.
///
/// The stored secret is the password's log: a password is used only after it was read back from here, so a database
/// can never have one that is lost.
#[async_trait]
pub trait SecretStore: Send + Sync + fmt::Debug + 'static {
    /// Stores `value` under `name`, which holds nothing yet.
    ///
    /// Atomic. Never overwrites: of two creates of one name exactly one is applied.
    ///
    /// # Errors
    /// `Exists` when the name holds a value of the same uid; `Gone` when it was scheduled for deletion; `Foreign` when
    /// it holds something that CDM did not put there.
    async fn create(&self, call: &CallContext, name: &SecretName, value: &Credentials) -> Outcome<()>;

    /// What `name` holds now; `None` when nothing was ever stored. May lag behind a create by moments.
    ///
    /// # Errors
    /// `Foreign` when it holds something that CDM did not put there.
    async fn read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError>;

    /// Makes `name` unreadable now and deletes it when the store's recovery window (7 days) ends.
    ///
    /// Idempotent: a second call neither fails nor moves the end of the window. Final: from here on a create under
    /// `name` is refused as `Gone`, also where nothing had been stored, so that a late create cannot leave a secret
    /// behind.
    async fn schedule_delete(&self, call: &CallContext, name: &SecretName) -> Outcome<()>;
}

/// What a secret's name holds.
#[derive(Clone, Debug)]
pub enum StoredSecret {
    /// A value.
    Value(Credentials),
    /// A value in its recovery window: not readable.
    Deleting,
}

/// What is kept secret: credentials in the shapes that the WordPress image reads, and keys.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Of a site's database.
    Database(Database),
    /// Of a site's WordPress administrator.
    Cms(Cms),
    /// Of a webhook.
    Webhook(SigningKey),
    /// Of the platform: what people's second factors are sealed with.
    Sealing(SecretString),
}

impl Credentials {
    /// The password or key, to be handed to the thing that checks it and to nothing else.
    pub fn password(&self) -> &SecretString {
        match self {
            Self::Database(database) => &database.password,
            Self::Cms(cms) => &cms.password,
            Self::Webhook(key) => key.text(),
            Self::Sealing(key) => key,
        }
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        let same_rest = match (self, other) {
            (Self::Database(a), Self::Database(b)) => {
                (&a.host, a.port, &a.dbname, &a.username) == (&b.host, b.port, &b.dbname, &b.username)
            }
            (Self::Cms(a), Self::Cms(b)) => (&a.username, &a.email) == (&b.username, &b.email),
            (Self::Webhook(_), Self::Webhook(_)) | (Self::Sealing(_), Self::Sealing(_)) => true,
            (Self::Database(_) | Self::Cms(_) | Self::Webhook(_) | Self::Sealing(_), _) => false,
        };
        same_rest && self.password().expose_secret() == other.password().expose_secret()
    }
}

/// `{host, port, dbname, username, password}`.
#[derive(Clone, Debug)]
pub struct Database {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub dbname: String,
    /// The user, at most 32 characters.
    pub username: String,
    /// The user's password.
    pub password: SecretString,
}

/// `{username, password, email}`.
#[derive(Clone, Debug)]
pub struct Cms {
    /// The administrator's name.
    pub username: String,
    /// The administrator's password.
    pub password: SecretString,
    /// The administrator's address.
    pub email: String,
}

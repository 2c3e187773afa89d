//! The port for the credentials of sites and the keys of the platform.

use std::fmt;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{CallContext, Outcome, PortError};
use crate::domain::SecretName;
use crate::domain::webhook::SigningKey;

/// Stores credentials and keys.
///
/// A password is used only after it was read back from this store, so that no database has a password that is lost.
#[async_trait]
pub trait SecretStore: Send + Sync + fmt::Debug + 'static {
    /// Stores `value` under an unused `name`.
    ///
    /// The call is atomic and never overwrites. Of two creates with the same name, exactly one is applied.
    ///
    /// # Errors
    /// Returns `Exists` if the name has a value of the same uid, `Gone` if the name was scheduled for deletion, and
    /// `Foreign` if the name has a value that CDM did not create.
    async fn create(&self, call: &CallContext, name: &SecretName, value: &Credentials) -> Outcome<()>;

    /// Returns the value of `name`; `None` if no value was ever stored. The result may lag behind a create by
    /// moments.
    ///
    /// # Errors
    /// Returns `Foreign` if the name has a value that CDM did not create.
    async fn read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError>;

    /// Makes `name` unreadable immediately and deletes it at the end of the store's recovery window (7 days).
    ///
    /// The call is idempotent: a repetition succeeds and does not change the end of the window. The call is final: a
    /// later create of `name` returns `Gone`, even if no value was stored before, so that a late create cannot leave
    /// a secret behind.
    async fn schedule_delete(&self, call: &CallContext, name: &SecretName) -> Outcome<()>;
}

/// The content of a secret's name.
#[derive(Clone, Debug)]
pub enum StoredSecret {
    /// A value that can be read.
    Value(Credentials),
    /// A value in its recovery window, which is not readable.
    Deleting,
}

/// A secret value: credentials in the format that the WordPress image reads, or a key.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The credentials of a site's database.
    Database(Database),
    /// The credentials of a site's WordPress administrator.
    Cms(Cms),
    /// The signing key of a webhook.
    Webhook(SigningKey),
    /// The platform's key, which encrypts users' second factors.
    Sealing(SecretString),
}

impl Credentials {
    /// Returns the password or key. Callers pass it only to the component that verifies it.
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

/// The credentials of a site's database: `{host, port, dbname, username, password}`.
#[derive(Clone, Debug)]
pub struct Database {
    /// The host of the database server.
    pub host: String,
    /// The port of the database server.
    pub port: u16,
    /// The name of the database.
    pub dbname: String,
    /// The name of the database user, at most 32 characters.
    pub username: String,
    /// The password of the database user.
    pub password: SecretString,
}

/// The credentials of a WordPress administrator: `{username, password, email}`.
#[derive(Clone, Debug)]
pub struct Cms {
    /// The username that the administrator signs in with.
    pub username: String,
    /// The password of the administrator.
    pub password: SecretString,
    /// The email address of the administrator.
    pub email: String,
}

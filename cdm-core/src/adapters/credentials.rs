//! Credentials as JSON: databases and WordPress users in the format that the WordPress image reads, keys in a separate
//! format.

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::domain::SecretKind;
use crate::domain::webhook::SigningKey;
use crate::ports::{Cms, Credentials, Database};

#[derive(Serialize, Deserialize)]
struct DatabaseForm<T> {
    host: T,
    port: u16,
    dbname: T,
    username: T,
    password: T,
}

#[derive(Serialize, Deserialize)]
struct CmsForm<T> {
    username: T,
    password: T,
    email: T,
}

#[derive(Serialize, Deserialize)]
struct KeyForm<T> {
    key: T,
}

/// Serializes credentials to JSON; `None` if they are not of the given kind.
pub(super) fn write(kind: SecretKind, value: &Credentials) -> Option<Zeroizing<Vec<u8>>> {
    // The capacity is large enough that the buffer is never reallocated, which would leave a copy of the secret in
    // memory.
    let mut plain = Zeroizing::new(Vec::with_capacity(4096));
    let password = value.password().expose_secret();
    let written = match (kind, value) {
        (
            SecretKind::Database,
            Credentials::Database(Database { host, port, dbname, username, password: _ }),
        ) => {
            let form = DatabaseForm { host: host.as_str(), port: *port, dbname, username, password };
            serde_json::to_writer(&mut *plain, &form)
        }
        (SecretKind::Cms, Credentials::Cms(Cms { username, password: _, email })) => {
            serde_json::to_writer(&mut *plain, &CmsForm { username: username.as_str(), password, email })
        }
        (SecretKind::Webhook, Credentials::Webhook(_)) | (SecretKind::Sealing, Credentials::Sealing(_)) => {
            serde_json::to_writer(&mut *plain, &KeyForm { key: password })
        }
        (SecretKind::Database | SecretKind::Cms | SecretKind::Webhook | SecretKind::Sealing, _) => {
            return None;
        }
    };
    written.ok().map(|()| plain)
}

/// Parses credentials of the given kind from JSON; `None` if the JSON does not hold them.
pub(super) fn read(kind: SecretKind, plain: &[u8]) -> Option<Credentials> {
    match kind {
        SecretKind::Database => {
            let DatabaseForm { host, port, dbname, username, password } =
                serde_json::from_slice(plain).ok()?;
            let password = SecretString::from(password);
            Some(Credentials::Database(Database { host, port, dbname, username, password }))
        }
        SecretKind::Cms => {
            let CmsForm { username, password, email } = serde_json::from_slice(plain).ok()?;
            Some(Credentials::Cms(Cms { username, password: SecretString::from(password), email }))
        }
        SecretKind::Webhook => {
            let KeyForm { key } = serde_json::from_slice::<KeyForm<String>>(plain).ok()?;
            SigningKey::parse(SecretString::from(key)).ok().map(Credentials::Webhook)
        }
        SecretKind::Sealing => {
            let KeyForm { key } = serde_json::from_slice::<KeyForm<String>>(plain).ok()?;
            Some(Credentials::Sealing(SecretString::from(key)))
        }
    }
}

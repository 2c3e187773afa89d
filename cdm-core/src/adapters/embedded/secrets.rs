//! Secrets as encrypted rows of the database file.

mod rotation;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;

use super::File;
use super::calls::{unavailable, within};
use super::file::Transaction;
use super::seal::{KeyError, Seal, create_key, read_key};
use crate::adapters::credentials;
use crate::domain::{SecretName, Timestamp};
use crate::ports::{
    CallContext, Clock, Credentials, ErrorKind, Outcome, PortError, SecretStore, StoredSecret,
};

const PORT: &str = "secrets";
const RECOVERY_WINDOW: Duration = Duration::from_hours(7 * 24);
/// The name under which an empty value is sealed to verify the key. No secret has this name.
const PROOF: &str = "key";

/// A row is never deleted. A row has a value (`sealed` without `until`), or its name is closed: within the recovery
/// window (`until` is in the future), or forever.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, sealed BLOB, until INTEGER) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS secrets_key (only INTEGER PRIMARY KEY CHECK (only = 1), proof BLOB NOT NULL) STRICT;
";

/// Why the secrets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The key is missing or invalid, or is not the right one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another process uses the secrets, and would continue with the present key.
    #[error("another process is using this data directory; stop that process, then try again")]
    InUse,
    /// The tables of secrets cannot be created or read.
    #[error(
        "the tables of secrets cannot be created or read; check that the database file is intact and writable"
    )]
    File(#[from] sqlx::Error),
}

/// Stores credentials in the database file, encrypted. Clones share the store.
///
/// A value is bound to its name: under another name it cannot be decrypted.
#[derive(Clone)]
pub struct EmbeddedSecrets {
    file: File,
    seal: Arc<Seal>,
    clock: Arc<dyn Clock>,
}

impl EmbeddedSecrets {
    /// Opens the secrets in `file` with the key in the file at `key_path`, which is created if no value is sealed yet.
    ///
    /// # Errors
    /// When other users may read the key; when the key is invalid, is not the one that the values are sealed with, or
    /// is missing although there are values; and when one of the files cannot be used.
    pub async fn open(file: File, key_path: &Path, clock: Arc<dyn Clock>) -> Result<Self, SecretsError> {
        file.ensure(SCHEMA).await?;
        // The write lock prevents another starting process from creating another key.
        let mut tx = loop {
            if let Some(count) = rotation::finish_interrupted(&file, key_path).await? {
                tracing::warn!(count, "an interrupted rotation of the key was completed");
            }
            let tx = file.begin().await?;
            if !rotation::has_next_key(key_path)? {
                break tx;
            }
            tx.rollback().await;
        };
        delete_expired(&mut tx, clock.wall()).await?;
        let has_values = sqlx::query("SELECT EXISTS (SELECT 1 FROM secrets WHERE sealed IS NOT NULL)");
        let has_values: bool = has_values.fetch_one(&mut *tx).await?.try_get(0)?;
        let path = || key_path.to_owned();
        let key = match read_key(key_path)? {
            Some(key) => key,
            None if has_values => return Err(KeyError::Missing { path: path() }.into()),
            None => create_key(key_path)?,
        };
        let seal = Seal::new(&key);
        let proof = sqlx::query("SELECT proof FROM secrets_key").fetch_optional(&mut *tx).await?;
        let proof: Option<Vec<u8>> = proof.map(|row| row.try_get(0)).transpose()?;
        let proven = proof.is_some_and(|proof| seal.open(PROOF, &proof).is_some());
        if !proven && has_values {
            return Err(KeyError::Wrong { path: path() }.into());
        }
        if !proven {
            let proof = seal.seal(PROOF, &[]).map_err(KeyError::Chance)?;
            let put =
                sqlx::query("INSERT OR REPLACE INTO secrets_key (only, proof) VALUES (1, ?)").bind(proof);
            put.execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Self { file, seal: Arc::new(seal), clock })
    }

    /// Checks that the secrets can be read and are sealed with this key.
    ///
    /// # Errors
    /// `Unavailable` when the file is not available, `Denied` when its secrets are sealed with another key.
    pub async fn check(&self) -> Result<(), PortError> {
        let proof = sqlx::query("SELECT proof FROM secrets_key").fetch_one(self.file.reader()).await;
        let proof: Vec<u8> =
            proof.and_then(|row| row.try_get(0)).map_err(|error| unavailable(PORT, &error))?;
        self.seal.open(PROOF, &proof).map(drop).ok_or_else(wrong_key)
    }

    async fn insert(&self, name: &SecretName, sealed: Vec<u8>) -> Outcome<()> {
        let refused = match self.try_insert(name, sealed).await {
            Ok(Ok(tx)) => return commit_outcome(tx).await,
            Ok(Err(refused)) => refused,
            Err(error) => unavailable(PORT, &error),
        };
        Outcome::NotApplied(refused)
    }

    /// Returns the transaction that stores the value, for the caller to commit, or why the value must not be stored.
    async fn try_insert(
        &self,
        name: &SecretName,
        sealed: Vec<u8>,
    ) -> Result<Result<Transaction, PortError>, sqlx::Error> {
        let mut tx = self.file.begin().await?;
        delete_expired(&mut tx, self.clock.wall()).await?;
        let id = name.to_string();
        let row =
            sqlx::query("SELECT sealed IS NOT NULL AND until IS NULL FROM secrets WHERE name = ?").bind(&id);
        if let Some(row) = row.fetch_optional(&mut *tx).await? {
            let (kind, message) = match row.try_get(0)? {
                true => (ErrorKind::Exists, "already has a value"),
                false => (ErrorKind::Gone, "was scheduled for deletion"),
            };
            return Ok(Err(PortError::new(PORT, kind, format!("the secret `{id}` {message}"))));
        }
        let put = sqlx::query("INSERT INTO secrets (name, sealed) VALUES (?, ?)").bind(id).bind(sealed);
        put.execute(&mut *tx).await?;
        Ok(Ok(tx))
    }

    async fn close(&self, name: &SecretName) -> Outcome<()> {
        match self.try_close(name).await {
            Ok(tx) => commit_outcome(tx).await,
            Err(error) => Outcome::NotApplied(unavailable(PORT, &error)),
        }
    }

    async fn try_close(&self, name: &SecretName) -> Result<Transaction, sqlx::Error> {
        let now = self.clock.wall();
        let mut tx = self.file.begin().await?;
        delete_expired(&mut tx, now).await?;
        let close = "INSERT INTO secrets (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET until = ?2
                     WHERE sealed IS NOT NULL AND until IS NULL";
        let close = sqlx::query(close).bind(name.to_string()).bind(millis(now.after(RECOVERY_WINDOW)));
        close.execute(&mut *tx).await?;
        Ok(tx)
    }

    async fn row(&self, name: &SecretName) -> Result<Option<(Option<Vec<u8>>, Option<i64>)>, sqlx::Error> {
        let row = sqlx::query("SELECT sealed, until FROM secrets WHERE name = ?").bind(name.to_string());
        let row = row.fetch_optional(self.file.reader()).await?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
    }
}

#[async_trait]
impl SecretStore for EmbeddedSecrets {
    async fn create(&self, call: &CallContext, name: &SecretName, value: &Credentials) -> Outcome<()> {
        let refused = |kind, message: &str| Outcome::NotApplied(PortError::new(PORT, kind, message));
        let Some(plain) = credentials::write(name.kind, value) else {
            return refused(ErrorKind::Invalid, "the credentials are not of the kind in the secret's name");
        };
        let Ok(sealed) = self.seal.seal(&name.to_string(), &plain) else {
            return refused(ErrorKind::Unavailable, "the operating system returns no random numbers");
        };
        within(&*self.clock, call.deadline, PORT, self.insert(name, sealed)).await
    }

    async fn read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError> {
        let row = self.row(name).await.map_err(|error| unavailable(PORT, &error))?;
        let (sealed, until) = row.unwrap_or_default();
        match (sealed, until) {
            (_, Some(until)) => Ok((until > millis(self.clock.wall())).then_some(StoredSecret::Deleting)),
            (None, None) => Ok(None),
            (Some(sealed), None) => {
                let plain = self.seal.open(&name.to_string(), &sealed).ok_or_else(wrong_key)?;
                let value = credentials::read(name.kind, &plain).ok_or_else(|| {
                    let message = format!("the value of the secret `{name}` is not valid credentials");
                    PortError::new(PORT, ErrorKind::Foreign, message)
                })?;
                Ok(Some(StoredSecret::Value(value)))
            }
        }
    }

    async fn schedule_delete(&self, call: &CallContext, name: &SecretName) -> Outcome<()> {
        within(&*self.clock, call.deadline, PORT, self.close(name)).await
    }
}

impl fmt::Debug for EmbeddedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedSecrets").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Deletes the values whose recovery window has ended; their names remain closed.
async fn delete_expired(tx: &mut Transaction, now: Timestamp) -> Result<(), sqlx::Error> {
    let delete_expired =
        sqlx::query("UPDATE secrets SET sealed = NULL WHERE sealed IS NOT NULL AND until <= ?");
    delete_expired.bind(millis(now)).execute(&mut **tx).await.map(drop)
}

/// Commits. After a failed commit the outcome is unknown, because the changes may have reached the disk.
async fn commit_outcome(tx: Transaction) -> Outcome<()> {
    match tx.commit().await {
        Ok(()) => Outcome::Applied(()),
        Err(error) => Outcome::Unknown(unavailable(PORT, &error)),
    }
}

fn wrong_key() -> PortError {
    PortError::new(PORT, ErrorKind::Denied, "a stored value cannot be decrypted with this key")
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.millis()).unwrap_or(i64::MAX)
}

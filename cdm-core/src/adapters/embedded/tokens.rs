//! Tokens in the SQLite file.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::coalesce::Coalescer;
use super::file::{File, is_full};
use crate::adapters::records;
use crate::domain::{Timestamp, Token, TokenHash, Uid};
use crate::ports::{CallContext, ErrorKind, Outcome, PortError, StoreError, TokenStore};

const PORT: &str = "tokens";

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL UNIQUE, body TEXT NOT NULL
) WITHOUT ROWID";

/// The records of tokens. Clones share them.
#[derive(Clone, Debug)]
pub struct EmbeddedTokens {
    file: File,
    by_hash: Arc<Coalescer<TokenHash, Token, PortError>>,
}

impl EmbeddedTokens {
    /// Opens the tokens in `file`, creating their table if it is missing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn open(file: File) -> Result<Self, PortError> {
        file.ensure(SCHEMA).await.map_err(|error| unavailable(&error))?;
        Ok(Self { file, by_hash: Arc::default() })
    }
}

fn unavailable(error: &sqlx::Error) -> PortError {
    let kind = if is_full(error) { ErrorKind::Full } else { ErrorKind::Unavailable };
    PortError::new(PORT, kind, error.to_string())
}

fn invalid_record(error: &StoreError) -> PortError {
    PortError::new(PORT, ErrorKind::Denied, error.to_string())
}

fn token(row: &SqliteRow) -> Result<Token, PortError> {
    let body: String = row.try_get(0).map_err(|error| unavailable(&error))?;
    records::decode(&body).map_err(|error| invalid_record(&error))
}

/// Reads the tokens with these hashes. Concurrent requests use few different tokens, most often one.
async fn of_hashes(file: File, hashes: Vec<TokenHash>) -> Result<HashMap<TokenHash, Token>, PortError> {
    let mut found = HashMap::new();
    for hash in hashes {
        let query = sqlx::query("SELECT body FROM tokens WHERE hash = ?").bind(hash.0.to_vec());
        let row = query.fetch_optional(file.reader()).await.map_err(|error| unavailable(&error))?;
        if let Some(token) = row.as_ref().map(token).transpose()? {
            found.insert(hash, token);
        }
    }
    Ok(found)
}

#[async_trait]
impl TokenStore for EmbeddedTokens {
    async fn create(&self, _call: &CallContext, token: &Token) -> Outcome<()> {
        let body = match records::encode(token) {
            Ok(body) => body,
            Err(error) => return Outcome::NotApplied(invalid_record(&error)),
        };
        let created = async {
            let mut tx = self.file.begin().await?;
            let query = sqlx::query("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?)")
                .bind(token.id.to_string())
                .bind(token.name.as_str())
                .bind(token.hash.0.to_vec())
                .bind(&body);
            let created = query.execute(&mut *tx).await?.rows_affected();
            let repeated = sqlx::query("SELECT 1 FROM tokens WHERE id = ? AND body = ?");
            let repeated = repeated.bind(token.id.to_string()).bind(&body).fetch_optional(&mut *tx).await?;
            Ok((tx, created == 1 || repeated.is_some()))
        };
        match created.await {
            Ok((tx, true)) => commit_outcome(tx.commit().await, ()),
            Ok((_, false)) => {
                let message = "a token with this name exists or existed; choose another name";
                Outcome::NotApplied(PortError::new(PORT, ErrorKind::Exists, message))
            }
            Err(error) => Outcome::NotApplied(unavailable(&error)),
        }
    }

    async fn by_hash(&self, hash: &TokenHash) -> Result<Option<Token>, PortError> {
        self.by_hash.get(hash, &|hashes| of_hashes(self.file.clone(), hashes)).await
    }

    async fn tokens(&self) -> Result<Vec<Token>, PortError> {
        let query = sqlx::query("SELECT body FROM tokens ORDER BY id");
        let rows = query.fetch_all(self.file.reader()).await.map_err(|error| unavailable(&error))?;
        rows.iter().map(token).collect()
    }

    async fn revoke(&self, _call: &CallContext, id: Uid, at: Timestamp) -> Outcome<Token> {
        let found = async {
            let mut tx = self.file.begin().await.map_err(|error| unavailable(&error))?;
            let query = sqlx::query("SELECT body FROM tokens WHERE id = ?").bind(id.to_string());
            let row = query.fetch_optional(&mut *tx).await.map_err(|error| unavailable(&error))?;
            let none = || PortError::new(PORT, ErrorKind::NotFound, "the token does not exist");
            let mut token = token(&row.ok_or_else(none)?)?;
            token.revoked_at = token.revoked_at.or(Some(at));
            let body = records::encode(&token).map_err(|error| invalid_record(&error))?;
            let query =
                sqlx::query("UPDATE tokens SET body = ? WHERE id = ?").bind(body).bind(id.to_string());
            query.execute(&mut *tx).await.map_err(|error| unavailable(&error))?;
            Ok((tx, token))
        };
        match found.await {
            Ok((tx, token)) => commit_outcome(tx.commit().await, token),
            Err(error) => Outcome::NotApplied(error),
        }
    }
}

/// Returns `Unknown` if the commit fails, because the change may already be on the disk.
fn commit_outcome<T>(commit: Result<(), sqlx::Error>, value: T) -> Outcome<T> {
    match commit {
        Ok(()) => Outcome::Applied(value),
        Err(error) => Outcome::Unknown(unavailable(&error)),
    }
}

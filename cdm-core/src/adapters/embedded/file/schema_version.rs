//! The owner and the schema version of the database file.
//!
//! `application_id` marks a file of CDM; `user_version` is its schema version. Programs that wrote neither have schema
//! version 0.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::{BUSY_TIMEOUT, OpenError, Transaction};
use crate::domain::search::SearchText;

/// The `application_id` of CDM: `CDMf`, which no other program is known to use.
const APPLICATION_ID: i64 = 0x4344_4d66;
/// The schema version that this program writes.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// One table of each adapter. Every non-empty file of schema version 0 has at least one of them.
const OWN_TABLES: [&str; 6] =
    ["sites", "tokens", "secrets", "database_users", "cluster_canary", "disk_probe"];
/// The entries that exist next to the file only once the file was in use.
const DATA_ENTRIES: [&str; 3] = ["key", "databases", "objects"];

/// Checks that CDM may use a file, before anything in it changes; changing the journal mode would be a change too.
pub(super) async fn check(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Database { path: path.to_owned(), source };
    // Checked before the tables: a process that starts at the same time creates its key after the tables.
    let evidence_of_use = evidence_of_use(path);
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
    let mut tx = options.connect().await.map_err(failed)?;
    let found = inspect(&mut tx).await.map_err(failed);
    let closed = tx.close().await.map_err(failed);
    let (application_id, schema_version, tables) = found?;
    closed?;
    let own = tables.iter().any(|table| OWN_TABLES.contains(&&**table));
    match (application_id, schema_version) {
        (APPLICATION_ID, newer) if newer > SCHEMA_VERSION => {
            Err(OpenError::Newer { path: path.to_owned(), schema_version: newer })
        }
        (APPLICATION_ID, _) => Ok(()),
        (0, 0) if own => Ok(()),
        (0, 0) if tables.is_empty() => match evidence_of_use {
            Some(evidence) => Err(OpenError::Lost { path: path.to_owned(), evidence }),
            None => Ok(()),
        },
        (_, _) => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

async fn inspect(tx: &mut SqliteConnection) -> Result<(i64, i64, Vec<String>), sqlx::Error> {
    let (application_id, schema_version) =
        (number(tx, "PRAGMA application_id").await?, number(tx, "PRAGMA user_version").await?);
    let tables = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table'").fetch_all(tx).await?;
    let tables = tables.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    Ok((application_id, schema_version, tables))
}

async fn number(tx: &mut SqliteConnection, pragma: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(pragma).fetch_one(tx).await?.try_get(0)
}

/// Returns an entry that shows that the directory was in use: a key, or content in the directories of sites.
fn evidence_of_use(path: &Path) -> Option<PathBuf> {
    let mut paths = DATA_ENTRIES.iter().map(|name| path.with_file_name(name));
    paths.find(|path| match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.is_file(),
    })
}

/// Migrates the file to this program's schema version, and marks it as CDM's. Writes nothing if the file is current.
pub(super) async fn migrate(tx: &mut Transaction) -> Result<(), sqlx::Error> {
    let (application_id, schema_version, tables) = inspect(tx).await?;
    if (application_id, schema_version) == (APPLICATION_ID, SCHEMA_VERSION) {
        return Ok(());
    }
    let has_sites = tables.iter().any(|table| table == "sites");
    if schema_version < 1 && has_sites {
        fold_search(tx).await?;
    }
    // A pragma has no parameters; a test compares these numbers with the constants.
    sqlx::raw_sql("PRAGMA application_id = 1128549734; PRAGMA user_version = 1").execute(&mut **tx).await?;
    tracing::info!(
        from = schema_version,
        to = SCHEMA_VERSION,
        "the schema of the database file was migrated"
    );
    Ok(())
}

/// Schema version 1: the search column is in lower case, and has hostnames in Unicode in addition to ASCII.
async fn fold_search(tx: &mut Transaction) -> Result<(), sqlx::Error> {
    let rows = sqlx::query("SELECT id, search FROM sites").fetch_all(&mut **tx).await?;
    for row in rows {
        let (id, before): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let mut parts = before.split('\n').skip(1);
        let text = SearchText::from_parts(&id, parts.next().unwrap_or_default(), parts);
        let put = sqlx::query("UPDATE sites SET search = ? WHERE id = ?").bind(text.as_str()).bind(&id);
        put.execute(&mut **tx).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_of_an_earlier_schema_version_is_migrated_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cdm.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut tx = options.connect().await.expect("a file");
        let old = "CREATE TABLE sites (id TEXT PRIMARY KEY, search TEXT NOT NULL);
            INSERT INTO sites VALUES ('a', 'a' || char(10) || 'Blumen ÄÖ' || char(10) || 'xn--mnchen-3ya.example');";
        sqlx::raw_sql(old).execute(&mut tx).await.expect("a table");
        tx.close().await.expect("closed");
        for _ in 0..2 {
            let file = super::super::File::open(&path).await.expect("an old file");
            let row = sqlx::query("SELECT search FROM sites").fetch_one(file.reader()).await.expect("a row");
            let text: String = row.try_get(0).expect("a text");
            assert_eq!(text, "a\nblumen äö\nxn--mnchen-3ya.example\nmünchen.example");
            file.close().await;
        }
        let mut tx = SqliteConnectOptions::new().filename(&path).connect().await.expect("the file");
        let (application_id, schema_version, _) = inspect(&mut tx).await.expect("numbers");
        assert_eq!((application_id, schema_version), (APPLICATION_ID, SCHEMA_VERSION));
    }
}

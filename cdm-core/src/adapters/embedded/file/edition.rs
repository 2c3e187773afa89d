//! Whose the file is, and by which edition of its tables it was written.
//!
//! `application_id` says that CDM made the file, `user_version` which edition. Edition 0 is that of programs that wrote
//! neither.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use super::{OpenError, PATIENCE, Transaction};
use crate::domain::search::SearchText;

/// `CDMf`, which no other program is known to use.
const APPLICATION: i64 = 0x4344_4d66;
/// The edition that this program writes.
pub(super) const EDITION: i64 = 1;
/// A table of each user of the file: one of them is in every file of edition 0 that holds anything.
const OWN_TABLES: [&str; 6] =
    ["sites", "tokens", "secrets", "database_users", "cluster_canary", "disk_probe"];
/// What lies beside the file only after the file was in use.
const BESIDE: [&str; 3] = ["key", "databases", "objects"];

/// Judges a file before anything in it is changed, also by a change of its journal.
pub(super) async fn judge(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Database { path: path.to_owned(), source };
    // Looked at before the tables: another process that begins at the same time makes its key after them.
    let used = used(path);
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(PATIENCE);
    let mut on = options.connect().await.map_err(failed)?;
    let found = look(&mut on).await.map_err(failed);
    let closed = on.close().await.map_err(failed);
    let (application, edition, tables) = found?;
    closed?;
    let own = tables.iter().any(|table| OWN_TABLES.contains(&&**table));
    match (application, edition) {
        (APPLICATION, newer) if newer > EDITION => {
            Err(OpenError::Newer { path: path.to_owned(), edition: newer })
        }
        (APPLICATION, _) => Ok(()),
        (0, 0) if own => Ok(()),
        (0, 0) if tables.is_empty() => match used {
            Some(poll_while) => Err(OpenError::Lost { path: path.to_owned(), poll_while }),
            None => Ok(()),
        },
        (_, _) => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

async fn look(on: &mut SqliteConnection) -> Result<(i64, i64, Vec<String>), sqlx::Error> {
    let (application, edition) =
        (number(on, "PRAGMA application_id").await?, number(on, "PRAGMA user_version").await?);
    let tables = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table'").fetch_all(on).await?;
    let tables = tables.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    Ok((application, edition, tables))
}

async fn number(on: &mut SqliteConnection, pragma: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(pragma).fetch_one(on).await?.try_get(0)
}

/// What shows that there was a fleet in the directory: a key, or something in the folders of sites.
fn used(path: &Path) -> Option<PathBuf> {
    let mut paths = BESIDE.iter().map(|name| path.with_file_name(name));
    paths.find(|path| match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.is_file(),
    })
}

/// Brings the file to this program's edition, and marks it as CDM's; a file that is there already is not written to.
pub(super) async fn migrate(on: &mut Transaction) -> Result<(), sqlx::Error> {
    let (application, edition, tables) = look(on).await?;
    if (application, edition) == (APPLICATION, EDITION) {
        return Ok(());
    }
    let has_sites = tables.iter().any(|table| table == "sites");
    if edition < 1 && has_sites {
        fold_search(on).await?;
    }
    // A pragma takes no parameters; a test compares these numbers with the constants.
    sqlx::raw_sql("PRAGMA application_id = 1128549734; PRAGMA user_version = 1").execute(&mut **on).await?;
    tracing::info!(from = edition, to = EDITION, "the database file was brought to this program's edition");
    Ok(())
}

/// Edition 1: what is searched is kept without case, and hostnames in Unicode beside ASCII.
async fn fold_search(on: &mut Transaction) -> Result<(), sqlx::Error> {
    let rows = sqlx::query("SELECT id, search FROM sites").fetch_all(&mut **on).await?;
    for row in rows {
        let (id, before): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let mut parts = before.split('\n').skip(1);
        let text = SearchText::from_parts(&id, parts.next().unwrap_or_default(), parts);
        let put = sqlx::query("UPDATE sites SET search = ? WHERE id = ?").bind(text.as_str()).bind(&id);
        put.execute(&mut **on).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_of_an_earlier_edition_is_migrated_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cdm.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut on = options.connect().await.expect("a file");
        let old = "CREATE TABLE sites (id TEXT PRIMARY KEY, search TEXT NOT NULL);
            INSERT INTO sites VALUES ('a', 'a' || char(10) || 'Blumen ÄÖ' || char(10) || 'xn--mnchen-3ya.example');";
        sqlx::raw_sql(old).execute(&mut on).await.expect("a table");
        on.close().await.expect("closed");
        for _ in 0..2 {
            let file = super::super::File::open(&path).await.expect("an old file");
            let row = sqlx::query("SELECT search FROM sites").fetch_one(file.reader()).await.expect("a row");
            let text: String = row.try_get(0).expect("a text");
            assert_eq!(text, "a\nblumen äö\nxn--mnchen-3ya.example\nmünchen.example");
            file.close().await;
        }
        let mut on = SqliteConnectOptions::new().filename(&path).connect().await.expect("the file");
        let (application, edition, _) = look(&mut on).await.expect("numbers");
        assert_eq!((application, edition), (APPLICATION, EDITION));
    }
}

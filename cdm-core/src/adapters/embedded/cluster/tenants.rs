//! Access of pods and jobs to sites, their credentials and their databases.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Connection, Row, SqliteConnection};

use crate::adapters::embedded::file::is_full;
use crate::domain::{SecretKind, SecretName, Uid};
use crate::ports::{
    Cms, Credentials, Database, ErrorKind, PortError, SecretStore, SiteRepository, StoredSecret,
};

/// Connects to the database of a site, as the site's WordPress does.
#[async_trait]
pub trait TenantDatabases: Send + Sync + fmt::Debug + 'static {
    /// Opens a connection with the credentials of a site.
    ///
    /// # Errors
    /// `NotFound` when the database does not exist, `Denied` when the credentials are not those of the database.
    async fn connect(&self, credentials: &Database) -> Result<SqliteConnection, PortError>;
}

/// The stores in which pods and jobs look up a site, its credentials and its database.
#[derive(Clone, Debug)]
pub struct Tenants {
    /// Maps hostnames to sites.
    pub repository: Arc<dyn SiteRepository>,
    /// The credentials of sites.
    pub secrets: Arc<dyn SecretStore>,
    /// The databases of sites.
    pub databases: Arc<dyn TenantDatabases>,
}

/// The options of a site in its WordPress database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) siteurl: String,
    pub(super) title: String,
    pub(super) theme: String,
}

impl Tenants {
    pub(super) async fn database(&self, uid: Uid) -> Result<Database, PortError> {
        match self.secret(SecretName { uid, kind: SecretKind::Database }).await? {
            (_, Credentials::Database(database)) => Ok(database),
            (name, Credentials::Cms(_) | Credentials::Webhook(_) | Credentials::Sealing(_)) => {
                Err(wrong_kind(name))
            }
        }
    }

    pub(super) async fn cms(&self, uid: Uid) -> Result<Cms, PortError> {
        match self.secret(SecretName { uid, kind: SecretKind::Cms }).await? {
            (_, Credentials::Cms(cms)) => Ok(cms),
            (name, Credentials::Database(_) | Credentials::Webhook(_) | Credentials::Sealing(_)) => {
                Err(wrong_kind(name))
            }
        }
    }

    pub(super) async fn connect(&self, uid: Uid) -> Result<SqliteConnection, PortError> {
        self.databases.connect(&self.database(uid).await?).await
    }

    /// Reads the options of a site; `None` if WordPress is not installed.
    pub(super) async fn options(&self, uid: Uid) -> Result<Option<Options>, PortError> {
        let mut database = self.connect(uid).await?;
        let read = read_options(&mut database).await;
        // The connection has only read, so a failed close loses nothing.
        drop(database.close().await);
        read.map_err(|error| site_error(&error))
    }

    async fn secret(&self, name: SecretName) -> Result<(SecretName, Credentials), PortError> {
        match self.secrets.read(&name).await? {
            Some(StoredSecret::Value(credentials)) => Ok((name, credentials)),
            Some(StoredSecret::Deleting) | None => {
                let message = format!("the secret `{name}` has no value");
                Err(PortError::new("secrets", ErrorKind::NotFound, message))
            }
        }
    }
}

/// Reads the options from a database; `None` if there is no `siteurl`.
pub(super) async fn read_options(database: &mut SqliteConnection) -> Result<Option<Options>, sqlx::Error> {
    let there = sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'options'");
    if there.fetch_optional(&mut *database).await?.is_none() {
        return Ok(None);
    }
    let rows = sqlx::query(
        "SELECT option_name, option_value FROM options
        WHERE option_name IN ('siteurl', 'blogname', 'stylesheet')",
    );
    let mut siteurl = None;
    let (mut title, mut theme) = (String::new(), String::new());
    for row in rows.fetch_all(database).await? {
        let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        match name.as_str() {
            "siteurl" => siteurl = Some(value),
            "blogname" => title = value,
            _ => theme = value,
        }
    }
    Ok(siteurl.map(|siteurl| Options { siteurl, title, theme }))
}

/// Returns the error of an operation on a site's database, without any of the database's content.
pub(super) fn site_error(error: &sqlx::Error) -> PortError {
    if is_full(error) {
        return PortError::new(
            "databases",
            ErrorKind::Full,
            "the database of the site cannot be written: the disk is full",
        );
    }
    tracing::warn!(%error, "the database of a site is not available");
    PortError::new("databases", ErrorKind::Unavailable, "the database of the site is not available")
}

fn wrong_kind(name: SecretName) -> PortError {
    let message = format!("the secret `{name}` has credentials of another kind");
    PortError::new("secrets", ErrorKind::Invalid, message)
}

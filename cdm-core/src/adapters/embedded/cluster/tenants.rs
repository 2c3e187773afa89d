//! What pods and jobs need of the rest of the machine, and what a site's own database says.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Connection, Row, SqliteConnection};

use crate::adapters::embedded::file::is_full;
use crate::domain::{SecretKind, SecretName, Uid};
use crate::ports::{
    Cms, Credentials, Database, ErrorKind, PortError, SecretStore, SiteRepository, StoredSecret,
};

/// Connects to a site's database, as its WordPress does.
#[async_trait]
pub trait TenantDatabases: Send + Sync + fmt::Debug + 'static {
    /// A connection with a site's own credentials.
    ///
    /// # Errors
    /// `NotFound` where there is no such database, `Denied` where the credentials are not its own.
    async fn connect(&self, credentials: &Database) -> Result<SqliteConnection, PortError>;
}

/// Where pods and jobs find a site, its credentials and its database.
#[derive(Clone, Debug)]
pub struct Tenants {
    /// Which site a hostname is of.
    pub repository: Arc<dyn SiteRepository>,
    /// Credentials.
    pub secrets: Arc<dyn SecretStore>,
    /// Databases.
    pub databases: Arc<dyn TenantDatabases>,
}

/// What a site's database says about it.
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
                Err(wrong(name))
            }
        }
    }

    pub(super) async fn cms(&self, uid: Uid) -> Result<Cms, PortError> {
        match self.secret(SecretName { uid, kind: SecretKind::Cms }).await? {
            (_, Credentials::Cms(cms)) => Ok(cms),
            (name, Credentials::Database(_) | Credentials::Webhook(_) | Credentials::Sealing(_)) => {
                Err(wrong(name))
            }
        }
    }

    pub(super) async fn connect(&self, uid: Uid) -> Result<SqliteConnection, PortError> {
        self.databases.connect(&self.database(uid).await?).await
    }

    /// What the site's database says; `None` where WordPress is not installed.
    pub(super) async fn options(&self, uid: Uid) -> Result<Option<Options>, PortError> {
        let mut database = self.connect(uid).await?;
        let read = read_options(&mut database).await;
        // It was only read from.
        drop(database.close().await);
        read.map_err(|error| site_error(&error))
    }

    async fn secret(&self, name: SecretName) -> Result<(SecretName, Credentials), PortError> {
        match self.secrets.read(&name).await? {
            Some(StoredSecret::Value(credentials)) => Ok((name, credentials)),
            Some(StoredSecret::Deleting) | None => {
                let message = format!("the secret `{name}` holds no value");
                Err(PortError::new("secrets", ErrorKind::NotFound, message))
            }
        }
    }
}

/// What the options say, where there are any.
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

/// What went wrong in a site's database, without a word of what is in it.
pub(super) fn site_error(error: &sqlx::Error) -> PortError {
    if is_full(error) {
        return PortError::new(
            "databases",
            ErrorKind::Full,
            "the site's database takes no writes: the disk is full",
        );
    }
    tracing::warn!(%error, "a site's database does not answer");
    PortError::new("databases", ErrorKind::Unavailable, "the site's database does not answer")
}

fn wrong(name: SecretName) -> PortError {
    let message = format!("the secret `{name}` holds credentials of another kind");
    PortError::new("secrets", ErrorKind::Invalid, message)
}

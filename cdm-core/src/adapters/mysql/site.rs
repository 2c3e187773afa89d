//! The database and the user of one site: creation, renewal, and permanent removal.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::failure::Failure;
use super::privileges;
use super::session::Session;
use crate::domain::Fence;
use crate::ports::{ErrorKind, SiteDatabase};

/// The character set and collation that both MySQL and MariaDB support, and that WordPress itself chooses.
const CHARACTER_SET: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci";
/// The pause before checking again whether a connection has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A site's database and its user, which have the same name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) name: &'a str,
    /// The hosts from which the user may connect.
    pub(super) host: &'a str,
}

impl Site<'_> {
    /// Creates database and user under the lock that `remove` uses too: after `remove` has closed the name, nothing is
    /// created.
    pub(super) async fn ensure(
        self,
        session: &mut Session<'_>,
        password: &SecretString,
    ) -> Result<(), Failure> {
        self.lock(session).await?;
        self.check_not_removed(session).await?;
        self.create(session, password).await
    }

    /// Drops the database under the lock and creates it again, unless a call with a higher fence has renewed it. Drops
    /// the user first, so that no open connection writes to the new database.
    pub(super) async fn renew(
        self,
        session: &mut Session<'_>,
        password: &SecretString,
        fence: Fence,
    ) -> Result<(), Failure> {
        self.lock(session).await?;
        self.check_not_removed(session).await?;
        self.record_renewal(session, fence).await?;
        let name = session.quoting.name(self.name)?;
        self.drop_users(session, |_| true).await?;
        self.end_connections(session).await?;
        session.change(format!("DROP DATABASE IF EXISTS {name}")).await?;
        self.create(session, password).await
    }

    /// Fails if the name was closed.
    async fn check_not_removed(self, session: &mut Session<'_>) -> Result<(), Failure> {
        if self.is_removed(session).await? {
            let message = format!("the database `{}` was dropped", self.name);
            return Err(Failure::new(ErrorKind::Gone, message));
        }
        Ok(())
    }

    /// Stores the fence of a renewal before anything is dropped. Like the table of closed names, this table only grows:
    /// the administrator of the guide may only insert into it.
    async fn record_renewal(self, session: &mut Session<'_>, fence: Fence) -> Result<(), Failure> {
        let query = "SELECT CAST(`fence` AS CHAR) FROM `cdm`.`renewed` WHERE `name` = ?";
        let stored = match session.texts(query, &[self.name]).await {
            Err(failure) if failure.is_missing_table() => {
                let table = "CREATE TABLE IF NOT EXISTS `cdm`.`renewed` (\
                             `name` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
                             `fence` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
                             `at` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, \
                             PRIMARY KEY (`name`, `fence`)) ENGINE = InnoDB";
                session.change(table.to_owned()).await?;
                session.texts(query, &[self.name]).await?
            }
            stored => stored?,
        };
        if stored.iter().filter_map(|stored| Fence::parse(stored)).any(|stored| stored > fence) {
            let message = format!("a later call has renewed the database `{}`", self.name);
            return Err(Failure::new(ErrorKind::Conflict, message));
        }
        let (name, fence) = (session.quoting.string(self.name)?, session.quoting.string(&fence.to_string())?);
        let note = format!("INSERT IGNORE INTO `cdm`.`renewed` (`name`, `fence`) VALUES ({name}, {fence})");
        session.change(note).await
    }

    async fn create(self, session: &mut Session<'_>, password: &SecretString) -> Result<(), Failure> {
        self.ensure_database(session).await?;
        self.ensure_user(session, password).await?;
        if privileges::read(session, self).await?.has_excess() {
            // A new user has no roles, no global privileges and no privileges on other databases.
            self.drop_users(session, |_| true).await?;
            self.ensure_user(session, password).await?;
        }
        if !privileges::read(session, self).await?.is_exact() {
            privileges::grant(session, self).await?;
        }
        if !privileges::read(session, self).await?.is_exact() {
            let message = format!(
                "the user `{}` has other privileges than it was granted; check the server's roles",
                self.name
            );
            return Err(Failure::new(ErrorKind::Invalid, message));
        }
        let both = SiteDatabase { database: true, user: true };
        if self.seen(session).await? != both {
            let message = format!("the database `{}` was created but does not exist", self.name);
            return Err(Failure::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// Closes the name first, then drops the user, and the database last, so that nothing is created again in between.
    pub(super) async fn remove(self, session: &mut Session<'_>) -> Result<(), Failure> {
        self.lock(session).await?;
        if !self.is_removed(session).await? {
            let name = session.quoting.string(self.name)?;
            session.change(format!("INSERT IGNORE INTO `cdm`.`removed` (`name`) VALUES ({name})")).await?;
        }
        let name = session.quoting.name(self.name)?;
        // A login that was in progress while the user was dropped is visible by now. With its privileges it could
        // create the database again.
        loop {
            self.drop_users(session, |_| true).await?;
            self.end_connections(session).await?;
            session.change(format!("DROP DATABASE IF EXISTS {name}")).await?;
            let remaining = self.connections(session).await?;
            if remaining.is_empty() && self.seen(session).await? == SiteDatabase::default() {
                return Ok(());
            }
            session.pause(POLL_INTERVAL).await;
        }
    }

    pub(super) async fn seen(self, session: &mut Session<'_>) -> Result<SiteDatabase, Failure> {
        let databases = "SELECT '' FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?";
        let database = !session.rows(databases, &[self.name]).await?.is_empty();
        Ok(SiteDatabase { database, user: !self.hosts(session).await?.is_empty() })
    }

    async fn lock(self, session: &mut Session<'_>) -> Result<(), Failure> {
        session.lock(&format!("cdm.{}", self.name)).await
    }

    /// Returns whether the name was closed. Creates the table of closed names if it is missing.
    async fn is_removed(self, session: &mut Session<'_>) -> Result<bool, Failure> {
        let query = "SELECT '' FROM `cdm`.`removed` WHERE `name` = ?";
        match session.rows(query, &[self.name]).await {
            Ok(rows) => return Ok(!rows.is_empty()),
            Err(failure) if failure.is_missing_table() => {}
            Err(failure) => return Err(failure),
        }
        session.change(format!("CREATE DATABASE IF NOT EXISTS `cdm` {CHARACTER_SET}")).await?;
        let table = "CREATE TABLE IF NOT EXISTS `cdm`.`removed` (\
                     `name` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, \
                     `at` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE = InnoDB";
        session.change(table.to_owned()).await?;
        Ok(!session.rows(query, &[self.name]).await?.is_empty())
    }

    async fn ensure_database(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let name = session.quoting.name(self.name)?;
        session.change(format!("CREATE DATABASE IF NOT EXISTS {name} {CHARACTER_SET}")).await?;
        let query = "SELECT '' FROM information_schema.SCHEMATA \
                     WHERE SCHEMA_NAME = ? AND DEFAULT_CHARACTER_SET_NAME = 'utf8mb4'";
        if session.rows(query, &[self.name]).await?.is_empty() {
            session.change(format!("ALTER DATABASE {name} {CHARACTER_SET}")).await?;
        }
        Ok(())
    }

    /// Creates the user or sets its password, and drops users with the same name at other hosts.
    async fn ensure_user(self, session: &mut Session<'_>, password: &SecretString) -> Result<(), Failure> {
        self.drop_users(session, |host| host != self.host).await?;
        let account = session.quoting.account(self.name, self.host)?;
        let password = session.quoting.string(password.expose_secret())?;
        session.change(format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {password}")).await?;
        session.change(format!("ALTER USER {account} IDENTIFIED BY {password} PASSWORD EXPIRE NEVER")).await
    }

    async fn hosts(self, session: &mut Session<'_>) -> Result<Vec<String>, Failure> {
        session.texts("SELECT CAST(Host AS CHAR) FROM mysql.user WHERE User = ?", &[self.name]).await
    }

    async fn drop_users(
        self,
        session: &mut Session<'_>,
        which: impl Fn(&str) -> bool,
    ) -> Result<(), Failure> {
        for host in self.hosts(session).await?.iter().filter(|host| which(host)) {
            let account = session.quoting.account(self.name, host)?;
            session.change(format!("DROP USER IF EXISTS {account}")).await?;
        }
        Ok(())
    }

    async fn connections(self, session: &mut Session<'_>) -> Result<Vec<u64>, Failure> {
        let query = "SELECT CAST(ID AS CHAR) FROM information_schema.PROCESSLIST WHERE USER = ?";
        let ids = session.texts(query, &[self.name]).await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Ends the connections of this user only, and returns once they have ended.
    async fn end_connections(self, session: &mut Session<'_>) -> Result<(), Failure> {
        loop {
            let connections = self.connections(session).await?;
            if connections.is_empty() {
                return Ok(());
            }
            for id in connections {
                match session.change(format!("KILL CONNECTION {id}")).await {
                    Err(failure) if !failure.is_missing_connection() => return Err(failure),
                    Ok(()) | Err(_) => {}
                }
            }
            session.pause(POLL_INTERVAL).await;
        }
    }
}

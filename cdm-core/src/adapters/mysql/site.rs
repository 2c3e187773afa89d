//! One site's database and user: made, seen, and removed for good.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::failure::Failure;
use super::rights;
use super::session::Session;
use crate::domain::Fence;
use crate::ports::{ErrorKind, SiteDatabase};

/// What both servers know, and what WordPress itself takes where it may choose.
const CHARACTERS: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci";
/// How long a connection that was told to end is given before it is looked for again.
const MOMENT: Duration = Duration::from_millis(20);

/// A site's database and its user, which have one name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) name: &'a str,
    /// From where the user may connect.
    pub(super) host: &'a str,
}

impl Site<'_> {
    /// Makes both, under the lock that `remove` takes too: once that has closed the name, nothing is made any more.
    pub(super) async fn ensure(
        self,
        session: &mut Session<'_>,
        password: &SecretString,
    ) -> Result<(), Failure> {
        self.lock(session).await?;
        self.open(session).await?;
        self.make(session, password).await
    }

    /// Drops the database under the lock and makes it anew, unless a call with a higher fence has done so. Without its
    /// user first: nothing of before comes into the new database.
    pub(super) async fn renew(
        self,
        session: &mut Session<'_>,
        password: &SecretString,
        fence: Fence,
    ) -> Result<(), Failure> {
        self.lock(session).await?;
        self.open(session).await?;
        self.note_renewal(session, fence).await?;
        let name = session.quoting.name(self.name)?;
        self.drop_users(session, |_| true).await?;
        self.end_connections(session).await?;
        session.change(format!("DROP DATABASE IF EXISTS {name}")).await?;
        self.make(session, password).await
    }

    /// That the name was not closed.
    async fn open(self, session: &mut Session<'_>) -> Result<(), Failure> {
        if self.is_closed(session).await? {
            let message = format!("the database {} was dropped", self.name);
            return Err(Failure::new(ErrorKind::Gone, message));
        }
        Ok(())
    }

    /// Stores the fence of a renewal before anything is dropped. The list only grows, as that of closed names does: the
    /// administrator of the guide may add to it and no more.
    async fn note_renewal(self, session: &mut Session<'_>, fence: Fence) -> Result<(), Failure> {
        let query = "SELECT CAST(`fence` AS CHAR) FROM `cdm`.`renewed` WHERE `name` = ?";
        let held = match session.texts(query, &[self.name]).await {
            Err(failure) if failure.no_table() => {
                let table = "CREATE TABLE IF NOT EXISTS `cdm`.`renewed` (\
                             `name` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
                             `fence` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
                             `at` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, \
                             PRIMARY KEY (`name`, `fence`)) ENGINE = InnoDB";
                session.change(table.to_owned()).await?;
                session.texts(query, &[self.name]).await?
            }
            held => held?,
        };
        if held.iter().filter_map(|held| Fence::parse(held)).any(|held| held > fence) {
            let message = format!("a later call has renewed the database {}", self.name);
            return Err(Failure::new(ErrorKind::Conflict, message));
        }
        let (name, fence) = (session.quoting.string(self.name)?, session.quoting.string(&fence.to_string())?);
        let note = format!("INSERT IGNORE INTO `cdm`.`renewed` (`name`, `fence`) VALUES ({name}, {fence})");
        session.change(note).await
    }

    async fn make(self, session: &mut Session<'_>, password: &SecretString) -> Result<(), Failure> {
        self.database(session).await?;
        self.user(session, password).await?;
        if rights::seen(session, self).await?.too_much() {
            // Roles, global rights, rights on other databases: a new user has none of them.
            self.drop_users(session, |_| true).await?;
            self.user(session, password).await?;
        }
        if !rights::seen(session, self).await?.exact() {
            rights::claim_token(session, self).await?;
        }
        if !rights::seen(session, self).await?.exact() {
            let message =
                format!("the user {} has other rights than it was given; see the server's roles", self.name);
            return Err(Failure::new(ErrorKind::Invalid, message));
        }
        let both = SiteDatabase { database: true, user: true };
        if self.seen(session).await? != both {
            let message = format!("the database {} was made and is not there", self.name);
            return Err(Failure::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// Closes the name first, then the door, and only then drops: nobody comes back in between.
    pub(super) async fn remove(self, session: &mut Session<'_>) -> Result<(), Failure> {
        self.lock(session).await?;
        if !self.is_closed(session).await? {
            let name = session.quoting.string(self.name)?;
            session.change(format!("INSERT IGNORE INTO `cdm`.`removed` (`name`) VALUES ({name})")).await?;
        }
        let name = session.quoting.name(self.name)?;
        // A login that was under way while the user was dropped shows itself by now. Its rights would let it make the
        // database anew.
        loop {
            self.drop_users(session, |_| true).await?;
            self.end_connections(session).await?;
            session.change(format!("DROP DATABASE IF EXISTS {name}")).await?;
            let left = self.connections(session).await?;
            if left.is_empty() && self.seen(session).await? == SiteDatabase::default() {
                return Ok(());
            }
            session.pause(MOMENT).await;
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

    /// Whether the name was closed. Makes the table of closed names where it is missing.
    async fn is_closed(self, session: &mut Session<'_>) -> Result<bool, Failure> {
        let query = "SELECT '' FROM `cdm`.`removed` WHERE `name` = ?";
        match session.rows(query, &[self.name]).await {
            Ok(rows) => return Ok(!rows.is_empty()),
            Err(failure) if failure.no_table() => {}
            Err(failure) => return Err(failure),
        }
        session.change(format!("CREATE DATABASE IF NOT EXISTS `cdm` {CHARACTERS}")).await?;
        let table = "CREATE TABLE IF NOT EXISTS `cdm`.`removed` (\
                     `name` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, \
                     `at` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE = InnoDB";
        session.change(table.to_owned()).await?;
        Ok(!session.rows(query, &[self.name]).await?.is_empty())
    }

    async fn database(self, session: &mut Session<'_>) -> Result<(), Failure> {
        let name = session.quoting.name(self.name)?;
        session.change(format!("CREATE DATABASE IF NOT EXISTS {name} {CHARACTERS}")).await?;
        let query = "SELECT '' FROM information_schema.SCHEMATA \
                     WHERE SCHEMA_NAME = ? AND DEFAULT_CHARACTER_SET_NAME = 'utf8mb4'";
        if session.rows(query, &[self.name]).await?.is_empty() {
            session.change(format!("ALTER DATABASE {name} {CHARACTERS}")).await?;
        }
        Ok(())
    }

    /// Brings the user to this password, and drops whom it has by the same name at another host.
    async fn user(self, session: &mut Session<'_>, password: &SecretString) -> Result<(), Failure> {
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

    /// Ends the user's connections, nobody else's, and returns when they are gone.
    async fn end_connections(self, session: &mut Session<'_>) -> Result<(), Failure> {
        loop {
            let connections = self.connections(session).await?;
            if connections.is_empty() {
                return Ok(());
            }
            for id in connections {
                match session.change(format!("KILL CONNECTION {id}")).await {
                    Err(failure) if !failure.no_thread() => return Err(failure),
                    Ok(()) | Err(_) => {}
                }
            }
            session.pause(MOMENT).await;
        }
    }
}

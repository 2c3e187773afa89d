//! Site databases on MySQL or MariaDB.
//!
//! A call has a connection of its own and a server lock on the site's name. Names that were removed are kept in the table
//! `cdm.removed`, so that a late call brings nothing back; a backup without it forgets that.
//!
//! The administrator in the URL needs: `CREATE USER`; the rights of a site's user and `CREATE`, `DROP`, `ALTER` on
//! `site\_%` and `cdm`, with `GRANT OPTION` on the former; `SELECT` on `mysql`; and to see and end the connections of
//! others (`PROCESS`, and `CONNECTION ADMIN` or what the server has for it).

mod failure;
mod quoting;
mod rights;
mod session;
mod site;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use futures_util::pin_mut;
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;
use tokio::sync::Semaphore;

use self::failure::{Failure, PORT};
use self::session::{Session, Span};
use self::site::Site;
use crate::domain::{DatabaseName, Tick, Uid};
use crate::ports::{Call, Clock, Database, ErrorKind, Outcome, PortError, SiteDatabase, SiteDatabases};

/// How long a read may take.
const READ: Duration = Duration::from_secs(10);
/// How many connections there are at once; further calls wait for one.
const CONNECTIONS: usize = 8;

/// Where site databases live. Plain values, judged by [`MysqlDatabases::new`].
#[derive(Clone, Debug)]
pub struct MysqlSettings {
    /// The server and its administrator, `mysql://user:password@host:port/`. `?ssl-mode=VERIFY_IDENTITY` asks for TLS
    /// with a certificate of that host, `&ssl-ca=…` names who signed it.
    pub url: SecretString,
    /// The administrator's password, where it does not stand in the URL.
    pub password: Option<SecretString>,
    /// Host and port by which sites reach the server, where these are others than the URL's.
    pub address: Option<(String, u16)>,
    /// From where a site's user may connect: the host part of its account.
    pub user_host: String,
}

impl MysqlSettings {
    /// The server of a URL, for users from everywhere.
    pub fn new(url: SecretString) -> Self {
        Self { url, password: None, address: None, user_host: "%".to_owned() }
    }
}

/// Why settings are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MysqlError {
    /// The URL is none.
    #[error("the database server's URL is not of the form `mysql://user:password@host:port/`")]
    Url,
    /// The host part of an account.
    #[error("`user_host` is of letters, digits and `%_.:/-` only, and at most 60 of them")]
    UserHost,
}

/// Makes and drops site databases on a server; clones share its connections.
#[derive(Clone)]
pub struct MysqlDatabases {
    options: MySqlConnectOptions,
    address: (String, u16),
    user_host: String,
    turns: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

impl MysqlDatabases {
    /// Databases on the server of the settings. Does not connect; the first call does.
    ///
    /// # Errors
    /// When the URL or the host part of accounts is wrong.
    pub fn new(settings: &MysqlSettings, clock: Arc<dyn Clock>) -> Result<Self, MysqlError> {
        let url = settings.url.expose_secret();
        if !url.starts_with("mysql://") && !url.starts_with("mariadb://") {
            return Err(MysqlError::Url);
        }
        let options: MySqlConnectOptions = url.parse().map_err(|_| MysqlError::Url)?;
        let options = match &settings.password {
            Some(password) => options.password(password.expose_secret()),
            None => options,
        };
        let host = &settings.user_host;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"%_.:/-".contains(&byte);
        if host.is_empty() || host.len() > 60 || !host.bytes().all(plain) {
            return Err(MysqlError::UserHost);
        }
        let own = || (options.get_host().to_owned(), options.get_port());
        let address = settings.address.clone().unwrap_or_else(own);
        Ok(Self {
            options: options.disable_statement_logging(),
            address,
            user_host: host.clone(),
            turns: Arc::new(Semaphore::new(CONNECTIONS)),
            clock,
        })
    }

    /// Whether the server answers its administrator.
    ///
    /// # Errors
    /// `Unavailable` when it does not, `Denied` when it does not let the administrator in.
    pub async fn check(&self) -> Result<(), PortError> {
        let (deadline, begun) = (self.clock.monotonic().after(READ), AtomicBool::new(false));
        let work = async {
            let mut session = self.session(deadline, &begun).await?;
            session.rows("SELECT '' FROM mysql.user LIMIT 1", &[]).await?;
            session.close().await;
            Ok(())
        };
        self.within(deadline, work).await.map_err(Failure::into_error)
    }

    fn site<'a>(&'a self, name: &'a str) -> Site<'a> {
        Site { name, host: &self.user_host }
    }

    async fn session<'a>(&'a self, deadline: Tick, begun: &'a AtomicBool) -> Result<Session<'a>, Failure> {
        let clock = &*self.clock;
        if clock.monotonic() >= deadline {
            return Err(Failure::late());
        }
        Session::open(&self.options, &self.turns, Span { clock, deadline, begun }).await
    }

    /// What `work` answers, or that it is late once the deadline has passed; the connection is gone then.
    async fn within<T>(
        &self,
        deadline: Tick,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let late = self.clock.sleep_until(deadline);
        pin_mut!(work);
        match select(work, late).await {
            Either::Left((done, _)) => done,
            Either::Right(((), _)) => Err(Failure::late()),
        }
    }
}

#[async_trait]
impl SiteDatabases for MysqlDatabases {
    fn address(&self) -> (String, u16) {
        self.address.clone()
    }

    async fn ensure(&self, call: &Call, uid: Uid, credentials: &Database) -> Outcome<()> {
        let name = DatabaseName::of(uid).to_string();
        if credentials.dbname != name || credentials.username != name {
            let message = format!("the credentials are not of the database {name} and its user");
            return Outcome::NotApplied(PortError::new(PORT, ErrorKind::Invalid, message));
        }
        let begun = AtomicBool::new(false);
        let work = async {
            let mut session = self.session(call.deadline, &begun).await?;
            self.site(&name).ensure(&mut session, &credentials.password).await?;
            session.close().await;
            Ok(())
        };
        outcome(self.within(call.deadline, work).await, &begun)
    }

    async fn remove(&self, call: &Call, uid: Uid) -> Outcome<()> {
        let name = DatabaseName::of(uid).to_string();
        let begun = AtomicBool::new(false);
        let work = async {
            let mut session = self.session(call.deadline, &begun).await?;
            self.site(&name).remove(&mut session).await?;
            session.close().await;
            Ok(())
        };
        outcome(self.within(call.deadline, work).await, &begun)
    }

    async fn seen(&self, uid: Uid) -> Result<SiteDatabase, PortError> {
        let name = DatabaseName::of(uid).to_string();
        let (deadline, begun) = (self.clock.monotonic().after(READ), AtomicBool::new(false));
        let work = async {
            let mut session = self.session(deadline, &begun).await?;
            let seen = self.site(&name).seen(&mut session).await?;
            session.close().await;
            Ok(seen)
        };
        self.within(deadline, work).await.map_err(Failure::into_error)
    }
}

fn outcome(done: Result<(), Failure>, begun: &AtomicBool) -> Outcome<()> {
    match done {
        Ok(()) => Outcome::Applied(()),
        Err(failure) => failure.into_outcome(begun.load(Ordering::Relaxed)),
    }
}

impl fmt::Debug for MysqlDatabases {
    /// Without the options: they hold the administrator's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlDatabases").finish_non_exhaustive()
    }
}

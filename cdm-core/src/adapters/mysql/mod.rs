//! Site databases on MySQL or MariaDB.
//!
//! A call has a connection of its own and a server lock on the site's name. Names that were removed are kept in the table
//! `cdm.removed`, so that a late call brings nothing back; a backup without it forgets that. `cdm.renewed` has the fence of
//! the last call that made a site's database anew.
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
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use futures_util::pin_mut;
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use tokio::sync::Semaphore;

use self::failure::{Failure, PORT};
use self::session::{Session, Span};
use self::site::Site;
use crate::domain::{DatabaseName, MonotonicTime, Uid};
use crate::ports::{
    CallContext, Clock, Database, ErrorKind, Outcome, PortError, SiteDatabase, SiteDatabases,
};

/// How long a read may take.
const READ: Duration = Duration::from_secs(10);
/// How many connections there are at once; further calls wait for one.
const CONNECTIONS: usize = 8;

/// Where site databases live. Plain values, judged by [`MysqlDatabases::new`].
#[derive(Clone, Debug)]
pub struct MysqlSettings {
    /// The server and its administrator, `mysql://user:password@host:port/`.
    ///
    /// A server beyond this machine has to show a certificate of the host's name, signed by the system's authorities or by
    /// those of `?ssl-ca=…`, unless `?ssl-mode=…` says otherwise. One on this machine is spoken to as it prefers.
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
        let options = if is_beyond(&options) && !names_mode(url) {
            options.ssl_mode(MySqlSslMode::VerifyIdentity)
        } else {
            options
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

    async fn session<'a>(
        &'a self,
        deadline: MonotonicTime,
        begun: &'a AtomicBool,
    ) -> Result<Session<'a>, Failure> {
        let clock = &*self.clock;
        if clock.monotonic() >= deadline {
            return Err(Failure::late());
        }
        Session::open(&self.options, &self.turns, Span { clock, deadline, begun }).await
    }

    /// What `work` answers, or that it is late once the deadline has passed; the connection is gone then.
    async fn within<T>(
        &self,
        deadline: MonotonicTime,
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

/// The name of the site's database and user, if the credentials are theirs.
fn name_of(uid: Uid, credentials: &Database) -> Result<String, PortError> {
    let name = DatabaseName::of(uid).to_string();
    if credentials.dbname == name && credentials.username == name {
        return Ok(name);
    }
    let message = format!("the credentials are not of the database {name} and its user");
    Err(PortError::new(PORT, ErrorKind::Invalid, message))
}

#[async_trait]
impl SiteDatabases for MysqlDatabases {
    fn address(&self) -> (String, u16) {
        self.address.clone()
    }

    async fn ensure(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let name = match name_of(uid, credentials) {
            Ok(name) => name,
            Err(error) => return Outcome::NotApplied(error),
        };
        let begun = AtomicBool::new(false);
        let work = async {
            let mut session = self.session(call.deadline, &begun).await?;
            self.site(&name).ensure(&mut session, &credentials.password).await?;
            session.close().await;
            Ok(())
        };
        outcome(self.within(call.deadline, work).await, &begun)
    }

    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let name = match name_of(uid, credentials) {
            Ok(name) => name,
            Err(error) => return Outcome::NotApplied(error),
        };
        let begun = AtomicBool::new(false);
        let work = async {
            let mut session = self.session(call.deadline, &begun).await?;
            self.site(&name).renew(&mut session, &credentials.password, call.fence).await?;
            session.close().await;
            Ok(())
        };
        outcome(self.within(call.deadline, work).await, &begun)
    }

    async fn remove(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
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

/// Whether the server is on another machine, as far as its host's name tells. A name that only resolves to loopback
/// counts as beyond: who answers for names may change it.
fn is_beyond(options: &MySqlConnectOptions) -> bool {
    let host = options.get_host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    options.get_socket().is_none() && !is_loopback
}

/// Whether a URL says itself how the connection is to be protected.
fn names_mode(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let keys = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(key, _)| key));
    keys.into_iter().any(|key| matches!(key, "ssl-mode" | "sslmode"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::SystemClock;

    fn mode(url: &str) -> MySqlSslMode {
        let settings = MysqlSettings::new(SecretString::from(url.to_owned()));
        let databases = MysqlDatabases::new(&settings, Arc::new(SystemClock::new())).expect("settings");
        databases.options.get_ssl_mode()
    }

    #[test]
    fn a_server_beyond_this_machine_has_to_prove_its_name() {
        for url in [
            "mysql://u:p@db.internal:3306/",
            "mysql://u:p@10.0.0.7/",
            "mysql://u:p@[fd00::7]/",
            "mysql://u:p@0.0.0.0/",
            "mysql://u:p@localhost.example.com/",
            "mysql://u:p@127.0.0.1.example.com/",
            "mysql://u:p@db.internal/?ssl-ca=/etc/ssl/rds.pem",
            "mysql://u:p@db.internal/?charset=utf8mb4",
        ] {
            assert!(matches!(mode(url), MySqlSslMode::VerifyIdentity), "{url}");
        }
    }

    #[test]
    fn an_explicit_mode_wins_and_this_machine_is_trusted() {
        for url in [
            "mysql://u:p@localhost/",
            "mysql://u:p@LOCALHOST/",
            "mysql://u:p@127.0.0.1:3307/",
            "mysql://u:p@127.1.2.3/",
            "mysql://u:p@[::1]/",
            "mysql://u:p@db.internal/?socket=/run/mysqld/mysqld.sock",
            "mysql://u:p@db.internal/?ssl-mode=PREFERRED",
            "mysql://u:p@db.internal/?charset=utf8mb4&sslmode=PREFERRED",
        ] {
            assert!(matches!(mode(url), MySqlSslMode::Preferred), "{url}");
        }
        assert!(matches!(mode("mysql://u:p@db.internal/?ssl-mode=VERIFY_CA"), MySqlSslMode::VerifyCa));
        assert!(matches!(mode("mysql://u:p@db.internal/?ssl-mode=DISABLED"), MySqlSslMode::Disabled));
    }
}

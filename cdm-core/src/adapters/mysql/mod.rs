//! Databases of sites on MySQL or MariaDB.
//!
//! Every call opens a connection and acquires a server lock on the site's name. The table `cdm.removed` has the removed
//! names, so that a delayed call cannot create a removed database again; a backup without the table loses this
//! protection. `cdm.renewed` has the fences of the calls that renewed a site's database.
//!
//! The administrator in the URL needs: `CREATE USER`; the privileges of a site's user and `CREATE`, `DROP`, `ALTER` on
//! `site\_%` and `cdm`, with `GRANT OPTION` on the former; `SELECT` on `mysql`; and the privileges to see and end the
//! connections of other users (`PROCESS`, and `CONNECTION ADMIN` or the server's equivalent).

mod failure;
mod privileges;
mod quoting;
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
use self::session::{Limits, Session};
use self::site::Site;
use crate::domain::{DatabaseName, MonotonicTime, Uid};
use crate::ports::{
    CallContext, Clock, Database, ErrorKind, Outcome, PortError, SiteDatabase, SiteDatabases,
};

const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of connections; further calls wait for one.
const MAX_CONNECTIONS: usize = 8;

/// The settings of the database server, checked by [`MysqlDatabases::new`].
#[derive(Clone, Debug)]
pub struct MysqlSettings {
    /// The server and its administrator, as `mysql://user:password@host:port/`. No default.
    ///
    /// A server on another machine must present a certificate for the host's name, signed by a system authority or by
    /// one in the file of `?ssl-ca=…`, unless `?ssl-mode=…` sets another mode. A connection to this machine uses TLS if
    /// the server supports it.
    pub url: SecretString,
    /// The administrator's password, which replaces the one in the URL. Default: `None`. Keeps the password out of the
    /// URL.
    pub password: Option<SecretString>,
    /// Host and port by which sites connect to the server. Default: `None`, for the host and port of the URL.
    pub address: Option<(String, u16)>,
    /// The hosts from which a site's user may connect, as the host part of its account. Default: `%`, for all hosts. A
    /// narrower value makes stolen credentials useless on other hosts, and must cover the addresses of all pods.
    pub user_host: String,
}

impl MysqlSettings {
    /// Returns the settings for the server of a URL, with users that may connect from all hosts.
    pub fn new(url: SecretString) -> Self {
        Self { url, password: None, address: None, user_host: "%".to_owned() }
    }
}

/// Why settings cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MysqlError {
    /// The URL is invalid.
    #[error("the URL of the database server must have the form `mysql://user:password@host:port/`")]
    Url,
    /// The host part of accounts is invalid.
    #[error("`user_host` must have at most 60 characters, only letters, digits and `%_.:/-`")]
    UserHost,
}

/// Creates and drops the databases of sites on a server. Clones share the limit of connections.
#[derive(Clone)]
pub struct MysqlDatabases {
    options: MySqlConnectOptions,
    address: (String, u16),
    user_host: String,
    permits: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

impl MysqlDatabases {
    /// Creates a client for the server in the settings. Does not connect before the first call.
    ///
    /// # Errors
    /// When the URL or the host part of accounts is invalid.
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
        let options = if is_remote(&options) && !sets_ssl_mode(url) {
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
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            clock,
        })
    }

    /// Checks that the administrator can log in and read.
    ///
    /// # Errors
    /// `Unavailable` when the server does not respond, `Denied` when it rejects the administrator.
    pub async fn check(&self) -> Result<(), PortError> {
        let (deadline, change_sent) = (self.clock.monotonic().after(READ_TIMEOUT), AtomicBool::new(false));
        let work = async {
            let mut session = self.session(deadline, &change_sent).await?;
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
        change_sent: &'a AtomicBool,
    ) -> Result<Session<'a>, Failure> {
        let clock = &*self.clock;
        if clock.monotonic() >= deadline {
            return Err(Failure::late());
        }
        Session::open(&self.options, &self.permits, Limits { clock, deadline, change_sent }).await
    }

    /// Returns the result of `work`, or a failure once the deadline has passed, which also closes the connection.
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

/// Returns the name of the site's database and user, if the credentials belong to them.
fn name_of(uid: Uid, credentials: &Database) -> Result<String, PortError> {
    let name = DatabaseName::of(uid).to_string();
    if credentials.dbname == name && credentials.username == name {
        return Ok(name);
    }
    let message = format!("the credentials do not belong to the database `{name}` and its user");
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
        let change_sent = AtomicBool::new(false);
        let work = async {
            let mut session = self.session(call.deadline, &change_sent).await?;
            self.site(&name).ensure(&mut session, &credentials.password).await?;
            session.close().await;
            Ok(())
        };
        outcome(self.within(call.deadline, work).await, &change_sent)
    }

    async fn renew(&self, call: &CallContext, uid: Uid, credentials: &Database) -> Outcome<()> {
        let name = match name_of(uid, credentials) {
            Ok(name) => name,
            Err(error) => return Outcome::NotApplied(error),
        };
        let change_sent = AtomicBool::new(false);
        let work = async {
            let mut session = self.session(call.deadline, &change_sent).await?;
            self.site(&name).renew(&mut session, &credentials.password, call.fence).await?;
            session.close().await;
            Ok(())
        };
        outcome(self.within(call.deadline, work).await, &change_sent)
    }

    async fn remove(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        let name = DatabaseName::of(uid).to_string();
        let change_sent = AtomicBool::new(false);
        let work = async {
            let mut session = self.session(call.deadline, &change_sent).await?;
            self.site(&name).remove(&mut session).await?;
            session.close().await;
            Ok(())
        };
        outcome(self.within(call.deadline, work).await, &change_sent)
    }

    async fn seen(&self, uid: Uid) -> Result<SiteDatabase, PortError> {
        let name = DatabaseName::of(uid).to_string();
        let (deadline, change_sent) = (self.clock.monotonic().after(READ_TIMEOUT), AtomicBool::new(false));
        let work = async {
            let mut session = self.session(deadline, &change_sent).await?;
            let seen = self.site(&name).seen(&mut session).await?;
            session.close().await;
            Ok(seen)
        };
        self.within(deadline, work).await.map_err(Failure::into_error)
    }
}

/// Returns whether the server is on another machine, as far as its host name shows. A name that only resolves to
/// loopback counts as another machine, because DNS can change.
fn is_remote(options: &MySqlConnectOptions) -> bool {
    let host = options.get_host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    options.get_socket().is_none() && !is_loopback
}

/// Returns whether a URL sets the TLS mode.
fn sets_ssl_mode(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let keys = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(key, _)| key));
    keys.into_iter().any(|key| matches!(key, "ssl-mode" | "sslmode"))
}

fn outcome(done: Result<(), Failure>, change_sent: &AtomicBool) -> Outcome<()> {
    match done {
        Ok(()) => Outcome::Applied(()),
        Err(failure) => failure.into_outcome(change_sent.load(Ordering::Relaxed)),
    }
}

impl fmt::Debug for MysqlDatabases {
    /// Omits the options, which have the administrator's password.
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
    fn a_server_on_another_machine_must_prove_its_name() {
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

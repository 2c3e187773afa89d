//! Site databases on a real MariaDB keep the promises of their port.

#[path = "../parts/mod.rs"]
mod parts;
mod rights;
mod server;
mod tls;
mod trouble;

use std::sync::Arc;

use cdm_core::adapters::mysql::{MysqlDatabases, MysqlError, MysqlSettings};
use cdm_core::domain::{DatabaseName, Uid};
use cdm_core::ports::{Database, SiteDatabases};
use cdm_testkit::contract::databases;
use secrecy::{ExposeSecret, SecretString};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection};

use parts::Bench;

/// A server, its databases, and a clock.
#[derive(Debug)]
struct Lab {
    bench: Bench,
    url: String,
    databases: MysqlDatabases,
}

impl Lab {
    /// On the shared server; nothing where it was not started.
    fn shared() -> Option<Self> {
        parts::address("CDM_TEST_MYSQL").map(|url| Self::at(&url))
    }

    fn at(url: &str) -> Self {
        let bench = Bench::new();
        let settings = MysqlSettings::new(SecretString::from(url.to_owned()));
        let databases = MysqlDatabases::new(&settings, Arc::new(bench.clock)).expect("settings");
        Self { bench, url: url.to_owned(), databases }
    }

    /// The options of the administrator.
    fn options(&self) -> MySqlConnectOptions {
        self.url.parse::<MySqlConnectOptions>().expect("a URL").disable_statement_logging()
    }

    async fn admin(&self) -> MySqlConnection {
        self.options().connect().await.expect("the administrator")
    }

    async fn login(&self, credentials: &Database) -> Result<MySqlConnection, sqlx::Error> {
        let options = self.options().username(&credentials.username).database(&credentials.dbname);
        options.password(credentials.password.expose_secret()).connect().await
    }

    fn credentials(&self, uid: Uid, password: &str) -> Database {
        let (host, port) = self.databases.address();
        let name = DatabaseName::of(uid).to_string();
        let password = SecretString::from(password.to_owned());
        Database { host, port, dbname: name.clone(), username: name, password }
    }

    /// A site with database and user.
    async fn site(&self) -> (Uid, Database) {
        let uid = self.bench.cx().uid();
        let credentials = self.credentials(uid, "a-password");
        let made = self.databases.ensure(&self.bench.cx().call(), uid, &credentials).await;
        assert_eq!(made, cdm_core::ports::Outcome::Applied(()));
        (uid, credentials)
    }
}

async fn run(connection: &mut MySqlConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    let Some(lab) = Lab::shared() else { return };
    databases::suite(&lab.databases, &lab.bench.cx()).await;
    lab.databases.check().await.expect("it answers");
}

#[test]
fn settings_are_judged_and_never_shown() {
    let settings = |url: &str| MysqlSettings::new(SecretString::from(url.to_owned()));
    let clock = Arc::new(Bench::new().clock);
    let with = |settings: &MysqlSettings| MysqlDatabases::new(settings, clock.clone());
    for url in ["", "postgres://a:b@c/", "mysql://a:b@c:nonsense/", "http://x"] {
        assert_eq!(with(&settings(url)).expect_err(url), MysqlError::Url);
    }
    for user_host in ["", "a'b", "a b", "`", "a\\"] {
        let settings = MysqlSettings { user_host: user_host.to_owned(), ..settings("mysql://a:b@c/") };
        assert_eq!(with(&settings).expect_err(user_host), MysqlError::UserHost);
    }
    let settings = settings("mysql://someone:hush@inside:3307/");
    let databases = with(&settings).expect("settings");
    assert_eq!(databases.address(), ("inside".to_owned(), 3307));
    assert!(!format!("{settings:?} {databases:?}").contains("hush"));
    let address = Some(("outside".to_owned(), 3308));
    let databases = with(&MysqlSettings { address, ..settings }).expect("settings");
    assert_eq!(databases.address(), ("outside".to_owned(), 3308));
}

//! Site databases on a real MariaDB fulfill the contract of their port.

mod failures;
mod grants;
mod server;
mod tls;

use std::sync::Arc;

use cdm_core::adapters::mysql::{MysqlDatabases, MysqlError, MysqlSettings};
use cdm_core::domain::{DatabaseName, Uid};
use cdm_core::ports::{Database, SiteDatabases};
use cdm_testkit::backends;
use cdm_testkit::contract::{SystemEnv, databases};
use secrecy::{ExposeSecret, SecretString};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection};

/// A server, its databases, and a clock.
#[derive(Debug)]
struct TestEnv {
    suite: SystemEnv,
    url: String,
    databases: MysqlDatabases,
}

impl TestEnv {
    /// Connects to the shared server; `None` if it was not started.
    fn shared() -> Option<Self> {
        backends::address("CDM_TEST_MYSQL").map(|url| Self::at(&url))
    }

    fn at(url: &str) -> Self {
        let suite = SystemEnv::new();
        let settings = MysqlSettings::new(SecretString::from(url.to_owned()));
        let databases = MysqlDatabases::new(&settings, Arc::new(suite.clock)).expect("settings");
        Self { suite, url: url.to_owned(), databases }
    }

    /// Returns the connection options of the administrator.
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

    /// Creates a site with database and user.
    async fn site(&self) -> (Uid, Database) {
        let uid = self.suite.cx().uid();
        let credentials = self.credentials(uid, "a-password");
        let made = self.databases.ensure(&self.suite.cx().call(), uid, &credentials).await;
        assert_eq!(made, cdm_core::ports::Outcome::Applied(()));
        (uid, credentials)
    }
}

async fn run(connection: &mut MySqlConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_fulfilled() {
    let Some(env) = TestEnv::shared() else { return };
    databases::suite(&env.databases, &env.suite.cx()).await;
    env.databases.check().await.expect("a response");
}

#[test]
fn settings_are_validated_and_never_shown() {
    let settings = |url: &str| MysqlSettings::new(SecretString::from(url.to_owned()));
    let clock = Arc::new(SystemEnv::new().clock);
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

//! Open connections, held locks, server failures and deadlines.

use std::time::Duration;

use cdm_core::ports::{CallContext, Clock, ErrorKind, Outcome, SiteDatabase, SiteDatabases};
use cdm_testkit::contract::databases;
use sqlx::Connection;

use crate::server::Server;
use crate::{TestEnv, grants, run};

const NEITHER: SiteDatabase = SiteDatabase { database: false, user: false };
const BOTH: SiteDatabase = SiteDatabase { database: true, user: true };

impl TestEnv {
    fn call_within(&self, time: Duration) -> CallContext {
        CallContext { deadline: self.suite.clock.monotonic().after(time), ..self.suite.cx().call() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_closes_only_the_connections_of_the_site() {
    let Some(env) = TestEnv::shared() else { return };
    let (uid, credentials) = env.site().await;
    let (_, other_site) = env.site().await;
    let mut idle = env.login(&credentials).await.expect("a connection");
    let mut locking = env.login(&credentials).await.expect("a connection");
    for statement in ["CREATE TABLE t (a INT)", "LOCK TABLES t WRITE"] {
        run(&mut locking, statement).await.expect(statement);
    }
    let mut busy = env.login(&credentials).await.expect("a connection");
    let mut other = env.login(&other_site).await.expect("a connection of another site");
    let mut admin = env.admin().await;

    let call = env.call_within(Duration::from_secs(10));
    let (removed, sleep) = tokio::join!(env.databases.remove(&call, uid), run(&mut busy, "SELECT SLEEP(60)"));
    assert_eq!(removed, Outcome::Applied(()));
    assert_eq!(env.databases.seen(uid).await, Ok(NEITHER));
    idle.ping().await.expect_err("ended");
    run(&mut locking, "SELECT 1").await.expect_err("ended");
    sleep.expect_err("ended");
    env.login(&credentials).await.expect_err("the user cannot sign in again");
    other.ping().await.expect("the connection of another site stays open");
    admin.ping().await.expect("the administrator's connection stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_lock_is_awaited_until_the_deadline() {
    let Some(env) = TestEnv::shared() else { return };
    let (uid, credentials) = env.site().await;
    let mut admin = env.admin().await;
    let name = &credentials.dbname;
    run(&mut admin, &format!("CREATE TABLE {name}.t (a INT)")).await.expect("a table");
    run(&mut admin, &format!("LOCK TABLES {name}.t WRITE")).await.expect("a lock");

    let call = env.call_within(Duration::from_secs(2));
    let outcome = env.databases.remove(&call, uid).await;
    let over = env.suite.clock.monotonic().since(call.deadline);
    assert!(over < Duration::from_millis(500), "{over:?} after the deadline");
    assert!(
        matches!(&outcome, Outcome::Unknown(error) if error.kind == ErrorKind::Unavailable),
        "{outcome:?}"
    );
    // The site was closed nevertheless.
    let late = env.databases.ensure(&env.suite.cx().call(), uid, &credentials).await;
    assert!(matches!(&late, Outcome::NotApplied(error) if error.kind == ErrorKind::Gone), "{late:?}");
    let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DROP DATABASE%' AND INFO LIKE ?";
    let none = async || {
        let query = sqlx::query_scalar::<_, i64>(waiting).bind(format!("%{name}%"));
        (query.fetch_one(&mut env.admin().await).await.expect("a count") == 0).then_some(())
    };
    env.suite.cx().until("the statement on the server has ended", none).await;

    run(&mut admin, "UNLOCK TABLES").await.expect("no lock");
    assert_eq!(env.databases.remove(&env.suite.cx().call(), uid).await, Outcome::Applied(()));
    assert_eq!(env.databases.seen(uid).await, Ok(NEITHER));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_for_one_site_are_serialized() {
    let Some(env) = TestEnv::shared() else { return };
    let (uid, credentials) = env.site().await;
    let mut other = env.admin().await;
    let lock = format!("DO GET_LOCK('cdm.{}', 5)", credentials.dbname);
    run(&mut other, &lock).await.expect("the lock");
    let kept = env.databases.remove(&env.call_within(Duration::from_millis(1500)), uid).await;
    assert!(matches!(&kept, Outcome::NotApplied(error) if error.is_retryable()), "{kept:?}");
    assert_eq!(env.databases.seen(uid).await, Ok(BOTH));
    other.close().await.expect("closed");

    for _ in 0..10 {
        let (uid, credentials) = env.site().await;
        let (ensure, remove) = (env.suite.cx().call(), env.suite.cx().call());
        let calls = (
            env.databases.ensure(&ensure, uid, &credentials),
            env.databases.remove(&remove, uid),
            env.databases.ensure(&ensure, uid, &credentials),
        );
        let (_, removed, _) = tokio::join!(calls.0, calls.1, calls.2);
        assert_eq!(removed, Outcome::Applied(()));
        assert_eq!(env.databases.seen(uid).await, Ok(NEITHER));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_sends_nothing() {
    let Some(env) = TestEnv::shared() else { return };
    let uid = env.suite.cx().uid();
    let late = env.suite.cx().late_call().await;
    let outcome = env.databases.ensure(&late, uid, &env.credentials(uid, "a-password")).await;
    assert!(matches!(&outcome, Outcome::NotApplied(error) if error.is_retryable()), "{outcome:?}");
    assert_eq!(env.databases.seen(uid).await, Ok(NEITHER));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_contain_no_secret() {
    let Some(env) = TestEnv::shared() else { return };
    let (uid, credentials) = env.site().await;
    let port = env.options().get_port();
    let unknown = TestEnv::at(&format!("mysql://visitor:a-hushed-word@127.0.0.1:{port}/"));
    let tenant = TestEnv::at(&format!("mysql://{}:a-password@127.0.0.1:{port}/", credentials.username));
    let tls = TestEnv::at(&format!("mysql://root@127.0.0.1:{port}/?ssl-mode=REQUIRED"));
    for (env, kind) in
        [(&unknown, ErrorKind::Denied), (&tenant, ErrorKind::Denied), (&tls, ErrorKind::Unavailable)]
    {
        let outcome = env.databases.ensure(&env.suite.cx().call(), uid, &credentials).await;
        let Outcome::NotApplied(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.kind, kind, "{error}");
        for hidden in ["127.0.0.1", "hushed", "a-password", "visitor", "root", "SELECT"] {
            assert!(!error.to_string().contains(hidden), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_continues_after_a_restart() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let env = TestEnv::at(&server.url());
    let (kept, credentials) = env.site().await;
    let (removed, _) = env.site().await;
    assert_eq!(env.databases.remove(&env.suite.cx().call(), removed).await, Outcome::Applied(()));
    server.kill();
    let gone = env.databases.ensure(&env.suite.cx().call(), kept, &credentials).await;
    assert!(matches!(&gone, Outcome::NotApplied(error) if error.is_retryable()), "{gone:?}");
    assert!(env.databases.seen(kept).await.is_err());

    // Restarted with another SQL mode, in which quotations are parsed differently.
    server.run(&["--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES"]).await;
    assert_eq!(env.databases.seen(kept).await, Ok(BOTH));
    env.login(&credentials).await.expect("the user can sign in again");
    let late = env.databases.ensure(&env.suite.cx().call(), removed, &env.credentials(removed, "a")).await;
    assert!(matches!(&late, Outcome::NotApplied(error) if error.kind == ErrorKind::Gone), "{late:?}");
    grants::assert_passwords_set(&env).await;

    // Read-only, as after a failover.
    let mut admin = env.admin().await;
    run(&mut admin, "CREATE USER limited@'%'").await.expect("a user");
    run(&mut admin, "GRANT ALL ON *.* TO limited@'%'").await.expect("grants");
    run(&mut admin, "REVOKE SUPER, READ ONLY ADMIN ON *.* FROM limited@'%'").await.expect("no super");
    run(&mut admin, "SET GLOBAL read_only = 1").await.expect("read-only");
    let limited = TestEnv::at(&server.url().replace("root", "limited"));
    let refused = limited.databases.ensure(&env.suite.cx().call(), kept, &credentials).await;
    assert!(matches!(&refused, Outcome::Unknown(error) if error.is_retryable()), "{refused:?}");
    run(&mut admin, "SET GLOBAL read_only = 0").await.expect("writable");

    // Killed while a removal waits for a lock.
    let database = &credentials.dbname;
    run(&mut admin, &format!("CREATE TABLE {database}.t (a INT)")).await.expect("a table");
    run(&mut admin, &format!("LOCK TABLES {database}.t WRITE")).await.expect("a lock");
    let call = env.suite.cx().call();
    let kill = async {
        env.suite.cx().settle().await;
        let user = async || env.databases.seen(kept).await.is_ok_and(|seen| !seen.user).then_some(());
        env.suite.cx().until("the removal has started", user).await;
        server.kill();
    };
    let (lost, ()) = tokio::join!(env.databases.remove(&call, kept), kill);
    assert!(matches!(&lost, Outcome::Unknown(error) if error.is_retryable()), "{lost:?}");
    server.run(&[]).await;
    assert_eq!(env.databases.remove(&env.suite.cx().call(), kept).await, Outcome::Applied(()));
    assert_eq!(env.databases.seen(kept).await, Ok(NEITHER));
}

/// The grants of the administrator in the operations guide.
const ADMINISTRATOR: [&str; 5] = [
    "CREATE USER cdm IDENTIFIED BY 'a-password'",
    "GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO cdm",
    "GRANT SELECT ON mysql.* TO cdm",
    "GRANT SELECT, INSERT, CREATE ON cdm.* TO cdm",
    "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE TEMPORARY TABLES, \
     LOCK TABLES ON `site\\_%`.* TO cdm WITH GRANT OPTION",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_grants_of_the_guide_are_sufficient() {
    let Some(server) = Server::start(&[]).await else { return };
    let root = TestEnv::at(&server.url());
    let mut admin = root.admin().await;
    for statement in ADMINISTRATOR {
        run(&mut admin, statement).await.expect(statement);
    }
    let env = TestEnv::at(&server.url().replace("root@", "cdm:a-password@"));
    databases::suite(&env.databases, &env.suite.cx()).await;
    env.databases.check().await.expect("a response");
    let (uid, credentials) = env.site().await;
    let mut user = env.login(&credentials).await.expect("the user");
    assert_eq!(env.databases.remove(&env.suite.cx().call(), uid).await, Outcome::Applied(()));
    user.ping().await.expect_err("ended");
}

//! Connections that are open, locks that are held, servers that go away, and deadlines that come.

use std::time::Duration;

use cdm_core::ports::{CallContext, Clock, ErrorKind, Outcome, SiteDatabase, SiteDatabases};
use cdm_testkit::contract::databases;
use sqlx::Connection;

use crate::server::Server;
use crate::{Lab, rights, run};

const NEITHER: SiteDatabase = SiteDatabase { database: false, user: false };
const BOTH: SiteDatabase = SiteDatabase { database: true, user: true };

impl Lab {
    fn call_within(&self, time: Duration) -> CallContext {
        CallContext { deadline: self.bench.clock.monotonic().after(time), ..self.bench.cx().call() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_ends_the_sites_connections_and_no_others() {
    let Some(lab) = Lab::shared() else { return };
    let (uid, credentials) = lab.site().await;
    let (_, neighbour) = lab.site().await;
    let mut idle = lab.login(&credentials).await.expect("a connection");
    let mut locking = lab.login(&credentials).await.expect("a connection");
    for statement in ["CREATE TABLE t (a INT)", "LOCK TABLES t WRITE"] {
        run(&mut locking, statement).await.expect(statement);
    }
    let mut busy = lab.login(&credentials).await.expect("a connection");
    let mut other = lab.login(&neighbour).await.expect("a neighbour's connection");
    let mut admin = lab.admin().await;

    let call = lab.call_within(Duration::from_secs(10));
    let (removed, sleep) = tokio::join!(lab.databases.remove(&call, uid), run(&mut busy, "SELECT SLEEP(60)"));
    assert_eq!(removed, Outcome::Applied(()));
    assert_eq!(lab.databases.seen(uid).await, Ok(NEITHER));
    idle.ping().await.expect_err("ended");
    run(&mut locking, "SELECT 1").await.expect_err("ended");
    sleep.expect_err("ended");
    lab.login(&credentials).await.expect_err("nobody comes back");
    other.ping().await.expect("a neighbour's connection stays");
    admin.ping().await.expect("the administrator's connection stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_someone_else_is_waited_for_until_the_deadline_only() {
    let Some(lab) = Lab::shared() else { return };
    let (uid, credentials) = lab.site().await;
    let mut admin = lab.admin().await;
    let name = &credentials.dbname;
    run(&mut admin, &format!("CREATE TABLE {name}.t (a INT)")).await.expect("a table");
    run(&mut admin, &format!("LOCK TABLES {name}.t WRITE")).await.expect("a lock");

    let call = lab.call_within(Duration::from_secs(2));
    let outcome = lab.databases.remove(&call, uid).await;
    let over = lab.bench.clock.monotonic().since(call.deadline);
    assert!(over < Duration::from_millis(500), "{over:?} after its deadline");
    assert!(
        matches!(&outcome, Outcome::Unknown(error) if error.kind == ErrorKind::Unavailable),
        "{outcome:?}"
    );
    // It was closed all the same.
    let late = lab.databases.ensure(&lab.bench.cx().call(), uid, &credentials).await;
    assert!(matches!(&late, Outcome::NotApplied(error) if error.kind == ErrorKind::Gone), "{late:?}");
    let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DROP DATABASE%' AND INFO LIKE ?";
    let none = async || {
        let query = sqlx::query_scalar::<_, i64>(waiting).bind(format!("%{name}%"));
        (query.fetch_one(&mut lab.admin().await).await.expect("a count") == 0).then_some(())
    };
    lab.bench.cx().until("the server does not go on waiting", none).await;

    run(&mut admin, "UNLOCK TABLES").await.expect("no lock");
    assert_eq!(lab.databases.remove(&lab.bench.cx().call(), uid).await, Outcome::Applied(()));
    assert_eq!(lab.databases.seen(uid).await, Ok(NEITHER));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_for_one_site_take_turns() {
    let Some(lab) = Lab::shared() else { return };
    let (uid, credentials) = lab.site().await;
    let mut other = lab.admin().await;
    let lock = format!("DO GET_LOCK('cdm.{}', 5)", credentials.dbname);
    run(&mut other, &lock).await.expect("the lock");
    let kept = lab.databases.remove(&lab.call_within(Duration::from_millis(1500)), uid).await;
    assert!(matches!(&kept, Outcome::NotApplied(error) if error.is_retryable()), "{kept:?}");
    assert_eq!(lab.databases.seen(uid).await, Ok(BOTH));
    other.close().await.expect("closed");

    for _ in 0..10 {
        let (uid, credentials) = lab.site().await;
        let (ensure, remove) = (lab.bench.cx().call(), lab.bench.cx().call());
        let calls = (
            lab.databases.ensure(&ensure, uid, &credentials),
            lab.databases.remove(&remove, uid),
            lab.databases.ensure(&ensure, uid, &credentials),
        );
        let (_, removed, _) = tokio::join!(calls.0, calls.1, calls.2);
        assert_eq!(removed, Outcome::Applied(()));
        assert_eq!(lab.databases.seen(uid).await, Ok(NEITHER));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_sends_nothing() {
    let Some(lab) = Lab::shared() else { return };
    let uid = lab.bench.cx().uid();
    let late = lab.bench.cx().late_call().await;
    let outcome = lab.databases.ensure(&late, uid, &lab.credentials(uid, "a-password")).await;
    assert!(matches!(&outcome, Outcome::NotApplied(error) if error.is_retryable()), "{outcome:?}");
    assert_eq!(lab.databases.seen(uid).await, Ok(NEITHER));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_tell_no_secret() {
    let Some(lab) = Lab::shared() else { return };
    let (uid, credentials) = lab.site().await;
    let port = lab.options().get_port();
    let nobody = Lab::at(&format!("mysql://nobody:a-hushed-word@127.0.0.1:{port}/"));
    let tenant = Lab::at(&format!("mysql://{}:a-password@127.0.0.1:{port}/", credentials.username));
    let tls = Lab::at(&format!("mysql://root@127.0.0.1:{port}/?ssl-mode=REQUIRED"));
    for (lab, kind) in
        [(&nobody, ErrorKind::Denied), (&tenant, ErrorKind::Denied), (&tls, ErrorKind::Unavailable)]
    {
        let outcome = lab.databases.ensure(&lab.bench.cx().call(), uid, &credentials).await;
        let Outcome::NotApplied(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.kind, kind, "{error}");
        for hidden in ["127.0.0.1", "hushed", "a-password", "nobody", "root", "SELECT"] {
            assert!(!error.to_string().contains(hidden), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_goes_on_where_it_was() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let lab = Lab::at(&server.url());
    let (kept, credentials) = lab.site().await;
    let (removed, _) = lab.site().await;
    assert_eq!(lab.databases.remove(&lab.bench.cx().call(), removed).await, Outcome::Applied(()));
    server.kill();
    let gone = lab.databases.ensure(&lab.bench.cx().call(), kept, &credentials).await;
    assert!(matches!(&gone, Outcome::NotApplied(error) if error.is_retryable()), "{gone:?}");
    assert!(lab.databases.seen(kept).await.is_err());

    // Otherwise set up, with quotations that are read otherwise.
    server.go(&["--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES"]).await;
    assert_eq!(lab.databases.seen(kept).await, Ok(BOTH));
    lab.login(&credentials).await.expect("its user comes in again");
    let late = lab.databases.ensure(&lab.bench.cx().call(), removed, &lab.credentials(removed, "a")).await;
    assert!(matches!(&late, Outcome::NotApplied(error) if error.kind == ErrorKind::Gone), "{late:?}");
    rights::passwords_are_taken(&lab).await;

    // Read-only, as after a fail-over.
    let mut admin = lab.admin().await;
    run(&mut admin, "CREATE USER limited@'%'").await.expect("a user");
    run(&mut admin, "GRANT ALL ON *.* TO limited@'%'").await.expect("rights");
    run(&mut admin, "REVOKE SUPER, READ ONLY ADMIN ON *.* FROM limited@'%'").await.expect("no super");
    run(&mut admin, "SET GLOBAL read_only = 1").await.expect("read-only");
    let limited = Lab::at(&server.url().replace("root", "limited"));
    let refused = limited.databases.ensure(&lab.bench.cx().call(), kept, &credentials).await;
    assert!(matches!(&refused, Outcome::Unknown(error) if error.is_retryable()), "{refused:?}");
    run(&mut admin, "SET GLOBAL read_only = 0").await.expect("writable");

    // Killed while a removal waits there.
    let database = &credentials.dbname;
    run(&mut admin, &format!("CREATE TABLE {database}.t (a INT)")).await.expect("a table");
    run(&mut admin, &format!("LOCK TABLES {database}.t WRITE")).await.expect("a lock");
    let call = lab.bench.cx().call();
    let kill = async {
        lab.bench.cx().settle().await;
        let user = async || lab.databases.seen(kept).await.is_ok_and(|seen| !seen.user).then_some(());
        lab.bench.cx().until("the removal is under way", user).await;
        server.kill();
    };
    let (lost, ()) = tokio::join!(lab.databases.remove(&call, kept), kill);
    assert!(matches!(&lost, Outcome::Unknown(error) if error.is_retryable()), "{lost:?}");
    server.go(&[]).await;
    assert_eq!(lab.databases.remove(&lab.bench.cx().call(), kept).await, Outcome::Applied(()));
    assert_eq!(lab.databases.seen(kept).await, Ok(NEITHER));
}

/// What the operations guide gives the administrator.
const ADMINISTRATOR: [&str; 5] = [
    "CREATE USER cdm IDENTIFIED BY 'a-password'",
    "GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO cdm",
    "GRANT SELECT ON mysql.* TO cdm",
    "GRANT SELECT, INSERT, CREATE ON cdm.* TO cdm",
    "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE TEMPORARY TABLES, \
     LOCK TABLES ON `site\\_%`.* TO cdm WITH GRANT OPTION",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_of_the_guide_is_enough() {
    let Some(server) = Server::start(&[]).await else { return };
    let root = Lab::at(&server.url());
    let mut admin = root.admin().await;
    for statement in ADMINISTRATOR {
        run(&mut admin, statement).await.expect(statement);
    }
    let lab = Lab::at(&server.url().replace("root@", "cdm:a-password@"));
    databases::suite(&lab.databases, &lab.bench.cx()).await;
    lab.databases.check().await.expect("it answers");
    let (uid, credentials) = lab.site().await;
    let mut user = lab.login(&credentials).await.expect("the user");
    assert_eq!(lab.databases.remove(&lab.bench.cx().call(), uid).await, Outcome::Applied(()));
    user.ping().await.expect_err("ended");
}

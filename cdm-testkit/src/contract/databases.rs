//! Guarantees of a database server: a database and its user are created together, set to one state, and dropped
//! permanently.

use cdm_core::domain::{DatabaseName, Uid};
use cdm_core::ports::{CallContext, Database, ErrorKind, SiteDatabase, SiteDatabases};

use super::SuiteContext;
use super::context::{applied, read_value, rejected};

const BOTH: SiteDatabase = SiteDatabase { database: true, user: true };
const NEITHER: SiteDatabase = SiteDatabase { database: false, user: false };

/// Tests every guarantee of the port.
pub async fn suite(port: &dyn SiteDatabases, cx: &SuiteContext<'_>) {
    it_has_an_address(port);
    ensure_creates_both(port, cx).await;
    ensure_adopts_an_existing_database(port, cx).await;
    renew_results_in_both(port, cx).await;
    a_late_renewal_is_rejected(port, cx).await;
    drop_removes_both_and_is_final(port, cx).await;
    drop_of_nothing_is_final(port, cx).await;
    other_uids_are_untouched(port, cx).await;
}

/// The address can be stored in credentials.
pub fn it_has_an_address(port: &dyn SiteDatabases) {
    let (host, port) = port.address();
    assert!(!host.is_empty() && port != 0, "broken promise: site databases have a host and a port");
}

/// `ensure` creates database and user if neither exists.
pub async fn ensure_creates_both(port: &dyn SiteDatabases, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "ensure creates the database and its user";
    let uid = cx.uid();
    assert_seen(PROMISE, port, uid, NEITHER).await;
    applied(PROMISE, port.ensure(&cx.call(), uid, &credentials(port, cx, uid)).await);
    assert_seen(PROMISE, port, uid, BOTH).await;
}

/// A repetition succeeds, with the same password or another.
pub async fn ensure_adopts_an_existing_database(port: &dyn SiteDatabases, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "ensure adopts an existing database";
    let uid = cx.uid();
    let first = credentials(port, cx, uid);
    let call = cx.call();
    applied(PROMISE, port.ensure(&call, uid, &first).await);
    applied(PROMISE, port.ensure(&call, uid, &first).await);
    applied(PROMISE, port.ensure(&cx.call(), uid, &credentials(port, cx, uid)).await);
    assert_seen(PROMISE, port, uid, BOTH).await;
}

/// A renewal may be repeated, and creates a missing database.
pub async fn renew_results_in_both(port: &dyn SiteDatabases, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "renew results in a database and its user, and may be repeated";
    let uid = cx.uid();
    let value = credentials(port, cx, uid);
    let call = cx.call();
    for call in [call, call, cx.call()] {
        applied(PROMISE, port.renew(&call, uid, &value).await);
        assert_seen(PROMISE, port, uid, BOTH).await;
    }
    applied(PROMISE, port.ensure(&cx.call(), uid, &value).await);
}

/// A worker that lost its work cannot empty a database that its successor recreated.
pub async fn a_late_renewal_is_rejected(port: &dyn SiteDatabases, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a renewal is rejected after one with a higher fence";
    let uid = cx.uid();
    let value = credentials(port, cx, uid);
    let late = cx.call();
    applied(PROMISE, port.renew(&cx.call(), uid, &value).await);
    rejected(PROMISE, ErrorKind::Conflict, port.renew(&late, uid, &value).await);
    assert_seen(PROMISE, port, uid, BOTH).await;
    applied(PROMISE, port.remove(&cx.call(), uid).await);
    rejected(PROMISE, ErrorKind::Gone, port.renew(&cx.call(), uid, &value).await);
}

/// A drop may be repeated, and no late call restores the database.
pub async fn drop_removes_both_and_is_final(port: &dyn SiteDatabases, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a drop removes database and user, may be repeated, and is permanent";
    let uid = cx.uid();
    let value = credentials(port, cx, uid);
    let (ensure, drop) = (cx.call(), cx.call());
    applied(PROMISE, port.ensure(&ensure, uid, &value).await);
    for call in [drop, drop, cx.call()] {
        applied(PROMISE, port.remove(&call, uid).await);
        assert_closed(PROMISE, port, &ensure, uid, &value).await;
        assert_closed(PROMISE, port, &cx.call(), uid, &value).await;
    }
}

/// A drop also closes a uid without a database.
pub async fn drop_of_nothing_is_final(port: &dyn SiteDatabases, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a drop of nothing closes the uid";
    let uid = cx.uid();
    applied(PROMISE, port.remove(&cx.call(), uid).await);
    assert_closed(PROMISE, port, &cx.call(), uid, &credentials(port, cx, uid)).await;
}

/// A drop affects one uid, even if another differs from it by one character.
pub async fn other_uids_are_untouched(port: &dyn SiteDatabases, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a drop does not affect other uids";
    let (kept, dropped) = cx.neighbors();
    for uid in [kept, dropped] {
        applied(PROMISE, port.ensure(&cx.call(), uid, &credentials(port, cx, uid)).await);
    }
    applied(PROMISE, port.remove(&cx.call(), dropped).await);
    assert_seen(PROMISE, port, dropped, NEITHER).await;
    assert_seen(PROMISE, port, kept, BOTH).await;
}

fn credentials(port: &dyn SiteDatabases, cx: &SuiteContext<'_>, uid: Uid) -> Database {
    let (host, port) = port.address();
    let name = DatabaseName::of(uid).to_string();
    Database { host, port, dbname: name.clone(), username: name, password: cx.ids().password() }
}

async fn assert_seen(promise: &str, port: &dyn SiteDatabases, uid: Uid, want: SiteDatabase) {
    assert_eq!(read_value(promise, port.seen(uid).await), want, "broken promise: {promise}");
}

async fn assert_closed(
    promise: &str,
    port: &dyn SiteDatabases,
    call: &CallContext,
    uid: Uid,
    value: &Database,
) {
    rejected(promise, ErrorKind::Gone, port.ensure(call, uid, value).await);
    assert_seen(promise, port, uid, NEITHER).await;
}

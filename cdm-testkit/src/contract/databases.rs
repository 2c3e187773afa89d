//! What a database server promises: a database and a user together, brought to one state, and dropped for good.

use cdm_core::domain::{DatabaseName, Uid};
use cdm_core::ports::{CallContext, Database, ErrorKind, SiteDatabase, SiteDatabases};

use super::Cx;
use super::cx::{answered, applied, refused};

const BOTH: SiteDatabase = SiteDatabase { database: true, user: true };
const NEITHER: SiteDatabase = SiteDatabase { database: false, user: false };

/// Every promise of the port.
pub async fn suite(port: &dyn SiteDatabases, cx: &Cx<'_>) {
    it_has_an_address(port);
    ensure_makes_both(port, cx).await;
    ensure_adopts_what_is_there(port, cx).await;
    renew_keeps_both(port, cx).await;
    a_late_renewal_is_refused(port, cx).await;
    drop_removes_both_and_is_final(port, cx).await;
    drop_of_nothing_is_final(port, cx).await;
    other_uids_are_untouched(port, cx).await;
}

/// The stored credentials can name a server.
pub fn it_has_an_address(port: &dyn SiteDatabases) {
    let (host, port) = port.address();
    assert!(!host.is_empty() && port != 0, "broken promise: site databases have a host and a port");
}

/// Where nothing was, database and user are made.
pub async fn ensure_makes_both(port: &dyn SiteDatabases, cx: &Cx<'_>) {
    const PROMISE: &str = "ensure makes the database and its user";
    let uid = cx.uid();
    assert_seen(PROMISE, port, uid, NEITHER).await;
    applied(PROMISE, port.ensure(&cx.call(), uid, &credentials(port, cx, uid)).await);
    assert_seen(PROMISE, port, uid, BOTH).await;
}

/// A repetition is no error, with the same password or another.
pub async fn ensure_adopts_what_is_there(port: &dyn SiteDatabases, cx: &Cx<'_>) {
    const PROMISE: &str = "ensure adopts what is there";
    let uid = cx.uid();
    let first = credentials(port, cx, uid);
    let call = cx.call();
    applied(PROMISE, port.ensure(&call, uid, &first).await);
    applied(PROMISE, port.ensure(&call, uid, &first).await);
    applied(PROMISE, port.ensure(&cx.call(), uid, &credentials(port, cx, uid)).await);
    assert_seen(PROMISE, port, uid, BOTH).await;
}

/// A renewal may be repeated, and makes what is not there.
pub async fn renew_keeps_both(port: &dyn SiteDatabases, cx: &Cx<'_>) {
    const PROMISE: &str = "renew leaves the database and its user, and may be repeated";
    let uid = cx.uid();
    let value = credentials(port, cx, uid);
    let call = cx.call();
    for call in [call, call, cx.call()] {
        applied(PROMISE, port.renew(&call, uid, &value).await);
        assert_seen(PROMISE, port, uid, BOTH).await;
    }
    applied(PROMISE, port.ensure(&cx.call(), uid, &value).await);
}

/// Whoever lost the work removes nothing from a database that its successor has made anew.
pub async fn a_late_renewal_is_refused(port: &dyn SiteDatabases, cx: &Cx<'_>) {
    const PROMISE: &str = "a renewal is refused after one with a higher fence";
    let uid = cx.uid();
    let value = credentials(port, cx, uid);
    let late = cx.call();
    applied(PROMISE, port.renew(&cx.call(), uid, &value).await);
    refused(PROMISE, ErrorKind::Conflict, port.renew(&late, uid, &value).await);
    assert_seen(PROMISE, port, uid, BOTH).await;
    applied(PROMISE, port.remove(&cx.call(), uid).await);
    refused(PROMISE, ErrorKind::Gone, port.renew(&cx.call(), uid, &value).await);
}

/// A drop may be repeated, and no late call brings anything back.
pub async fn drop_removes_both_and_is_final(port: &dyn SiteDatabases, cx: &Cx<'_>) {
    const PROMISE: &str = "drop removes database and user, may be repeated, and is final";
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

/// A drop closes also a uid that had no database yet.
pub async fn drop_of_nothing_is_final(port: &dyn SiteDatabases, cx: &Cx<'_>) {
    const PROMISE: &str = "a drop of nothing closes the uid";
    let uid = cx.uid();
    applied(PROMISE, port.remove(&cx.call(), uid).await);
    assert_closed(PROMISE, port, &cx.call(), uid, &credentials(port, cx, uid)).await;
}

/// A drop is of one uid, also where another differs from it by a character.
pub async fn other_uids_are_untouched(port: &dyn SiteDatabases, cx: &Cx<'_>) {
    const PROMISE: &str = "a drop leaves other uids alone";
    let (kept, dropped) = cx.neighbours();
    for uid in [kept, dropped] {
        applied(PROMISE, port.ensure(&cx.call(), uid, &credentials(port, cx, uid)).await);
    }
    applied(PROMISE, port.remove(&cx.call(), dropped).await);
    assert_seen(PROMISE, port, dropped, NEITHER).await;
    assert_seen(PROMISE, port, kept, BOTH).await;
}

fn credentials(port: &dyn SiteDatabases, cx: &Cx<'_>, uid: Uid) -> Database {
    let (host, port) = port.address();
    let name = DatabaseName::of(uid).to_string();
    Database { host, port, dbname: name.clone(), username: name, password: cx.ids().password() }
}

async fn assert_seen(promise: &str, port: &dyn SiteDatabases, uid: Uid, want: SiteDatabase) {
    assert_eq!(answered(promise, port.seen(uid).await), want, "broken promise: {promise}");
}

async fn assert_closed(
    promise: &str,
    port: &dyn SiteDatabases,
    call: &CallContext,
    uid: Uid,
    value: &Database,
) {
    refused(promise, ErrorKind::Gone, port.ensure(call, uid, value).await);
    assert_seen(promise, port, uid, NEITHER).await;
}

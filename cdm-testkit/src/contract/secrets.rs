//! Guarantees of a secret store: one value for each name, forever.

use cdm_core::domain::webhook::SigningKey;
use cdm_core::domain::{DatabaseName, SecretKind, SecretName};
use cdm_core::ports::{Cms, Credentials, Database, ErrorKind, SecretStore, StoredSecret};

use super::SuiteContext;
use super::context::{applied, read_value, rejected};

/// Tests every guarantee of the port.
pub async fn suite(port: &dyn SecretStore, cx: &SuiteContext<'_>) {
    a_missing_value_reads_as_none(port, cx).await;
    a_value_is_read_back(port, cx).await;
    create_never_overwrites(port, cx).await;
    delete_makes_a_value_unreadable(port, cx).await;
    delete_is_final(port, cx).await;
    delete_of_nothing_is_final(port, cx).await;
    the_kinds_are_independent(port, cx).await;
}

/// A name that was never used has no value.
pub async fn a_missing_value_reads_as_none(port: &dyn SecretStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a name without a stored value reads as `None`";
    let read = read_value(PROMISE, port.read(&fresh(cx, SecretKind::Cms)).await);
    assert!(read.is_none(), "broken promise: {PROMISE}");
}

/// Every kind of secret is read back unchanged.
pub async fn a_value_is_read_back(port: &dyn SecretStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a stored value is read back unchanged";
    for kind in [SecretKind::Database, SecretKind::Cms, SecretKind::Webhook, SecretKind::Sealing] {
        let name = fresh(cx, kind);
        let value = credentials(cx, name);
        applied(PROMISE, port.create(&cx.call(), &name, &value).await);
        assert!(value_of(PROMISE, port, cx, name).await == value, "broken promise: {PROMISE}");
    }
}

/// The first of two creations of a name stays.
pub async fn create_never_overwrites(port: &dyn SecretStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a create never overwrites a value";
    let name = fresh(cx, SecretKind::Database);
    let (first, second) = (credentials(cx, name), credentials(cx, name));
    let call = cx.call();
    applied(PROMISE, port.create(&call, &name, &first).await);
    rejected(PROMISE, ErrorKind::Exists, port.create(&cx.call(), &name, &second).await);
    rejected(PROMISE, ErrorKind::Exists, port.create(&call, &name, &second).await);
    assert!(value_of(PROMISE, port, cx, name).await == first, "broken promise: {PROMISE}");
}

/// A value scheduled for deletion immediately reads as being deleted, not as a value and not as absent.
pub async fn delete_makes_a_value_unreadable(port: &dyn SecretStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a value that is scheduled for deletion is unreadable, and recoverable for days";
    let name = fresh(cx, SecretKind::Database);
    applied(PROMISE, port.create(&cx.call(), &name, &credentials(cx, name)).await);
    applied(PROMISE, port.schedule_delete(&cx.call(), &name).await);
    let read = read_value(PROMISE, port.read(&name).await);
    assert!(matches!(read, Some(StoredSecret::Deleting)), "broken promise: {PROMISE}");
}

/// A deletion may be repeated, and its name can never be used again.
pub async fn delete_is_final(port: &dyn SecretStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a deletion may be repeated and is permanent";
    let name = fresh(cx, SecretKind::Cms);
    let value = credentials(cx, name);
    let (create, delete) = (cx.call(), cx.call());
    applied(PROMISE, port.create(&create, &name, &value).await);
    for call in [delete, delete, cx.call()] {
        applied(PROMISE, port.schedule_delete(&call, &name).await);
        rejected(PROMISE, ErrorKind::Gone, port.create(&create, &name, &value).await);
        rejected(PROMISE, ErrorKind::Gone, port.create(&cx.call(), &name, &value).await);
        let read = read_value(PROMISE, port.read(&name).await);
        assert!(matches!(read, Some(StoredSecret::Deleting)), "broken promise: {PROMISE}");
    }
}

/// A deletion also closes a name without a value, so that a late creation leaves nothing behind.
pub async fn delete_of_nothing_is_final(port: &dyn SecretStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a deletion of nothing closes the name";
    let name = fresh(cx, SecretKind::Database);
    applied(PROMISE, port.schedule_delete(&cx.call(), &name).await);
    applied(PROMISE, port.schedule_delete(&cx.call(), &name).await);
    rejected(PROMISE, ErrorKind::Gone, port.create(&cx.call(), &name, &credentials(cx, name)).await);
    let read = read_value(PROMISE, port.read(&name).await);
    assert!(!matches!(read, Some(StoredSecret::Value(_))), "broken promise: {PROMISE}");
}

/// An operation on one secret of a site does not affect the other.
pub async fn the_kinds_are_independent(port: &dyn SecretStore, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "the two secrets of a site are independent";
    let uid = cx.uid();
    let [database, cms] = SecretKind::OF_SITE.map(|kind| SecretName { uid, kind });
    let value = credentials(cx, cms);
    applied(PROMISE, port.create(&cx.call(), &database, &credentials(cx, database)).await);
    applied(PROMISE, port.create(&cx.call(), &cms, &value).await);
    applied(PROMISE, port.schedule_delete(&cx.call(), &database).await);
    assert!(value_of(PROMISE, port, cx, cms).await == value, "broken promise: {PROMISE}");
}

fn fresh(cx: &SuiteContext<'_>, kind: SecretKind) -> SecretName {
    SecretName { uid: cx.uid(), kind }
}

fn credentials(cx: &SuiteContext<'_>, name: SecretName) -> Credentials {
    let password = cx.ids().password();
    match name.kind {
        SecretKind::Database => {
            let database = DatabaseName::of(name.uid).to_string();
            let (username, dbname) = (database.clone(), database);
            let host = "db.example.test".to_owned();
            Credentials::Database(Database { host, port: 3306, dbname, username, password })
        }
        SecretKind::Cms => {
            let (username, email) = ("admin".to_owned(), "admin@example.test".to_owned());
            Credentials::Cms(Cms { username, password, email })
        }
        SecretKind::Sealing => Credentials::Sealing(format!("a key {}", cx.number()).into()),
        SecretKind::Webhook => {
            Credentials::Webhook(SigningKey::new(&[u8::try_from(cx.number() % 256).unwrap_or(0); 32]))
        }
    }
}

/// Returns the value of a name; a read may lag behind the creation for a moment.
async fn value_of(
    promise: &str,
    port: &dyn SecretStore,
    cx: &SuiteContext<'_>,
    name: SecretName,
) -> Credentials {
    cx.until(promise, async || match read_value(promise, port.read(&name).await) {
        Some(StoredSecret::Value(value)) => Some(value),
        Some(StoredSecret::Deleting) | None => None,
    })
    .await
}

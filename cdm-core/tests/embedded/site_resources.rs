//! Secrets, objects and site databases in one directory: their port contracts, and tests of their files.

#![expect(clippy::disallowed_methods, reason = "the tests inspect the content of files")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::embedded::{
    EmbeddedDatabases, EmbeddedObjects, EmbeddedSecrets, File, KeyError, SecretsError,
};
use cdm_core::domain::{DatabaseName, ObjectPrefix, SecretKind, SecretName, Uid};
use cdm_core::ports::{
    Clock, Cms, Credentials, Database, Entropy, ErrorKind, ObjectStore, Outcome, PortError, SecretStore,
    SiteDatabase, SiteDatabases, StoredSecret,
};
use cdm_testkit::clock::SimClock;
use cdm_testkit::contract::{databases, objects, secrets};
use secrecy::{ExposeSecret, SecretString};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::support::TestEnv;

impl TestEnv {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn secrets(&self) -> EmbeddedSecrets {
        self.try_secrets().await.expect("secrets")
    }

    async fn try_secrets(&self) -> Result<EmbeddedSecrets, SecretsError> {
        EmbeddedSecrets::open(self.file.clone(), &self.path("key"), Arc::new(self.clock)).await
    }

    async fn objects(&self) -> EmbeddedObjects {
        EmbeddedObjects::open(&self.path("objects"), Arc::new(self.clock)).await.expect("objects")
    }

    async fn databases(&self) -> EmbeddedDatabases {
        EmbeddedDatabases::open(self.file.clone(), &self.path("databases")).await.expect("databases")
    }

    fn name(&self, kind: SecretKind) -> SecretName {
        SecretName { uid: self.cx().uid(), kind }
    }

    fn admin(&self) -> Credentials {
        let (username, email) = ("admin".to_owned(), "admin@example.test".to_owned());
        Credentials::Cms(Cms { username, password: self.ids.password(), email })
    }

    fn user(&self, uid: Uid) -> Database {
        let name = DatabaseName::of(uid).to_string();
        let (host, password) = ("localhost".to_owned(), self.ids.password());
        Database { host, port: 3306, dbname: name.clone(), username: name, password }
    }

    /// Opens a separate connection to the database file, as an administrator with shell access might.
    async fn direct_connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path("cdm.db"));
        options.connect().await.expect("a connection")
    }
}

#[derive(Debug)]
struct Files(PathBuf);

#[async_trait]
impl objects::ObjectSeeder for Files {
    async fn seed_objects(&self, keys: &[String]) {
        for key in keys {
            let path = self.0.join(key);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, "").expect("a file");
        }
    }
}

/// Returns every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn assert_in_no_file(dir: &Path, text: &str) {
    for path in files(dir) {
        let bytes = fs::read(&path).expect("a file");
        let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!found, "a password is stored in {}", path.display());
    }
}

fn refused<T>(outcome: Outcome<T>) -> ErrorKind {
    match outcome {
        Outcome::NotApplied(error) => error.kind,
        Outcome::Applied(_) | Outcome::Unknown(_) => panic!("the call was not rejected"),
    }
}

fn denied<T>(result: Result<T, PortError>) -> String {
    let error = result.err().expect("an error");
    assert_eq!(error.kind, ErrorKind::Denied);
    error.message
}

fn is_value(read: &Option<StoredSecret>, value: &Credentials) -> bool {
    matches!(read, Some(StoredSecret::Value(stored)) if stored == value)
}

#[tokio::test]
async fn the_secret_store_fulfills_its_contract() {
    let env = TestEnv::new().await;
    let port = env.secrets().await;
    secrets::suite(&port, &env.cx()).await;
    port.check().await.expect("ready");
}

#[tokio::test]
async fn the_object_store_fulfills_its_contract() {
    let env = TestEnv::new().await;
    let port = env.objects().await;
    objects::suite(&port, &Files(env.path("objects")), &env.cx()).await;
    port.check().await.expect("ready");
}

#[tokio::test]
async fn the_databases_fulfill_their_contract() {
    let env = TestEnv::new().await;
    let port = env.databases().await;
    databases::suite(&port, &env.cx()).await;
    port.check().await.expect("ready");
}

#[tokio::test]
async fn a_key_is_created_once_and_readable_only_by_its_owner() {
    let env = TestEnv::new().await;
    env.secrets().await;
    let key = env.path("key");
    let bytes = fs::read(&key).expect("a key");
    assert_eq!(bytes.len(), 32);
    assert_eq!(fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    env.secrets().await;
    assert_eq!(fs::read(&key).expect("a key"), bytes);
    let drafts =
        files(env.dir.path()).into_iter().filter(|path| path.extension().is_some_and(|e| e == "new"));
    assert_eq!(drafts.count(), 0);
}

#[tokio::test]
async fn a_wrong_key_is_rejected() {
    let env = TestEnv::new().await;
    let (key, name) = (env.path("key"), env.name(SecretKind::Cms));
    let value = env.admin();
    let stored = env.secrets().await.create(&env.cx().call(), &name, &value).await;
    assert_eq!(stored, Outcome::Applied(()));
    let bytes = fs::read(&key).expect("a key");
    let opened = async |env: &TestEnv| match env.try_secrets().await {
        Err(SecretsError::Key(error)) => error,
        other => panic!("not rejected because of the key: {other:?}"),
    };

    for mode in [0o640, 0o604, 0o660, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("a mode");
        let error = opened(&env).await;
        assert!(matches!(error, KeyError::Exposed { mode: seen, .. } if seen == mode), "{error}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    for length in [0, 31, 33] {
        fs::write(&key, vec![7; length]).expect("a file");
        assert!(matches!(opened(&env).await, KeyError::Length { .. }), "{length} bytes");
    }
    fs::write(&key, [7; 32]).expect("a file");
    assert!(matches!(opened(&env).await, KeyError::Wrong { .. }));
    fs::remove_file(&key).expect("the file is removed");
    assert!(matches!(opened(&env).await, KeyError::Missing { .. }));
    assert!(!key.exists());

    fs::write(&key, bytes).expect("a file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert!(is_value(&env.secrets().await.read(&name).await.expect("a response"), &value));
}

#[tokio::test]
async fn a_lost_key_is_recreated_if_there_are_no_secrets() {
    let env = TestEnv::new().await;
    env.secrets().await;
    fs::remove_file(env.path("key")).expect("the file is removed");
    env.secrets().await.check().await.expect("ready");
}

#[tokio::test]
async fn a_value_sealed_with_another_key_is_denied() {
    let (env, other) = (TestEnv::new().await, TestEnv::new().await);
    let name = env.name(SecretKind::Cms);
    let (port, other_secrets) = (env.secrets().await, other.secrets().await);
    assert_eq!(other_secrets.create(&other.cx().call(), &name, &other.admin()).await, Outcome::Applied(()));
    let mut connection = env.direct_connection().await;
    let attach = sqlx::query("ATTACH ? AS other").bind(other.path("cdm.db").display().to_string());
    attach.execute(&mut connection).await.expect("the other file");
    sqlx::query("INSERT INTO secrets SELECT * FROM other.secrets")
        .execute(&mut connection)
        .await
        .expect("a row");
    connection.close().await.expect("the connection is closed");
    let message = denied(port.read(&name).await);
    assert!(!message.contains(&name.uid.to_string()), "{message}");
}

#[tokio::test]
async fn a_row_under_another_name_is_denied() {
    let env = TestEnv::new().await;
    let port = env.secrets().await;
    let (first, second) = (env.name(SecretKind::Cms), env.name(SecretKind::Cms));
    assert_eq!(port.create(&env.cx().call(), &first, &env.admin()).await, Outcome::Applied(()));
    let mut connection = env.direct_connection().await;
    let rename = sqlx::query("UPDATE secrets SET name = ?").bind(second.to_string());
    assert_eq!(rename.execute(&mut connection).await.expect("an update").rows_affected(), 1);
    let message = denied(port.read(&second).await);
    for name in [first, second] {
        assert!(!message.contains(&name.uid.to_string()), "{message}");
    }
    let cut = sqlx::query("UPDATE secrets SET sealed = x'00'");
    cut.execute(&mut connection).await.expect("an update");
    denied(port.read(&second).await);
}

#[tokio::test]
async fn no_file_contains_a_password() {
    let env = TestEnv::new().await;
    let (secrets, databases) = (env.secrets().await, env.databases().await);
    let uid = env.cx().uid();
    let user = env.user(uid);
    let value = Credentials::Database(user.clone());
    let name = SecretName { uid, kind: SecretKind::Database };
    assert_eq!(secrets.create(&env.cx().call(), &name, &value).await, Outcome::Applied(()));
    assert_eq!(databases.ensure(&env.cx().call(), uid, &user).await, Outcome::Applied(()));
    assert!(is_value(&secrets.read(&name).await.expect("a response"), &value));
    assert!(files(env.dir.path()).iter().any(|path| path.ends_with("cdm.db-wal")));
    assert_in_no_file(env.dir.path(), user.password.expose_secret());
    env.file.close().await;
    assert_in_no_file(env.dir.path(), user.password.expose_secret());
    let shown = format!("{secrets:?} {databases:?}");
    assert!(!shown.contains(user.password.expose_secret()));
}

#[tokio::test]
async fn a_value_is_dropped_after_its_window_and_its_name_stays_reserved() {
    let env = TestEnv::new().await;
    let clock = SimClock::new();
    let key = env.path("key");
    let open = EmbeddedSecrets::open(env.file.clone(), &key, Arc::new(clock.clone()));
    let port = open.await.expect("secrets");
    let (name, value) = (env.name(SecretKind::Cms), env.admin());
    let call = || cdm_core::ports::CallContext {
        deadline: clock.monotonic().after(Duration::from_secs(30)),
        ..env.cx().call()
    };
    assert_eq!(port.create(&call(), &name, &value).await, Outcome::Applied(()));
    assert_eq!(port.schedule_delete(&call(), &name).await, Outcome::Applied(()));
    clock.advance(Duration::from_hours(6 * 24));
    assert_eq!(port.schedule_delete(&call(), &name).await, Outcome::Applied(()));
    assert!(matches!(port.read(&name).await, Ok(Some(StoredSecret::Deleting))));
    clock.advance(Duration::from_hours(24));
    assert!(matches!(port.read(&name).await, Ok(None)), "the second call moved the window's end");

    let mut connection = env.direct_connection().await;
    let mut stored = async || {
        let stored = sqlx::query_scalar("SELECT COUNT(*) FROM secrets WHERE sealed IS NOT NULL");
        let stored: i64 = stored.fetch_one(&mut connection).await.expect("a number");
        stored
    };
    assert_eq!(stored().await, 1);
    let other = env.name(SecretKind::Cms);
    assert_eq!(port.schedule_delete(&call(), &other).await, Outcome::Applied(()));
    assert_eq!(stored().await, 0, "the value is dropped by the next call");
    assert_eq!(refused(port.create(&call(), &name, &value).await), ErrorKind::Gone);
}

#[tokio::test]
async fn credentials_of_another_kind_are_invalid() {
    let env = TestEnv::new().await;
    let port = env.secrets().await;
    let name = env.name(SecretKind::Database);
    assert_eq!(refused(port.create(&env.cx().call(), &name, &env.admin()).await), ErrorKind::Invalid);
    assert!(matches!(port.read(&name).await, Ok(None)));
}

#[tokio::test]
async fn of_two_processes_one_stores_a_secret() {
    let env = TestEnv::new().await;
    let file = async || File::open(&env.path("cdm.db")).await.expect("a database file");
    let open = async || {
        EmbeddedSecrets::open(file().await, &env.path("key"), Arc::new(env.clock)).await.expect("secrets")
    };
    // Both processes start in an empty directory: one key is created, and both use it.
    let (one, two) = tokio::join!(open(), open());
    for _ in 0..20 {
        let name = env.name(SecretKind::Cms);
        let (a, b) = (env.admin(), env.admin());
        let (first, second) = (env.cx().call(), env.cx().call());
        let (first, second) = tokio::join!(one.create(&first, &name, &a), two.create(&second, &name, &b));
        let won = match (first, second) {
            (Outcome::Applied(()), other) => (refused(other) == ErrorKind::Exists).then_some(a),
            (other, Outcome::Applied(())) => (refused(other) == ErrorKind::Exists).then_some(b),
            neither => panic!("neither was applied: {neither:?}"),
        };
        let won = won.expect("the other call reports an existing value");
        for port in [&one, &two] {
            assert!(is_value(&port.read(&name).await.expect("a response"), &won));
        }
    }
}

#[tokio::test]
async fn all_data_survives_a_restart() {
    let env = TestEnv::new().await;
    let uid = env.cx().uid();
    let (user, name) = (env.user(uid), SecretName { uid, kind: SecretKind::Database });
    let value = Credentials::Database(user.clone());
    let gone = env.name(SecretKind::Cms);
    {
        let (secrets, objects) = (env.secrets().await, env.objects().await);
        let databases = env.databases().await;
        assert_eq!(secrets.create(&env.cx().call(), &name, &value).await, Outcome::Applied(()));
        assert_eq!(secrets.schedule_delete(&env.cx().call(), &gone).await, Outcome::Applied(()));
        let marker = objects.put_marker(&env.cx().call(), &ObjectPrefix::of(uid)).await;
        assert_eq!(marker, Outcome::Applied(()));
        assert_eq!(databases.ensure(&env.cx().call(), uid, &user).await, Outcome::Applied(()));
        assert_eq!(databases.remove(&env.cx().call(), gone.uid).await, Outcome::Applied(()));
        let mut site = databases.connect(&user).await.expect("a connection");
        sqlx::query("CREATE TABLE posts (title TEXT)").execute(&mut site).await.expect("a table");
        site.close().await.expect("the connection is closed");
        env.file.close().await;
    }
    let env = TestEnv { file: File::open(&env.path("cdm.db")).await.expect("a database file"), ..env };
    let (secrets, objects) = (env.secrets().await, env.objects().await);
    let databases = env.databases().await;
    assert!(is_value(&secrets.read(&name).await.expect("a response"), &value));
    assert_eq!(refused(secrets.create(&env.cx().call(), &gone, &env.admin()).await), ErrorKind::Gone);
    let page = objects.page(&ObjectPrefix::of(uid), None).await.expect("a response");
    assert_eq!(page.keys, [ObjectPrefix::of(uid).marker()]);
    let late = databases.ensure(&env.cx().call(), gone.uid, &env.user(gone.uid)).await;
    assert_eq!(refused(late), ErrorKind::Gone);
    assert_eq!(databases.ensure(&env.cx().call(), uid, &user).await, Outcome::Applied(()));
    let mut site = databases.connect(&user).await.expect("a connection");
    sqlx::query("SELECT title FROM posts").fetch_all(&mut site).await.expect("the table");
}

#[tokio::test]
async fn a_database_opens_only_for_its_own_user() {
    let env = TestEnv::new().await;
    let port = env.databases().await;
    let (uid, other) = env.cx().neighbors();
    let (user, other_user) = (env.user(uid), env.user(other));
    denied(port.connect(&user).await);
    assert_eq!(port.ensure(&env.cx().call(), uid, &user).await, Outcome::Applied(()));
    assert_eq!(port.ensure(&env.cx().call(), other, &other_user).await, Outcome::Applied(()));
    port.connect(&user).await.expect("a connection");

    denied(port.connect(&Database { password: other_user.password.clone(), ..user.clone() }).await);
    denied(port.connect(&Database { password: SecretString::from(""), ..user.clone() }).await);
    denied(port.connect(&Database { dbname: other_user.dbname.clone(), ..user.clone() }).await);
    denied(port.connect(&Database { dbname: "../cdm".to_owned(), ..user.clone() }).await);
    denied(port.connect(&Database { username: other_user.username.clone(), ..user.clone() }).await);
    let foreign = Database { username: other_user.username, ..user.clone() };
    assert_eq!(refused(port.ensure(&env.cx().call(), uid, &foreign).await), ErrorKind::Invalid);

    let changed = env.user(uid);
    assert_eq!(port.ensure(&env.cx().call(), uid, &changed).await, Outcome::Applied(()));
    denied(port.connect(&user).await);
    port.connect(&changed).await.expect("a connection");

    fs::remove_file(env.path("databases").join(format!("{}.sqlite", user.dbname)))
        .expect("the file is removed");
    assert_eq!(port.seen(uid).await, Ok(SiteDatabase { database: false, user: true }));
    let missing = port.connect(&changed).await.expect_err("no database");
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert_eq!(port.seen(uid).await, Ok(SiteDatabase { database: false, user: true }));
}

#[tokio::test]
async fn a_removed_database_leaves_no_file_and_accepts_no_write() {
    let env = TestEnv::new().await;
    let port = env.databases().await;
    let uid = env.cx().uid();
    let user = env.user(uid);
    assert_eq!(port.ensure(&env.cx().call(), uid, &user).await, Outcome::Applied(()));
    let mut site = port.connect(&user).await.expect("a connection");
    sqlx::query("CREATE TABLE posts (title TEXT)").execute(&mut site).await.expect("a table");
    assert_eq!(port.remove(&env.cx().call(), uid).await, Outcome::Applied(()));
    let late = sqlx::query("INSERT INTO posts VALUES ('late')").execute(&mut site).await;
    assert!(late.is_err(), "a connection from before still writes");
    assert_eq!(files(&env.path("databases")), [] as [PathBuf; 0]);
    denied(port.connect(&user).await);
}

#[tokio::test]
async fn an_emptied_site_leaves_no_directory() {
    let env = TestEnv::new().await;
    let port = env.objects().await;
    let root = env.path("objects");
    let uid = env.cx().uid();
    let (prefix, site) = (ObjectPrefix::of(uid), root.join(format!("sites/{uid}")));
    assert_eq!(port.put_marker(&env.cx().call(), &prefix).await, Outcome::Applied(()));
    fs::create_dir_all(site.join("uploads/2026/empty")).expect("a directory");
    fs::create_dir_all(site.join("uploads.old")).expect("a directory");
    fs::write(site.join("uploads/2026/a b%20#1"), "").expect("a file");
    fs::write(site.join("uploads-1"), "").expect("a file");
    let page = port.page(&prefix, None).await.expect("a response");
    let names = [".cdm", "uploads-1", "uploads.old/", "uploads/2026/a b%20#1", "uploads/2026/empty/"];
    assert_eq!(page.keys, names.map(|name| format!("{prefix}{name}")));
    for (index, key) in page.keys.iter().enumerate() {
        let next_page = port.page(&prefix, Some(key)).await.expect("a response");
        assert_eq!(next_page.keys, page.keys[index + 1..], "after {key}");
    }
    let kept = port.delete(&env.cx().call(), &prefix, &page.keys).await;
    assert_eq!(kept, Outcome::Applied(vec![]));
    assert!(!site.exists());
    assert!(root.join("sites").exists());

    // The directories that remain if a process dies after the last file of a site are found as well.
    fs::create_dir_all(&site).expect("a directory");
    let page = port.page(&prefix, None).await.expect("a response");
    assert_eq!(page.keys, [prefix.to_string()]);
    assert_eq!(port.delete(&env.cx().call(), &prefix, &page.keys).await, Outcome::Applied(vec![]));
    assert!(!site.exists());
}

#[tokio::test]
async fn only_objects_below_the_prefix_are_listed_and_deleted() {
    let env = TestEnv::new().await;
    let port = env.objects().await;
    let root = env.path("objects");
    let (uid, other) = env.cx().neighbors();
    let prefix = ObjectPrefix::of(uid);
    let other_secrets = root.join(format!("sites/{other}/uploads"));
    fs::create_dir_all(&other_secrets).expect("a directory");
    fs::write(other_secrets.join("a.jpg"), "").expect("a file");
    assert_eq!(port.put_marker(&env.cx().call(), &prefix).await, Outcome::Applied(()));
    for stray in [format!("../{other}/uploads/a.jpg"), "./a".to_owned(), "a//b".to_owned(), "..".to_owned()] {
        let outcome = port.delete(&env.cx().call(), &prefix, &[format!("{prefix}{stray}")]).await;
        assert_eq!(refused(outcome), ErrorKind::Invalid, "{stray}");
    }

    symlink(&other_secrets, root.join(format!("{prefix}link"))).expect("a link");
    let page = port.page(&prefix, None).await.expect("a response");
    assert_eq!(page.keys, [".cdm", "link"].map(|name| format!("{prefix}{name}")));
    let through = [format!("{prefix}link/a.jpg")];
    assert_eq!(port.delete(&env.cx().call(), &prefix, &through).await, Outcome::Applied(vec![]));
    assert_eq!(port.delete(&env.cx().call(), &prefix, &page.keys).await, Outcome::Applied(vec![]));
    assert!(other_secrets.join("a.jpg").exists());
    assert!(!root.join(format!("sites/{uid}")).exists());
}

//! Secrets, objects and site databases of one directory: their ports' promises, and what only files can show.

#![expect(clippy::disallowed_methods, reason = "what stands in the files is what these tests are about")]

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

use crate::support::Bench;

impl Bench {
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

    /// A connection of its own to the database file, as a person at the machine might open one.
    async fn at_the_file(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path("cdm.db"));
        options.connect().await.expect("a connection")
    }
}

#[derive(Debug)]
struct Files(PathBuf);

#[async_trait]
impl objects::Plant for Files {
    async fn plant(&self, keys: &[String]) {
        for key in keys {
            let path = self.0.join(key);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, "").expect("a file");
        }
    }
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn assert_nowhere(dir: &Path, text: &str) {
    for path in files(dir) {
        let bytes = fs::read(&path).expect("a file");
        let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!found, "a password stands in {}", path.display());
    }
}

fn refused<T>(outcome: Outcome<T>) -> ErrorKind {
    match outcome {
        Outcome::NotApplied(error) => error.kind,
        Outcome::Applied(_) | Outcome::Unknown(_) => panic!("it was not refused"),
    }
}

fn denied<T>(answer: Result<T, PortError>) -> String {
    let error = answer.err().expect("a refusal");
    assert_eq!(error.kind, ErrorKind::Denied);
    error.message
}

fn is_value(read: &Option<StoredSecret>, value: &Credentials) -> bool {
    matches!(read, Some(StoredSecret::Value(held)) if held == value)
}

#[tokio::test]
async fn secrets_keep_their_promises() {
    let bench = Bench::new().await;
    let port = bench.secrets().await;
    secrets::suite(&port, &bench.cx()).await;
    port.check().await.expect("ready");
}

#[tokio::test]
async fn objects_keep_their_promises() {
    let bench = Bench::new().await;
    let port = bench.objects().await;
    objects::suite(&port, &Files(bench.path("objects")), &bench.cx()).await;
    port.check().await.expect("ready");
}

#[tokio::test]
async fn databases_keep_their_promises() {
    let bench = Bench::new().await;
    let port = bench.databases().await;
    databases::suite(&port, &bench.cx()).await;
    port.check().await.expect("ready");
}

#[tokio::test]
async fn a_key_is_made_once_and_for_its_owner_alone() {
    let bench = Bench::new().await;
    bench.secrets().await;
    let key = bench.path("key");
    let bytes = fs::read(&key).expect("a key");
    assert_eq!(bytes.len(), 32);
    assert_eq!(fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    bench.secrets().await;
    assert_eq!(fs::read(&key).expect("a key"), bytes);
    let drafts =
        files(bench.dir.path()).into_iter().filter(|path| path.extension().is_some_and(|e| e == "new"));
    assert_eq!(drafts.count(), 0);
}

#[tokio::test]
async fn a_key_that_is_not_right_is_refused() {
    let bench = Bench::new().await;
    let (key, name) = (bench.path("key"), bench.name(SecretKind::Cms));
    let value = bench.admin();
    let held = bench.secrets().await.create(&bench.cx().call(), &name, &value).await;
    assert_eq!(held, Outcome::Applied(()));
    let bytes = fs::read(&key).expect("a key");
    let opened = async |bench: &Bench| match bench.try_secrets().await {
        Err(SecretsError::Key(error)) => error,
        other => panic!("not refused for the key: {other:?}"),
    };

    for mode in [0o640, 0o604, 0o660, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("a mode");
        let error = opened(&bench).await;
        assert!(matches!(error, KeyError::Exposed { mode: seen, .. } if seen == mode), "{error}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    for length in [0, 31, 33] {
        fs::write(&key, vec![7; length]).expect("a file");
        assert!(matches!(opened(&bench).await, KeyError::Length { .. }), "{length} bytes");
    }
    fs::write(&key, [7; 32]).expect("a file");
    assert!(matches!(opened(&bench).await, KeyError::Wrong { .. }));
    fs::remove_file(&key).expect("a file less");
    assert!(matches!(opened(&bench).await, KeyError::Missing { .. }));
    assert!(!key.exists());

    fs::write(&key, bytes).expect("a file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert!(is_value(&bench.secrets().await.read(&name).await.expect("an answer"), &value));
}

#[tokio::test]
async fn without_secrets_a_lost_key_is_made_again() {
    let bench = Bench::new().await;
    bench.secrets().await;
    fs::remove_file(bench.path("key")).expect("a file less");
    bench.secrets().await.check().await.expect("ready");
}

#[tokio::test]
async fn a_value_sealed_with_another_key_is_denied() {
    let (bench, other) = (Bench::new().await, Bench::new().await);
    let name = bench.name(SecretKind::Cms);
    let (port, theirs) = (bench.secrets().await, other.secrets().await);
    assert_eq!(theirs.create(&other.cx().call(), &name, &other.admin()).await, Outcome::Applied(()));
    let mut connection = bench.at_the_file().await;
    let attach = sqlx::query("ATTACH ? AS other").bind(other.path("cdm.db").display().to_string());
    attach.execute(&mut connection).await.expect("the other file");
    sqlx::query("INSERT INTO secrets SELECT * FROM other.secrets")
        .execute(&mut connection)
        .await
        .expect("a row");
    connection.close().await.expect("a connection less");
    let message = denied(port.read(&name).await);
    assert!(!message.contains(&name.uid.to_string()), "{message}");
}

#[tokio::test]
async fn a_row_under_another_name_is_denied() {
    let bench = Bench::new().await;
    let port = bench.secrets().await;
    let (first, second) = (bench.name(SecretKind::Cms), bench.name(SecretKind::Cms));
    assert_eq!(port.create(&bench.cx().call(), &first, &bench.admin()).await, Outcome::Applied(()));
    let mut connection = bench.at_the_file().await;
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
async fn no_password_stands_in_any_file() {
    let bench = Bench::new().await;
    let (secrets, databases) = (bench.secrets().await, bench.databases().await);
    let uid = bench.cx().uid();
    let user = bench.user(uid);
    let value = Credentials::Database(user.clone());
    let name = SecretName { uid, kind: SecretKind::Database };
    assert_eq!(secrets.create(&bench.cx().call(), &name, &value).await, Outcome::Applied(()));
    assert_eq!(databases.ensure(&bench.cx().call(), uid, &user).await, Outcome::Applied(()));
    assert!(is_value(&secrets.read(&name).await.expect("an answer"), &value));
    assert!(files(bench.dir.path()).iter().any(|path| path.ends_with("cdm.db-wal")));
    assert_nowhere(bench.dir.path(), user.password.expose_secret());
    bench.file.close().await;
    assert_nowhere(bench.dir.path(), user.password.expose_secret());
    let shown = format!("{secrets:?} {databases:?}");
    assert!(!shown.contains(user.password.expose_secret()));
}

#[tokio::test]
async fn a_value_is_dropped_after_its_window_and_its_name_stays_closed() {
    let bench = Bench::new().await;
    let clock = SimClock::new();
    let key = bench.path("key");
    let open = EmbeddedSecrets::open(bench.file.clone(), &key, Arc::new(clock.clone()));
    let port = open.await.expect("secrets");
    let (name, value) = (bench.name(SecretKind::Cms), bench.admin());
    let call = || cdm_core::ports::CallContext {
        deadline: clock.monotonic().after(Duration::from_secs(30)),
        ..bench.cx().call()
    };
    assert_eq!(port.create(&call(), &name, &value).await, Outcome::Applied(()));
    assert_eq!(port.schedule_delete(&call(), &name).await, Outcome::Applied(()));
    clock.advance(Duration::from_hours(6 * 24));
    assert_eq!(port.schedule_delete(&call(), &name).await, Outcome::Applied(()));
    assert!(matches!(port.read(&name).await, Ok(Some(StoredSecret::Deleting))));
    clock.advance(Duration::from_hours(24));
    assert!(matches!(port.read(&name).await, Ok(None)), "the second call moved the window's end");

    let mut connection = bench.at_the_file().await;
    let mut held = async || {
        let held = sqlx::query_scalar("SELECT COUNT(*) FROM secrets WHERE sealed IS NOT NULL");
        let held: i64 = held.fetch_one(&mut connection).await.expect("a number");
        held
    };
    assert_eq!(held().await, 1);
    let other = bench.name(SecretKind::Cms);
    assert_eq!(port.schedule_delete(&call(), &other).await, Outcome::Applied(()));
    assert_eq!(held().await, 0, "the value is dropped in passing");
    assert_eq!(refused(port.create(&call(), &name, &value).await), ErrorKind::Gone);
}

#[tokio::test]
async fn credentials_of_another_kind_are_invalid() {
    let bench = Bench::new().await;
    let port = bench.secrets().await;
    let name = bench.name(SecretKind::Database);
    assert_eq!(refused(port.create(&bench.cx().call(), &name, &bench.admin()).await), ErrorKind::Invalid);
    assert!(matches!(port.read(&name).await, Ok(None)));
}

#[tokio::test]
async fn of_two_processes_one_stores_a_secret() {
    let bench = Bench::new().await;
    let file = async || File::open(&bench.path("cdm.db")).await.expect("a database file");
    let open = async || {
        EmbeddedSecrets::open(file().await, &bench.path("key"), Arc::new(bench.clock)).await.expect("secrets")
    };
    // Both start in an empty directory: one key is made, and both have it.
    let (one, two) = tokio::join!(open(), open());
    for _ in 0..20 {
        let name = bench.name(SecretKind::Cms);
        let (a, b) = (bench.admin(), bench.admin());
        let (first, second) = (bench.cx().call(), bench.cx().call());
        let (first, second) = tokio::join!(one.create(&first, &name, &a), two.create(&second, &name, &b));
        let won = match (first, second) {
            (Outcome::Applied(()), other) => (refused(other) == ErrorKind::Exists).then_some(a),
            (other, Outcome::Applied(())) => (refused(other) == ErrorKind::Exists).then_some(b),
            neither => panic!("neither was applied: {neither:?}"),
        };
        let won = won.expect("the other one is told that there is a value");
        for port in [&one, &two] {
            assert!(is_value(&port.read(&name).await.expect("an answer"), &won));
        }
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let bench = Bench::new().await;
    let uid = bench.cx().uid();
    let (user, name) = (bench.user(uid), SecretName { uid, kind: SecretKind::Database });
    let value = Credentials::Database(user.clone());
    let gone = bench.name(SecretKind::Cms);
    {
        let (secrets, objects) = (bench.secrets().await, bench.objects().await);
        let databases = bench.databases().await;
        assert_eq!(secrets.create(&bench.cx().call(), &name, &value).await, Outcome::Applied(()));
        assert_eq!(secrets.schedule_delete(&bench.cx().call(), &gone).await, Outcome::Applied(()));
        let marker = objects.put_marker(&bench.cx().call(), &ObjectPrefix::of(uid)).await;
        assert_eq!(marker, Outcome::Applied(()));
        assert_eq!(databases.ensure(&bench.cx().call(), uid, &user).await, Outcome::Applied(()));
        assert_eq!(databases.remove(&bench.cx().call(), gone.uid).await, Outcome::Applied(()));
        let mut site = databases.connect(&user).await.expect("a connection");
        sqlx::query("CREATE TABLE posts (title TEXT)").execute(&mut site).await.expect("a table");
        site.close().await.expect("a connection less");
        bench.file.close().await;
    }
    let bench = Bench { file: File::open(&bench.path("cdm.db")).await.expect("a database file"), ..bench };
    let (secrets, objects) = (bench.secrets().await, bench.objects().await);
    let databases = bench.databases().await;
    assert!(is_value(&secrets.read(&name).await.expect("an answer"), &value));
    assert_eq!(refused(secrets.create(&bench.cx().call(), &gone, &bench.admin()).await), ErrorKind::Gone);
    let page = objects.page(&ObjectPrefix::of(uid), None).await.expect("an answer");
    assert_eq!(page.keys, [ObjectPrefix::of(uid).marker()]);
    let late = databases.ensure(&bench.cx().call(), gone.uid, &bench.user(gone.uid)).await;
    assert_eq!(refused(late), ErrorKind::Gone);
    assert_eq!(databases.ensure(&bench.cx().call(), uid, &user).await, Outcome::Applied(()));
    let mut site = databases.connect(&user).await.expect("a connection");
    sqlx::query("SELECT title FROM posts").fetch_all(&mut site).await.expect("the table");
}

#[tokio::test]
async fn a_database_opens_for_its_own_user_only() {
    let bench = Bench::new().await;
    let port = bench.databases().await;
    let (uid, other) = bench.cx().neighbours();
    let (user, neighbour) = (bench.user(uid), bench.user(other));
    denied(port.connect(&user).await);
    assert_eq!(port.ensure(&bench.cx().call(), uid, &user).await, Outcome::Applied(()));
    assert_eq!(port.ensure(&bench.cx().call(), other, &neighbour).await, Outcome::Applied(()));
    port.connect(&user).await.expect("a connection");

    denied(port.connect(&Database { password: neighbour.password.clone(), ..user.clone() }).await);
    denied(port.connect(&Database { password: SecretString::from(""), ..user.clone() }).await);
    denied(port.connect(&Database { dbname: neighbour.dbname.clone(), ..user.clone() }).await);
    denied(port.connect(&Database { dbname: "../cdm".to_owned(), ..user.clone() }).await);
    denied(port.connect(&Database { username: neighbour.username.clone(), ..user.clone() }).await);
    let strange = Database { username: neighbour.username, ..user.clone() };
    assert_eq!(refused(port.ensure(&bench.cx().call(), uid, &strange).await), ErrorKind::Invalid);

    let changed = bench.user(uid);
    assert_eq!(port.ensure(&bench.cx().call(), uid, &changed).await, Outcome::Applied(()));
    denied(port.connect(&user).await);
    port.connect(&changed).await.expect("a connection");

    fs::remove_file(bench.path("databases").join(format!("{}.sqlite", user.dbname))).expect("a file less");
    assert_eq!(port.seen(uid).await, Ok(SiteDatabase { database: false, user: true }));
    let missing = port.connect(&changed).await.expect_err("no database");
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert_eq!(port.seen(uid).await, Ok(SiteDatabase { database: false, user: true }));
}

#[tokio::test]
async fn a_removed_database_leaves_no_file_and_takes_no_write() {
    let bench = Bench::new().await;
    let port = bench.databases().await;
    let uid = bench.cx().uid();
    let user = bench.user(uid);
    assert_eq!(port.ensure(&bench.cx().call(), uid, &user).await, Outcome::Applied(()));
    let mut site = port.connect(&user).await.expect("a connection");
    sqlx::query("CREATE TABLE posts (title TEXT)").execute(&mut site).await.expect("a table");
    assert_eq!(port.remove(&bench.cx().call(), uid).await, Outcome::Applied(()));
    let late = sqlx::query("INSERT INTO posts VALUES ('late')").execute(&mut site).await;
    assert!(late.is_err(), "a connection from before still writes");
    assert_eq!(files(&bench.path("databases")), [] as [PathBuf; 0]);
    denied(port.connect(&user).await);
}

#[tokio::test]
async fn an_emptied_site_leaves_no_directory() {
    let bench = Bench::new().await;
    let port = bench.objects().await;
    let root = bench.path("objects");
    let uid = bench.cx().uid();
    let (prefix, site) = (ObjectPrefix::of(uid), root.join(format!("sites/{uid}")));
    assert_eq!(port.put_marker(&bench.cx().call(), &prefix).await, Outcome::Applied(()));
    fs::create_dir_all(site.join("uploads/2026/empty")).expect("a directory");
    fs::create_dir_all(site.join("uploads.old")).expect("a directory");
    fs::write(site.join("uploads/2026/a b%20#1"), "").expect("a file");
    fs::write(site.join("uploads-1"), "").expect("a file");
    let page = port.page(&prefix, None).await.expect("an answer");
    let names = [".cdm", "uploads-1", "uploads.old/", "uploads/2026/a b%20#1", "uploads/2026/empty/"];
    assert_eq!(page.keys, names.map(|name| format!("{prefix}{name}")));
    for (index, key) in page.keys.iter().enumerate() {
        let rest = port.page(&prefix, Some(key)).await.expect("an answer");
        assert_eq!(rest.keys, page.keys[index + 1..], "after {key}");
    }
    let kept = port.delete(&bench.cx().call(), &prefix, &page.keys).await;
    assert_eq!(kept, Outcome::Applied(vec![]));
    assert!(!site.exists());
    assert!(root.join("sites").exists());

    // What a crash between a site's last file and its directories leaves is found as well.
    fs::create_dir_all(&site).expect("a directory");
    let page = port.page(&prefix, None).await.expect("an answer");
    assert_eq!(page.keys, [prefix.to_string()]);
    assert_eq!(port.delete(&bench.cx().call(), &prefix, &page.keys).await, Outcome::Applied(vec![]));
    assert!(!site.exists());
}

#[tokio::test]
async fn nothing_outside_the_prefix_is_reached() {
    let bench = Bench::new().await;
    let port = bench.objects().await;
    let root = bench.path("objects");
    let (uid, other) = bench.cx().neighbours();
    let prefix = ObjectPrefix::of(uid);
    let theirs = root.join(format!("sites/{other}/uploads"));
    fs::create_dir_all(&theirs).expect("a directory");
    fs::write(theirs.join("a.jpg"), "").expect("a file");
    assert_eq!(port.put_marker(&bench.cx().call(), &prefix).await, Outcome::Applied(()));
    for stray in [format!("../{other}/uploads/a.jpg"), "./a".to_owned(), "a//b".to_owned(), "..".to_owned()] {
        let outcome = port.delete(&bench.cx().call(), &prefix, &[format!("{prefix}{stray}")]).await;
        assert_eq!(refused(outcome), ErrorKind::Invalid, "{stray}");
    }

    symlink(&theirs, root.join(format!("{prefix}link"))).expect("a link");
    let page = port.page(&prefix, None).await.expect("an answer");
    assert_eq!(page.keys, [".cdm", "link"].map(|name| format!("{prefix}{name}")));
    let through = [format!("{prefix}link/a.jpg")];
    assert_eq!(port.delete(&bench.cx().call(), &prefix, &through).await, Outcome::Applied(vec![]));
    assert_eq!(port.delete(&bench.cx().call(), &prefix, &page.keys).await, Outcome::Applied(vec![]));
    assert!(theirs.join("a.jpg").exists());
    assert!(!root.join(format!("sites/{uid}")).exists());
}

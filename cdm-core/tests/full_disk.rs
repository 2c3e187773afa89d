//! Writes while the disk is full, and after space is available again, for every component that writes to the database
//! file.
//!
//! The file size limit (`RLIMIT_FSIZE`) simulates the full disk. The limit applies to the whole process, so this file
//! contains a single test, and no other test may be added.

use std::sync::Arc;

use cdm_core::adapters::embedded::{
    EmbeddedDatabases, EmbeddedObjects, EmbeddedSecrets, EmbeddedStore, EmbeddedTokens, File, ImageSpec,
    LivenessLock, LocalCluster, LocalSettings,
};
use cdm_core::adapters::{OsIds, SystemClock};
use cdm_core::domain::{
    Actor, Color, DatabaseName, Digest, Epoch, Fence, ObjectPrefix, Role, SecretKind, SecretName, Timestamp,
    Token, TokenHash, Uid, WorkerId,
};
use cdm_core::ports::{
    CallContext, Clock, ClusterOps, Cms, Credentials, Database, Entropy, ErrorKind, ImageWant, Journal,
    Mutation, ObjectStore, Outcome, PortError, SecretStore, SiteDatabases, SiteQuery, SiteRepository,
    StoreError, TokenStore, WriteBatch, WriteError,
};
use cdm_testkit::fixtures;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// All components that write to one database file.
struct Components {
    clock: SystemClock,
    ids: OsIds,
    file: File,
    store: EmbeddedStore,
    tokens: EmbeddedTokens,
    secrets: EmbeddedSecrets,
    objects: EmbeddedObjects,
    databases: EmbeddedDatabases,
    cluster: LocalCluster,
}

impl Components {
    async fn open(dir: &std::path::Path, worker: &str) -> Self {
        let (clock, ids) = (SystemClock::new(), OsIds::new().expect("chance"));
        let file = File::open(&dir.join("cdm.db")).await.expect("a database file");
        let liveness_lock =
            LivenessLock::open(&dir.join("workers"), &WorkerId::new(worker)).expect("a presence");
        let store = EmbeddedStore::open(file.clone(), Arc::new(clock), liveness_lock).await.expect("a store");
        let tokens = EmbeddedTokens::open(file.clone()).await.expect("tokens");
        let secrets = EmbeddedSecrets::open(file.clone(), &dir.join("key"), Arc::new(clock)).await;
        let objects = EmbeddedObjects::open(&dir.join("objects"), Arc::new(clock)).await.expect("objects");
        let databases =
            EmbeddedDatabases::open(file.clone(), &dir.join("databases")).await.expect("databases");
        let cluster = LocalCluster::open(file.clone(), LocalSettings::default(), Arc::new(clock)).await;
        let (secrets, cluster) = (secrets.expect("secrets"), cluster.expect("a cluster"));
        Self { clock, ids, file, store, tokens, secrets, objects, databases, cluster }
    }

    fn call(&self) -> CallContext {
        let deadline = self.clock.monotonic().after(std::time::Duration::from_secs(30));
        CallContext { deadline, write: self.ids.write(), fence: Fence::new(7, Epoch(1)) }
    }

    fn uid(&self) -> Uid {
        self.ids.uid(self.clock.wall())
    }

    /// Makes one write of each kind, and returns its name and result.
    async fn writes(&self, round: u64) -> Vec<(&'static str, Result<(), ErrorKind>)> {
        let site = fixtures::site(&format!("site{round}"));
        let batch = WriteBatch::of(vec![Mutation::CreateSite(Box::new(site))]);
        let (worker, uid) = (WorkerId::new("one"), self.uid());
        let token = Token {
            id: self.uid(),
            name: Actor::parse(&format!("token{round}")).expect("a name"),
            role: Role::Viewer,
            hash: TokenHash([u8::try_from(round).expect("a small number"); 32]),
            loopback_only: false,
            created_by: fixtures::actor(),
            created_at: Timestamp::from_millis(round),
            expires_at: None,
            revoked_at: None,
        };
        let cms = Credentials::Cms(Cms {
            username: "admin".to_owned(),
            password: self.ids.password(),
            email: "admin@example.test".to_owned(),
        });
        let name = DatabaseName::of(uid).to_string();
        let database = Database {
            host: "localhost".to_owned(),
            port: 3306,
            dbname: name.clone(),
            username: name,
            password: self.ids.password(),
        };
        let secret = SecretName { uid, kind: SecretKind::Cms };
        let fence = self.cluster.service(Color::Green).await.expect("reads go on").fence;
        let desired = ImageWant::Digest(Digest::parse(&format!("{round:064x}")).expect("a digest"));
        let image = self.cluster.set_image(&self.call(), Color::Green, fence, &desired).await;
        let digest = Digest::parse(&"d".repeat(64)).expect("a digest");
        vec![
            ("a record", of_store(self.store.write(&self.call(), &batch).await)),
            ("numbers", of_store(self.store.allocate_ids(&self.call(), 1).await.map_applied())),
            (
                "a worker's heartbeat",
                of_store(self.store.heartbeat(&self.call(), &worker, Some(round)).await),
            ),
            ("a token", of_port(self.tokens.create(&self.call(), &token).await)),
            ("a secret", of_port(self.secrets.create(&self.call(), &secret, &cms).await)),
            ("a deleted secret", of_port(self.secrets.schedule_delete(&self.call(), &secret).await)),
            ("a database", of_port(self.databases.ensure(&self.call(), uid, &database).await)),
            ("a service", of_port(image)),
            (
                "an image",
                self.cluster.declare(digest, ImageSpec::default()).await.map_err(|error| error.kind),
            ),
            ("the probe", self.store.check().await.map_err(|error| kind(&error))),
        ]
    }
}

trait MapApplied<E> {
    fn map_applied(self) -> Outcome<(), E>;
}

impl<T, E> MapApplied<E> for Outcome<T, E> {
    fn map_applied(self) -> Outcome<(), E> {
        match self {
            Self::Applied(_) => Outcome::Applied(()),
            Self::NotApplied(error) => Outcome::NotApplied(error),
            Self::Unknown(error) => Outcome::Unknown(error),
        }
    }
}

fn kind(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::Full(_) => ErrorKind::Full,
        StoreError::Unavailable(_) | StoreError::Throttled => ErrorKind::Unavailable,
        StoreError::Denied(_) => ErrorKind::Denied,
    }
}

fn of_store(outcome: Outcome<(), WriteError>) -> Result<(), ErrorKind> {
    match outcome {
        Outcome::Applied(()) => Ok(()),
        Outcome::NotApplied(WriteError::Store(error)) | Outcome::Unknown(WriteError::Store(error)) => {
            Err(kind(&error))
        }
        Outcome::NotApplied(refused) | Outcome::Unknown(refused) => panic!("{refused}"),
    }
}

fn of_port(outcome: Outcome<(), PortError>) -> Result<(), ErrorKind> {
    match outcome {
        Outcome::Applied(()) => Ok(()),
        Outcome::NotApplied(error) | Outcome::Unknown(error) => Err(error.kind),
    }
}

/// Limits the size of files to `max_bytes` bytes; `None` restores the initial limit.
fn limit(max_bytes: Option<u64>) {
    let now = getrlimit(Resource::Fsize);
    let limit = Rlimit { current: max_bytes.or(now.maximum), maximum: now.maximum };
    setrlimit(Resource::Fsize, limit).expect("a limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_fail_while_the_disk_is_full_and_succeed_afterwards() {
    // The kernel sends a signal with the rejected write, which by default ends the process.
    let number = Signal::XFSZ.as_raw();
    let _handled = signal(SignalKind::from_raw(number)).expect("a handler");
    let dir = TempDir::new().expect("a directory");
    let components = Components::open(dir.path(), "one").await;
    let all = |results: &[(&str, Result<(), ErrorKind>)], wanted: Result<(), ErrorKind>| {
        let others: Vec<_> = results.iter().filter(|(_, result)| *result != wanted).collect();
        assert!(others.is_empty(), "not {wanted:?}: {others:?}");
    };
    for round in 0..3 {
        limit(None);
        all(&components.writes(2 * round).await, Ok(()));
        limit(Some(1_024));
        // Repeated, because the failure of the first write must not cause the failures of later ones.
        let mut results = components.writes(2 * round + 1).await;
        results.extend(components.writes(2 * round + 1).await);
        all(&results, Err(ErrorKind::Full));
        assert_eq!(components.store.count(&SiteQuery::default()).await, Ok(round + 1), "reads go on");
        let marker =
            components.objects.put_marker(&components.call(), &ObjectPrefix::of(components.uid())).await;
        assert_eq!(of_port(marker), Ok(()), "an empty file needs no space in a file");
    }
    limit(None);
    all(&components.writes(9).await, Ok(()));
    // After a restart, rejected writes are absent and acknowledged writes are present.
    components.file.close().await;
    let again = Components::open(dir.path(), "two").await;
    let sites = again.store.sites(&SiteQuery::default(), None, 100).await.expect("sites").items;
    let ids: Vec<_> = sites.iter().map(|site| site.id.to_string()).collect();
    assert_eq!(ids, ["site0", "site2", "site4", "site9"]);
    assert_eq!(again.tokens.tokens().await.expect("tokens").len(), 4);
}

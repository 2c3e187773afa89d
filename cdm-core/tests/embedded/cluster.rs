//! The local cluster over real HTTP: its port contract, pages, moves, broken images, and the state that survives a
//! process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::embedded::{
    File, Host, HostError, ImageSpec, LocalCluster, LocalProbe, LocalSettings, Readiness, TenantDatabases,
    Tenants,
};
use cdm_core::adapters::outbound::Outbound;
use cdm_core::domain::{
    Color, Digest, Epoch, Fence, Hostnames, JobName, SecretKind, SecretName, Site, SiteName, Theme, Uid,
};
use cdm_core::ports::{
    CallContext, ChangeCursor, Changed, Clock, ClusterOps, Cms, Credentials, Database, Entropy, ErrorKind,
    HealthProbe, ImageWant, Job, JobFailure, JobKind, JobSpec, JobState, Journal, Mutation, Outcome,
    PortError, ProbeRequest, RouteSpec, SecretStore, ServiceView, Via, WriteBatch,
};
use cdm_testkit::clock::SimClock;
use cdm_testkit::contract::cluster::{self as contract, Images};
use cdm_testkit::fakes::{FakeSecrets, FakeStore};
use cdm_testkit::fixtures;
use cdm_testkit::log::EffectLog;
use secrecy::SecretString;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::TestEnv;

/// Site databases as files, found by name; a database exists if its file exists.
#[derive(Debug)]
struct Files(PathBuf);

#[async_trait]
impl TenantDatabases for Files {
    async fn connect(&self, credentials: &Database) -> Result<SqliteConnection, PortError> {
        let path = self.0.join(&credentials.dbname);
        let connection = SqliteConnectOptions::new().filename(path).connect().await;
        connection
            .map_err(|_| PortError::new("databases", ErrorKind::NotFound, "the database does not exist"))
    }
}

/// A cluster in its own directory, with fakes for the other backends.
struct ClusterEnv {
    env: TestEnv,
    cluster: LocalCluster,
    store: FakeStore,
    secrets: FakeSecrets,
}

impl ClusterEnv {
    async fn new() -> Self {
        let env = TestEnv::new().await;
        let cluster = open(&env, env.file.clone()).await;
        let clock = SimClock::new();
        let store = FakeStore::new(EffectLog::default(), clock.clone());
        let secrets = FakeSecrets::new(EffectLog::default(), clock);
        Self { env, cluster, store, secrets }
    }

    async fn host(&self) -> Host {
        self.host_with(&self.cluster, any_port()).await.expect("a host")
    }

    async fn host_with(&self, cluster: &LocalCluster, router: SocketAddr) -> Result<Host, HostError> {
        let tenants = Tenants {
            repository: Arc::new(self.store.clone()),
            secrets: Arc::new(self.secrets.clone()),
            databases: Arc::new(Files(self.env.dir.path().to_owned())),
        };
        cluster.host(&self.lock(), router, tenants).await
    }

    fn lock(&self) -> PathBuf {
        self.env.dir.path().join("cluster.lock")
    }

    /// Returns another process's view of the same directory.
    async fn other_process(&self) -> LocalCluster {
        let file = File::open(&self.env.dir.path().join("cdm.db")).await.expect("the file");
        open(&self.env, file).await
    }

    fn call(&self) -> CallContext {
        self.env.cx().call()
    }

    async fn until<T>(&self, what: &str, poll: impl AsyncFnMut() -> Option<T>) -> T {
        self.env.cx().until(what, poll).await
    }

    async fn ready(&self, cluster: &LocalCluster, color: Color) -> ServiceView {
        let poll = async || Some(cluster.service(color).await.expect("a view")).filter(ServiceView::is_ready);
        self.until("a service gets ready", poll).await
    }

    /// Creates a site with record, secrets and database, and the hostnames `<id>.test` and `www.<id>.test`.
    async fn site(&self, id: &str) -> Site {
        let host = format!("{id}.test");
        let hostnames = Hostnames::parse(&[host.as_str(), &format!("www.{host}")], &host).expect("hostnames");
        let name = SiteName::parse("Tea & <b>cake</b>").expect("a name");
        let site = Site { hostnames, name, ..fixtures::site(id) };
        let batch = WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))]);
        assert!(matches!(self.store.write(&self.call(), &batch).await, Outcome::Applied(())));
        let uid = site.uid;
        let secret = |text: &str| SecretString::from(text.to_owned());
        let database = Credentials::Database(Database {
            host: "local".to_owned(),
            port: 1,
            dbname: format!("site_{uid}"),
            username: format!("site_{uid}"),
            password: secret("hunter2-db"),
        });
        let cms = Credentials::Cms(Cms {
            username: "admin".to_owned(),
            password: secret("hunter2-cms"),
            email: "admin@example.test".to_owned(),
        });
        for (kind, value) in [(SecretKind::Database, database), (SecretKind::Cms, cms)] {
            applied(self.secrets.create(&self.call(), &SecretName { uid, kind }, &value).await);
        }
        let path = self.env.dir.path().join(format!("site_{uid}"));
        let made = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await;
        made.expect("a database").close().await.expect("an end");
        site
    }

    async fn job(&self, service: Color, kind: JobKind) -> Job {
        let name = JobName::of_window(kind.word(), self.env.cx().number(), 0, 1);
        self.run(name, service, kind).await
    }

    async fn run(&self, name: JobName, service: Color, kind: JobKind) -> Job {
        applied(self.cluster.run_job(&self.call(), &JobSpec { name: name.clone(), service, kind }).await);
        self.ended(&self.cluster, &name).await
    }

    async fn ended(&self, cluster: &LocalCluster, name: &JobName) -> Job {
        let poll =
            async || cluster.job(name).await.expect("a job").filter(|job| job.state != JobState::Running);
        self.until("a job ends", poll).await
    }

    async fn install(&self, site: &Site) -> Job {
        let (uid, hostnames, title) = (site.uid, site.hostnames.clone(), site.name.clone());
        self.job(Color::Blue, JobKind::Install { uid, hostnames, title }).await
    }

    async fn route(&self, site: &Site, service: Color) -> Fence {
        let call = self.call();
        let spec =
            RouteSpec { uid: site.uid, site: site.id.clone(), hostnames: site.hostnames.clone(), service };
        applied(self.cluster.put_route(&call, &spec).await);
        call.fence
    }

    async fn set_image(&self, color: Color, digest: Digest) {
        let fence = self.cluster.service(color).await.expect("a view").fence;
        let desired = ImageWant::Digest(digest);
        applied(self.cluster.set_image(&self.call(), color, fence, &desired).await);
    }
}

async fn open(env: &TestEnv, file: File) -> LocalCluster {
    LocalCluster::open(file, quick(), Arc::new(env.clock)).await.expect("a cluster")
}

fn quick() -> LocalSettings {
    LocalSettings {
        pod_start: Duration::from_millis(5),
        progress_deadline: Duration::from_millis(200),
        job: Duration::from_millis(2),
        ..LocalSettings::default()
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn image(hex_digit: char) -> Digest {
    Digest::parse(&hex_digit.to_string().repeat(64)).expect("a digest")
}

#[track_caller]
fn applied(outcome: Outcome<()>) {
    assert_eq!(outcome, Outcome::Applied(()));
}

/// A response: status, headers in lower case, body.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no header {name} in\n{}", self.head))
    }
}

async fn get(router: &Host, host: &str, path: &str) -> Reply {
    let address = router.router_address().expect("a router");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a response");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_cluster_fulfills_its_contract() {
    let cluster_env = ClusterEnv::new().await;
    let host = cluster_env.host().await;
    let images = Images { first: image('a'), second: image('b') };
    contract::suite(&cluster_env.cluster, images, &cluster_env.env.cx()).await;
    host.stop().await;
}

/// At its connection limit the router closes the connection that has been idle longest, and none with a request in
/// progress.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_block_clients() {
    let cluster_env = ClusterEnv::new().await;
    let settings = LocalSettings { router_connections: 4, ..quick() };
    let file = cluster_env.env.file.clone();
    let cluster =
        LocalCluster::open(file, settings, Arc::new(cluster_env.env.clock)).await.expect("a cluster");
    let host = cluster_env.host_with(&cluster, any_port()).await.expect("a host");
    let address = host.router_address().expect("a router");
    let connect = async || TcpStream::connect(address).await.expect("a connection");
    let mut pending_request = connect().await;
    // A request whose body has not been sent yet.
    let head = "POST / HTTP/1.1\r\nHost: unknown.test\r\nContent-Length: 4\r\n\r\n";
    pending_request.write_all(head.as_bytes()).await.expect("a head");
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(connect().await);
        assert_eq!(get(&host, "unknown.test", "/").await.status, 404);
    }
    let mut oldest = silent.swap_remove(0);
    // The close may arrive as a reset.
    assert_eq!(oldest.read(&mut [0; 8]).await.unwrap_or(0), 0, "the oldest connection was closed");
    pending_request.write_all(b"body").await.expect("a body");
    let mut buffer = [0; 64];
    let count = pending_request.read(&mut buffer).await.expect("a response");
    assert!(buffer[..count].starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&buffer[..count]));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_served_and_moves_immediately() {
    let cluster_env = ClusterEnv::new().await;
    let host = cluster_env.host().await;
    for color in Color::ALL {
        cluster_env.ready(&cluster_env.cluster, color).await;
    }
    let site = cluster_env.site("shop").await;
    assert_eq!(get(&host, "shop.test", "/").await.status, 404, "no route yet");
    let fence = cluster_env.route(&site, Color::Blue).await;
    let early = get(&host, "shop.test", "/").await;
    assert_eq!((early.status, early.body.trim()), (503, "not installed"));

    let installed = cluster_env.install(&site).await;
    assert_eq!(installed.state, JobState::Succeeded { failed: Vec::new() });
    assert!(installed.log.contains("installed successfully") && !installed.log.contains("hunter2"));
    let again = cluster_env.install(&site).await;
    assert!(again.log.contains("already installed"));

    let page = get(&host, "SHOP.test:8080", "/").await;
    assert_eq!((page.status, page.header("x-cdm-service"), page.header("x-cdm-site")), (200, "blue", "shop"));
    let digest = LocalCluster::initial_image().to_string();
    assert_eq!(page.header("x-cdm-digest"), digest);
    assert!(page.body.contains(&digest) && page.body.contains("Tea &#38; &#60;b&#62;cake"), "{}", page.body);
    assert_eq!(cluster_env.cluster.router_address().await, Ok(host.router_address()));

    let before: u64 = page.header("x-cdm-route").parse().expect("a number");
    applied(cluster_env.cluster.move_route(&cluster_env.call(), site.uid, fence, Color::Green).await);
    let moved = get(&host, "shop.test", "/").await;
    assert_eq!((moved.status, moved.header("x-cdm-service")), (200, "green"));
    assert!(moved.header("x-cdm-route").parse::<u64>().expect("a number") > before);

    let other = get(&host, "www.shop.test:81", "/a/b?c=d").await;
    assert_eq!((other.status, other.header("location")), (301, "http://shop.test:81/a/b?c=d"));
    let unknown = get(&host, "unknown.test", "/").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("unknown.test"));

    applied(cluster_env.cluster.release(&cluster_env.call(), site.uid).await);
    assert_eq!(get(&host, "shop.test", "/").await.status, 404);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_never_serves_and_the_old_pods_continue() {
    let cluster_env = ClusterEnv::new().await;
    let broken = ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() };
    cluster_env.cluster.declare(image('c'), broken.clone()).await.expect("declared");
    assert_eq!(cluster_env.cluster.images().await, Ok(vec![(image('c'), broken)]));
    let host = cluster_env.host().await;
    let site = cluster_env.site("shop").await;
    let first = cluster_env.ready(&cluster_env.cluster, Color::Blue).await;
    cluster_env.install(&site).await;
    cluster_env.route(&site, Color::Blue).await;

    cluster_env.set_image(Color::Blue, image('c')).await;
    let failed = cluster_env
        .until("a broken image is a failure", async || {
            let view = cluster_env.cluster.service(Color::Blue).await.expect("a view");
            assert!(!view.is_ready());
            assert_eq!(get(&host, "shop.test", "/").await.status, 200);
            view.failure.clone().map(|failure| (failure, view))
        })
        .await;
    let (failure, view) = failed;
    assert!(failure.definite && failure.blames_image);
    assert!(failure.message.contains("exceeded its progress deadline"), "{}", failure.message);
    assert!(failure.message.contains("statuscode: 503"), "{}", failure.message);
    assert_eq!((view.ready, view.updated, view.available, view.total), (2, 1, 0, 3));

    drop(host);
    let host = cluster_env.host().await;
    cluster_env
        .until("after a crash the old pods serve again", async || {
            (get(&host, "shop.test", "/").await.status == 200).then_some(())
        })
        .await;
    let page = get(&host, "shop.test", "/").await;
    assert_eq!(page.header("x-cdm-digest"), LocalCluster::initial_image().to_string());

    let desired = ImageWant::Template(first.template.clone().expect("a template"));
    applied(cluster_env.cluster.set_image(&cluster_env.call(), Color::Blue, view.fence, &desired).await);
    let back = cluster_env.ready(&cluster_env.cluster, Color::Blue).await;
    assert_eq!((back.template, back.digest), (first.template, first.digest));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_pods_and_routes_change() {
    let cluster_env = ClusterEnv::new().await;
    let host = cluster_env.host().await;
    let site = cluster_env.site("shop").await;
    let first = cluster_env.cluster.service(Color::Blue).await.expect("a view");
    let canary = cluster_env.cluster.canary().await.expect("a canary").expect("one from the first");
    assert_eq!((first.digest, first.fence), (Some(LocalCluster::initial_image()), Fence::default()));
    assert_eq!((canary.color, canary.digest), (Color::Blue, first.digest));
    cluster_env.install(&site).await;
    let mut fence = cluster_env.route(&site, Color::Blue).await;
    cluster_env.ready(&cluster_env.cluster, Color::Blue).await;
    for hex_digit in ['1', '2', '3'] {
        cluster_env.set_image(Color::Blue, image(hex_digit)).await;
        let mut served = 0;
        while !cluster_env.cluster.service(Color::Blue).await.expect("a view").is_ready() || served < 20 {
            assert_eq!(get(&host, "shop.test", "/").await.status, 200);
            served += 1;
            assert!(served < 20_000, "the rollout does not end");
        }
        assert_eq!(get(&host, "shop.test", "/").await.header("x-cdm-digest"), image(hex_digit).to_string());
    }
    cluster_env.ready(&cluster_env.cluster, Color::Green).await;
    for to in [Color::Green, Color::Blue].into_iter().cycle().take(40) {
        let call = cluster_env.call();
        applied(cluster_env.cluster.move_route(&call, site.uid, fence, to).await);
        fence = call.fence;
        assert_eq!(get(&host, "shop.test", "/").await.header("x-cdm-service"), to.as_str());
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_image_is_ready_and_its_sites_return_errors() {
    let cluster_env = ClusterEnv::new().await;
    let failing = ImageSpec { answers: 500, ..ImageSpec::default() };
    cluster_env.cluster.declare(image('d'), failing).await.expect("declared");
    let host = cluster_env.host().await;
    let site = cluster_env.site("shop").await;
    cluster_env.install(&site).await;
    cluster_env.route(&site, Color::Green).await;
    cluster_env.set_image(Color::Green, image('d')).await;
    let view = cluster_env.ready(&cluster_env.cluster, Color::Green).await;
    assert_eq!(view.digest, Some(image('d')));
    assert_eq!(get(&host, "shop.test", "/").await.status, 500);
    cluster_env.cluster.declare(image('d'), ImageSpec::default()).await.expect("declared");
    assert_eq!(get(&host, "shop.test", "/").await.status, 200, "running pods follow the changed image spec");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_of_the_router_without_a_pod_names_no_service() {
    let cluster_env = ClusterEnv::new().await;
    let never = ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() };
    cluster_env.cluster.declare(LocalCluster::initial_image(), never).await.expect("declared");
    let host = cluster_env.host().await;
    let site = cluster_env.site("shop").await;
    cluster_env.route(&site, Color::Green).await;
    let clock = Arc::new(cluster_env.env.clock);
    let probe = LocalProbe::new(Arc::new(cluster_env.other_process().await), Outbound::new(clock));
    for via in [Via::Route, Via::Service(Color::Green)] {
        let check = ProbeRequest {
            uid: site.uid,
            host: site.hostnames.canonical().clone(),
            via,
            path: "/".to_owned(),
            text: None,
            timeout: Duration::from_secs(10),
        };
        let response = probe.probe(&check).await.expect("a response");
        assert_eq!((response.status, response.by), (503, None), "{via:?}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_theme_is_active_after_its_job_and_a_missing_theme_fails() {
    let cluster_env = ClusterEnv::new().await;
    let plain = Theme::parse("plain").expect("a theme");
    let spec = ImageSpec { themes: Some(vec![plain.clone()]), ..ImageSpec::default() };
    cluster_env.cluster.declare(LocalCluster::initial_image(), spec).await.expect("declared");
    let host = cluster_env.host().await;
    let site = cluster_env.site("shop").await;
    cluster_env.install(&site).await;
    cluster_env.route(&site, Color::Blue).await;
    cluster_env.ready(&cluster_env.cluster, Color::Blue).await;
    assert!(get(&host, "shop.test", "/").await.body.contains("<dd>default</dd>"));
    let activate =
        |theme: &str| JobKind::ActivateTheme { uid: site.uid, theme: Theme::parse(theme).expect("a theme") };
    let done = cluster_env.job(Color::Blue, activate("plain")).await;
    assert_eq!(done.state, JobState::Succeeded { failed: Vec::new() });
    assert!(get(&host, "shop.test", "/").await.body.contains("<dd>plain</dd>"));
    let missing = cluster_env.job(Color::Blue, activate("absent")).await;
    assert!(matches!(missing.state, JobState::Failed { cause: JobFailure::ThemeMissing, .. }), "{missing:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_ended_batch_jobs_are_kept() {
    let cluster_env = ClusterEnv::new().await;
    let path = cluster_env.env.dir.path().join("cdm.db");
    let mut on = SqliteConnectOptions::new().filename(path).connect().await.expect("the file");
    let old = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
               INSERT INTO cluster_jobs (name, uid, service, kind, running, state, log, boot, attempts)
               SELECT 'rollout-0-flush-caches-' || i, iif(i = 2, 'a-site', NULL), 'blue', '', 0,
                      '{\"state\":\"succeeded\",\"failed\":[]}', '', NULL, 1 FROM n";
    sqlx::query(old).execute(&mut on).await.expect("jobs");
    let host = cluster_env.host().await;
    let uids = vec![fixtures::uid("a"), fixtures::uid("b")];
    cluster_env.job(Color::Blue, JobKind::FlushCaches { uids }).await;
    let kept = "SELECT count(*), min(rowid) FROM cluster_jobs WHERE uid IS NULL";
    let kept = sqlx::query(kept).fetch_one(&mut on).await.expect("a count");
    assert_eq!(
        (kept.get::<i64, _>(0), kept.get::<i64, _>(1)),
        (1_000, 202),
        "jobs of single sites do not count"
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_caches_until_it_is_flushed() {
    let cluster_env = ClusterEnv::new().await;
    let host = cluster_env.host().await;
    let site = cluster_env.site("shop").await;
    cluster_env.install(&site).await;
    cluster_env.route(&site, Color::Blue).await;
    cluster_env.ready(&cluster_env.cluster, Color::Blue).await;
    assert_eq!(get(&host, "shop.test", "/").await.status, 200);
    rename(&cluster_env.env.dir.path().join(format!("site_{}", site.uid)), "Renamed").await;
    assert!(!get(&host, "shop.test", "/").await.body.contains("Renamed"), "the cache is shared by all pods");
    let stranger = fixtures::uid("stranger");
    let flush = || JobKind::FlushCaches { uids: vec![site.uid, stranger] };
    cluster_env.job(Color::Green, flush()).await;
    assert!(!get(&host, "shop.test", "/").await.body.contains("Renamed"), "the cache belongs to blue");
    let flushed = cluster_env.job(Color::Blue, flush()).await;
    let JobState::Succeeded { failed } = flushed.state else {
        panic!("the batch did not succeed: {flushed:?}")
    };
    assert_eq!(failed.iter().map(|(uid, _)| *uid).collect::<Vec<Uid>>(), [stranger]);
    assert!(get(&host, "shop.test", "/").await.body.contains("Renamed"));
    host.stop().await;
}

async fn rename(database: &Path, title: &'static str) {
    let mut connection = SqliteConnectOptions::new().filename(database).connect().await.expect("a database");
    sqlx::query("UPDATE options SET option_value = ? WHERE option_name = 'blogname'")
        .bind(title)
        .execute(&mut connection)
        .await
        .expect("an update");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_survives_the_process() {
    let cluster_env = ClusterEnv::new().await;
    let host = cluster_env.host().await;
    let site = cluster_env.site("shop").await;
    cluster_env.install(&site).await;
    cluster_env.route(&site, Color::Green).await;
    cluster_env.set_image(Color::Green, image('e')).await;
    cluster_env.ready(&cluster_env.cluster, Color::Green).await;
    // As if the process was killed: nothing is shut down.
    drop(host);
    let name = JobName::of_site(&site.id, "flush-caches", 77, 1);
    let kind = JobKind::FlushCaches { uids: vec![site.uid] };

    let second = cluster_env.other_process().await;
    cluster_env
        .until("the observations of an earlier process are discarded", async || {
            let view = second.service(Color::Green).await.expect("a view");
            (!view.observed && view.ready == 0 && view.total == 0).then_some(())
        })
        .await;
    assert_eq!(second.router_address().await, Ok(None));
    let spec = JobSpec { name: name.clone(), service: Color::Green, kind };
    applied(second.run_job(&cluster_env.call(), &spec).await);
    // The state that a process leaves if it is killed during the job.
    mark_started(&cluster_env.env.dir.path().join("cdm.db"), &name).await;

    let host = cluster_env.host_with(&second, any_port()).await.expect("a host");
    let view = cluster_env.ready(&second, Color::Green).await;
    assert_eq!((view.digest, view.fence.epoch), (Some(image('e')), Epoch(1)));
    let page = get(&host, "shop.test", "/").await;
    assert_eq!((page.status, page.header("x-cdm-service")), (200, "green"));
    let job = cluster_env.ended(&second, &name).await;
    assert_eq!(job.state, JobState::Succeeded { failed: Vec::new() });
    host.stop().await;
}

async fn mark_started(file: &Path, job: &JobName) {
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.expect("the file");
    sqlx::query("UPDATE cluster_jobs SET boot = 'another', attempts = 1 WHERE name = ?")
        .bind(job.as_str())
        .execute(&mut connection)
        .await
        .expect("an update");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_moves_routes_and_takes_over() {
    let cluster_env = ClusterEnv::new().await;
    let host = cluster_env.host().await;
    let site = cluster_env.site("shop").await;
    cluster_env.install(&site).await;
    let fence = cluster_env.route(&site, Color::Blue).await;
    for color in Color::ALL {
        cluster_env.ready(&cluster_env.cluster, color).await;
    }
    let other = cluster_env.other_process().await;
    assert!(cluster_env.ready(&other, Color::Blue).await.is_ready());
    assert_eq!(other.router_address().await, Ok(host.router_address()));

    let (_, cursor) = other.changes(ChangeCursor::default(), Duration::ZERO).await.expect("changes");
    cluster_env.set_image(Color::Green, image('f')).await;
    let (changes, cursor) = other.changes(cursor, Duration::from_secs(5)).await.expect("changes");
    assert_eq!(changes, [Changed::Service(Color::Green)]);
    assert!(cursor > ChangeCursor::default());
    let (all, _) = other.changes(ChangeCursor(u64::MAX), Duration::ZERO).await.expect("changes");
    assert_eq!(all, [Changed::Anything]);

    applied(other.move_route(&cluster_env.call(), site.uid, fence, Color::Green).await);
    let follows = async || {
        let page = get(&host, "shop.test", "/").await;
        (page.header("x-cdm-service") == "green").then_some(())
    };
    cluster_env.until("the router follows another process", follows).await;

    let waiting = cluster_env.host_with(&other, any_port()).await.expect("a host that waits");
    assert!(!waiting.is_hosting());
    host.stop().await;
    cluster_env.until("a waiting process takes over", async || waiting.is_hosting().then_some(())).await;
    cluster_env.ready(&other, Color::Green).await;
    assert_eq!(get(&waiting, "shop.test", "/").await.status, 200);
    waiting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_and_a_foreign_hostname_are_reported() {
    let cluster_env = ClusterEnv::new().await;
    let listener = std::net::TcpListener::bind(any_port()).expect("a port");
    let address = listener.local_addr().expect("an address");
    let error = cluster_env.host_with(&cluster_env.cluster, address).await.expect_err("a taken port");
    assert!(matches!(error, HostError::Router { .. }));
    assert_eq!(
        error.to_string(),
        format!("the router cannot listen on `{address}`; configure another address (CDM_ROUTER_LISTEN)")
    );
    let host = cluster_env.host().await;
    assert!(host.is_hosting(), "a failed attempt releases the lock");

    let site = fixtures::site("shop");
    cluster_env.cluster.reserve(site.hostnames.canonical()).await.expect("free");
    let spec = RouteSpec {
        uid: site.uid,
        site: site.id.clone(),
        hostnames: site.hostnames.clone(),
        service: Color::Blue,
    };
    let refused = cluster_env.cluster.put_route(&cluster_env.call(), &spec).await;
    assert!(matches!(refused, Outcome::NotApplied(error) if error.kind == ErrorKind::Foreign));
    let late = CallContext { deadline: cluster_env.env.clock.monotonic(), ..cluster_env.call() };
    let late =
        cluster_env.cluster.release(&late, cluster_env.env.ids.uid(cluster_env.env.clock.wall())).await;
    assert!(matches!(late, Outcome::NotApplied(_) | Outcome::Unknown(_)));
    cluster_env.cluster.check().await.expect("tables");
    host.stop().await;
}

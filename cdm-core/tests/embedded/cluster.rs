//! The local cluster over real HTTP: its promises, pages, moves, broken images, and what outlives a process.

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
    Color, Digest, Fence, Hostnames, JobName, SecretKind, SecretName, Site, SiteName, Theme, Uid,
};
use cdm_core::ports::{
    CallContext, ChangeCursor, Changed, Clock, ClusterOps, Cms, Credentials, Database, Entropy, ErrorKind,
    HealthProbe, ImageWant, Job, JobFailure, JobKind, JobSpec, JobState, Journal, Mutation, Outcome,
    PortError, ProbeRequest, RouteSpec, SecretStore, ServiceView, Via, WriteBatch,
};
use cdm_testkit::build;
use cdm_testkit::clock::SimClock;
use cdm_testkit::contract::cluster::{self as contract, Images};
use cdm_testkit::fakes::{FakeSecrets, FakeStore};
use cdm_testkit::log::EffectLog;
use secrecy::SecretString;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::Bench;

/// Site databases as files, found by their names; there is one where its file is.
#[derive(Debug)]
struct Files(PathBuf);

#[async_trait]
impl TenantDatabases for Files {
    async fn connect(&self, credentials: &Database) -> Result<SqliteConnection, PortError> {
        let path = self.0.join(&credentials.dbname);
        let connection = SqliteConnectOptions::new().filename(path).connect().await;
        connection.map_err(|_| PortError::new("databases", ErrorKind::NotFound, "there is no such database"))
    }
}

/// A cluster on a directory of its own, and the rest of the machine.
struct Machine {
    bench: Bench,
    cluster: LocalCluster,
    store: FakeStore,
    secrets: FakeSecrets,
}

impl Machine {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let cluster = open(&bench, bench.file.clone()).await;
        let clock = SimClock::new();
        let store = FakeStore::new(EffectLog::default(), clock.clone());
        let secrets = FakeSecrets::new(EffectLog::default(), clock);
        Self { bench, cluster, store, secrets }
    }

    async fn host(&self) -> Host {
        self.host_with(&self.cluster, any_port()).await.expect("a host")
    }

    async fn host_with(&self, cluster: &LocalCluster, router: SocketAddr) -> Result<Host, HostError> {
        let tenants = Tenants {
            repository: Arc::new(self.store.clone()),
            secrets: Arc::new(self.secrets.clone()),
            databases: Arc::new(Files(self.bench.dir.path().to_owned())),
        };
        cluster.host(&self.lock(), router, tenants).await
    }

    fn lock(&self) -> PathBuf {
        self.bench.dir.path().join("cluster.lock")
    }

    /// Another process's view of the same directory.
    async fn elsewhere(&self) -> LocalCluster {
        let file = File::open(&self.bench.dir.path().join("cdm.db")).await.expect("the file");
        open(&self.bench, file).await
    }

    fn call(&self) -> CallContext {
        self.bench.cx().call()
    }

    async fn until<T>(&self, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
        self.bench.cx().until(what, look).await
    }

    async fn ready(&self, cluster: &LocalCluster, color: Color) -> ServiceView {
        let look = async || Some(cluster.service(color).await.expect("a view")).filter(ServiceView::is_ready);
        self.until("a service gets ready", look).await
    }

    /// A site with record, secrets and a database, which has the hostnames `<id>.test` and `www.<id>.test`.
    async fn site(&self, id: &str) -> Site {
        let host = format!("{id}.test");
        let hostnames = Hostnames::parse(&[host.as_str(), &format!("www.{host}")], &host).expect("hostnames");
        let name = SiteName::parse("Tea & <b>cake</b>").expect("a name");
        let site = Site { hostnames, name, ..build::site(id) };
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
        let path = self.bench.dir.path().join(format!("site_{uid}"));
        let made = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await;
        made.expect("a database").close().await.expect("an end");
        site
    }

    async fn job(&self, service: Color, kind: JobKind) -> Job {
        let name = JobName::of_window(kind.word(), self.bench.cx().number(), 0, 1);
        self.run(name, service, kind).await
    }

    async fn run(&self, name: JobName, service: Color, kind: JobKind) -> Job {
        applied(self.cluster.run_job(&self.call(), &JobSpec { name: name.clone(), service, kind }).await);
        self.ended(&self.cluster, &name).await
    }

    async fn ended(&self, cluster: &LocalCluster, name: &JobName) -> Job {
        let look =
            async || cluster.job(name).await.expect("a job").filter(|job| job.state != JobState::Running);
        self.until("a job ends", look).await
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
        let want = ImageWant::Digest(digest);
        applied(self.cluster.set_image(&self.call(), color, fence, &want).await);
    }
}

async fn open(bench: &Bench, file: File) -> LocalCluster {
    LocalCluster::open(file, quick(), Arc::new(bench.clock)).await.expect("a cluster")
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

fn image(letter: char) -> Digest {
    Digest::parse(&letter.to_string().repeat(64)).expect("a digest")
}

#[track_caller]
fn applied(outcome: Outcome<()>) {
    assert_eq!(outcome, Outcome::Applied(()));
}

/// What came back: status, head in lower case, body.
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
    stream.read_to_string(&mut reply).await.expect("an answer");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_cluster_keeps_its_promises() {
    let machine = Machine::new().await;
    let host = machine.host().await;
    let images = Images { first: image('a'), second: image('b') };
    contract::suite(&machine.cluster, images, &machine.bench.cx()).await;
    host.stop().await;
}

/// At its limit of connections the router closes the one that has waited longest, and none that has a request.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_no_visitor_out() {
    let machine = Machine::new().await;
    let settings = LocalSettings { router_connections: 4, ..quick() };
    let file = machine.bench.file.clone();
    let cluster = LocalCluster::open(file, settings, Arc::new(machine.bench.clock)).await.expect("a cluster");
    let host = machine.host_with(&cluster, any_port()).await.expect("a host");
    let address = host.router_address().expect("a router");
    let connect = async || TcpStream::connect(address).await.expect("a connection");
    let mut asking = connect().await;
    // A request whose body is still to come.
    let head = "POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: 4\r\n\r\n";
    asking.write_all(head.as_bytes()).await.expect("a head");
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(connect().await);
        assert_eq!(get(&host, "nobody.test", "/").await.status, 404);
    }
    let mut oldest = silent.swap_remove(0);
    // The end may come as a reset.
    assert_eq!(oldest.read(&mut [0; 8]).await.unwrap_or(0), 0, "the oldest connection was closed");
    asking.write_all(b"body").await.expect("a body");
    let mut buffer = [0; 64];
    let count = asking.read(&mut buffer).await.expect("an answer");
    assert!(buffer[..count].starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&buffer[..count]));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_served_and_moves_at_once() {
    let machine = Machine::new().await;
    let host = machine.host().await;
    for color in Color::ALL {
        machine.ready(&machine.cluster, color).await;
    }
    let site = machine.site("shop").await;
    assert_eq!(get(&host, "shop.test", "/").await.status, 404, "no route yet");
    let fence = machine.route(&site, Color::Blue).await;
    let early = get(&host, "shop.test", "/").await;
    assert_eq!((early.status, early.body.trim()), (503, "not installed"));

    let installed = machine.install(&site).await;
    assert_eq!(installed.state, JobState::Succeeded { failed: Vec::new() });
    assert!(installed.log.contains("installed successfully") && !installed.log.contains("hunter2"));
    let again = machine.install(&site).await;
    assert!(again.log.contains("already installed"));

    let page = get(&host, "SHOP.test:8080", "/").await;
    assert_eq!((page.status, page.header("x-cdm-service"), page.header("x-cdm-site")), (200, "blue", "shop"));
    let digest = LocalCluster::initial_image().to_string();
    assert_eq!(page.header("x-cdm-digest"), digest);
    assert!(page.body.contains(&digest) && page.body.contains("Tea &amp; &lt;b&gt;cake"), "{}", page.body);
    assert_eq!(machine.cluster.router_address().await, Ok(host.router_address()));

    let before: u64 = page.header("x-cdm-route").parse().expect("a number");
    applied(machine.cluster.move_route(&machine.call(), site.uid, fence, Color::Green).await);
    let moved = get(&host, "shop.test", "/").await;
    assert_eq!((moved.status, moved.header("x-cdm-service")), (200, "green"));
    assert!(moved.header("x-cdm-route").parse::<u64>().expect("a number") > before);

    let other = get(&host, "www.shop.test:81", "/a/b?c=d").await;
    assert_eq!((other.status, other.header("location")), (301, "http://shop.test:81/a/b?c=d"));
    let nobody = get(&host, "nobody.test", "/").await;
    assert_eq!(nobody.status, 404);
    assert!(nobody.body.contains("nobody.test"));

    applied(machine.cluster.release(&machine.call(), site.uid).await);
    assert_eq!(get(&host, "shop.test", "/").await.status, 404);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_serves_nobody_and_the_old_pods_go_on() {
    let machine = Machine::new().await;
    let broken = ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() };
    machine.cluster.declare(image('c'), broken.clone()).await.expect("declared");
    assert_eq!(machine.cluster.images().await, Ok(vec![(image('c'), broken)]));
    let host = machine.host().await;
    let site = machine.site("shop").await;
    let first = machine.ready(&machine.cluster, Color::Blue).await;
    machine.install(&site).await;
    machine.route(&site, Color::Blue).await;

    machine.set_image(Color::Blue, image('c')).await;
    let failed = machine
        .until("a broken image is a failure", async || {
            let view = machine.cluster.service(Color::Blue).await.expect("a view");
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
    let host = machine.host().await;
    machine
        .until("after a crash the old pods serve again", async || {
            (get(&host, "shop.test", "/").await.status == 200).then_some(())
        })
        .await;
    let page = get(&host, "shop.test", "/").await;
    assert_eq!(page.header("x-cdm-digest"), LocalCluster::initial_image().to_string());

    let want = ImageWant::Template(first.template.clone().expect("a template"));
    applied(machine.cluster.set_image(&machine.call(), Color::Blue, view.fence, &want).await);
    let back = machine.ready(&machine.cluster, Color::Blue).await;
    assert_eq!((back.template, back.digest), (first.template, first.digest));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_pods_and_routes_change() {
    let machine = Machine::new().await;
    let host = machine.host().await;
    let site = machine.site("shop").await;
    let first = machine.cluster.service(Color::Blue).await.expect("a view");
    let canary = machine.cluster.canary().await.expect("a canary").expect("one from the first");
    assert_eq!((first.digest, first.fence), (Some(LocalCluster::initial_image()), Fence::default()));
    assert_eq!((canary.color, canary.digest), (Color::Blue, first.digest));
    machine.install(&site).await;
    let mut fence = machine.route(&site, Color::Blue).await;
    machine.ready(&machine.cluster, Color::Blue).await;
    for letter in ['1', '2', '3'] {
        machine.set_image(Color::Blue, image(letter)).await;
        let mut served = 0;
        while !machine.cluster.service(Color::Blue).await.expect("a view").is_ready() || served < 20 {
            assert_eq!(get(&host, "shop.test", "/").await.status, 200);
            served += 1;
            assert!(served < 20_000, "a rollout ends");
        }
        assert_eq!(get(&host, "shop.test", "/").await.header("x-cdm-digest"), image(letter).to_string());
    }
    machine.ready(&machine.cluster, Color::Green).await;
    for to in [Color::Green, Color::Blue].into_iter().cycle().take(40) {
        let call = machine.call();
        applied(machine.cluster.move_route(&call, site.uid, fence, to).await);
        fence = call.fence;
        assert_eq!(get(&host, "shop.test", "/").await.header("x-cdm-service"), to.as_str());
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_image_is_ready_and_fails_its_sites() {
    let machine = Machine::new().await;
    let failing = ImageSpec { answers: 500, ..ImageSpec::default() };
    machine.cluster.declare(image('d'), failing).await.expect("declared");
    let host = machine.host().await;
    let site = machine.site("shop").await;
    machine.install(&site).await;
    machine.route(&site, Color::Green).await;
    machine.set_image(Color::Green, image('d')).await;
    let view = machine.ready(&machine.cluster, Color::Green).await;
    assert_eq!(view.digest, Some(image('d')));
    assert_eq!(get(&host, "shop.test", "/").await.status, 500);
    machine.cluster.declare(image('d'), ImageSpec::default()).await.expect("declared");
    assert_eq!(get(&host, "shop.test", "/").await.status, 200, "running pods follow what is declared");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_router_answers_for_want_of_a_pod_is_from_no_service() {
    let machine = Machine::new().await;
    let never = ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() };
    machine.cluster.declare(LocalCluster::initial_image(), never).await.expect("declared");
    let host = machine.host().await;
    let site = machine.site("shop").await;
    machine.route(&site, Color::Green).await;
    let clock = Arc::new(machine.bench.clock);
    let probe = LocalProbe::new(Arc::new(machine.elsewhere().await), Outbound::new(clock));
    for via in [Via::Route, Via::Service(Color::Green)] {
        let check = ProbeRequest {
            uid: site.uid,
            host: site.hostnames.canonical().clone(),
            via,
            path: "/".to_owned(),
            text: None,
            timeout: Duration::from_secs(10),
        };
        let answer = probe.probe(&check).await.expect("an answer");
        assert_eq!((answer.status, answer.by), (503, None), "{via:?}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_theme_shows_after_its_job_and_a_missing_one_fails() {
    let machine = Machine::new().await;
    let plain = Theme::parse("plain").expect("a theme");
    let spec = ImageSpec { themes: Some(vec![plain.clone()]), ..ImageSpec::default() };
    machine.cluster.declare(LocalCluster::initial_image(), spec).await.expect("declared");
    let host = machine.host().await;
    let site = machine.site("shop").await;
    machine.install(&site).await;
    machine.route(&site, Color::Blue).await;
    machine.ready(&machine.cluster, Color::Blue).await;
    assert!(get(&host, "shop.test", "/").await.body.contains("<dd>default</dd>"));
    let activate =
        |theme: &str| JobKind::ActivateTheme { uid: site.uid, theme: Theme::parse(theme).expect("a theme") };
    let done = machine.job(Color::Blue, activate("plain")).await;
    assert_eq!(done.state, JobState::Succeeded { failed: Vec::new() });
    assert!(get(&host, "shop.test", "/").await.body.contains("<dd>plain</dd>"));
    let missing = machine.job(Color::Blue, activate("absent")).await;
    assert!(matches!(missing.state, JobState::Failed { cause: JobFailure::ThemeMissing, .. }), "{missing:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ended_jobs_of_several_sites_the_newest_are_kept() {
    let machine = Machine::new().await;
    let path = machine.bench.dir.path().join("cdm.db");
    let mut on = SqliteConnectOptions::new().filename(path).connect().await.expect("the file");
    let old = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
               INSERT INTO cluster_jobs (name, uid, service, kind, running, state, log, boot, attempts)
               SELECT 'rollout-0-flush-caches-' || i, iif(i = 2, 'a-site', NULL), 'blue', '', 0,
                      '{\"state\":\"succeeded\",\"failed\":[]}', '', NULL, 1 FROM n";
    sqlx::query(old).execute(&mut on).await.expect("jobs");
    let host = machine.host().await;
    let uids = vec![build::uid("a"), build::uid("b")];
    machine.job(Color::Blue, JobKind::FlushCaches { uids }).await;
    let kept = "SELECT count(*), min(rowid) FROM cluster_jobs WHERE uid IS NULL";
    let kept = sqlx::query(kept).fetch_one(&mut on).await.expect("a count");
    assert_eq!(
        (kept.get::<i64, _>(0), kept.get::<i64, _>(1)),
        (1_000, 202),
        "those of one site do not count"
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_caches_until_it_is_flushed() {
    let machine = Machine::new().await;
    let host = machine.host().await;
    let site = machine.site("shop").await;
    machine.install(&site).await;
    machine.route(&site, Color::Blue).await;
    machine.ready(&machine.cluster, Color::Blue).await;
    assert_eq!(get(&host, "shop.test", "/").await.status, 200);
    rename(&machine.bench.dir.path().join(format!("site_{}", site.uid)), "Renamed").await;
    assert!(!get(&host, "shop.test", "/").await.body.contains("Renamed"), "the cache is shared by all pods");
    let stranger = build::uid("stranger");
    let flush = || JobKind::FlushCaches { uids: vec![site.uid, stranger] };
    machine.job(Color::Green, flush()).await;
    assert!(!get(&host, "shop.test", "/").await.body.contains("Renamed"), "it is blue's own");
    let flushed = machine.job(Color::Blue, flush()).await;
    let JobState::Succeeded { failed } = flushed.state else { panic!("a batch goes on: {flushed:?}") };
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
async fn everything_outlives_the_process() {
    let machine = Machine::new().await;
    let host = machine.host().await;
    let site = machine.site("shop").await;
    machine.install(&site).await;
    machine.route(&site, Color::Green).await;
    machine.set_image(Color::Green, image('e')).await;
    machine.ready(&machine.cluster, Color::Green).await;
    // As if killed: nothing is told to anyone.
    drop(host);
    let name = JobName::of_site(&site.id, "flush-caches", 77, 1);
    let kind = JobKind::FlushCaches { uids: vec![site.uid] };

    let second = machine.elsewhere().await;
    machine
        .until("what another boot saw counts for nothing", async || {
            let view = second.service(Color::Green).await.expect("a view");
            (!view.observed && view.ready == 0 && view.total == 0).then_some(())
        })
        .await;
    assert_eq!(second.router_address().await, Ok(None));
    let spec = JobSpec { name: name.clone(), service: Color::Green, kind };
    applied(second.run_job(&machine.call(), &spec).await);
    // As a process that was killed in the middle of the job leaves it.
    mark_begun(&machine.bench.dir.path().join("cdm.db"), &name).await;

    let host = machine.host_with(&second, any_port()).await.expect("a host");
    let view = machine.ready(&second, Color::Green).await;
    assert_eq!((view.digest, view.fence.epoch), (Some(image('e')), 1));
    let page = get(&host, "shop.test", "/").await;
    assert_eq!((page.status, page.header("x-cdm-service")), (200, "green"));
    let job = machine.ended(&second, &name).await;
    assert_eq!(job.state, JobState::Succeeded { failed: Vec::new() });
    host.stop().await;
}

async fn mark_begun(file: &Path, job: &JobName) {
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.expect("the file");
    sqlx::query("UPDATE cluster_jobs SET boot = 'another', attempts = 1 WHERE name = ?")
        .bind(job.as_str())
        .execute(&mut connection)
        .await
        .expect("an update");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_moves_what_this_one_serves_and_takes_over() {
    let machine = Machine::new().await;
    let host = machine.host().await;
    let site = machine.site("shop").await;
    machine.install(&site).await;
    let fence = machine.route(&site, Color::Blue).await;
    for color in Color::ALL {
        machine.ready(&machine.cluster, color).await;
    }
    let other = machine.elsewhere().await;
    assert!(machine.ready(&other, Color::Blue).await.is_ready());
    assert_eq!(other.router_address().await, Ok(host.router_address()));

    let (_, mark) = other.changes(ChangeCursor::default(), Duration::ZERO).await.expect("changes");
    machine.set_image(Color::Green, image('f')).await;
    let (news, mark) = other.changes(mark, Duration::from_secs(5)).await.expect("changes");
    assert_eq!(news, [Changed::Service(Color::Green)]);
    assert!(mark > ChangeCursor::default());
    let (all, _) = other.changes(ChangeCursor(u64::MAX), Duration::ZERO).await.expect("changes");
    assert_eq!(all, [Changed::Anything]);

    applied(other.move_route(&machine.call(), site.uid, fence, Color::Green).await);
    let follows = async || {
        let page = get(&host, "shop.test", "/").await;
        (page.header("x-cdm-service") == "green").then_some(())
    };
    machine.until("the router follows another process", follows).await;

    let waiting = machine.host_with(&other, any_port()).await.expect("a host that waits");
    assert!(!waiting.is_hosting());
    host.stop().await;
    machine.until("a waiting process takes over", async || waiting.is_hosting().then_some(())).await;
    machine.ready(&other, Color::Green).await;
    assert_eq!(get(&waiting, "shop.test", "/").await.status, 200);
    waiting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_and_a_strangers_hostname_are_said() {
    let machine = Machine::new().await;
    let taken = std::net::TcpListener::bind(any_port()).expect("a port");
    let address = taken.local_addr().expect("an address");
    let error = machine.host_with(&machine.cluster, address).await.expect_err("a taken port");
    assert!(matches!(error, HostError::Router { .. }));
    assert_eq!(
        error.to_string(),
        format!("the router cannot listen on `{address}`; name another address for it (CDM_ROUTER_LISTEN)")
    );
    let host = machine.host().await;
    assert!(host.is_hosting(), "a failed attempt leaves the lock free");

    let site = build::site("shop");
    machine.cluster.reserve(site.hostnames.canonical()).await.expect("free");
    let spec = RouteSpec {
        uid: site.uid,
        site: site.id.clone(),
        hostnames: site.hostnames.clone(),
        service: Color::Blue,
    };
    let refused = machine.cluster.put_route(&machine.call(), &spec).await;
    assert!(matches!(refused, Outcome::NotApplied(error) if error.kind == ErrorKind::Foreign));
    let late = CallContext { deadline: machine.bench.clock.monotonic(), ..machine.call() };
    let late = machine.cluster.release(&late, machine.bench.ids.uid(machine.bench.clock.wall())).await;
    assert!(matches!(late, Outcome::NotApplied(_) | Outcome::Unknown(_)));
    machine.cluster.check().await.expect("tables");
    host.stop().await;
}

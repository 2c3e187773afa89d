//! Every fake keeps the promises of its port, and plays what a test has scripted.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{Color, Digest, Fence, JobName, ObjectPrefix, SecretKind, SecretName, SiteId, Uid};
use cdm_core::ports::{
    CallContext, ChangeCursor, Changed, Clock, ClusterOps, Database, Entropy, ErrorKind, ImageWant,
    JobFailure, JobKind, JobSpec, JobState, ObjectStore, Outcome, PodFailure, SecretStore, SiteDatabases,
};
use cdm_testkit::clock::SimClock;
use cdm_testkit::contract::{self, Cx, Settle};
use cdm_testkit::fakes::{FakeCluster, FakeDatabases, FakeObjects, FakeSecrets, ImageScript, JobScript};
use cdm_testkit::ids::SeededIds;
use cdm_testkit::log::{EffectLog, What};
use futures_util::FutureExt;

/// What every test starts from.
#[derive(Debug)]
struct Bench {
    log: EffectLog,
    clock: SimClock,
    ids: SeededIds,
}

impl Bench {
    fn new() -> Self {
        Self { log: EffectLog::new(), clock: SimClock::new(), ids: SeededIds::new(1) }
    }

    fn cx(&self) -> Cx<'_> {
        Cx::new(&self.clock, &self.ids, self)
    }

    fn uid(&self) -> Uid {
        self.ids.uid(self.clock.wall())
    }

    fn call(&self) -> CallContext {
        self.cx().call()
    }

    fn cluster(&self) -> FakeCluster {
        FakeCluster::new(self.log.clone(), self.clock.clone())
    }

    fn logged(&self) -> Vec<What> {
        self.log.since(0).into_iter().map(|effect| effect.what).collect()
    }
}

#[async_trait]
impl Settle for Bench {
    async fn settle(&self) {
        self.clock.advance(Duration::from_secs(1));
    }
}

/// Runs a future on fakes, which never wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a fake never waits")
}

fn digest(letter: char) -> Digest {
    Digest::parse(&letter.to_string().repeat(64)).expect("a digest")
}

#[test]
fn secrets_keep_the_contract() {
    let bench = Bench::new();
    let secrets = FakeSecrets::new(bench.log.clone(), bench.clock.clone());
    now(contract::secrets::suite(&secrets, &bench.cx()));
    let (values, deleting) = (secrets.values().len(), secrets.deleting().len());
    assert_eq!((values, deleting), (6, 3));
    let logged = bench.logged();
    let count = |wanted: fn(&What) -> bool| logged.iter().filter(|what| wanted(what)).count();
    assert_eq!(count(|what| matches!(what, What::SecretCreated(_))), values + deleting);
    assert_eq!(count(|what| matches!(what, What::SecretDeleted(_))), deleting);
    bench.clock.advance(Duration::from_hours(7 * 24));
    assert_eq!(secrets.deleting(), []);
}

#[test]
fn a_strangers_secret_is_neither_read_nor_overwritten_nor_deleted() {
    let bench = Bench::new();
    let secrets = FakeSecrets::new(bench.log.clone(), bench.clock.clone());
    let name = SecretName { uid: bench.uid(), kind: SecretKind::Cms };
    secrets.foreign(name);
    assert_eq!(now(secrets.read(&name)).expect_err("foreign").kind, ErrorKind::Foreign);
    let Outcome::NotApplied(error) = now(secrets.schedule_delete(&bench.call(), &name)) else {
        panic!("a stranger's secret was deleted");
    };
    assert_eq!(error.kind, ErrorKind::Foreign);
    assert!(bench.log.is_empty());
}

#[test]
fn objects_keep_the_contract_whatever_the_page() {
    for size in [1_000, 999, 500] {
        let bench = Bench::new();
        let objects = FakeObjects::new(bench.log.clone(), bench.clock.clone());
        objects.page_size(size);
        now(contract::objects::suite(&objects, &objects, &bench.cx()));
    }
}

#[test]
fn keys_fail_as_often_as_was_scripted_and_are_logged_when_they_go() {
    let bench = Bench::new();
    let objects = FakeObjects::new(bench.log.clone(), bench.clock.clone());
    let uid = bench.uid();
    let keys = [format!("sites/{uid}/a.jpg"), format!("sites/{uid}/a.jpg?version=1")];
    keys.iter().for_each(|key| objects.seed(key));
    objects.fail_keys(1);
    let delete = || now(objects.delete(&bench.call(), &ObjectPrefix::of(uid), &keys));
    let Outcome::Applied(failed) = delete() else { panic!("a delete was refused") };
    assert_eq!(failed.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&keys[0]]);
    assert_eq!(objects.keys(), [keys[0].clone()]);
    assert_eq!(delete(), Outcome::Applied(Vec::new()));
    let [first, second] = keys.clone();
    assert_eq!(bench.logged(), [What::ObjectDeleted(uid, second), What::ObjectDeleted(uid, first)]);
}

#[test]
fn databases_keep_the_contract() {
    let bench = Bench::new();
    let databases = FakeDatabases::new(bench.log.clone(), bench.clock.clone());
    now(contract::databases::suite(&databases, &bench.cx()));
    assert_eq!(databases.uids().len(), 4);
}

#[test]
fn a_database_has_the_password_it_was_given_last() {
    let bench = Bench::new();
    let databases = FakeDatabases::new(bench.log.clone(), bench.clock.clone());
    let uid = bench.uid();
    let [first, second] = [bench.ids.password(), bench.ids.password()];
    let (host, port) = databases.address();
    for password in [&first, &second] {
        let (dbname, username) = ("site".to_owned(), "site".to_owned());
        let value = Database { host: host.clone(), port, dbname, username, password: password.clone() };
        assert_eq!(now(databases.ensure(&bench.call(), uid, &value)), Outcome::Applied(()));
        assert!(databases.password_is(uid, password));
    }
    assert!(!databases.password_is(uid, &first));
    let ensured = |created| What::DatabaseEnsured { uid, created };
    assert_eq!(bench.logged(), [ensured(true), ensured(false)]);
}

#[test]
fn the_cluster_keeps_the_contract() {
    let bench = Bench::new();
    let images = contract::cluster::Images { first: digest('a'), second: digest('b') };
    let cluster = Seen { clock: bench.clock.clone(), cluster: bench.cluster() };
    now(contract::cluster::suite(&cluster.cluster, images, &Cx::new(&bench.clock, &bench.ids, &cluster)));
}

/// A cluster whose credentials are seen.
#[derive(Debug)]
struct Seen {
    clock: SimClock,
    cluster: FakeCluster,
}

#[async_trait]
impl Settle for Seen {
    async fn settle(&self) {
        self.clock.advance(Duration::from_secs(1));
    }

    fn holds_credentials(&self, job: &JobName) -> Option<bool> {
        Some(self.cluster.holds_credentials(job))
    }
}

#[test]
fn a_service_follows_its_script() {
    let bench = Bench::new();
    let cluster = bench.cluster();
    let blue = Color::Blue;
    let view = || now(cluster.service(blue)).expect("an answer");
    cluster.install(blue, digest('a'));
    let before = view();
    assert!(before.is_ready());
    assert!(bench.logged().iter().all(|what| matches!(what, What::Looked(..))));

    let failure = PodFailure { definite: true, blames_image: true, message: "CrashLoopBackOff".to_owned() };
    let crashing =
        ImageScript { ready_after: None, failure: Some((Duration::from_secs(20), failure.clone())) };
    cluster.script(digest('b'), crashing);
    let call = bench.call();
    let want = ImageWant::Digest(digest('b'));
    assert_eq!(now(cluster.set_image(&call, blue, Fence::default(), &want)), Outcome::Applied(()));
    let rolling = view();
    assert!(!rolling.is_ready());
    assert_eq!((rolling.total, rolling.ready, rolling.available), (4, 2, 0));
    let event = cluster.next_event().expect("a failure lies ahead");
    assert_eq!(event.since(bench.clock.monotonic()), Duration::from_secs(20));
    bench.clock.advance_to(event);
    assert_eq!(view().failure, Some(failure));

    let want = ImageWant::Template(before.template.clone().expect("a template"));
    assert_eq!(now(cluster.set_image(&bench.call(), blue, call.fence, &want)), Outcome::Applied(()));
    assert!(view().is_ready());
    assert_eq!(view().template, before.template);
    cluster.break_service(blue, None);
    assert!(!view().is_ready());
    cluster.mend_service(blue);
    assert!(view().is_ready());
    cluster.desired(blue, 0);
    assert!(!view().is_ready());
    assert_eq!(cluster.next_event(), None);
}

#[test]
fn jobs_follow_their_scripts_in_turn() {
    let bench = Bench::new();
    let cluster = bench.cluster();
    let uid = bench.uid();
    let failed = JobState::Failed { message: "exit 1".to_owned(), cause: JobFailure::Other };
    let hangs = JobScript { result: JobState::Running, ..JobScript::default() };
    let fails = JobScript { takes: Duration::from_secs(7), result: failed.clone() };
    cluster.script_job("flush-caches", vec![hangs, fails]);
    let site = SiteId::parse("site").expect("a site id");
    let specs = [1, 2, 3].map(|number| JobSpec {
        name: JobName::of_site(&site, "flush-caches", number, 1),
        service: Color::Green,
        kind: JobKind::FlushCaches { uids: vec![uid] },
    });
    for spec in &specs {
        assert_eq!(now(cluster.run_job(&bench.call(), spec)), Outcome::Applied(()));
    }
    let (_, mark) = now(cluster.changes(ChangeCursor::default(), Duration::ZERO)).expect("an answer");
    let mut news = Vec::new();
    let mut mark = mark;
    let begin = bench.clock.monotonic();
    while let Some(event) = cluster.next_event() {
        bench.clock.advance_to(event);
        let changed;
        (changed, mark) = now(cluster.changes(mark, Duration::ZERO)).expect("an answer");
        news.extend(changed.into_iter().map(|changed| (event.since(begin).as_secs(), changed)));
    }
    let job = |index: usize| Changed::Job(specs[index].name.clone());
    assert_eq!(news, [(3, job(2)), (7, job(1))]);
    let states: Vec<_> = cluster.jobs().into_iter().map(|(_, _, state)| state).collect();
    assert_eq!(states, [JobState::Running, failed, JobState::Succeeded { failed: Vec::new() }]);
    assert_eq!(cluster.job_service(&specs[0].name), Some(Color::Green));

    cluster.expire_job(&specs[2].name);
    assert_eq!(now(cluster.job(&specs[2].name)), Ok(None));
    assert_eq!(now(cluster.run_job(&bench.call(), &specs[2])), Outcome::Applied(()));
    cluster.forget_changes();
    let (news, mark) = now(cluster.changes(mark, Duration::ZERO)).expect("an answer");
    assert_eq!(news, [Changed::Anything]);
    assert_eq!(now(cluster.changes(mark, Duration::ZERO)), Ok((Vec::new(), mark)));
}

//! Every fake passes the contract suite of its port, and follows its scripts.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{Color, Digest, Fence, JobName, ObjectPrefix, SecretKind, SecretName, SiteId, Uid};
use cdm_core::ports::{
    CallContext, ChangeCursor, Changed, Clock, ClusterOps, Database, Entropy, ErrorKind, ImageWant,
    JobFailure, JobKind, JobSpec, JobState, ObjectStore, Outcome, PodFailure, SecretStore, SiteDatabases,
};
use cdm_testkit::clock::SimClock;
use cdm_testkit::contract::{self, Settle, SuiteContext};
use cdm_testkit::fakes::{FakeCluster, FakeDatabases, FakeObjects, FakeSecrets, ImageScript, JobScript};
use cdm_testkit::ids::SeededIds;
use cdm_testkit::log::{EffectKind, EffectLog};
use futures_util::FutureExt;

/// The log, clock and ids of a test.
#[derive(Debug)]
struct TestEnv {
    log: EffectLog,
    clock: SimClock,
    ids: SeededIds,
}

impl TestEnv {
    fn new() -> Self {
        Self { log: EffectLog::new(), clock: SimClock::new(), ids: SeededIds::new(1) }
    }

    fn cx(&self) -> SuiteContext<'_> {
        SuiteContext::new(&self.clock, &self.ids, self)
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

    fn logged(&self) -> Vec<EffectKind> {
        self.log.since(0).into_iter().map(|effect| effect.kind).collect()
    }
}

#[async_trait]
impl Settle for TestEnv {
    async fn settle(&self) {
        self.clock.advance(Duration::from_secs(1));
    }
}

/// Returns the value of a future on fakes, which are never pending.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a fake is never pending")
}

fn digest(letter: char) -> Digest {
    Digest::parse(&letter.to_string().repeat(64)).expect("a digest")
}

#[test]
fn secrets_keep_the_contract() {
    let env = TestEnv::new();
    let secrets = FakeSecrets::new(env.log.clone(), env.clock.clone());
    now(contract::secrets::suite(&secrets, &env.cx()));
    let (values, deleting) = (secrets.values().len(), secrets.deleting().len());
    assert_eq!((values, deleting), (6, 3));
    let logged = env.logged();
    let count = |wanted: fn(&EffectKind) -> bool| logged.iter().filter(|kind| wanted(kind)).count();
    assert_eq!(count(|kind| matches!(kind, EffectKind::SecretCreated(_))), values + deleting);
    assert_eq!(count(|kind| matches!(kind, EffectKind::SecretDeleted(_))), deleting);
    env.clock.advance(Duration::from_hours(7 * 24));
    assert_eq!(secrets.deleting(), []);
}

#[test]
fn a_foreign_secret_is_neither_read_nor_deleted() {
    let env = TestEnv::new();
    let secrets = FakeSecrets::new(env.log.clone(), env.clock.clone());
    let name = SecretName { uid: env.uid(), kind: SecretKind::Cms };
    secrets.foreign(name);
    assert_eq!(now(secrets.read(&name)).expect_err("foreign").kind, ErrorKind::Foreign);
    let Outcome::NotApplied(error) = now(secrets.schedule_delete(&env.call(), &name)) else {
        panic!("a foreign secret was deleted");
    };
    assert_eq!(error.kind, ErrorKind::Foreign);
    assert!(env.log.is_empty());
}

#[test]
fn objects_keep_the_contract_at_each_page_size() {
    for size in [1_000, 999, 500] {
        let env = TestEnv::new();
        let objects = FakeObjects::new(env.log.clone(), env.clock.clone());
        objects.page_size(size);
        now(contract::objects::suite(&objects, &objects, &env.cx()));
    }
}

#[test]
fn scripted_keys_fail_and_deleted_keys_are_logged() {
    let env = TestEnv::new();
    let objects = FakeObjects::new(env.log.clone(), env.clock.clone());
    let uid = env.uid();
    let keys = [format!("sites/{uid}/a.jpg"), format!("sites/{uid}/a.jpg?version=1")];
    keys.iter().for_each(|key| objects.seed(key));
    objects.fail_keys(1);
    let delete = || now(objects.delete(&env.call(), &ObjectPrefix::of(uid), &keys));
    let Outcome::Applied(failed) = delete() else { panic!("a delete was rejected") };
    assert_eq!(failed.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&keys[0]]);
    assert_eq!(objects.keys(), [keys[0].clone()]);
    assert_eq!(delete(), Outcome::Applied(Vec::new()));
    let [first, second] = keys.clone();
    assert_eq!(env.logged(), [EffectKind::ObjectDeleted(uid, second), EffectKind::ObjectDeleted(uid, first)]);
}

#[test]
fn databases_keep_the_contract() {
    let env = TestEnv::new();
    let databases = FakeDatabases::new(env.log.clone(), env.clock.clone());
    now(contract::databases::suite(&databases, &env.cx()));
    assert_eq!(databases.uids().len(), 4);
}

#[test]
fn a_database_has_its_last_password() {
    let env = TestEnv::new();
    let databases = FakeDatabases::new(env.log.clone(), env.clock.clone());
    let uid = env.uid();
    let [first, second] = [env.ids.password(), env.ids.password()];
    let (host, port) = databases.address();
    for password in [&first, &second] {
        let (dbname, username) = ("site".to_owned(), "site".to_owned());
        let value = Database { host: host.clone(), port, dbname, username, password: password.clone() };
        assert_eq!(now(databases.ensure(&env.call(), uid, &value)), Outcome::Applied(()));
        assert!(databases.password_is(uid, password));
    }
    assert!(!databases.password_is(uid, &first));
    let ensured = |created| EffectKind::DatabaseEnsured { uid, created };
    assert_eq!(env.logged(), [ensured(true), ensured(false)]);
}

#[test]
fn the_cluster_keeps_the_contract() {
    let env = TestEnv::new();
    let images = contract::cluster::Images { first: digest('a'), second: digest('b') };
    let cluster = ClusterEnv { clock: env.clock.clone(), cluster: env.cluster() };
    now(contract::cluster::suite(
        &cluster.cluster,
        images,
        &SuiteContext::new(&env.clock, &env.ids, &cluster),
    ));
}

/// A cluster whose job credentials the test can check.
#[derive(Debug)]
struct ClusterEnv {
    clock: SimClock,
    cluster: FakeCluster,
}

#[async_trait]
impl Settle for ClusterEnv {
    async fn settle(&self) {
        self.clock.advance(Duration::from_secs(1));
    }

    fn holds_credentials(&self, job: &JobName) -> Option<bool> {
        Some(self.cluster.holds_credentials(job))
    }
}

#[test]
fn a_service_follows_its_script() {
    let env = TestEnv::new();
    let cluster = env.cluster();
    let blue = Color::Blue;
    let view = || now(cluster.service(blue)).expect("a view");
    cluster.install(blue, digest('a'));
    let before = view();
    assert!(before.is_ready());
    assert!(env.logged().iter().all(|kind| matches!(kind, EffectKind::ServiceRead(..))));

    let failure = PodFailure { definite: true, blames_image: true, message: "CrashLoopBackOff".to_owned() };
    let crashing =
        ImageScript { ready_after: None, failure: Some((Duration::from_secs(20), failure.clone())) };
    cluster.script(digest('b'), crashing);
    let call = env.call();
    let want = ImageWant::Digest(digest('b'));
    assert_eq!(now(cluster.set_image(&call, blue, Fence::default(), &want)), Outcome::Applied(()));
    let rolling = view();
    assert!(!rolling.is_ready());
    assert_eq!((rolling.total, rolling.ready, rolling.available), (4, 2, 0));
    let event = cluster.next_event().expect("a failure is scheduled");
    assert_eq!(event.since(env.clock.monotonic()), Duration::from_secs(20));
    env.clock.advance_to(event);
    assert_eq!(view().failure, Some(failure));

    let want = ImageWant::Template(before.template.clone().expect("a template"));
    assert_eq!(now(cluster.set_image(&env.call(), blue, call.fence, &want)), Outcome::Applied(()));
    assert!(view().is_ready());
    assert_eq!(view().template, before.template);
    cluster.break_service(blue, None);
    assert!(!view().is_ready());
    cluster.repair_service(blue);
    assert!(view().is_ready());
    cluster.desired(blue, 0);
    assert!(!view().is_ready());
    assert_eq!(cluster.next_event(), None);
}

#[test]
fn jobs_follow_their_scripts_in_order() {
    let env = TestEnv::new();
    let cluster = env.cluster();
    let uid = env.uid();
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
        assert_eq!(now(cluster.run_job(&env.call(), spec)), Outcome::Applied(()));
    }
    let (_, cursor) = now(cluster.changes(ChangeCursor::default(), Duration::ZERO)).expect("changes");
    let mut changed_jobs = Vec::new();
    let mut cursor = cursor;
    let begin = env.clock.monotonic();
    while let Some(event) = cluster.next_event() {
        env.clock.advance_to(event);
        let changed;
        (changed, cursor) = now(cluster.changes(cursor, Duration::ZERO)).expect("changes");
        changed_jobs.extend(changed.into_iter().map(|changed| (event.since(begin).as_secs(), changed)));
    }
    let job = |index: usize| Changed::Job(specs[index].name.clone());
    assert_eq!(changed_jobs, [(3, job(2)), (7, job(1))]);
    let states: Vec<_> = cluster.jobs().into_iter().map(|(_, _, state)| state).collect();
    assert_eq!(states, [JobState::Running, failed, JobState::Succeeded { failed: Vec::new() }]);
    assert_eq!(cluster.job_service(&specs[0].name), Some(Color::Green));

    cluster.expire_job(&specs[2].name);
    assert_eq!(now(cluster.job(&specs[2].name)), Ok(None));
    assert_eq!(now(cluster.run_job(&env.call(), &specs[2])), Outcome::Applied(()));
    cluster.forget_changes();
    let (changed_jobs, cursor) = now(cluster.changes(cursor, Duration::ZERO)).expect("changes");
    assert_eq!(changed_jobs, [Changed::Anything]);
    assert_eq!(now(cluster.changes(cursor, Duration::ZERO)), Ok((Vec::new(), cursor)));
}

//! The Secret of a job is deleted with the job on every path, and exists as long as a pod may need it.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::ports::{ChangeCursor, ClusterOps, ErrorKind, JobSpec, JobState, Outcome};
use cdm_testkit::kubernetes::{
    Container, Containers, Exit, Fault, FaultKind, FaultTiming, RequestMatcher, WordPress,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::env::{NAMESPACE, TestEnv, gateway, ingress};

/// The annotation of a Job whose Secret may exist.
const SECRET: &str = "cdm/secret";

fn job(env: &TestEnv, spec: &JobSpec) -> Value {
    env.api.object("jobs", NAMESPACE, spec.name.as_str()).expect("a job")
}

fn secret(env: &TestEnv, spec: &JobSpec) -> Option<Value> {
    env.api.object("secrets", NAMESPACE, spec.name.as_str())
}

async fn started(env: &TestEnv) -> JobSpec {
    let spec = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &spec).await, Outcome::Applied(()));
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_belongs_to_its_job_until_the_end_is_reported() {
    for route in [ingress(), gateway()] {
        let env = TestEnv::start(route).await;
        let spec = started(&env).await;
        let stored = secret(&env, &spec).expect("the credentials");
        assert_eq!(stored["type"], "Opaque");
        let owner = &stored["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Job"), &job(&env, &spec)["metadata"]["uid"]));
        assert_eq!(job(&env, &spec)["metadata"]["annotations"][SECRET], stored["metadata"]["uid"]);
        env.ended(&spec.name).await;
        assert_eq!(secret(&env, &spec), None);
        assert_eq!(job(&env, &spec)["metadata"]["annotations"][SECRET], Value::Null);
        env.assert_allowed();
    }
}

/// Containers that fail, or run for the given time.
#[derive(Debug)]
struct Ending(Option<Duration>);

impl Containers for Ending {
    fn run(&self, container: &Container) -> Exit {
        match self.0 {
            None => Exit { code: 1, ..WordPress::default().run(container) },
            Some(takes) => Exit { takes, ..WordPress::default().run(container) },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_or_takes_too_long_leaves_no_secret() {
    for ending in [Ending(None), Ending(Some(Duration::from_secs(3600)))] {
        let env = TestEnv::with_containers(Arc::new(ending)).await;
        let spec = started(&env).await;
        env.api.advance(Duration::from_secs(1));
        assert!(secret(&env, &spec).is_some());
        env.api.advance(Duration::from_secs(700));
        assert!(matches!(env.ended(&spec.name).await.state, JobState::Failed { .. }));
        assert_eq!(secret(&env, &spec), None);
        env.assert_allowed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_pod_finds_the_secret() {
    let slow = Ending(Some(Duration::from_secs(60)));
    let env = TestEnv::with_containers(Arc::new(slow)).await;
    let spec = started(&env).await;
    let mut cursor = ChangeCursor::default();
    for _ in 0..20 {
        env.api.advance(Duration::from_secs(1));
        cursor = env.cluster.changes(cursor, Duration::from_millis(1)).await.expect("news").1;
        let state = env.cluster.job(&spec.name).await.expect("a response").map(|job| job.state);
        assert_eq!(state, Some(JobState::Running));
        assert!(secret(&env, &spec).is_some(), "a running job has its credentials");
    }
}

/// The job was canceled or its worker died: a process that follows the changes removes the Secret, even a process that
/// was started later.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_abandoned_jobs_are_removed_by_any_watching_process() {
    let env = TestEnv::start(ingress()).await;
    let specs = [started(&env).await, started(&env).await];
    env.api.advance(Duration::from_secs(60));
    assert!(specs.iter().all(|spec| secret(&env, spec).is_some()), "no process has followed the changes yet");
    // The first deletion is rejected once; the next round repeats it.
    env.api.fault(Fault::next(
        RequestMatcher::of("delete", "secrets"),
        FaultTiming::Before,
        FaultKind::Respond(503, None),
    ));
    let successor = env.reopen().await;
    let mut cursor = ChangeCursor::default();
    env.cx()
        .until("the Secrets are gone", async || {
            cursor = successor.changes(cursor, Duration::from_millis(1)).await.expect("news").1;
            specs.iter().all(|spec| secret(&env, spec).is_none()).then_some(())
        })
        .await;
    assert_eq!(env.api.faults(), 0, "the fault did not occur");
    let marked =
        async || specs.iter().all(|spec| job(&env, spec)["metadata"]["annotations"][SECRET].is_null());
    env.cx()
        .until("the annotations of the Jobs are removed", async || {
            cursor = successor.changes(cursor, Duration::from_millis(1)).await.expect("news").1;
            marked().await.then_some(())
        })
        .await;
    env.api.forget_requests();
    for _ in 0..5 {
        cursor = successor.changes(cursor, Duration::from_millis(20)).await.expect("news").1;
    }
    assert_eq!((env.count("delete", "secrets"), env.count("patch", "jobs")), (0, 0), "nothing is repeated");
    env.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_not_reported_while_the_secret_may_exist() {
    for (verb, resource) in [("delete", "secrets"), ("patch", "jobs")] {
        for moment in [FaultTiming::Before, FaultTiming::After] {
            for http_fault in
                [FaultKind::Reset, FaultKind::Respond(500, None), FaultKind::Respond(429, Some(7))]
            {
                let env = TestEnv::start(ingress()).await;
                let spec = started(&env).await;
                env.api.advance(Duration::from_secs(60));
                env.api.fault(Fault::next(RequestMatcher::of(verb, resource), moment, http_fault));
                let plan = format!("{verb} {resource} {moment:?} {http_fault:?}");
                let result = env.cluster.job(&spec.name).await;
                assert_eq!(env.api.faults(), 0, "{plan}: the fault did not occur");
                assert!(result.expect_err(&plan).is_retryable(), "{plan}");
                assert!(matches!(env.cluster.job(&spec.name).await, Ok(Some(_))), "{plan}");
                assert_eq!(secret(&env, &spec), None, "{plan}");
                assert_eq!(job(&env, &spec)["metadata"]["annotations"][SECRET], Value::Null, "{plan}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_for_an_ended_job_creates_no_secret() {
    let env = TestEnv::start(ingress()).await;
    let spec = started(&env).await;
    env.ended(&spec.name).await;
    env.api.forget_requests();
    let Outcome::NotApplied(error) = env.cluster.run_job(&env.cx().call(), &spec).await else {
        panic!("the job is started again")
    };
    assert_eq!(error.kind, ErrorKind::Exists);
    assert_eq!((secret(&env, &spec), env.count("create", "secrets")), (None, 0));
}

/// A worker without its lease is delayed between creating the Job and its Secret; its successor runs the job to its
/// end. The Secret that the late call then creates is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_leaves_no_secret_behind() {
    let env = TestEnv::start(ingress()).await;
    let spec = env.install(env.cx().uid(), "A Title");
    let delay = FaultKind::Delay(Duration::from_secs(30));
    env.api.fault(Fault::next(RequestMatcher::of("create", "secrets"), FaultTiming::Before, delay));
    let late = {
        let (cluster, call, spec) = (env.cluster.clone(), env.cx().call(), spec.clone());
        Handle::current().spawn(async move { cluster.run_job(&call, &spec).await })
    };
    env.cx().until("the late call hangs", async || (env.api.faults() == 0).then_some(())).await;
    assert_eq!(env.cluster.run_job(&env.cx().call(), &spec).await, Outcome::Applied(()));
    env.ended(&spec.name).await;
    assert_eq!(secret(&env, &spec), None);
    env.cx().until("the late call ends", async || late.is_finished().then_some(())).await;
    let Outcome::NotApplied(error) = late.await.expect("no panic") else {
        panic!("the job is started again")
    };
    assert_eq!((error.kind, secret(&env, &spec)), (ErrorKind::Exists, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_deletes_the_secret_of_a_running_job() {
    let env = TestEnv::start(ingress()).await;
    let uid = env.cx().uid();
    let spec = env.install(uid, "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &spec).await, Outcome::Applied(()));
    assert_eq!(env.cluster.release(&env.cx().call(), uid).await, Outcome::Applied(()));
    assert_eq!(secret(&env, &spec), None);
}

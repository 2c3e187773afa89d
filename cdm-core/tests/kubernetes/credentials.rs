//! The Secret of a job is gone when the job is, on every path, and is there as long as a pod may need it.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::ports::{ChangeCursor, ClusterOps, ErrorKind, JobSpec, JobState, Outcome};
use cdm_testkit::kubernetes::{Container, Containers, Exit, Fault, Matching, Moment, Trouble, WordPress};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::lab::{Lab, NAMESPACE, gateway, ingress};

/// The annotation of a Job whose Secret may be there.
const SECRET: &str = "cdm/secret";

fn job(lab: &Lab, spec: &JobSpec) -> Value {
    lab.api.object("jobs", NAMESPACE, spec.name.as_str()).expect("a job")
}

fn secret(lab: &Lab, spec: &JobSpec) -> Option<Value> {
    lab.api.object("secrets", NAMESPACE, spec.name.as_str())
}

async fn started(lab: &Lab) -> JobSpec {
    let spec = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_its_jobs_until_the_end_is_answered() {
    for route in [ingress(), gateway()] {
        let lab = Lab::start(route).await;
        let spec = started(&lab).await;
        let held = secret(&lab, &spec).expect("the credentials");
        assert_eq!(held["type"], "Opaque");
        let owner = &held["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Job"), &job(&lab, &spec)["metadata"]["uid"]));
        assert_eq!(job(&lab, &spec)["metadata"]["annotations"][SECRET], held["metadata"]["uid"]);
        lab.ended(&spec.name).await;
        assert_eq!(secret(&lab, &spec), None);
        assert_eq!(job(&lab, &spec)["metadata"]["annotations"][SECRET], Value::Null);
        lab.assert_allowed();
    }
}

/// Containers that fail, and such that never end.
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
        let lab = Lab::with_containers(Arc::new(ending)).await;
        let spec = started(&lab).await;
        lab.api.advance(Duration::from_secs(1));
        assert!(secret(&lab, &spec).is_some());
        lab.api.advance(Duration::from_secs(700));
        assert!(matches!(lab.ended(&spec.name).await.state, JobState::Failed { .. }));
        assert_eq!(secret(&lab, &spec), None);
        lab.assert_allowed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_in_a_lost_ones_place_finds_the_secret() {
    let slow = Ending(Some(Duration::from_secs(60)));
    let lab = Lab::with_containers(Arc::new(slow)).await;
    let spec = started(&lab).await;
    let mut mark = ChangeCursor::default();
    for _ in 0..20 {
        lab.api.advance(Duration::from_secs(1));
        mark = lab.cluster.changes(mark, Duration::from_millis(1)).await.expect("news").1;
        let state = lab.cluster.job(&spec.name).await.expect("an answer").map(|job| job.state);
        assert_eq!(state, Some(JobState::Running));
        assert!(secret(&lab, &spec).is_some(), "a job that runs has its credentials");
    }
}

/// Cancelled, or its worker was lost: somebody follows the changes, also in another process that was started since.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_awaits_is_removed_by_whoever_follows() {
    let lab = Lab::start(ingress()).await;
    let specs = [started(&lab).await, started(&lab).await];
    lab.api.advance(Duration::from_secs(60));
    assert!(specs.iter().all(|spec| secret(&lab, spec).is_some()), "nobody has looked yet");
    // The first deletion is refused once; the next round makes up for it.
    lab.api.fault(Fault::next(Matching::of("delete", "secrets"), Moment::Before, Trouble::Answer(503, None)));
    let successor = lab.again().await;
    let mut mark = ChangeCursor::default();
    lab.cx()
        .until("the Secrets are gone", async || {
            mark = successor.changes(mark, Duration::from_millis(1)).await.expect("news").1;
            specs.iter().all(|spec| secret(&lab, spec).is_none()).then_some(())
        })
        .await;
    assert_eq!(lab.api.faults(), 0, "the fault was met");
    let marked =
        async || specs.iter().all(|spec| job(&lab, spec)["metadata"]["annotations"][SECRET].is_null());
    lab.cx()
        .until("the Jobs say so", async || {
            mark = successor.changes(mark, Duration::from_millis(1)).await.expect("news").1;
            marked().await.then_some(())
        })
        .await;
    lab.api.forget_requests();
    for _ in 0..5 {
        mark = successor.changes(mark, Duration::from_millis(20)).await.expect("news").1;
    }
    assert_eq!((lab.count("delete", "secrets"), lab.count("patch", "jobs")), (0, 0), "once is enough");
    lab.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_not_answered_while_its_secret_may_be_there() {
    for (verb, resource) in [("delete", "secrets"), ("patch", "jobs")] {
        for moment in [Moment::Before, Moment::After] {
            for trouble in [Trouble::Reset, Trouble::Answer(500, None), Trouble::Answer(429, Some(7))] {
                let lab = Lab::start(ingress()).await;
                let spec = started(&lab).await;
                lab.api.advance(Duration::from_secs(60));
                lab.api.fault(Fault::next(Matching::of(verb, resource), moment, trouble));
                let plan = format!("{verb} {resource} {moment:?} {trouble:?}");
                let answer = lab.cluster.job(&spec.name).await;
                assert_eq!(lab.api.faults(), 0, "{plan}: the fault was not met");
                assert!(answer.expect_err(&plan).is_retryable(), "{plan}");
                assert!(matches!(lab.cluster.job(&spec.name).await, Ok(Some(_))), "{plan}");
                assert_eq!(secret(&lab, &spec), None, "{plan}");
                assert_eq!(job(&lab, &spec)["metadata"]["annotations"][SECRET], Value::Null, "{plan}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_for_a_job_that_has_ended_brings_no_secret_back() {
    let lab = Lab::start(ingress()).await;
    let spec = started(&lab).await;
    lab.ended(&spec.name).await;
    lab.api.forget_requests();
    let Outcome::NotApplied(error) = lab.cluster.run_job(&lab.cx().call(), &spec).await else {
        panic!("it is started again")
    };
    assert_eq!(error.kind, ErrorKind::Exists);
    assert_eq!((secret(&lab, &spec), lab.count("create", "secrets")), (None, 0));
}

/// A worker that lost its lease hangs between the Job and its Secret; its successor starts the job, and that ends. What
/// the late call then makes is of no use to anybody, and goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_leaves_no_secret_behind() {
    let lab = Lab::start(ingress()).await;
    let spec = lab.install(lab.cx().uid(), "A Title");
    let delay = Trouble::Delay(Duration::from_secs(30));
    lab.api.fault(Fault::next(Matching::of("create", "secrets"), Moment::Before, delay));
    let late = {
        let (cluster, call, spec) = (lab.cluster.clone(), lab.cx().call(), spec.clone());
        Handle::current().spawn(async move { cluster.run_job(&call, &spec).await })
    };
    lab.cx().until("the late call hangs", async || (lab.api.faults() == 0).then_some(())).await;
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    lab.ended(&spec.name).await;
    assert_eq!(secret(&lab, &spec), None);
    lab.cx().until("the late call ends", async || late.is_finished().then_some(())).await;
    let Outcome::NotApplied(error) = late.await.expect("no panic") else { panic!("it is started again") };
    assert_eq!((error.kind, secret(&lab, &spec)), (ErrorKind::Exists, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_takes_the_secret_of_a_job_that_runs() {
    let lab = Lab::start(ingress()).await;
    let uid = lab.cx().uid();
    let spec = lab.install(uid, "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    assert_eq!(lab.cluster.release(&lab.cx().call(), uid).await, Outcome::Applied(()));
    assert_eq!(secret(&lab, &spec), None);
}

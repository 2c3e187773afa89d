//! All waiting callers share one watch of each kind.

use std::collections::BTreeSet;
use std::time::Duration;

use cdm_core::domain::{Color, JobName};
use cdm_core::ports::{ChangeCursor, Changed, ClusterOps, ImageWant, JobState, Outcome};
use cdm_testkit::kubernetes::{Fault, FaultKind, FaultTiming, RequestMatcher};
use serde_json::json;

use crate::env::{IMAGES, NAMESPACE, TestEnv, ingress};

/// Follows the changes until `wanted` or a general change is among them. A watch that must start over pauses before it
/// does.
async fn wait_for_change(env: &TestEnv, cursor: &mut ChangeCursor, wanted: &Changed) {
    env.cx()
        .until("the change is reported", async || {
            let (changes, next) =
                env.cluster.changes(*cursor, Duration::from_millis(500)).await.expect("changes");
            *cursor = next;
            (changes.contains(wanted) || changes.contains(&Changed::Anything)).then_some(())
        })
        .await;
}

/// Waits until a watch of each kind is open. The changes of the initial list arrive earlier, and a test that closes
/// the watches must find open ones.
async fn watches_are_open(env: &TestEnv) {
    env.cx()
        .until("the watches are open", async || {
            let requests = env.api.requests();
            let is_open = |kind: &&str| {
                let mut requests = requests.iter();
                requests.any(|requests| {
                    requests.verb == "watch" && requests.resource == **kind && requests.code == 200
                })
            };
            ["jobs", "pods", "deployments"].iter().all(is_open).then_some(())
        })
        .await;
}

/// Copies a running job a thousand times under other names, as if the jobs had been started one after another. The
/// copies have no pods: pods are the cluster's work, which is not counted.
async fn many_jobs(env: &TestEnv) -> Vec<JobName> {
    let spec = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &spec).await, Outcome::Applied(()));
    let mut object = env.api.object("jobs", NAMESPACE, spec.name.as_str()).expect("a job");
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        metadata.remove(field);
    }
    let spec = object["spec"].as_object_mut().expect("a spec");
    spec.remove("selector");
    spec.insert("parallelism".to_owned(), json!(0));
    spec["template"]["metadata"]["labels"]
        .as_object_mut()
        .expect("labels")
        .retain(|name, _| !name.contains("controller-uid") && !name.contains("job-name"));
    let mut names = Vec::new();
    for _ in 0..1_000 {
        let name = env.install(env.cx().uid(), "A Title").name;
        object["metadata"]["name"] = json!(name.as_str());
        env.api.put(&object).expect("a job");
        names.push(name);
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_thousand_jobs_costs_one_watch_for_each_kind() {
    let env = TestEnv::start(ingress()).await;
    let names = many_jobs(&env).await;
    let mut cursor = ChangeCursor::default();
    let mut unreported: BTreeSet<JobName> = names.iter().cloned().collect();
    env.cx()
        .until("every job is reported", async || {
            let (changes, next) =
                env.cluster.changes(cursor, Duration::from_millis(20)).await.expect("changes");
            cursor = next;
            unreported.retain(|name| !changes.contains(&Changed::Job(name.clone())));
            unreported.is_empty().then_some(())
        })
        .await;
    // The thousand jobs take three pages.
    for (resource, pages) in [("jobs", 3), ("pods", 1), ("deployments", 1)] {
        assert_eq!((env.count("list", resource), env.count("watch", resource)), (pages, 1), "{resource}");
    }
    env.api.forget_requests();
    let last = env.install(env.cx().uid(), "A Title");
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (cluster, wanted, mut cursor) = (env.cluster.clone(), Changed::Job(last.name.clone()), cursor);
        waiters.spawn(async move {
            loop {
                let (changes, next) =
                    cluster.changes(cursor, Duration::from_secs(60)).await.expect("changes");
                if changes.contains(&wanted) {
                    return;
                }
                cursor = next;
            }
        });
    }
    for name in &names {
        let job = env.cluster.job(name).await.expect("a response").expect("a job");
        assert_eq!(job.state, JobState::Running);
    }
    assert_eq!(env.api.requests(), [], "the state of a watched job is not requested");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &last).await, Outcome::Applied(()));
    while let Some(changed) = waiters.join_next().await {
        changed.expect("a waiter");
    }
    for verb in ["get", "list", "watch"] {
        assert_eq!(env.count(verb, "jobs"), 0, "{verb}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_watch_resumes_at_its_position() {
    let env = TestEnv::start(ingress()).await;
    let mut cursor = ChangeCursor::default();
    let first = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &first).await, Outcome::Applied(()));
    wait_for_change(&env, &mut cursor, &Changed::Job(first.name)).await;
    watches_are_open(&env).await;
    env.api.drop_watches();
    let second = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &second).await, Outcome::Applied(()));
    wait_for_change(&env, &mut cursor, &Changed::Job(second.name)).await;
    assert_eq!(env.count("list", "jobs"), 1, "no event was missed, so nothing is listed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_watch_reports_a_general_change() {
    let env = TestEnv::start(ingress()).await;
    let mut cursor = ChangeCursor::default();
    let first = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &first).await, Outcome::Applied(()));
    wait_for_change(&env, &mut cursor, &Changed::Job(first.name.clone())).await;
    watches_are_open(&env).await;
    env.api.compact();
    env.api.expire_watches();
    wait_for_change(&env, &mut cursor, &Changed::Anything).await;
    // Later changes are reported.
    let second = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &second).await, Outcome::Applied(()));
    wait_for_change(&env, &mut cursor, &Changed::Job(second.name.clone())).await;
    assert_eq!(env.ended(&first.name).await.state, JobState::Succeeded { failed: Vec::new() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_list_has_expired_lists_again() {
    let env = TestEnv::start(ingress()).await;
    let mut cursor = ChangeCursor::default();
    let expired = FaultKind::Respond(410, None);
    env.api.fault(Fault::next(RequestMatcher::of("watch", "jobs"), FaultTiming::Before, expired).times(2));
    env.api.forget_requests();
    let job = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &job).await, Outcome::Applied(()));
    env.cx()
        .until("the jobs are listed again", async || {
            let (_, next) = env.cluster.changes(cursor, Duration::from_millis(100)).await.expect("changes");
            cursor = next;
            let requests = env.api.requests();
            let lists = requests
                .iter()
                .filter(|requests| (requests.verb.as_ref(), requests.resource.as_ref()) == ("list", "jobs"));
            (lists.count() >= 2).then_some(())
        })
        .await;
    assert_eq!(env.ended(&job.name).await.state, JobState::Succeeded { failed: Vec::new() });
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_services_pods_are_reported() {
    let env = TestEnv::start(ingress()).await;
    let mut cursor = ChangeCursor::default();
    wait_for_change(&env, &mut cursor, &Changed::Service(Color::Blue)).await;
    let view = env.cluster.service(Color::Green).await.expect("a service");
    let desired = ImageWant::Digest(IMAGES.first);
    let set = env.cluster.set_image(&env.cx().call(), Color::Green, view.fence, &desired).await;
    assert_eq!(set, Outcome::Applied(()));
    wait_for_change(&env, &mut cursor, &Changed::Service(Color::Green)).await;
}

//! What is waited for comes from one watch for each kind, however many wait.

use std::collections::BTreeSet;
use std::time::Duration;

use cdm_core::domain::{Color, JobName};
use cdm_core::ports::{ChangeCursor, Changed, ClusterOps, ImageWant, JobState, Outcome};
use cdm_testkit::kubernetes::{Fault, Matching, Moment, Trouble};
use serde_json::json;

use crate::lab::{IMAGES, Lab, NAMESPACE, ingress};

/// Follows the changes until `wanted` is among them, or anything may be. A watch that was told to begin anew pauses
/// before it does.
async fn hears(lab: &Lab, mark: &mut ChangeCursor, wanted: &Changed) {
    lab.cx()
        .until("the changes tell", async || {
            let (news, next) = lab.cluster.changes(*mark, Duration::from_millis(500)).await.expect("news");
            *mark = next;
            (news.contains(wanted) || news.contains(&Changed::Anything)).then_some(())
        })
        .await;
}

/// Until a watch of each kind is open. What a list tells is heard before that, and a test that closes the watches must not
/// find none yet.
async fn watches_are_open(lab: &Lab) {
    lab.cx()
        .until("the watches are open", async || {
            let asked = lab.api.requests();
            let is_open = |kind: &&str| {
                let mut asked = asked.iter();
                asked.any(|asked| asked.verb == "watch" && asked.resource == **kind && asked.code == 200)
            };
            ["jobs", "pods", "deployments"].iter().all(is_open).then_some(())
        })
        .await;
}

/// A job that runs, a thousand times under other names, as if they had been started one after the other. They have no
/// pods: these are the cluster's work, and not what is counted.
async fn many_jobs(lab: &Lab) -> Vec<JobName> {
    let spec = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &spec).await, Outcome::Applied(()));
    let mut object = lab.api.object("jobs", NAMESPACE, spec.name.as_str()).expect("a job");
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    for given in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        metadata.remove(given);
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
        let name = lab.install(lab.cx().uid(), "A Title").name;
        object["metadata"]["name"] = json!(name.as_str());
        lab.api.put(&object).expect("a job");
        names.push(name);
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_thousand_jobs_costs_one_watch_for_each_kind() {
    let lab = Lab::start(ingress()).await;
    let names = many_jobs(&lab).await;
    let mut mark = ChangeCursor::default();
    let mut unheard: BTreeSet<JobName> = names.iter().cloned().collect();
    lab.cx()
        .until("the changes tell of every job", async || {
            let (news, next) = lab.cluster.changes(mark, Duration::from_millis(20)).await.expect("news");
            mark = next;
            unheard.retain(|name| !news.contains(&Changed::Job(name.clone())));
            unheard.is_empty().then_some(())
        })
        .await;
    // Three pages of the thousand.
    for (resource, pages) in [("jobs", 3), ("pods", 1), ("deployments", 1)] {
        assert_eq!((lab.count("list", resource), lab.count("watch", resource)), (pages, 1), "{resource}");
    }
    lab.api.forget_requests();
    let last = lab.install(lab.cx().uid(), "A Title");
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (cluster, wanted, mut mark) = (lab.cluster.clone(), Changed::Job(last.name.clone()), mark);
        waiters.spawn(async move {
            loop {
                let (news, next) = cluster.changes(mark, Duration::from_secs(60)).await.expect("news");
                if news.contains(&wanted) {
                    return;
                }
                mark = next;
            }
        });
    }
    for name in &names {
        let job = lab.cluster.job(name).await.expect("an answer").expect("a job");
        assert_eq!(job.state, JobState::Running);
    }
    assert_eq!(lab.api.requests(), [], "what is known is not asked for");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &last).await, Outcome::Applied(()));
    while let Some(heard) = waiters.join_next().await {
        heard.expect("a waiter");
    }
    for verb in ["get", "list", "watch"] {
        assert_eq!(lab.count(verb, "jobs"), 0, "{verb}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_broke_goes_on_where_it_was() {
    let lab = Lab::start(ingress()).await;
    let mut mark = ChangeCursor::default();
    let first = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &first).await, Outcome::Applied(()));
    hears(&lab, &mut mark, &Changed::Job(first.name)).await;
    watches_are_open(&lab).await;
    lab.api.drop_watches();
    let second = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &second).await, Outcome::Applied(()));
    hears(&lab, &mut mark, &Changed::Job(second.name)).await;
    assert_eq!(lab.count("list", "jobs"), 1, "nothing was missed, so nothing is listed anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_too_old_tells_that_anything_may_have_changed() {
    let lab = Lab::start(ingress()).await;
    let mut mark = ChangeCursor::default();
    let first = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &first).await, Outcome::Applied(()));
    hears(&lab, &mut mark, &Changed::Job(first.name.clone())).await;
    watches_are_open(&lab).await;
    lab.api.compact();
    lab.api.expire_watches();
    hears(&lab, &mut mark, &Changed::Anything).await;
    // And what comes after is heard.
    let second = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &second).await, Outcome::Applied(()));
    hears(&lab, &mut mark, &Changed::Job(second.name.clone())).await;
    assert_eq!(lab.ended(&first.name).await.state, JobState::Succeeded { failed: Vec::new() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_list_is_too_old_when_it_starts_begins_with_another_list() {
    let lab = Lab::start(ingress()).await;
    let mut mark = ChangeCursor::default();
    let expired = Trouble::Answer(410, None);
    lab.api.fault(Fault::next(Matching::of("watch", "jobs"), Moment::Before, expired).times(2));
    lab.api.forget_requests();
    let job = lab.install(lab.cx().uid(), "A Title");
    assert_eq!(lab.cluster.run_job(&lab.cx().call(), &job).await, Outcome::Applied(()));
    lab.cx()
        .until("the jobs are listed again", async || {
            let (_, next) = lab.cluster.changes(mark, Duration::from_millis(100)).await.expect("news");
            mark = next;
            let asked = lab.api.requests();
            let lists = asked
                .iter()
                .filter(|asked| (asked.verb.as_ref(), asked.resource.as_ref()) == ("list", "jobs"));
            (lists.count() >= 2).then_some(())
        })
        .await;
    assert_eq!(lab.ended(&job.name).await.state, JobState::Succeeded { failed: Vec::new() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_services_pods_are_heard_of() {
    let lab = Lab::start(ingress()).await;
    let mut mark = ChangeCursor::default();
    hears(&lab, &mut mark, &Changed::Service(Color::Blue)).await;
    let view = lab.cluster.service(Color::Green).await.expect("a service");
    let want = ImageWant::Digest(IMAGES.first);
    let set = lab.cluster.set_image(&lab.cx().call(), Color::Green, view.fence, &want).await;
    assert_eq!(set, Outcome::Applied(()));
    hears(&lab, &mut mark, &Changed::Service(Color::Green)).await;
}

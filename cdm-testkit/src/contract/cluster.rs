//! Guarantees of a cluster: a worker that lost its work cannot change the canary, a workload or a route, and a
//! released uid stays removed.

use std::time::Duration;

use cdm_core::domain::{Color, Digest, Fence, Hostnames, JobName, SiteName, Uid};
use cdm_core::ports::{
    Canary, CanaryVersion, ChangeCursor, Changed, ClusterOps, ErrorKind, ImageWant, JobKind, JobSpec,
    JobState, Outcome, Route, RouteSpec, ServiceView,
};

use super::SuiteContext;
use super::context::{applied, read_value, rejected};

/// Two images whose pods become ready on the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    /// The image that a test deploys first.
    pub first: Digest,
    /// The image to which a test changes a service; its digest differs from `first`.
    pub second: Digest,
}

/// Tests every guarantee of the port. The suite sets the canary and the images of both services, and needs a
/// backend on which pods become ready and jobs end.
pub async fn suite(port: &dyn ClusterOps, images: Images, cx: &SuiteContext<'_>) {
    the_canary_is_compared_and_set(port, images, cx).await;
    a_new_image_becomes_ready(port, images, cx).await;
    a_stale_fence_sets_no_image(port, images, cx).await;
    a_template_is_restored(port, images, cx).await;
    the_services_are_independent(port, images, cx).await;
    a_route_is_created_once(port, cx).await;
    a_hostname_has_one_route(port, cx).await;
    a_route_moves_under_its_fence_only(port, cx).await;
    a_move_to_the_same_service_raises_the_fence(port, cx).await;
    an_absent_route_does_not_move(port, cx).await;
    a_job_is_adopted(port, cx).await;
    a_job_name_belongs_to_its_uid(port, cx).await;
    an_ended_job_has_no_credentials(port, cx).await;
    an_abandoned_job_loses_its_credentials(port, cx).await;
    changes_report_a_jobs_end(port, cx).await;
    changes_report_a_service(port, images, cx).await;
    release_removes_everything_of_the_uid(port, cx).await;
    release_is_final(port, cx).await;
    release_of_nothing_is_final(port, cx).await;
    a_batch_outlives_its_sites(port, cx).await;
}

/// The canary is set only by a caller that read its current version.
pub async fn the_canary_is_compared_and_set(port: &dyn ClusterOps, images: Images, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "the canary is set only from the version that was expected";
    let before = read_value(PROMISE, port.canary().await).map(|canary| canary.version);
    let set = async |expect: Option<&CanaryVersion>, color, digest| {
        port.set_canary(&cx.call(), expect, color, Some(digest)).await
    };
    applied(PROMISE, set(before.as_ref(), Color::Green, images.first).await);
    let Some(Canary { color, digest, version }) = read_value(PROMISE, port.canary().await) else {
        panic!("broken promise: {PROMISE}; the canary was not set");
    };
    assert_eq!((color, digest), (Color::Green, Some(images.first)), "broken promise: {PROMISE}");
    assert_ne!(before.as_ref(), Some(&version), "broken promise: each write creates a new version");
    for stale in [before.as_ref(), None] {
        rejected(PROMISE, ErrorKind::Conflict, set(stale, Color::Blue, images.second).await);
    }
    let after = read_value(PROMISE, port.canary().await);
    assert_eq!(after, Some(Canary { color, digest, version: version.clone() }), "broken promise: {PROMISE}");
    applied(PROMISE, set(Some(&version), Color::Blue, images.first).await);
    rejected(PROMISE, ErrorKind::Conflict, set(Some(&version), Color::Green, images.first).await);
}

/// A service shows the image that it received, carries the writer's fence, and becomes ready.
pub async fn a_new_image_becomes_ready(port: &dyn ClusterOps, images: Images, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a service that receives an image runs it and becomes ready";
    for digest in [images.first, images.second] {
        let view = run(PROMISE, port, cx, Color::Blue, digest).await;
        assert!(view.template.is_some(), "broken promise: a service that runs has a template");
        assert_eq!(view.ready, view.desired, "broken promise: a ready service has its pods ready");
    }
}

/// A write with an earlier fence does not change the workload.
pub async fn a_stale_fence_sets_no_image(port: &dyn ClusterOps, images: Images, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a write that expects another fence does not change the workload";
    let before = service(PROMISE, port, Color::Blue).await.fence;
    let view = run(PROMISE, port, cx, Color::Blue, images.first).await;
    let Some(template) = view.template.clone() else {
        panic!("broken promise: a service that runs has a template");
    };
    for want in [ImageWant::Digest(images.second), ImageWant::Template(template)] {
        let outcome = port.set_image(&cx.call(), Color::Blue, before, &want).await;
        rejected(PROMISE, ErrorKind::Conflict, outcome);
    }
    cx.settle().await;
    let after = service(PROMISE, port, Color::Blue).await;
    let parts = |view: &ServiceView| (view.digest, view.template.clone(), view.fence);
    assert_eq!(parts(&after), parts(&view), "broken promise: {PROMISE}");
}

/// A template from a read can be restored completely, and its pods become ready again.
pub async fn a_template_is_restored(port: &dyn ClusterOps, images: Images, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a template from a read can be restored";
    let first = run(PROMISE, port, cx, Color::Blue, images.first).await;
    let Some(template) = first.template else {
        panic!("broken promise: a service that runs has a template");
    };
    let second = run(PROMISE, port, cx, Color::Blue, images.second).await;
    assert_ne!(second.template.as_ref(), Some(&template), "broken promise: an image is part of the template");
    let call = cx.call();
    let want = ImageWant::Template(template);
    applied(PROMISE, port.set_image(&call, Color::Blue, second.fence, &want).await);
    ready(PROMISE, port, cx, Color::Blue, call.fence, images.first).await;
}

/// A change of one service does not change the other.
pub async fn the_services_are_independent(port: &dyn ClusterOps, images: Images, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "setting an image changes one service";
    run(PROMISE, port, cx, Color::Green, images.first).await;
    let green = service(PROMISE, port, Color::Green).await;
    run(PROMISE, port, cx, Color::Blue, images.second).await;
    assert_eq!(service(PROMISE, port, Color::Green).await, green, "broken promise: {PROMISE}");
}

/// A route shows the values of its creation; a second route for the site is rejected.
pub async fn a_route_is_created_once(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a site has one route, with the values of its creation";
    let (uid, created) = routed(PROMISE, port, cx, Color::Blue).await;
    let again = route_spec(cx, uid, Color::Green);
    rejected(PROMISE, ErrorKind::Exists, port.put_route(&cx.call(), &again).await);
    cx.settle().await;
    assert_eq!(read_value(PROMISE, port.route(uid).await), Some(created), "broken promise: {PROMISE}");
}

/// A hostname of another site's route cannot be used.
pub async fn a_hostname_has_one_route(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a hostname belongs to one route until that route is released";
    let (uid, created) = routed(PROMISE, port, cx, Color::Blue).await;
    let intruder = cx.uid();
    let spec = RouteSpec { hostnames: created.hostnames.clone(), ..route_spec(cx, intruder, Color::Green) };
    rejected(PROMISE, ErrorKind::Foreign, port.put_route(&cx.call(), &spec).await);
    cx.settle().await;
    assert_eq!(read_value(PROMISE, port.route(intruder).await), None, "broken promise: {PROMISE}");
    assert_eq!(read_value(PROMISE, port.route(uid).await), Some(created), "broken promise: {PROMISE}");
    applied(PROMISE, port.release(&cx.call(), uid).await);
    let free = cx.uid();
    let spec = RouteSpec { uid: free, ..spec };
    cx.until(PROMISE, async || match port.put_route(&cx.call(), &spec).await {
        Outcome::Applied(()) => Some(()),
        // The deletion of the old route may take a moment.
        Outcome::NotApplied(error) if error.kind == ErrorKind::Foreign => None,
        other => {
            applied(PROMISE, other);
            Some(())
        }
    })
    .await;
}

/// A route moves only if the caller expects its current fence.
pub async fn a_route_moves_under_its_fence_only(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a route moves only for a caller that expects its fence";
    let (uid, created) = routed(PROMISE, port, cx, Color::Blue).await;
    let mover = cx.call();
    applied(PROMISE, port.move_route(&mover, uid, created.fence, Color::Green).await);
    let moved = Route { service: Color::Green, fence: mover.fence, ..created.clone() };
    assert_route(PROMISE, port, cx, &moved).await;
    for stale in [created.fence, Fence::default(), Fence::new(mover.fence.number, mover.fence.epoch.next())] {
        for to in Color::ALL {
            rejected(PROMISE, ErrorKind::Conflict, port.move_route(&cx.call(), uid, stale, to).await);
        }
    }
    cx.settle().await;
    assert_eq!(read_value(PROMISE, port.route(uid).await), Some(moved), "broken promise: {PROMISE}");
}

/// Moving a route to its current service fences off every caller that expects the previous fence.
pub async fn a_move_to_the_same_service_raises_the_fence(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a move to the same service raises the fence and nothing else";
    let (uid, created) = routed(PROMISE, port, cx, Color::Blue).await;
    let raiser = cx.call();
    applied(PROMISE, port.move_route(&raiser, uid, created.fence, Color::Blue).await);
    let raised = Route { fence: raiser.fence, ..created.clone() };
    assert_route(PROMISE, port, cx, &raised).await;
    let zombie = port.move_route(&cx.call(), uid, created.fence, Color::Green).await;
    rejected(PROMISE, ErrorKind::Conflict, zombie);
    let owner = cx.call();
    applied(PROMISE, port.move_route(&owner, uid, raised.fence, Color::Green).await);
    let moved = Route { service: Color::Green, fence: owner.fence, ..raised };
    assert_route(PROMISE, port, cx, &moved).await;
}

/// A move does not create a route.
pub async fn an_absent_route_does_not_move(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a missing route does not move";
    let uid = cx.uid();
    let outcome = port.move_route(&cx.call(), uid, Fence::default(), Color::Green).await;
    rejected(PROMISE, ErrorKind::NotFound, outcome);
    assert_eq!(read_value(PROMISE, port.route(uid).await), None, "broken promise: {PROMISE}");
}

/// Starting an existing job again is distinguishable from a new start, while the job runs and after its end.
pub async fn a_job_is_adopted(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a job with the same name and uid exists once, in any state";
    let spec = job_spec(cx, cx.uid());
    assert_eq!(read_value(PROMISE, port.job(&spec.name).await), None, "broken promise: {PROMISE}");
    let call = cx.call();
    applied(PROMISE, port.run_job(&call, &spec).await);
    rejected(PROMISE, ErrorKind::Exists, port.run_job(&call, &spec).await);
    rejected(PROMISE, ErrorKind::Exists, port.run_job(&cx.call(), &spec).await);
    let end = ended(PROMISE, port, cx, &spec.name).await;
    rejected(PROMISE, ErrorKind::Exists, port.run_job(&cx.call(), &spec).await);
    let after = read_value(PROMISE, port.job(&spec.name).await).map(|job| job.state);
    assert_eq!(after, Some(end), "broken promise: {PROMISE}");
}

/// A job with the caller's name and another uid is not adopted.
pub async fn a_job_name_belongs_to_its_uid(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a job with the same name and another uid belongs to another owner";
    let spec = job_spec(cx, cx.uid());
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    let other = JobSpec { name: spec.name.clone(), ..job_spec(cx, cx.uid()) };
    rejected(PROMISE, ErrorKind::Foreign, port.run_job(&cx.call(), &other).await);
    let batch = JobSpec { name: spec.name.clone(), ..batch_spec(cx, vec![cx.uid(), cx.uid()]) };
    rejected(PROMISE, ErrorKind::Foreign, port.run_job(&cx.call(), &batch).await);
    ended(PROMISE, port, cx, &spec.name).await;
}

/// Credentials are removed with the end of their job, and a repeated start does not restore them.
pub async fn an_ended_job_has_no_credentials(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "the credentials of a job are removed once its end is reported";
    let spec = job_spec(cx, cx.uid());
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    // A test that can read credentials must find those of an unfinished job; otherwise it could never find any.
    let seen = cx.holds_credentials(&spec.name);
    assert_ne!(seen, Some(false), "broken promise: a started job has its credentials");
    ended(PROMISE, port, cx, &spec.name).await;
    assert_ne!(cx.holds_credentials(&spec.name), Some(true), "broken promise: {PROMISE}");
    rejected(PROMISE, ErrorKind::Exists, port.run_job(&cx.call(), &spec).await);
    assert_ne!(cx.holds_credentials(&spec.name), Some(true), "broken promise: {PROMISE}");
}

/// Reading the changes also removes the credentials of jobs that no worker reads: their operation was
/// canceled, or their worker was lost.
pub async fn an_abandoned_job_loses_its_credentials(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "the credentials of an abandoned job are removed some time after its end";
    let spec = job_spec(cx, cx.uid());
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    let mut cursor = ChangeCursor::default();
    cx.until(PROMISE, async || {
        cursor = changes(PROMISE, port, cursor).await.1;
        (cx.holds_credentials(&spec.name) != Some(true)).then_some(())
    })
    .await;
}

/// A reader of the changes finds the end of a job.
pub async fn changes_report_a_jobs_end(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "the changes report a job's end";
    let spec = job_spec(cx, cx.uid());
    let (_, mut cursor) = changes(PROMISE, port, ChangeCursor::default()).await;
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    let mut reported = false;
    cx.until(PROMISE, async || {
        let (changed, next) = changes(PROMISE, port, cursor).await;
        cursor = next;
        reported |=
            changed.contains(&Changed::Job(spec.name.clone())) || changed.contains(&Changed::Anything);
        let job = read_value(PROMISE, port.job(&spec.name).await);
        if job.is_none_or(|job| job.state == JobState::Running) {
            // The reported change was the start of the job.
            reported = false;
        }
        reported.then_some(())
    })
    .await;
    let (all, _) = changes(PROMISE, port, ChangeCursor::default()).await;
    let reported = all.contains(&Changed::Job(spec.name)) || all.contains(&Changed::Anything);
    assert!(reported, "broken promise: the changes from the beginning are complete");
}

/// A reader of the changes finds a service that received an image.
pub async fn changes_report_a_service(port: &dyn ClusterOps, images: Images, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "the changes report a service that received an image";
    run(PROMISE, port, cx, Color::Green, images.first).await;
    let (_, mut cursor) = changes(PROMISE, port, ChangeCursor::default()).await;
    run(PROMISE, port, cx, Color::Green, images.second).await;
    cx.until(PROMISE, async || {
        let (changed, next) = changes(PROMISE, port, cursor).await;
        cursor = next;
        let reported =
            changed.contains(&Changed::Service(Color::Green)) || changed.contains(&Changed::Anything);
        reported.then_some(())
    })
    .await;
}

/// A release removes the route and the jobs of its uid, and nothing of other uids.
pub async fn release_removes_everything_of_the_uid(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a release removes everything of its uid and nothing else";
    let (uid, other) = cx.neighbors();
    let mut jobs = Vec::new();
    for uid in [uid, other] {
        applied(PROMISE, port.put_route(&cx.call(), &route_spec(cx, uid, Color::Blue)).await);
        let job = job_spec(cx, uid);
        applied(PROMISE, port.run_job(&cx.call(), &job).await);
        cx.until(PROMISE, async || read_value(PROMISE, port.job(&job.name).await)).await;
        jobs.push(job.name);
    }
    let kept = cx.until(PROMISE, async || read_value(PROMISE, port.route(other).await)).await;
    let call = cx.call();
    for call in [call, call, cx.call()] {
        applied(PROMISE, port.release(&call, uid).await);
    }
    assert_gone(PROMISE, port, cx, uid, &jobs[0]).await;
    let job = read_value(PROMISE, port.job(&jobs[1]).await);
    assert!(job.is_some(), "broken promise: {PROMISE}");
    assert_eq!(read_value(PROMISE, port.route(other).await), Some(kept), "broken promise: {PROMISE}");
}

/// A worker that lost its work cannot restore what was released.
pub async fn release_is_final(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a late call for a released uid is rejected, or its result is removed at once";
    let zombie = cx.call();
    let uid = cx.uid();
    let spec = route_spec(cx, uid, Color::Blue);
    applied(PROMISE, port.put_route(&zombie, &spec).await);
    let route = cx.until(PROMISE, async || read_value(PROMISE, port.route(uid).await)).await;
    applied(PROMISE, port.release(&cx.call(), uid).await);
    let job = job_spec(cx, uid);
    assert_gone(PROMISE, port, cx, uid, &job.name).await;
    let late = cx.call_under(zombie.fence);
    let moved = port.move_route(&late, uid, route.fence, Color::Green).await;
    rejected(PROMISE, ErrorKind::NotFound, moved);
    for call in [zombie, late, cx.call()] {
        assert_closed(PROMISE, port, cx, (port.put_route(&call, &spec).await, uid, &job.name)).await;
        assert_closed(PROMISE, port, cx, (port.run_job(&call, &job).await, uid, &job.name)).await;
    }
}

/// A release also closes a uid without any resources.
pub async fn release_of_nothing_is_final(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a release of nothing closes the uid";
    let uid = cx.uid();
    applied(PROMISE, port.release(&cx.call(), uid).await);
    let (spec, job) = (route_spec(cx, uid, Color::Blue), job_spec(cx, uid));
    assert_closed(PROMISE, port, cx, (port.put_route(&cx.call(), &spec).await, uid, &job.name)).await;
    assert_closed(PROMISE, port, cx, (port.run_job(&cx.call(), &job).await, uid, &job.name)).await;
}

/// A job for several sites belongs to none of them.
pub async fn a_batch_outlives_its_sites(port: &dyn ClusterOps, cx: &SuiteContext<'_>) {
    const PROMISE: &str = "a job for several sites continues when one of them is released";
    let uids = vec![cx.uid(), cx.uid()];
    let spec = batch_spec(cx, uids.clone());
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    applied(PROMISE, port.release(&cx.call(), uids[0]).await);
    ended(PROMISE, port, cx, &spec.name).await;
    rejected(PROMISE, ErrorKind::Exists, port.run_job(&cx.call(), &spec).await);
}

fn route_spec(cx: &SuiteContext<'_>, uid: Uid, service: Color) -> RouteSpec {
    RouteSpec { uid, site: cx.site(uid), hostnames: hostnames(uid), service }
}

fn hostnames(uid: Uid) -> Hostnames {
    let host = format!("{uid}.example.test");
    match Hostnames::parse(&[host.as_str(), &format!("www.{host}")], &host) {
        Ok(hostnames) => hostnames,
        Err(error) => panic!("a uid and a domain must form a hostname: {error}"),
    }
}

/// Returns a job of a site, with a unique name.
fn job_spec(cx: &SuiteContext<'_>, uid: Uid) -> JobSpec {
    let title = match SiteName::parse("Contract") {
        Ok(title) => title,
        Err(error) => panic!("the title must be valid: {error}"),
    };
    let kind = JobKind::Install { uid, hostnames: hostnames(uid), title };
    let name = JobName::of_site(&cx.site(uid), kind.word(), cx.number(), 1);
    JobSpec { name, service: Color::Blue, kind }
}

fn batch_spec(cx: &SuiteContext<'_>, uids: Vec<Uid>) -> JobSpec {
    let kind = JobKind::FlushCaches { uids };
    let name = JobName::of_window(kind.word(), cx.number(), 0, 1);
    JobSpec { name, service: Color::Blue, kind }
}

/// Creates a route for a new uid, and waits until the route is visible.
async fn routed(promise: &str, port: &dyn ClusterOps, cx: &SuiteContext<'_>, service: Color) -> (Uid, Route) {
    let (uid, call) = (cx.uid(), cx.call());
    let spec = route_spec(cx, uid, service);
    applied(promise, port.put_route(&call, &spec).await);
    let created = Route { uid, hostnames: spec.hostnames, service, fence: call.fence };
    assert_route(promise, port, cx, &created).await;
    (uid, created)
}

async fn assert_route(promise: &str, port: &dyn ClusterOps, cx: &SuiteContext<'_>, want: &Route) {
    let look = async || read_value(promise, port.route(want.uid).await).filter(|route| route == want);
    cx.until(promise, look).await;
}

async fn service(promise: &str, port: &dyn ClusterOps, color: Color) -> ServiceView {
    let view = read_value(promise, port.service(color).await);
    assert_eq!(view.color, color, "broken promise: {promise}");
    view
}

/// Sets the digest of a service, and waits until the service is ready with it.
async fn run(
    promise: &str,
    port: &dyn ClusterOps,
    cx: &SuiteContext<'_>,
    color: Color,
    digest: Digest,
) -> ServiceView {
    let call = cx.call();
    let fence = service(promise, port, color).await.fence;
    applied(promise, port.set_image(&call, color, fence, &ImageWant::Digest(digest)).await);
    ready(promise, port, cx, color, call.fence, digest).await
}

async fn ready(
    promise: &str,
    port: &dyn ClusterOps,
    cx: &SuiteContext<'_>,
    color: Color,
    fence: Fence,
    digest: Digest,
) -> ServiceView {
    cx.until(promise, async || {
        let view = service(promise, port, color).await;
        (view.fence == fence && view.digest == Some(digest) && view.is_ready()).then_some(view)
    })
    .await
}

async fn ended(promise: &str, port: &dyn ClusterOps, cx: &SuiteContext<'_>, name: &JobName) -> JobState {
    cx.until(promise, async || {
        let job = read_value(promise, port.job(name).await);
        job.map(|job| job.state).filter(|state| *state != JobState::Running)
    })
    .await
}

async fn changes(promise: &str, port: &dyn ClusterOps, cursor: ChangeCursor) -> (Vec<Changed>, ChangeCursor) {
    read_value(promise, port.changes(cursor, Duration::ZERO).await)
}

async fn assert_gone(promise: &str, port: &dyn ClusterOps, cx: &SuiteContext<'_>, uid: Uid, job: &JobName) {
    cx.until(promise, async || {
        let route = read_value(promise, port.route(uid).await);
        let job = read_value(promise, port.job(job).await);
        (route.is_none() && job.is_none()).then_some(())
    })
    .await;
}

/// Panics unless a late call was rejected as `Gone`, or its result is removed.
async fn assert_closed(
    promise: &str,
    port: &dyn ClusterOps,
    cx: &SuiteContext<'_>,
    late: (Outcome<()>, Uid, &JobName),
) {
    let (outcome, uid, job) = late;
    if let Outcome::NotApplied(error) = outcome {
        assert_eq!(error.kind, ErrorKind::Gone, "broken promise: {promise}; rejected with: {error}");
    }
    assert_gone(promise, port, cx, uid, job).await;
}

//! What a cluster promises: nobody who has lost the work moves a canary, a workload or a route, and what was released
//! stays away.

use std::time::Duration;

use cdm_core::domain::{Color, Digest, Fence, Hostnames, JobName, SiteName, Uid};
use cdm_core::ports::{
    Canary, CanaryVersion, ChangeCursor, Changed, ClusterOps, ErrorKind, ImageWant, JobKind, JobSpec,
    JobState, Outcome, Route, RouteSpec, ServiceView,
};

use super::Cx;
use super::cx::{answered, applied, refused};

/// Two images whose pods get ready on the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    /// One.
    pub first: Digest,
    /// Another.
    pub second: Digest,
}

/// Every promise of the port. It sets the canary and the images of both services, and needs a backend on which pods
/// get ready and jobs end.
pub async fn suite(port: &dyn ClusterOps, images: Images, cx: &Cx<'_>) {
    the_canary_is_compared_and_set(port, images, cx).await;
    a_new_image_gets_ready(port, images, cx).await;
    a_stale_fence_sets_no_image(port, images, cx).await;
    a_template_is_put_back(port, images, cx).await;
    the_services_are_apart(port, images, cx).await;
    a_route_is_created_once(port, cx).await;
    a_hostname_has_one_route(port, cx).await;
    a_route_moves_under_its_fence_only(port, cx).await;
    a_move_to_the_same_service_raises_the_fence(port, cx).await;
    an_absent_route_does_not_move(port, cx).await;
    a_job_is_adopted(port, cx).await;
    a_jobs_name_is_its_owners(port, cx).await;
    an_ended_job_has_no_credentials(port, cx).await;
    an_ended_job_that_nobody_awaits_has_no_credentials(port, cx).await;
    changes_report_a_jobs_end(port, cx).await;
    changes_report_a_service(port, images, cx).await;
    release_removes_everything_of_the_uid(port, cx).await;
    release_is_final(port, cx).await;
    release_of_nothing_is_final(port, cx).await;
    a_batch_outlives_its_sites(port, cx).await;
}

/// The canary is set only by whoever has seen it as it is.
pub async fn the_canary_is_compared_and_set(port: &dyn ClusterOps, images: Images, cx: &Cx<'_>) {
    const PROMISE: &str = "the canary is set only from the version that was expected";
    let before = answered(PROMISE, port.canary().await).map(|canary| canary.version);
    let set = async |expect: Option<&CanaryVersion>, color, digest| {
        port.set_canary(&cx.call(), expect, color, Some(digest)).await
    };
    applied(PROMISE, set(before.as_ref(), Color::Green, images.first).await);
    let Some(Canary { color, digest, version }) = answered(PROMISE, port.canary().await) else {
        panic!("broken promise: {PROMISE}; it is not set");
    };
    assert_eq!((color, digest), (Color::Green, Some(images.first)), "broken promise: {PROMISE}");
    assert_ne!(before.as_ref(), Some(&version), "broken promise: every write has a version of its own");
    for stale in [before.as_ref(), None] {
        refused(PROMISE, ErrorKind::Conflict, set(stale, Color::Blue, images.second).await);
    }
    let after = answered(PROMISE, port.canary().await);
    assert_eq!(after, Some(Canary { color, digest, version: version.clone() }), "broken promise: {PROMISE}");
    applied(PROMISE, set(Some(&version), Color::Blue, images.first).await);
    refused(PROMISE, ErrorKind::Conflict, set(Some(&version), Color::Green, images.first).await);
}

/// A service that is given an image shows it, carries the writer's fence, and gets ready in the end.
pub async fn a_new_image_gets_ready(port: &dyn ClusterOps, images: Images, cx: &Cx<'_>) {
    const PROMISE: &str = "a service that is given an image runs it and gets ready";
    for digest in [images.first, images.second] {
        let view = run(PROMISE, port, cx, Color::Blue, digest).await;
        assert!(view.template.is_some(), "broken promise: a service that runs has a template");
        assert_eq!(view.ready, view.desired, "broken promise: a ready service has its pods ready");
    }
}

/// Whoever expects an earlier fence does not touch the workload.
pub async fn a_stale_fence_sets_no_image(port: &dyn ClusterOps, images: Images, cx: &Cx<'_>) {
    const PROMISE: &str = "a workload is not touched by a write that expects another fence";
    let before = service(PROMISE, port, Color::Blue).await.fence;
    let view = run(PROMISE, port, cx, Color::Blue, images.first).await;
    let Some(template) = view.template.clone() else {
        panic!("broken promise: a service that runs has a template");
    };
    for want in [ImageWant::Digest(images.second), ImageWant::Template(template)] {
        let outcome = port.set_image(&cx.call(), Color::Blue, before, &want).await;
        refused(PROMISE, ErrorKind::Conflict, outcome);
    }
    cx.settle().await;
    let after = service(PROMISE, port, Color::Blue).await;
    let parts = |view: &ServiceView| (view.digest, view.template.clone(), view.fence);
    assert_eq!(parts(&after), parts(&view), "broken promise: {PROMISE}");
}

/// A template that was seen can be put back whole, and its pods get ready again.
pub async fn a_template_is_put_back(port: &dyn ClusterOps, images: Images, cx: &Cx<'_>) {
    const PROMISE: &str = "a template that was seen can be put back";
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

/// What is set on one service leaves the other as it is.
pub async fn the_services_are_apart(port: &dyn ClusterOps, images: Images, cx: &Cx<'_>) {
    const PROMISE: &str = "an image is set on one service";
    run(PROMISE, port, cx, Color::Green, images.first).await;
    let green = service(PROMISE, port, Color::Green).await;
    run(PROMISE, port, cx, Color::Blue, images.second).await;
    assert_eq!(service(PROMISE, port, Color::Green).await, green, "broken promise: {PROMISE}");
}

/// A route shows what it was created with; a second one for the site is refused.
pub async fn a_route_is_created_once(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a site has one route, as it was created first";
    let (uid, created) = routed(PROMISE, port, cx, Color::Blue).await;
    let again = route_spec(cx, uid, Color::Green);
    refused(PROMISE, ErrorKind::Exists, port.put_route(&cx.call(), &again).await);
    cx.settle().await;
    assert_eq!(answered(PROMISE, port.route(uid).await), Some(created), "broken promise: {PROMISE}");
}

/// A hostname that another site's route has is not given away.
pub async fn a_hostname_has_one_route(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a hostname leads to one route, until that is released";
    let (uid, created) = routed(PROMISE, port, cx, Color::Blue).await;
    let thief = cx.uid();
    let spec = RouteSpec { hostnames: created.hostnames.clone(), ..route_spec(cx, thief, Color::Green) };
    refused(PROMISE, ErrorKind::Foreign, port.put_route(&cx.call(), &spec).await);
    cx.settle().await;
    assert_eq!(answered(PROMISE, port.route(thief).await), None, "broken promise: {PROMISE}");
    assert_eq!(answered(PROMISE, port.route(uid).await), Some(created), "broken promise: {PROMISE}");
    applied(PROMISE, port.release(&cx.call(), uid).await);
    let free = cx.uid();
    let spec = RouteSpec { uid: free, ..spec };
    cx.until(PROMISE, async || match port.put_route(&cx.call(), &spec).await {
        Outcome::Applied(()) => Some(()),
        // The old route may take moments to go.
        Outcome::NotApplied(error) if error.kind == ErrorKind::Foreign => None,
        other => {
            applied(PROMISE, other);
            Some(())
        }
    })
    .await;
}

/// Of two who move a route, the one who knows its fence does.
pub async fn a_route_moves_under_its_fence_only(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a route moves only for who expects the fence that it carries";
    let (uid, created) = routed(PROMISE, port, cx, Color::Blue).await;
    let mover = cx.call();
    applied(PROMISE, port.move_route(&mover, uid, created.fence, Color::Green).await);
    let moved = Route { service: Color::Green, fence: mover.fence, ..created.clone() };
    assert_route(PROMISE, port, cx, &moved).await;
    for stale in [created.fence, Fence::default(), Fence::new(mover.fence.number, mover.fence.epoch + 1)] {
        for to in Color::ALL {
            refused(PROMISE, ErrorKind::Conflict, port.move_route(&cx.call(), uid, stale, to).await);
        }
    }
    cx.settle().await;
    assert_eq!(answered(PROMISE, port.route(uid).await), Some(moved), "broken promise: {PROMISE}");
}

/// Moving a route to where it is shuts out everyone who expects the fence before.
pub async fn a_move_to_the_same_service_raises_the_fence(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a move to the same service raises the fence and nothing else";
    let (uid, created) = routed(PROMISE, port, cx, Color::Blue).await;
    let raiser = cx.call();
    applied(PROMISE, port.move_route(&raiser, uid, created.fence, Color::Blue).await);
    let raised = Route { fence: raiser.fence, ..created.clone() };
    assert_route(PROMISE, port, cx, &raised).await;
    let zombie = port.move_route(&cx.call(), uid, created.fence, Color::Green).await;
    refused(PROMISE, ErrorKind::Conflict, zombie);
    let owner = cx.call();
    applied(PROMISE, port.move_route(&owner, uid, raised.fence, Color::Green).await);
    let moved = Route { service: Color::Green, fence: owner.fence, ..raised };
    assert_route(PROMISE, port, cx, &moved).await;
}

/// A move creates nothing.
pub async fn an_absent_route_does_not_move(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a route that is not there does not move";
    let uid = cx.uid();
    let outcome = port.move_route(&cx.call(), uid, Fence::default(), Color::Green).await;
    refused(PROMISE, ErrorKind::NotFound, outcome);
    assert_eq!(answered(PROMISE, port.route(uid).await), None, "broken promise: {PROMISE}");
}

/// A job that is there already is told from one that is not, while it runs and after.
pub async fn a_job_is_adopted(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a job of the same name and uid is there once, whatever became of it";
    let spec = job_spec(cx, cx.uid());
    assert_eq!(answered(PROMISE, port.job(&spec.name).await), None, "broken promise: {PROMISE}");
    let call = cx.call();
    applied(PROMISE, port.run_job(&call, &spec).await);
    refused(PROMISE, ErrorKind::Exists, port.run_job(&call, &spec).await);
    refused(PROMISE, ErrorKind::Exists, port.run_job(&cx.call(), &spec).await);
    let end = ended(PROMISE, port, cx, &spec.name).await;
    refused(PROMISE, ErrorKind::Exists, port.run_job(&cx.call(), &spec).await);
    let after = answered(PROMISE, port.job(&spec.name).await).map(|job| job.state);
    assert_eq!(after, Some(end), "broken promise: {PROMISE}");
}

/// A job's name is not taken for the caller's own where the uid is another.
pub async fn a_jobs_name_is_its_owners(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a job of the same name and another uid is someone else's";
    let spec = job_spec(cx, cx.uid());
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    let other = JobSpec { name: spec.name.clone(), ..job_spec(cx, cx.uid()) };
    refused(PROMISE, ErrorKind::Foreign, port.run_job(&cx.call(), &other).await);
    let batch = JobSpec { name: spec.name.clone(), ..batch_spec(cx, vec![cx.uid(), cx.uid()]) };
    refused(PROMISE, ErrorKind::Foreign, port.run_job(&cx.call(), &batch).await);
    ended(PROMISE, port, cx, &spec.name).await;
}

/// Credentials go with the end of their job, and no repetition brings them back.
pub async fn an_ended_job_has_no_credentials(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "credentials of a job are gone once its end is answered";
    let spec = job_spec(cx, cx.uid());
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    // A test that sees credentials sees those of a job that has not ended, or it would see nothing at all.
    let seen = cx.holds_credentials(&spec.name);
    assert_ne!(seen, Some(false), "broken promise: a job that has begun has its credentials");
    ended(PROMISE, port, cx, &spec.name).await;
    assert_ne!(cx.holds_credentials(&spec.name), Some(true), "broken promise: {PROMISE}");
    refused(PROMISE, ErrorKind::Exists, port.run_job(&cx.call(), &spec).await);
    assert_ne!(cx.holds_credentials(&spec.name), Some(true), "broken promise: {PROMISE}");
}

/// Whoever follows the changes removes what a job left behind that nobody asks about: its operation was cancelled, or
/// its worker was lost.
pub async fn an_ended_job_that_nobody_awaits_has_no_credentials(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "credentials of a job that nobody awaits are gone some time after its end";
    let spec = job_spec(cx, cx.uid());
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    let mut mark = ChangeCursor::default();
    cx.until(PROMISE, async || {
        mark = changes(PROMISE, port, mark).await.1;
        (cx.holds_credentials(&spec.name) != Some(true)).then_some(())
    })
    .await;
}

/// Who follows the changes hears of a job's end.
pub async fn changes_report_a_jobs_end(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "the changes report a job's end";
    let spec = job_spec(cx, cx.uid());
    let (_, mut mark) = changes(PROMISE, port, ChangeCursor::default()).await;
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    let mut heard = false;
    cx.until(PROMISE, async || {
        let (news, next) = changes(PROMISE, port, mark).await;
        mark = next;
        heard |= news.contains(&Changed::Job(spec.name.clone())) || news.contains(&Changed::Anything);
        let job = answered(PROMISE, port.job(&spec.name).await);
        if job.is_none_or(|job| job.state == JobState::Running) {
            // What was heard was of its beginning.
            heard = false;
        }
        heard.then_some(())
    })
    .await;
    let (all, _) = changes(PROMISE, port, ChangeCursor::default()).await;
    let told = all.contains(&Changed::Job(spec.name)) || all.contains(&Changed::Anything);
    assert!(told, "broken promise: from the beginning, the changes have everything");
}

/// Who follows the changes hears of a service that gets another image.
pub async fn changes_report_a_service(port: &dyn ClusterOps, images: Images, cx: &Cx<'_>) {
    const PROMISE: &str = "the changes report a service that was given an image";
    run(PROMISE, port, cx, Color::Green, images.first).await;
    let (_, mut mark) = changes(PROMISE, port, ChangeCursor::default()).await;
    run(PROMISE, port, cx, Color::Green, images.second).await;
    cx.until(PROMISE, async || {
        let (news, next) = changes(PROMISE, port, mark).await;
        mark = next;
        let told = news.contains(&Changed::Service(Color::Green)) || news.contains(&Changed::Anything);
        told.then_some(())
    })
    .await;
}

/// A release takes the route and the jobs of its uid, and those of no other.
pub async fn release_removes_everything_of_the_uid(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a release removes everything of its uid and nothing else";
    let (uid, other) = cx.neighbours();
    let mut jobs = Vec::new();
    for uid in [uid, other] {
        applied(PROMISE, port.put_route(&cx.call(), &route_spec(cx, uid, Color::Blue)).await);
        let job = job_spec(cx, uid);
        applied(PROMISE, port.run_job(&cx.call(), &job).await);
        cx.until(PROMISE, async || answered(PROMISE, port.job(&job.name).await)).await;
        jobs.push(job.name);
    }
    let kept = cx.until(PROMISE, async || answered(PROMISE, port.route(other).await)).await;
    let call = cx.call();
    for call in [call, call, cx.call()] {
        applied(PROMISE, port.release(&call, uid).await);
    }
    assert_gone(PROMISE, port, cx, uid, &jobs[0]).await;
    let job = answered(PROMISE, port.job(&jobs[1]).await);
    assert!(job.is_some(), "broken promise: {PROMISE}");
    assert_eq!(answered(PROMISE, port.route(other).await), Some(kept), "broken promise: {PROMISE}");
}

/// Whoever lost the work does not bring back what was released.
pub async fn release_is_final(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "what a late call creates under a released uid is refused, or collected at once";
    let zombie = cx.call();
    let uid = cx.uid();
    let spec = route_spec(cx, uid, Color::Blue);
    applied(PROMISE, port.put_route(&zombie, &spec).await);
    let route = cx.until(PROMISE, async || answered(PROMISE, port.route(uid).await)).await;
    applied(PROMISE, port.release(&cx.call(), uid).await);
    let job = job_spec(cx, uid);
    assert_gone(PROMISE, port, cx, uid, &job.name).await;
    let late = cx.call_under(zombie.fence);
    let moved = port.move_route(&late, uid, route.fence, Color::Green).await;
    refused(PROMISE, ErrorKind::NotFound, moved);
    for call in [zombie, late, cx.call()] {
        assert_closed(PROMISE, port, cx, (port.put_route(&call, &spec).await, uid, &job.name)).await;
        assert_closed(PROMISE, port, cx, (port.run_job(&call, &job).await, uid, &job.name)).await;
    }
}

/// A release closes also a uid that has nothing yet.
pub async fn release_of_nothing_is_final(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a release of nothing closes the uid";
    let uid = cx.uid();
    applied(PROMISE, port.release(&cx.call(), uid).await);
    let (spec, job) = (route_spec(cx, uid, Color::Blue), job_spec(cx, uid));
    assert_closed(PROMISE, port, cx, (port.put_route(&cx.call(), &spec).await, uid, &job.name)).await;
    assert_closed(PROMISE, port, cx, (port.run_job(&cx.call(), &job).await, uid, &job.name)).await;
}

/// A job for many sites belongs to none of them.
pub async fn a_batch_outlives_its_sites(port: &dyn ClusterOps, cx: &Cx<'_>) {
    const PROMISE: &str = "a job for many sites goes on when one of them is released";
    let uids = vec![cx.uid(), cx.uid()];
    let spec = batch_spec(cx, uids.clone());
    applied(PROMISE, port.run_job(&cx.call(), &spec).await);
    applied(PROMISE, port.release(&cx.call(), uids[0]).await);
    ended(PROMISE, port, cx, &spec.name).await;
    refused(PROMISE, ErrorKind::Exists, port.run_job(&cx.call(), &spec).await);
}

fn route_spec(cx: &Cx<'_>, uid: Uid, service: Color) -> RouteSpec {
    RouteSpec { uid, site: cx.site(uid), hostnames: hostnames(uid), service }
}

fn hostnames(uid: Uid) -> Hostnames {
    let host = format!("{uid}.example.test");
    match Hostnames::parse(&[host.as_str(), &format!("www.{host}")], &host) {
        Ok(hostnames) => hostnames,
        Err(error) => panic!("a uid and a domain are a hostname: {error}"),
    }
}

/// A job of a site, with a name of its own.
fn job_spec(cx: &Cx<'_>, uid: Uid) -> JobSpec {
    let title = match SiteName::parse("Contract") {
        Ok(title) => title,
        Err(error) => panic!("a word is a title: {error}"),
    };
    let kind = JobKind::Install { uid, hostnames: hostnames(uid), title };
    let name = JobName::of_site(&cx.site(uid), kind.word(), cx.number(), 1);
    JobSpec { name, service: Color::Blue, kind }
}

fn batch_spec(cx: &Cx<'_>, uids: Vec<Uid>) -> JobSpec {
    let kind = JobKind::FlushCaches { uids };
    let name = JobName::of_window(kind.word(), cx.number(), 0, 1);
    JobSpec { name, service: Color::Blue, kind }
}

/// Creates a route of a fresh uid and waits until it shows.
async fn routed(promise: &str, port: &dyn ClusterOps, cx: &Cx<'_>, service: Color) -> (Uid, Route) {
    let (uid, call) = (cx.uid(), cx.call());
    let spec = route_spec(cx, uid, service);
    applied(promise, port.put_route(&call, &spec).await);
    let created = Route { uid, hostnames: spec.hostnames, service, fence: call.fence };
    assert_route(promise, port, cx, &created).await;
    (uid, created)
}

async fn assert_route(promise: &str, port: &dyn ClusterOps, cx: &Cx<'_>, want: &Route) {
    let look = async || answered(promise, port.route(want.uid).await).filter(|route| route == want);
    cx.until(promise, look).await;
}

async fn service(promise: &str, port: &dyn ClusterOps, color: Color) -> ServiceView {
    let view = answered(promise, port.service(color).await);
    assert_eq!(view.color, color, "broken promise: {promise}");
    view
}

/// Gives a service a digest and waits until it is ready with it.
async fn run(promise: &str, port: &dyn ClusterOps, cx: &Cx<'_>, color: Color, digest: Digest) -> ServiceView {
    let call = cx.call();
    let fence = service(promise, port, color).await.fence;
    applied(promise, port.set_image(&call, color, fence, &ImageWant::Digest(digest)).await);
    ready(promise, port, cx, color, call.fence, digest).await
}

async fn ready(
    promise: &str,
    port: &dyn ClusterOps,
    cx: &Cx<'_>,
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

async fn ended(promise: &str, port: &dyn ClusterOps, cx: &Cx<'_>, name: &JobName) -> JobState {
    cx.until(promise, async || {
        let job = answered(promise, port.job(name).await);
        job.map(|job| job.state).filter(|state| *state != JobState::Running)
    })
    .await
}

async fn changes(promise: &str, port: &dyn ClusterOps, mark: ChangeCursor) -> (Vec<Changed>, ChangeCursor) {
    answered(promise, port.changes(mark, Duration::ZERO).await)
}

async fn assert_gone(promise: &str, port: &dyn ClusterOps, cx: &Cx<'_>, uid: Uid, job: &JobName) {
    cx.until(promise, async || {
        let route = answered(promise, port.route(uid).await);
        let job = answered(promise, port.job(job).await);
        (route.is_none() && job.is_none()).then_some(())
    })
    .await;
}

/// Panics unless a late call was refused as `Gone`, or what it made goes away.
async fn assert_closed(
    promise: &str,
    port: &dyn ClusterOps,
    cx: &Cx<'_>,
    late: (Outcome<()>, Uid, &JobName),
) {
    let (outcome, uid, job) = late;
    if let Outcome::NotApplied(error) = outcome {
        assert_eq!(error.kind, ErrorKind::Gone, "broken promise: {promise}; refused with: {error}");
    }
    assert_gone(promise, port, cx, uid, job).await;
}

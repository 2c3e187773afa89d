//! Lost answers, refusals and silence: what a call says then, and what the next one makes of it.

use std::time::Duration;

use cdm_core::domain::{Color, Digest};
use cdm_core::ports::{CallContext, ClusterOps, ErrorKind, ImageWant, JobSpec, JobState, Outcome, RouteSpec};
use cdm_testkit::kubernetes::{Fault, Matching, Moment, Trouble};

use crate::lab::{IMAGES, Lab, NAMESPACE, gateway, ingress};

/// Every request that changes something, by the call that makes it.
const WRITES: &[(&str, &str, &str)] = &[
    ("set_canary", "create", "configmaps"),
    ("set_canary again", "patch", "configmaps"),
    ("set_image", "patch", "deployments"),
    ("put_route", "create", "configmaps"),
    ("put_route", "create", "ingresses"),
    ("move_route", "patch", "ingresses"),
    ("run_job", "create", "configmaps"),
    ("run_job", "create", "jobs"),
    ("run_job", "create", "secrets"),
    ("run_job", "patch", "jobs"),
    ("release", "create", "configmaps"),
    ("release", "delete", "configmaps"),
    ("release", "delete", "jobs"),
    ("release", "delete", "secrets"),
    ("release", "delete", "ingresses"),
];

/// One site's things, and the calls that change them.
struct Story {
    lab: Lab,
    route: RouteSpec,
    job: JobSpec,
    /// Under which the route was made.
    routed: CallContext,
}

impl Story {
    /// Everything that comes before that call.
    async fn before(call: &str) -> Self {
        let lab = Lab::start(ingress()).await;
        let uid = lab.cx().uid();
        let route = lab.route_spec(uid, &["rrr.example.com"]);
        let (job, routed) = (lab.install(uid, "A Title"), lab.cx().call());
        let story = Self { lab, route, job, routed };
        let earlier: &[&str] = match call {
            "set_canary again" => &["set_canary"],
            "move_route" => &["put_route"],
            "release" => &["put_route", "run_job"],
            _ => &[],
        };
        for call in earlier {
            assert_eq!(story.make(call, &story.lab.cx().call()).await, Outcome::Applied(()), "{call}");
        }
        story
    }

    async fn make(&self, name: &str, call: &CallContext) -> Outcome<()> {
        let cluster = &self.lab.cluster;
        match name {
            "set_canary" | "set_canary again" => {
                let canary = cluster.canary().await.expect("an answer");
                let version = canary.map(|canary| canary.version);
                cluster.set_canary(call, version.as_ref(), Color::Green, Some(IMAGES.first)).await
            }
            "set_image" => {
                let fence = cluster.service(Color::Blue).await.expect("a service").fence;
                let want = ImageWant::Digest(IMAGES.first);
                cluster.set_image(call, Color::Blue, fence, &want).await
            }
            "put_route" => {
                cluster.put_route(&CallContext { fence: self.routed.fence, ..*call }, &self.route).await
            }
            "move_route" => {
                let seen = cluster.route(self.route.uid).await.expect("an answer").expect("a route");
                cluster.move_route(call, self.route.uid, seen.fence, Color::Green).await
            }
            "run_job" => cluster.run_job(call, &self.job).await,
            "release" => cluster.release(call, self.route.uid).await,
            other => panic!("{other}"),
        }
    }

    /// Whether the call's effect is there, by a look of its own.
    async fn is_done(&self, name: &str) -> bool {
        let cluster = &self.lab.cluster;
        let route = async || cluster.route(self.route.uid).await.expect("an answer");
        match name {
            "set_canary" | "set_canary again" => {
                let canary = cluster.canary().await.expect("an answer");
                canary.is_some_and(|canary| canary.digest == Some(IMAGES.first))
            }
            "set_image" => {
                let view = cluster.service(Color::Blue).await.expect("a service");
                view.digest == Some(IMAGES.first) as Option<Digest>
            }
            "put_route" => route().await.is_some(),
            "move_route" => route().await.is_some_and(|route| route.service == Color::Green),
            "run_job" => cluster.job(&self.job.name).await.expect("an answer").is_some(),
            "release" => {
                let secrets = self.lab.api.objects("secrets", NAMESPACE);
                route().await.is_none()
                    && cluster.job(&self.job.name).await.expect("an answer").is_none()
                    && secrets.is_empty()
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_unknown_and_the_next_call_closes_it() {
    for (name, verb, resource) in WRITES {
        for moment in [Moment::Before, Moment::After] {
            for trouble in [Trouble::Reset, Trouble::Answer(500, None), Trouble::Answer(504, None)] {
                let story = Story::before(name).await;
                let api = &story.lab.api;
                api.fault(Fault::next(Matching::of(verb, resource), moment, trouble));
                let outcome = story.make(name, &story.lab.cx().call()).await;
                let plan = format!("{name}: {verb} {resource} {moment:?} {trouble:?}");
                assert_eq!(api.faults(), 0, "{plan}: the fault was not met");
                // An anchor alone is no effect: without it, nothing was done for certain.
                let only_anchor = *resource == "configmaps" && ["put_route", "run_job"].contains(name);
                match outcome {
                    Outcome::Unknown(error) => assert_eq!(error.kind, ErrorKind::Unavailable, "{plan}"),
                    Outcome::NotApplied(error) if only_anchor => assert!(error.is_retryable(), "{plan}"),
                    other => panic!("{plan}: {other:?}"),
                }
                let again = story.make(name, &story.lab.cx().call()).await;
                let known = matches!(
                    &again,
                    Outcome::NotApplied(error) if error.kind == ErrorKind::Exists
                );
                assert!(again == Outcome::Applied(()) || known, "{plan}: {again:?}");
                story.lab.api.advance(Duration::from_secs(2));
                assert!(story.is_done(name).await, "{plan}");
                story.lab.assert_allowed();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_no_maybe() {
    for (name, verb, resource) in WRITES {
        for (code, kind) in
            [(403, ErrorKind::Denied), (429, ErrorKind::Throttled(Some(Duration::from_secs(7))))]
        {
            let story = Story::before(name).await;
            let trouble = Trouble::Answer(code, (code == 429).then_some(7));
            story.lab.api.fault(Fault::next(Matching::of(verb, resource), Moment::Before, trouble));
            let plan = format!("{name}: {verb} {resource} {code}");
            match story.make(name, &story.lab.cx().call()).await {
                Outcome::NotApplied(error) => assert_eq!(error.kind, kind, "{plan}"),
                // A part of a release may be done by then.
                Outcome::Unknown(error) if *name == "release" => assert_eq!(error.kind, kind, "{plan}"),
                other => panic!("{plan}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_with_the_call() {
    for (name, verb, resource) in WRITES {
        let story = Story::before(name).await;
        let trouble = Trouble::Delay(Duration::from_secs(3600));
        story.lab.api.fault(Fault::next(Matching::of(verb, resource), Moment::Before, trouble));
        let outcome = story.make(name, &story.lab.short_call()).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{name}: {verb} {resource}: {outcome:?}");
        let late = story.lab.cx().late_call().await;
        let outcome = story.lab.cluster.release(&late, story.route.uid).await;
        assert!(matches!(outcome, Outcome::NotApplied(_)), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice_by_itself() {
    let lab = Lab::start(gateway()).await;
    let spec = lab.route_spec(lab.cx().uid(), &["rrr.example.com"]);
    for code in [429, 503, 504] {
        lab.api.forget_requests();
        let fault =
            Fault::next(Matching::of("create", "httproutes"), Moment::Before, Trouble::Answer(code, None));
        lab.api.fault(fault);
        assert_ne!(lab.cluster.put_route(&lab.cx().call(), &spec).await, Outcome::Applied(()));
        assert_eq!(lab.count("create", "httproutes"), 1, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_has_heard_nothing() {
    let lab = Lab::start(ingress()).await;
    lab.api.stop();
    let outcome = lab.cluster.release(&lab.short_call(), lab.cx().uid()).await;
    let Outcome::NotApplied(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let refused = lab.cluster.canary().await.expect_err("no server");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_a_job_and_its_secret_is_mended_by_the_next_call() {
    let story = Story::before("run_job").await;
    let lab = &story.lab;
    let fault = Fault::next(Matching::of("create", "secrets"), Moment::Before, Trouble::Reset);
    lab.api.fault(fault);
    assert!(matches!(lab.cluster.run_job(&lab.cx().call(), &story.job).await, Outcome::Unknown(_)));
    lab.api.advance(Duration::from_secs(3600));
    assert_eq!(lab.cluster.job(&story.job.name).await, Ok(None), "it sleeps, and so was not started");
    let job = lab.finish(&story.job).await;
    assert_eq!(job.state, JobState::Succeeded { failed: Vec::new() }, "{}", job.log);
}

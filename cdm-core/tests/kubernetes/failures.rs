//! Lost responses, rejections and timeouts: the outcome of the call, and the result of the next call.

use std::time::Duration;

use cdm_core::domain::{Color, Digest};
use cdm_core::ports::{CallContext, ClusterOps, ErrorKind, ImageWant, JobSpec, JobState, Outcome, RouteSpec};
use cdm_testkit::kubernetes::{Fault, FaultKind, FaultTiming, RequestMatcher};

use crate::env::{IMAGES, NAMESPACE, TestEnv, gateway, ingress};

/// Every modifying request, with the call that sends it.
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

/// The resources of one site, and the calls that change them.
struct SiteCalls {
    env: TestEnv,
    route: RouteSpec,
    job: JobSpec,
    /// The call that created the route.
    route_call: CallContext,
}

impl SiteCalls {
    /// Makes all calls that precede that call.
    async fn before(call: &str) -> Self {
        let env = TestEnv::start(ingress()).await;
        let uid = env.cx().uid();
        let route = env.route_spec(uid, &["rrr.example.com"]);
        let (job, route_call) = (env.install(uid, "A Title"), env.cx().call());
        let site_calls = Self { env, route, job, route_call };
        let earlier: &[&str] = match call {
            "set_canary again" => &["set_canary"],
            "move_route" => &["put_route"],
            "release" => &["put_route", "run_job"],
            _ => &[],
        };
        for call in earlier {
            assert_eq!(
                site_calls.make(call, &site_calls.env.cx().call()).await,
                Outcome::Applied(()),
                "{call}"
            );
        }
        site_calls
    }

    async fn make(&self, name: &str, call: &CallContext) -> Outcome<()> {
        let cluster = &self.env.cluster;
        match name {
            "set_canary" | "set_canary again" => {
                let canary = cluster.canary().await.expect("a response");
                let version = canary.map(|canary| canary.version);
                cluster.set_canary(call, version.as_ref(), Color::Green, Some(IMAGES.first)).await
            }
            "set_image" => {
                let fence = cluster.service(Color::Blue).await.expect("a service").fence;
                let desired = ImageWant::Digest(IMAGES.first);
                cluster.set_image(call, Color::Blue, fence, &desired).await
            }
            "put_route" => {
                cluster.put_route(&CallContext { fence: self.route_call.fence, ..*call }, &self.route).await
            }
            "move_route" => {
                let route = cluster.route(self.route.uid).await.expect("a response").expect("a route");
                cluster.move_route(call, self.route.uid, route.fence, Color::Green).await
            }
            "run_job" => cluster.run_job(call, &self.job).await,
            "release" => cluster.release(call, self.route.uid).await,
            other => panic!("{other}"),
        }
    }

    /// Returns whether the effect of the call exists, by a separate read.
    async fn is_done(&self, name: &str) -> bool {
        let cluster = &self.env.cluster;
        let route = async || cluster.route(self.route.uid).await.expect("a response");
        match name {
            "set_canary" | "set_canary again" => {
                let canary = cluster.canary().await.expect("a response");
                canary.is_some_and(|canary| canary.digest == Some(IMAGES.first))
            }
            "set_image" => {
                let view = cluster.service(Color::Blue).await.expect("a service");
                view.digest == Some(IMAGES.first) as Option<Digest>
            }
            "put_route" => route().await.is_some(),
            "move_route" => route().await.is_some_and(|route| route.service == Color::Green),
            "run_job" => cluster.job(&self.job.name).await.expect("a response").is_some(),
            "release" => {
                let secrets = self.env.api.objects("secrets", NAMESPACE);
                route().await.is_none()
                    && cluster.job(&self.job.name).await.expect("a response").is_none()
                    && secrets.is_empty()
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_is_unknown_and_the_next_call_completes_it() {
    for (name, verb, resource) in WRITES {
        for moment in [FaultTiming::Before, FaultTiming::After] {
            for http_fault in [FaultKind::Reset, FaultKind::Respond(500, None), FaultKind::Respond(504, None)]
            {
                let site_calls = SiteCalls::before(name).await;
                let api = &site_calls.env.api;
                api.fault(Fault::next(RequestMatcher::of(verb, resource), moment, http_fault));
                let outcome = site_calls.make(name, &site_calls.env.cx().call()).await;
                let plan = format!("{name}: {verb} {resource} {moment:?} {http_fault:?}");
                assert_eq!(api.faults(), 0, "{plan}: the fault did not occur");
                // An anchor alone is no effect: if it is missing, certainly nothing was done.
                let only_anchor = *resource == "configmaps" && ["put_route", "run_job"].contains(name);
                match outcome {
                    Outcome::Unknown(error) => assert_eq!(error.kind, ErrorKind::Unavailable, "{plan}"),
                    Outcome::NotApplied(error) if only_anchor => assert!(error.is_retryable(), "{plan}"),
                    other => panic!("{plan}: {other:?}"),
                }
                let again = site_calls.make(name, &site_calls.env.cx().call()).await;
                let known = matches!(
                    &again,
                    Outcome::NotApplied(error) if error.kind == ErrorKind::Exists
                );
                assert!(again == Outcome::Applied(()) || known, "{plan}: {again:?}");
                site_calls.env.api.advance(Duration::from_secs(2));
                assert!(site_calls.is_done(name).await, "{plan}");
                site_calls.env.assert_allowed();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_definite() {
    for (name, verb, resource) in WRITES {
        for (code, kind) in
            [(403, ErrorKind::Denied), (429, ErrorKind::Throttled(Some(Duration::from_secs(7))))]
        {
            let site_calls = SiteCalls::before(name).await;
            let http_fault = FaultKind::Respond(code, (code == 429).then_some(7));
            site_calls.env.api.fault(Fault::next(
                RequestMatcher::of(verb, resource),
                FaultTiming::Before,
                http_fault,
            ));
            let plan = format!("{name}: {verb} {resource} {code}");
            match site_calls.make(name, &site_calls.env.cx().call()).await {
                Outcome::NotApplied(error) => assert_eq!(error.kind, kind, "{plan}"),
                // A release may be partly done by then.
                Outcome::Unknown(error) if *name == "release" => assert_eq!(error.kind, kind, "{plan}"),
                other => panic!("{plan}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_ends_with_the_deadline() {
    for (name, verb, resource) in WRITES {
        let site_calls = SiteCalls::before(name).await;
        let http_fault = FaultKind::Delay(Duration::from_secs(3600));
        site_calls.env.api.fault(Fault::next(
            RequestMatcher::of(verb, resource),
            FaultTiming::Before,
            http_fault,
        ));
        let outcome = site_calls.make(name, &site_calls.env.short_call()).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{name}: {verb} {resource}: {outcome:?}");
        let late = site_calls.env.cx().late_call().await;
        let outcome = site_calls.env.cluster.release(&late, site_calls.route.uid).await;
        assert!(matches!(outcome, Outcome::NotApplied(_)), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_retried_automatically() {
    let env = TestEnv::start(gateway()).await;
    let spec = env.route_spec(env.cx().uid(), &["rrr.example.com"]);
    for code in [429, 503, 504] {
        env.api.forget_requests();
        let fault = Fault::next(
            RequestMatcher::of("create", "httproutes"),
            FaultTiming::Before,
            FaultKind::Respond(code, None),
        );
        env.api.fault(fault);
        assert_ne!(env.cluster.put_route(&env.cx().call(), &spec).await, Outcome::Applied(()));
        assert_eq!(env.count("create", "httproutes"), 1, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_has_a_definite_outcome() {
    let env = TestEnv::start(ingress()).await;
    env.api.stop();
    let outcome = env.cluster.release(&env.short_call(), env.cx().uid()).await;
    let Outcome::NotApplied(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let refused = env.cluster.canary().await.expect_err("no server");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_a_job_and_its_secret_is_completed_by_the_next_call() {
    let site_calls = SiteCalls::before("run_job").await;
    let env = &site_calls.env;
    let fault = Fault::next(RequestMatcher::of("create", "secrets"), FaultTiming::Before, FaultKind::Reset);
    env.api.fault(fault);
    assert!(matches!(env.cluster.run_job(&env.cx().call(), &site_calls.job).await, Outcome::Unknown(_)));
    env.api.advance(Duration::from_secs(3600));
    assert_eq!(
        env.cluster.job(&site_calls.job.name).await,
        Ok(None),
        "the job is suspended, and so was not started"
    );
    let job = env.finish(&site_calls.job).await;
    assert_eq!(job.state, JobState::Succeeded { failed: Vec::new() }, "{}", job.log);
}

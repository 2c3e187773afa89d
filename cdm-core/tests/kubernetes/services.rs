//! Services: the reason why an image does not get ready is reported, and whether the image causes it.

use std::time::Duration;

use cdm_core::domain::{Color, Digest, Fence};
use cdm_core::ports::{ClusterOps, ErrorKind, ImageWant, Outcome, ServiceView};
use cdm_testkit::kubernetes::ImageBehavior;

use crate::env::{IMAGES, NAMESPACE, TestEnv, ingress};

async fn set(env: &TestEnv, digest: Digest) -> Fence {
    let before = env.cluster.service(Color::Blue).await.expect("a service");
    let call = env.cx().call();
    let desired = ImageWant::Digest(digest);
    let outcome = env.cluster.set_image(&call, Color::Blue, before.fence, &desired).await;
    assert_eq!(outcome, Outcome::Applied(()));
    call.fence
}

async fn service_view(env: &TestEnv) -> ServiceView {
    env.cluster.service(Color::Blue).await.expect("a service")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_is_reported_with_the_reason_of_its_pod() {
    for (fate, words, blames_image) in [
        (ImageBehavior::Missing, "Pull", true),
        (ImageBehavior::PullRejected, "Pull", false),
        (ImageBehavior::Crashing, "CrashLoopBackOff", true),
    ] {
        let env = TestEnv::start(ingress()).await;
        set(&env, IMAGES.first).await;
        env.cx().until("it gets ready", async || service_view(&env).await.is_ready().then_some(())).await;
        env.api.set_image_behavior(&IMAGES.second.to_string(), fate);
        set(&env, IMAGES.second).await;
        let failure = env
            .cx()
            .until("a failure shows", async || {
                service_view(&env).await.failure.filter(|failure| failure.message.contains(words))
            })
            .await;
        assert_eq!((failure.definite, failure.blames_image), (false, blames_image), "{fate:?}: {failure:?}");
        env.api.advance(Duration::from_secs(700));
        let failure = service_view(&env).await.failure.expect("a failure");
        assert!(failure.definite, "{fate:?}: {failure:?}");
        assert_eq!(failure.blames_image, blames_image, "{fate:?}: {failure:?}");
        env.assert_allowed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_never_gets_ready_fails_at_the_progress_deadline() {
    let env = TestEnv::start(ingress()).await;
    env.api.set_image_behavior(&IMAGES.first.to_string(), ImageBehavior::NeverReady);
    set(&env, IMAGES.first).await;
    env.api.advance(Duration::from_secs(60));
    let view = service_view(&env).await;
    assert!(!view.is_ready() && view.failure.is_none(), "{view:?}");
    env.api.advance(Duration::from_secs(700));
    let failure = service_view(&env).await.failure.expect("a failure");
    assert_eq!((failure.definite, failure.blames_image), (true, true), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_the_running_image_restarts_nothing() {
    let env = TestEnv::start(ingress()).await;
    set(&env, IMAGES.first).await;
    let ready = env
        .cx()
        .until("it gets ready", async || Some(service_view(&env).await).filter(ServiceView::is_ready))
        .await;
    let fence = set(&env, IMAGES.first).await;
    let after = service_view(&env).await;
    assert_eq!(after, ServiceView { fence, ..ready });
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_configured_container_gets_the_image() {
    let env = TestEnv::start(ingress()).await;
    set(&env, IMAGES.first).await;
    let deployment = env.api.object("deployments", NAMESPACE, "blue-deployment").expect("a deployment");
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["image"], "proxy:1");
    assert_eq!(containers[1]["image"], format!("{}@{}", crate::env::REPOSITORY, IMAGES.first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_service_is_not_found() {
    let env = TestEnv::start(ingress()).await;
    let mut other = crate::env::deployment(Color::Green);
    other["spec"]["template"]["spec"]["containers"][1]["name"] = serde_json::json!("php");
    env.api.put(&other).expect("a deployment");
    let refused = env.cluster.service(Color::Green).await.expect_err("no such container");
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert!(refused.message.contains("`web`"), "{refused}");
    assert_eq!(env.cluster.check().await.map_err(|error| error.kind), Err(ErrorKind::Invalid));
}

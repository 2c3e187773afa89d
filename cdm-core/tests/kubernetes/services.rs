//! Services: what keeps an image from getting ready is told, and whose fault it is.

use std::time::Duration;

use cdm_core::domain::{Color, Digest, Fence};
use cdm_core::ports::{ClusterOps, ErrorKind, ImageWant, Outcome, ServiceView};
use cdm_testkit::kubernetes::Fate;

use crate::lab::{IMAGES, Lab, NAMESPACE, ingress};

async fn set(lab: &Lab, digest: Digest) -> Fence {
    let before = lab.cluster.service(Color::Blue).await.expect("a service");
    let call = lab.cx().call();
    let want = ImageWant::Digest(digest);
    let outcome = lab.cluster.set_image(&call, Color::Blue, before.fence, &want).await;
    assert_eq!(outcome, Outcome::Applied(()));
    call.fence
}

async fn seen(lab: &Lab) -> ServiceView {
    lab.cluster.service(Color::Blue).await.expect("a service")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_is_told_by_the_pods_own_reason() {
    for (fate, words, blames_image) in [
        (Fate::Missing, "Pull", true),
        (Fate::Refused, "Pull", false),
        (Fate::Crashing, "CrashLoopBackOff", true),
    ] {
        let lab = Lab::start(ingress()).await;
        set(&lab, IMAGES.first).await;
        lab.cx().until("it gets ready", async || seen(&lab).await.is_ready().then_some(())).await;
        lab.api.fate(&IMAGES.second.to_string(), fate);
        set(&lab, IMAGES.second).await;
        let failure = lab
            .cx()
            .until("a failure shows", async || {
                seen(&lab).await.failure.filter(|failure| failure.message.contains(words))
            })
            .await;
        assert_eq!((failure.definite, failure.blames_image), (false, blames_image), "{fate:?}: {failure:?}");
        lab.api.advance(Duration::from_secs(700));
        let failure = seen(&lab).await.failure.expect("a failure");
        assert!(failure.definite, "{fate:?}: {failure:?}");
        assert_eq!(failure.blames_image, blames_image, "{fate:?}: {failure:?}");
        lab.assert_allowed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_never_passes_its_check_fails_at_the_platforms_deadline() {
    let lab = Lab::start(ingress()).await;
    lab.api.fate(&IMAGES.first.to_string(), Fate::NeverReady);
    set(&lab, IMAGES.first).await;
    lab.api.advance(Duration::from_secs(60));
    let view = seen(&lab).await;
    assert!(!view.is_ready() && view.failure.is_none(), "{view:?}");
    lab.api.advance(Duration::from_secs(700));
    let failure = seen(&lab).await.failure.expect("a failure");
    assert_eq!((failure.definite, failure.blames_image), (true, true), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_what_runs_already_restarts_nothing() {
    let lab = Lab::start(ingress()).await;
    set(&lab, IMAGES.first).await;
    let ready =
        lab.cx().until("it gets ready", async || Some(seen(&lab).await).filter(ServiceView::is_ready)).await;
    let fence = set(&lab, IMAGES.first).await;
    let after = seen(&lab).await;
    assert_eq!(after, ServiceView { fence, ..ready });
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_container_is_given_the_image() {
    let lab = Lab::start(ingress()).await;
    set(&lab, IMAGES.first).await;
    let deployment = lab.api.object("deployments", NAMESPACE, "blue-deployment").expect("a deployment");
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["image"], "proxy:1");
    assert_eq!(containers[1]["image"], format!("{}@{}", crate::lab::REPOSITORY, IMAGES.first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_is_not_found() {
    let lab = Lab::start(ingress()).await;
    let mut other = crate::lab::deployment(Color::Green);
    other["spec"]["template"]["spec"]["containers"][1]["name"] = serde_json::json!("php");
    lab.api.put(&other).expect("a deployment");
    let refused = lab.cluster.service(Color::Green).await.expect_err("it has no such container");
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert!(refused.message.contains("`web`"), "{refused}");
    assert_eq!(lab.cluster.check().await.map_err(|error| error.kind), Err(ErrorKind::Invalid));
}

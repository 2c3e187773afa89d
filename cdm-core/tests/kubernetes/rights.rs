//! The shipped role: all that is done is allowed, and nothing more than that.

use std::time::Duration;

use cdm_core::adapters::kubernetes::RouteKind;
use cdm_core::domain::Color;
use cdm_core::ports::{ChangeCursor, ClusterOps, ErrorKind, ImageWant};
use cdm_testkit::kubernetes::User;

use crate::lab::{IMAGES, Lab, account, gateway, ingress};

/// Uses everything once, whatever is refused on the way. Answers whether anything was.
async fn is_refused_somewhere(lab: &Lab) -> bool {
    let cluster = &lab.cluster;
    let call = || lab.cx().call();
    let uid = lab.cx().uid();
    let spec = lab.route_spec(uid, &["rrr.example.com"]);
    drop(cluster.bootstrap().await);
    drop(cluster.set_canary(&call(), None, Color::Blue, None).await);
    if let Ok(view) = cluster.service(Color::Blue).await {
        let want = ImageWant::Digest(IMAGES.first);
        drop(cluster.set_image(&call(), Color::Blue, view.fence, &want).await);
    }
    let made = call();
    drop(cluster.put_route(&made, &spec).await);
    drop(cluster.put_route(&made, &spec).await);
    drop(cluster.move_route(&call(), uid, made.fence, Color::Green).await);
    drop(cluster.route(uid).await);
    let job = lab.install(uid, "A Title");
    drop(cluster.run_job(&call(), &job).await);
    lab.api.advance(Duration::from_secs(30));
    drop(cluster.job(&job.name).await);
    drop(cluster.changes(ChangeCursor::default(), Duration::from_millis(200)).await);
    drop(cluster.release(&call(), uid).await);
    lab.api.requests().iter().any(|request| request.code == 403)
}

async fn every_rule_is_needed(route: RouteKind) {
    let whole = account(&route);
    let rules = whole.rules();
    assert!(rules >= 8, "a role with its rules apart");
    let lab = Lab::with(route.clone(), whole.clone()).await;
    assert!(!is_refused_somewhere(&lab).await, "{:?}", lab.api.requests());
    for number in 0..rules {
        let less: User = whole.clone().without_rule(number);
        let lab = Lab::with(route.clone(), less).await;
        let refused = lab.cluster.check().await.expect_err("a rule is missing");
        assert_eq!(refused.kind, ErrorKind::Denied, "rule {number}: {refused}");
        assert!(refused.message.contains("the role does not allow to"), "rule {number}: {refused}");
        assert!(is_refused_somewhere(&lab).await, "rule {number} is not needed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_of_the_role_is_needed_with_ingresses() {
    every_rule_is_needed(ingress()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_of_the_role_is_needed_with_http_routes() {
    every_rule_is_needed(gateway()).await;
}

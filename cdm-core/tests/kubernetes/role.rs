//! The shipped role allows every request of the adapter, and each of its rules is required.

use std::time::Duration;

use cdm_core::adapters::kubernetes::RouteKind;
use cdm_core::domain::Color;
use cdm_core::ports::{ChangeCursor, ClusterOps, ErrorKind, ImageWant};
use cdm_testkit::kubernetes::User;

use crate::env::{IMAGES, TestEnv, account, gateway, ingress};

/// Makes every request once, and continues after denials. Returns whether a request was denied.
async fn is_denied_somewhere(env: &TestEnv) -> bool {
    let cluster = &env.cluster;
    let call = || env.cx().call();
    let uid = env.cx().uid();
    let spec = env.route_spec(uid, &["rrr.example.com"]);
    drop(cluster.bootstrap().await);
    drop(cluster.set_canary(&call(), None, Color::Blue, None).await);
    if let Ok(view) = cluster.service(Color::Blue).await {
        let desired = ImageWant::Digest(IMAGES.first);
        drop(cluster.set_image(&call(), Color::Blue, view.fence, &desired).await);
    }
    let made = call();
    drop(cluster.put_route(&made, &spec).await);
    drop(cluster.put_route(&made, &spec).await);
    drop(cluster.move_route(&call(), uid, made.fence, Color::Green).await);
    drop(cluster.route(uid).await);
    let job = env.install(uid, "A Title");
    drop(cluster.run_job(&call(), &job).await);
    env.api.advance(Duration::from_secs(30));
    drop(cluster.job(&job.name).await);
    drop(cluster.changes(ChangeCursor::default(), Duration::from_millis(200)).await);
    drop(cluster.release(&call(), uid).await);
    env.api.requests().iter().any(|request| request.code == 403)
}

async fn assert_every_rule_required(route: RouteKind) {
    let whole = account(&route);
    let rules = whole.rules();
    assert!(rules >= 8, "the role has separate rules");
    let env = TestEnv::with(route.clone(), whole.clone()).await;
    assert!(!is_denied_somewhere(&env).await, "{:?}", env.api.requests());
    for number in 0..rules {
        let less: User = whole.clone().without_rule(number);
        let env = TestEnv::with(route.clone(), less).await;
        let denied = env.cluster.check().await.expect_err("a rule is missing");
        assert_eq!(denied.kind, ErrorKind::Denied, "rule {number}: {denied}");
        assert!(denied.message.contains("the role does not grant the verb"), "rule {number}: {denied}");
        assert!(is_denied_somewhere(&env).await, "rule {number} is not required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_of_the_role_is_required_with_ingresses() {
    assert_every_rule_required(ingress()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_of_the_role_is_required_with_http_routes() {
    assert_every_rule_required(gateway()).await;
}

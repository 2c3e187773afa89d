//! The cost of each access path, counted in requests at the server.

use std::collections::BTreeSet;

use cdm_core::domain::{Color, OperationInput, OperationState, RolloutKind, Site};
use cdm_core::ports::{Journal, Mutation, Outcome, SiteQuery, SiteRepository, WriteBatch};
use cdm_testkit::fixtures;

use super::TestEnv;
use super::lost_responses::{claim, event, release_claim};

#[tokio::test(flavor = "multi_thread")]
async fn a_site_of_a_rollout_costs_two_updates() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let rollout = env.number().await;
        env.proxy.take_operations();
        let claimed = env.store.claim(&env.suite.cx().call(), &claim(&site, rollout, 1)).await;
        assert!(matches!(claimed, Outcome::Applied(_)), "{claimed:?}");
        let completed =
            env.store.release_claim(&env.suite.cx().call(), &release_claim(&site, rollout, 1)).await;
        assert_eq!(completed, Outcome::Applied(()));
        assert_eq!(env.proxy.take_operations(), ["UpdateItem", "UpdateItem"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_one_record_costs_one_request() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        env.write(vec![Mutation::Site(Box::new(site.clone()))]).await;
        assert_eq!(env.proxy.take_operations(), ["PutItem"]);
        let rollout = fixtures::rollout(env.number().await, RolloutKind::Flush, Color::Blue, 1);
        env.proxy.take_operations();
        let page = fixtures::page(rollout.number, 0, std::slice::from_ref(&site));
        env.write(vec![Mutation::RolloutPage(page)]).await;
        env.write(vec![Mutation::CreateRollout(Box::new(rollout))]).await;
        env.write(vec![Mutation::CreateSite(Box::new(fixtures::site("b")))]).await;
        assert_eq!(env.proxy.take_operations(), ["TransactWriteItems", "PutItem", "TransactWriteItems"]);
        // A write with events first draws a position in the feed; the removal of a site first reads its hostnames.
        let event_batch = WriteBatch {
            events: vec![event("x")],
            ..WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 2, ..site.clone() }))])
        };
        assert_eq!(env.store.write(&env.suite.cx().call(), &event_batch).await, Outcome::Applied(()));
        env.write(vec![Mutation::RemoveSite(site.id.clone(), site.uid, 3)]).await;
        assert_eq!(
            env.proxy.take_operations(),
            ["UpdateItem", "TransactWriteItems", "GetItem", "TransactWriteItems"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_take_the_minimum_of_requests() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let operation: OperationState =
            fixtures::operation(env.number().await, OperationInput::Provision(Color::Blue));
        env.write(vec![Mutation::Site(Box::new(Site { operation: Some(operation), ..site.clone() }))]).await;
        env.proxy.take_operations();
        env.store.site(&site.id).await.expect("a site");
        env.store.hostname(site.hostnames.canonical()).await.expect("an owner");
        assert_eq!(env.proxy.take_operations(), ["GetItem", "GetItem"]);
        // Each partition of an index is queried once.
        env.store.pending_work().await.expect("pending work");
        assert_eq!(env.proxy.take_operations(), ["Query"; 4]);
        env.store
            .count(&SiteQuery { service: Some(Color::Blue), ..SiteQuery::default() })
            .await
            .expect("a number");
        assert_eq!(env.proxy.take_operations(), ["Query"; 4]);
        env.store.sites(&SiteQuery::default(), None, 100).await.expect("sites");
        assert_eq!(env.proxy.take_operations(), ["Query", "Query", "Query", "Query", "BatchGetItem"]);
        env.store.heartbeats().await.expect("beats");
        env.store.last_event().await.expect("an end");
        env.proxy.take_operations();
        env.store.last_event().await.expect("an end");
        assert_eq!(
            env.proxy.take_operations(),
            ["Query"],
            "repeated reads of the end of the feed take one query"
        );
    }
}

/// Asserts that the permissions in `docs/dynamodb.md` are exactly those that the ports need. A transaction takes the
/// permissions of its parts, and `ConditionCheckItem`.
pub(super) fn assert_documented_permissions(requests: Vec<String>) {
    let requests: BTreeSet<String> = requests.into_iter().collect();
    let wanted = [
        "BatchGetItem",
        "DeleteItem",
        "DescribeTable",
        "GetItem",
        "PutItem",
        "Query",
        "TransactWriteItems",
        "UpdateItem",
    ];
    assert!(requests.iter().eq(wanted), "{requests:?}");
}

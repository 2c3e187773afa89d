//! What each access path costs, counted in requests at the server.

use std::collections::BTreeSet;

use cdm_core::domain::{Color, OperationInput, OperationState, RolloutKind, Site};
use cdm_core::ports::{Journal, Mutation, Outcome, SiteQuery, SiteRepository, WriteBatch};
use cdm_testkit::build;

use super::Lab;
use super::lost::{claim, event, release_claim};

#[tokio::test(flavor = "multi_thread")]
async fn a_site_of_a_rollout_costs_two_updates() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let rollout = lab.number().await;
        lab.proxy.seen();
        let claimed = lab.store.claim(&lab.bench.cx().call(), &claim(&site, rollout, 1)).await;
        assert!(matches!(claimed, Outcome::Applied(_)), "{claimed:?}");
        let completed =
            lab.store.release_claim(&lab.bench.cx().call(), &release_claim(&site, rollout, 1)).await;
        assert_eq!(completed, Outcome::Applied(()));
        assert_eq!(lab.proxy.seen(), ["UpdateItem", "UpdateItem"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_one_record_costs_one_request() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        lab.write(vec![Mutation::Site(Box::new(site.clone()))]).await;
        assert_eq!(lab.proxy.seen(), ["PutItem"]);
        let rollout = build::rollout(lab.number().await, RolloutKind::Flush, Color::Blue, 1);
        lab.proxy.seen();
        let page = build::page(rollout.number, 0, std::slice::from_ref(&site));
        lab.write(vec![Mutation::RolloutPage(page)]).await;
        lab.write(vec![Mutation::CreateRollout(Box::new(rollout))]).await;
        lab.write(vec![Mutation::CreateSite(Box::new(build::site("b")))]).await;
        assert_eq!(lab.proxy.seen(), ["TransactWriteItems", "PutItem", "TransactWriteItems"]);
        // What tells the feed draws its place there first; what removes a site reads its hostnames first.
        let told = WriteBatch {
            events: vec![event("x")],
            ..WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 2, ..site.clone() }))])
        };
        assert_eq!(lab.store.write(&lab.bench.cx().call(), &told).await, Outcome::Applied(()));
        lab.write(vec![Mutation::RemoveSite(site.id.clone(), site.uid, 3)]).await;
        assert_eq!(lab.proxy.seen(), ["UpdateItem", "TransactWriteItems", "GetItem", "TransactWriteItems"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_cost_what_they_have_to() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let operation: OperationState =
            build::operation(lab.number().await, OperationInput::Provision(Color::Blue));
        lab.write(vec![Mutation::Site(Box::new(Site { operation: Some(operation), ..site.clone() }))]).await;
        lab.proxy.seen();
        lab.store.site(&site.id).await.expect("a site");
        lab.store.hostname(site.hostnames.canonical()).await.expect("an owner");
        assert_eq!(lab.proxy.seen(), ["GetItem", "GetItem"]);
        // Each part of an index is asked once.
        lab.store.pending_work().await.expect("what is to be done");
        assert_eq!(lab.proxy.seen(), ["Query"; 4]);
        lab.store
            .count(&SiteQuery { service: Some(Color::Blue), ..SiteQuery::default() })
            .await
            .expect("a number");
        assert_eq!(lab.proxy.seen(), ["Query"; 4]);
        lab.store.sites(&SiteQuery::default(), None, 100).await.expect("sites");
        assert_eq!(lab.proxy.seen(), ["Query", "Query", "Query", "Query", "BatchGetItem"]);
        lab.store.heartbeats().await.expect("beats");
        lab.store.last_event().await.expect("an end");
        lab.proxy.seen();
        lab.store.last_event().await.expect("an end");
        assert_eq!(lab.proxy.seen(), ["Query"], "who looks again for the end of the feed asks once");
    }
}

/// The rights in `docs/dynamodb.md` are those that the ports need, no more and no fewer. A transaction takes the rights of
/// its parts, and `ConditionCheckItem`.
pub(super) fn within_the_rights(seen: Vec<String>) {
    let seen: BTreeSet<String> = seen.into_iter().collect();
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
    assert!(seen.iter().eq(wanted), "{seen:?}");
}

//! Lists in small pages, across all partitions of an index; and concurrent claims.

use cdm_core::domain::site::{ClaimRefused, Claimed};
use cdm_core::domain::{
    Color, Operation, OperationInput, OperationState, Site, SiteId, Status, Subject, TerminalStatus,
};
use cdm_core::ports::{
    Journal, Mutation, OperationQuery, Outcome, SiteQuery, SiteRepository, WriteBatch, WriteError,
};
use cdm_testkit::fixtures;
use futures_util::future::join_all;

use super::TestEnv;
use super::lost_responses::claim;

#[tokio::test(flavor = "multi_thread")]
async fn sites_come_in_order_page_by_page() {
    for env in TestEnv::all().await {
        let mut ids = Vec::new();
        for at in 0..23 {
            let id = format!("s{:02}", at * 7 % 23);
            let site = Site {
                uid: env.suite.cx().uid(),
                service: if at % 3 == 0 { Color::Green } else { Color::Blue },
                ..fixtures::site(&id)
            };
            env.write(vec![Mutation::CreateSite(Box::new(site.clone()))]).await;
            ids.push((site.id, site.service));
        }
        ids.sort();
        let green = SiteQuery { service: Some(Color::Green), ..SiteQuery::default() };
        for (query, limit) in
            [(SiteQuery::default(), 1), (SiteQuery::default(), 4), (green.clone(), 2), (green, 100)]
        {
            let wanted =
                ids.iter().filter(|(_, service)| query.service.is_none_or(|wanted| wanted == *service));
            let wanted: Vec<SiteId> = wanted.map(|(id, _)| id.clone()).collect();
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let page = env.store.sites(&query, after.as_ref(), limit).await.expect("a page");
                assert!(page.next.is_none() || page.items.len() == limit, "only the last page is short");
                listed.extend(page.items.into_iter().map(|site| site.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(listed, wanted);
            assert_eq!(env.store.count(&query).await, Ok(wanted.len() as u64));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_and_ended_operations_are_one_list() {
    for env in TestEnv::all().await {
        let mut numbers = Vec::new();
        for at in 0..12 {
            let site = env.site(&format!("s{at}")).await;
            let number = env.number().await;
            numbers.insert(0, number);
            let status = match at % 3 {
                0 => Status::Queued,
                1 => Status::Parked,
                _ => Status::Ended(TerminalStatus::Failed),
            };
            let state = OperationState {
                status,
                ..fixtures::operation(number, OperationInput::Provision(Color::Blue))
            };
            env.write(vec![match status {
                Status::Ended(_) => {
                    let ended = Operation::live(Subject::Site(site.id), state);
                    Mutation::History(Box::new(Operation {
                        finished_at: Some(fixtures::CREATED_AT),
                        ..ended
                    }))
                }
                _ => Mutation::Site(Box::new(Site { operation: Some(state), ..site })),
            }])
            .await;
        }
        for limit in [1, 2, 5, 100] {
            let (mut listed, mut before) = (Vec::new(), None);
            loop {
                let page =
                    env.store.operations(&OperationQuery::default(), before, limit).await.expect("a page");
                assert!(page.items.len() <= limit);
                listed.extend(page.items.iter().map(|operation| operation.id.number));
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(listed, numbers, "newest first, in pages of {limit}");
        }
        let failed = OperationQuery {
            status: Some(Status::Ended(TerminalStatus::Failed)),
            ..OperationQuery::default()
        };
        let page = env.store.operations(&failed, None, 3).await.expect("a page");
        let rest = env.store.operations(&failed, page.next, 3).await.expect("a page");
        assert_eq!((page.items.len(), rest.items.len(), rest.next), (3, 1, None));
        assert_eq!(env.store.pending_work().await.expect("pending work").len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_claims_one_wins() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let rollout = env.number().await;
        let claims = (0..32).map(|at| {
            let (store, call) = (env.store.clone(), env.suite.cx().call());
            let claim =
                cdm_core::domain::site::Claim { number: rollout + 1 + at, ..claim(&site, rollout, 1) };
            async move { store.claim(&call, &claim).await }
        });
        let outcomes = join_all(claims).await;
        let won = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Applied(Claimed::Taken { version: 2, .. })));
        assert_eq!(won.count(), 1, "{outcomes:?}");
        let busy = Outcome::NotApplied(WriteError::Claim(ClaimRefused::Busy));
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == busy).count(), 31, "{outcomes:?}");
    }
}

/// Of concurrent writes of the same version, one is applied and the others are conflicts.
#[tokio::test(flavor = "multi_thread")]
async fn of_concurrent_writes_one_wins() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let writes = (0..16).map(|_| {
            let (store, call) = (env.store.clone(), env.suite.cx().call());
            let batch = WriteBatch::of(vec![Mutation::Site(Box::new(site.clone()))]);
            async move { store.write(&call, &batch).await }
        });
        let outcomes = join_all(writes).await;
        assert_eq!(
            outcomes.iter().filter(|outcome| **outcome == Outcome::Applied(())).count(),
            1,
            "{outcomes:?}"
        );
        let conflict = |outcome: &&Outcome<(), WriteError>| {
            matches!(outcome, Outcome::NotApplied(WriteError::Conflict(_)))
        };
        assert_eq!(outcomes.iter().filter(conflict).count(), 15, "{outcomes:?}");
    }
}

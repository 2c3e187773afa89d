//! Lists in small pages, whatever part of an index their items lie in; and claims that meet.

use cdm_core::domain::site::{ClaimRefused, Claimed};
use cdm_core::domain::{
    Color, Operation, OperationInput, OperationState, Site, SiteId, Status, Subject, TerminalStatus,
};
use cdm_core::ports::{
    Journal, Mutation, OperationQuery, Outcome, SiteQuery, SiteRepository, WriteBatch, WriteError,
};
use cdm_testkit::build;
use futures_util::future::join_all;

use super::Lab;
use super::lost::claim;

#[tokio::test(flavor = "multi_thread")]
async fn sites_come_in_order_page_by_page() {
    for lab in Lab::all().await {
        let mut ids = Vec::new();
        for at in 0..23 {
            let id = format!("s{:02}", at * 7 % 23);
            let site = Site {
                uid: lab.bench.cx().uid(),
                service: if at % 3 == 0 { Color::Green } else { Color::Blue },
                ..build::site(&id)
            };
            lab.write(vec![Mutation::CreateSite(Box::new(site.clone()))]).await;
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
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = lab.store.sites(&query, after.as_ref(), limit).await.expect("a page");
                assert!(page.next.is_none() || page.items.len() == limit, "only the last page is short");
                seen.extend(page.items.into_iter().map(|site| site.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, wanted);
            assert_eq!(lab.store.count(&query).await, Ok(wanted.len() as u64));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_at_work_and_ended_are_one_list() {
    for lab in Lab::all().await {
        let mut numbers = Vec::new();
        for at in 0..12 {
            let site = lab.site(&format!("s{at}")).await;
            let number = lab.number().await;
            numbers.insert(0, number);
            let status = match at % 3 {
                0 => Status::Queued,
                1 => Status::Parked,
                _ => Status::Ended(TerminalStatus::Failed),
            };
            let state =
                OperationState { status, ..build::operation(number, OperationInput::Provision(Color::Blue)) };
            lab.write(vec![match status {
                Status::Ended(_) => {
                    let ended = Operation::live(Subject::Site(site.id), state);
                    Mutation::History(Box::new(Operation { finished_at: Some(build::BORN), ..ended }))
                }
                _ => Mutation::Site(Box::new(Site { operation: Some(state), ..site })),
            }])
            .await;
        }
        for limit in [1, 2, 5, 100] {
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let page =
                    lab.store.operations(&OperationQuery::default(), before, limit).await.expect("a page");
                assert!(page.items.len() <= limit);
                seen.extend(page.items.iter().map(|operation| operation.id.number));
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(seen, numbers, "newest first, in pages of {limit}");
        }
        let failed = OperationQuery {
            status: Some(Status::Ended(TerminalStatus::Failed)),
            ..OperationQuery::default()
        };
        let page = lab.store.operations(&failed, None, 3).await.expect("a page");
        let rest = lab.store.operations(&failed, page.next, 3).await.expect("a page");
        assert_eq!((page.items.len(), rest.items.len(), rest.next), (3, 1, None));
        assert_eq!(lab.store.pending_work().await.expect("what is to be done").len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_claims_that_meet_one_wins() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let rollout = lab.number().await;
        let claims = (0..32).map(|at| {
            let (store, call) = (lab.store.clone(), lab.bench.cx().call());
            let claim =
                cdm_core::domain::site::Claim { number: rollout + 1 + at, ..claim(&site, rollout, 1) };
            async move { store.claim(&call, &claim).await }
        });
        let answers = join_all(claims).await;
        let won = answers
            .iter()
            .filter(|answer| matches!(answer, Outcome::Applied(Claimed::Taken { version: 2, .. })));
        assert_eq!(won.count(), 1, "{answers:?}");
        let busy = Outcome::NotApplied(WriteError::Claim(ClaimRefused::Busy));
        assert_eq!(answers.iter().filter(|answer| **answer == busy).count(), 31, "{answers:?}");
    }
}

/// Writes of the same version that meet: one is applied, the others are conflicts.
#[tokio::test(flavor = "multi_thread")]
async fn of_writes_that_meet_one_wins() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let writes = (0..16).map(|_| {
            let (store, call) = (lab.store.clone(), lab.bench.cx().call());
            let batch = WriteBatch::of(vec![Mutation::Site(Box::new(site.clone()))]);
            async move { store.write(&call, &batch).await }
        });
        let answers = join_all(writes).await;
        assert_eq!(
            answers.iter().filter(|answer| **answer == Outcome::Applied(())).count(),
            1,
            "{answers:?}"
        );
        let conflict = |answer: &&Outcome<(), WriteError>| {
            matches!(answer, Outcome::NotApplied(WriteError::Conflict(_)))
        };
        assert_eq!(answers.iter().filter(conflict).count(), 15, "{answers:?}");
    }
}

//! What a server says that will not, and a server that says nothing.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{Hostnames, Site};
use cdm_core::ports::{
    CallContext, Clock, Journal, Mutation, Outcome, SiteQuery, SiteRepository, StoreError, WriteBatch,
    WriteError,
};
use cdm_testkit::build;
use tokio::sync::Semaphore;

use super::Lab;
use super::lost::event;
use super::proxy::Fault;

const THROTTLED: &str =
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}"#;
const FAILED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"sorry"}"#;
const DENIED: &str =
    r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"User: x is not authorized"}"#;
const MET: &str =
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionConflictException","message":"ongoing"}"#;
const GIVEN_UP: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"cancelled",
    "CancellationReasons":[{"Code":"None"},{"Code":"TransactionConflict","Message":"ongoing"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_certain_and_a_failure_is_not() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let write = WriteBatch::of(vec![Mutation::Site(Box::new(site.clone()))]);
        let mut answers = Vec::new();
        for (status, body) in [(400, THROTTLED), (400, DENIED), (500, FAILED), (503, "")] {
            lab.proxy.next("PutItem", Fault::Answer(status, body.to_owned()));
            answers.push(lab.store.write(&lab.bench.cx().call(), &write).await);
        }
        assert_eq!(answers[0], Outcome::NotApplied(WriteError::Store(StoreError::Throttled)));
        assert!(matches!(&answers[1], Outcome::NotApplied(WriteError::Store(StoreError::Denied(why)))
            if why.contains("AccessDeniedException") && !why.contains("User")));
        for answer in &answers[2..] {
            assert!(
                matches!(answer, Outcome::Unknown(WriteError::Store(StoreError::Unavailable(_)))),
                "{answer:?}"
            );
        }
        lab.proxy.next("GetItem", Fault::Answer(400, THROTTLED.to_owned()));
        assert_eq!(lab.store.site(&site.id).await, Err(StoreError::Throttled));
        assert_eq!(lab.proxy.seen().len(), 5, "nothing is repeated behind the engine's back");
    }
}

/// Writes that meet at an item are apart the next time; nobody has to know.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_meet_are_tried_again() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        lab.proxy.next("PutItem", Fault::Answer(400, MET.to_owned()));
        lab.write(vec![Mutation::Site(Box::new(site.clone()))]).await;
        assert_eq!(lab.proxy.seen(), ["PutItem", "PutItem"]);
        lab.proxy.next("TransactWriteItems", Fault::Answer(400, GIVEN_UP.to_owned()));
        lab.write(vec![Mutation::RemoveSite(site.id.clone(), site.uid, 2)]).await;
        assert_eq!(lab.proxy.seen(), ["GetItem", "TransactWriteItems", "TransactWriteItems"]);
        for _ in 0..5 {
            lab.proxy.next("UpdateItem", Fault::Answer(400, MET.to_owned()));
        }
        let drawn = lab.store.allocate_ids(&lab.bench.cx().call(), 1).await;
        assert!(
            matches!(drawn, Outcome::NotApplied(WriteError::Store(StoreError::Unavailable(_)))),
            "{drawn:?}"
        );
    }
}

/// A call ends by its deadline, whatever the server does; one that comes late asks for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_by_its_deadline() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let never = Arc::new(Semaphore::new(0));
        let write = WriteBatch::of(vec![Mutation::Site(Box::new(site))]);
        lab.proxy.next("PutItem", Fault::Hold(never));
        let deadline = lab.bench.clock.monotonic().after(Duration::from_millis(200));
        let call = CallContext { deadline, ..lab.bench.cx().call() };
        let late = lab.store.write(&call, &write).await;
        assert!(matches!(late, Outcome::Unknown(WriteError::Store(StoreError::Unavailable(_)))), "{late:?}");
        lab.proxy.seen();
        let told = WriteBatch { events: vec![event("late")], ..write };
        let late = lab.store.write(&call, &told).await;
        assert!(
            matches!(late, Outcome::NotApplied(WriteError::Store(StoreError::Unavailable(_)))),
            "{late:?}"
        );
        assert_eq!(lab.proxy.seen(), Vec::<String>::new());
    }
}

/// A draw whose answer was lost leaves its batch unasked for: that is certain.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_draw_writes_nothing() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let told = WriteBatch {
            events: vec![event("x")],
            ..WriteBatch::of(vec![Mutation::Site(Box::new(site.clone()))])
        };
        lab.proxy.next("UpdateItem", Fault::LoseAnswer);
        let lost = lab.store.write(&lab.bench.cx().call(), &told).await;
        assert!(
            matches!(lost, Outcome::NotApplied(WriteError::Store(StoreError::Unavailable(_)))),
            "{lost:?}"
        );
        assert_eq!(lab.store.site(&site.id).await.expect("an answer").map(|site| site.version), Some(1));
    }
}

/// DynamoDB may answer a part of what it was asked for by keys; the rest is asked for again, unless nothing came.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_unread_is_asked_for_again() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let left = |read: &str| {
            let keys = r#"{"Keys":[{"pk":{"S":"S#a"},"sk":{"S":"SITE"}}],"ConsistentRead":true}"#;
            let name = &lab.name;
            format!(r#"{{"Responses":{{"{name}":[{read}]}},"UnprocessedKeys":{{"{name}":{keys}}}}}"#)
        };
        let another = r#"{"pk":{"S":"S#b"},"sk":{"S":"SITE"}}"#;
        lab.proxy.next("BatchGetItem", Fault::Answer(200, left(another)));
        let page = lab.store.sites(&SiteQuery::default(), None, 10).await.expect("a page");
        assert_eq!(page.items, [site]);
        lab.proxy.next("BatchGetItem", Fault::Answer(200, left("")));
        let page = lab.store.sites(&SiteQuery::default(), None, 10).await;
        assert_eq!(page, Err(StoreError::Throttled));
    }
}

/// What no store takes is refused before anything is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn an_unsound_batch_is_refused() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let write = || Mutation::Site(Box::new(site.clone()));
        let create = |id: &str, host: &str| {
            let hostnames = Hostnames::parse(&[host], host).expect("hostnames");
            Mutation::CreateSite(Box::new(Site { hostnames, ..build::site(id) }))
        };
        // With its hostname each is two items, and a transaction has room for 100.
        let many = (0..60).map(|at| create(&format!("s{at}"), &format!("s{at}.example.org"))).collect();
        let call = lab.bench.cx().call();
        for writes in [vec![write(), write()], (0..91).map(|_| write()).collect(), many] {
            let refused = lab.store.write(&call, &WriteBatch::of(writes)).await;
            assert!(
                matches!(refused, Outcome::NotApplied(WriteError::Store(StoreError::Denied(_)))),
                "{refused:?}"
            );
        }
        let twice = vec![create("b", "same.example.org"), create("c", "same.example.org")];
        let refused = lab.store.write(&call, &WriteBatch::of(twice)).await;
        assert!(matches!(refused, Outcome::NotApplied(WriteError::HostnameTaken { .. })), "{refused:?}");
        assert_eq!(lab.proxy.seen(), Vec::<String>::new());

        let hostnames = Hostnames::parse(&["else.example.org"], "else.example.org").expect("hostnames");
        let moved = Mutation::Site(Box::new(Site { hostnames, ..site.clone() }));
        let refused = lab.store.write(&call, &WriteBatch::of(vec![moved])).await;
        assert!(
            matches!(refused, Outcome::NotApplied(WriteError::Store(StoreError::Denied(_)))),
            "{refused:?}"
        );
        assert_eq!(lab.store.site(&site.id).await, Ok(Some(site)));
    }
}

//! Error responses of DynamoDB, and a server that does not respond.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{Hostnames, Site};
use cdm_core::ports::{
    CallContext, Clock, Journal, Mutation, Outcome, SiteQuery, SiteRepository, StoreError, WriteBatch,
    WriteError,
};
use cdm_testkit::fixtures;
use cdm_testkit::proxy::{HttpFault, HttpResponse};
use tokio::sync::Semaphore;

use super::TestEnv;
use super::lost_responses::event;

const THROTTLED: &str =
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}"#;
const FAILED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"sorry"}"#;
const DENIED: &str =
    r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"User: x is not authorized"}"#;
const CONFLICT: &str =
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionConflictException","message":"ongoing"}"#;
const CANCELLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","Message":"cancelled",
    "CancellationReasons":[{"Code":"None"},{"Code":"TransactionConflict","Message":"ongoing"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_definite_and_a_server_error_is_unknown() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let write = WriteBatch::of(vec![Mutation::Site(Box::new(site.clone()))]);
        let mut outcomes = Vec::new();
        for (status, body) in [(400, THROTTLED), (400, DENIED), (500, FAILED), (503, "")] {
            env.proxy.next("PutItem", HttpFault::Respond(HttpResponse::json(status, body)));
            outcomes.push(env.store.write(&env.suite.cx().call(), &write).await);
        }
        assert_eq!(outcomes[0], Outcome::NotApplied(WriteError::Store(StoreError::Throttled)));
        assert!(matches!(&outcomes[1], Outcome::NotApplied(WriteError::Store(StoreError::Denied(why)))
            if why.contains("AccessDeniedException") && !why.contains("User")));
        for outcome in &outcomes[2..] {
            assert!(
                matches!(outcome, Outcome::Unknown(WriteError::Store(StoreError::Unavailable(_)))),
                "{outcome:?}"
            );
        }
        env.proxy.next("GetItem", HttpFault::Respond(HttpResponse::json(400, THROTTLED)));
        assert_eq!(env.store.site(&site.id).await, Err(StoreError::Throttled));
        assert_eq!(env.proxy.take_operations().len(), 5, "the client does not retry by itself");
    }
}

/// Writes that conflict on an item are retried; callers do not see the conflict.
#[tokio::test(flavor = "multi_thread")]
async fn conflicting_writes_are_retried() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        env.proxy.next("PutItem", HttpFault::Respond(HttpResponse::json(400, CONFLICT)));
        env.write(vec![Mutation::Site(Box::new(site.clone()))]).await;
        assert_eq!(env.proxy.take_operations(), ["PutItem", "PutItem"]);
        env.proxy.next("TransactWriteItems", HttpFault::Respond(HttpResponse::json(400, CANCELLED)));
        env.write(vec![Mutation::RemoveSite(site.id.clone(), site.uid, 2)]).await;
        assert_eq!(env.proxy.take_operations(), ["GetItem", "TransactWriteItems", "TransactWriteItems"]);
        for _ in 0..5 {
            env.proxy.next("UpdateItem", HttpFault::Respond(HttpResponse::json(400, CONFLICT)));
        }
        let drawn = env.store.allocate_ids(&env.suite.cx().call(), 1).await;
        assert!(
            matches!(drawn, Outcome::NotApplied(WriteError::Store(StoreError::Unavailable(_)))),
            "{drawn:?}"
        );
    }
}

/// A call ends at its deadline, even if the server does not respond; a call after its deadline sends no request.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let never = Arc::new(Semaphore::new(0));
        let write = WriteBatch::of(vec![Mutation::Site(Box::new(site))]);
        env.proxy.next("PutItem", HttpFault::Hold(never));
        let deadline = env.suite.clock.monotonic().after(Duration::from_millis(200));
        let call = CallContext { deadline, ..env.suite.cx().call() };
        let late = env.store.write(&call, &write).await;
        assert!(matches!(late, Outcome::Unknown(WriteError::Store(StoreError::Unavailable(_)))), "{late:?}");
        env.proxy.take_operations();
        let event_batch = WriteBatch { events: vec![event("late")], ..write };
        let late = env.store.write(&call, &event_batch).await;
        assert!(
            matches!(late, Outcome::NotApplied(WriteError::Store(StoreError::Unavailable(_)))),
            "{late:?}"
        );
        assert_eq!(env.proxy.take_operations(), Vec::<String>::new());
    }
}

/// If the response to a draw is lost, its batch was certainly not written.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_draw_writes_nothing() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let event_batch = WriteBatch {
            events: vec![event("x")],
            ..WriteBatch::of(vec![Mutation::Site(Box::new(site.clone()))])
        };
        env.proxy.next("UpdateItem", HttpFault::LoseResponse);
        let lost = env.store.write(&env.suite.cx().call(), &event_batch).await;
        assert!(
            matches!(lost, Outcome::NotApplied(WriteError::Store(StoreError::Unavailable(_)))),
            "{lost:?}"
        );
        assert_eq!(env.store.site(&site.id).await.expect("a response").map(|site| site.version), Some(1));
    }
}

/// DynamoDB may return only a part of a batch read; the rest is requested again, unless nothing was returned.
#[tokio::test(flavor = "multi_thread")]
async fn unprocessed_keys_are_requested_again() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let unprocessed = |read: &str| {
            let keys = r#"{"Keys":[{"pk":{"S":"S#a"},"sk":{"S":"SITE"}}],"ConsistentRead":true}"#;
            let name = &env.name;
            format!(r#"{{"Responses":{{"{name}":[{read}]}},"UnprocessedKeys":{{"{name}":{keys}}}}}"#)
        };
        let another = r#"{"pk":{"S":"S#b"},"sk":{"S":"SITE"}}"#;
        env.proxy.next("BatchGetItem", HttpFault::Respond(HttpResponse::json(200, &unprocessed(another))));
        let page = env.store.sites(&SiteQuery::default(), None, 10).await.expect("a page");
        assert_eq!(page.items, [site]);
        env.proxy.next("BatchGetItem", HttpFault::Respond(HttpResponse::json(200, &unprocessed(""))));
        let page = env.store.sites(&SiteQuery::default(), None, 10).await;
        assert_eq!(page, Err(StoreError::Throttled));
    }
}

/// A batch that no store accepts is rejected before a request is sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_batch_is_rejected() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let write = || Mutation::Site(Box::new(site.clone()));
        let create = |id: &str, host: &str| {
            let hostnames = Hostnames::parse(&[host], host).expect("hostnames");
            Mutation::CreateSite(Box::new(Site { hostnames, ..fixtures::site(id) }))
        };
        // With its hostname each site is two items, and a transaction holds at most 100 items.
        let many = (0..60).map(|at| create(&format!("s{at}"), &format!("s{at}.example.org"))).collect();
        let call = env.suite.cx().call();
        for writes in [vec![write(), write()], (0..91).map(|_| write()).collect(), many] {
            let refused = env.store.write(&call, &WriteBatch::of(writes)).await;
            assert!(
                matches!(refused, Outcome::NotApplied(WriteError::Store(StoreError::Denied(_)))),
                "{refused:?}"
            );
        }
        let twice = vec![create("b", "same.example.org"), create("c", "same.example.org")];
        let refused = env.store.write(&call, &WriteBatch::of(twice)).await;
        assert!(matches!(refused, Outcome::NotApplied(WriteError::HostnameTaken { .. })), "{refused:?}");
        assert_eq!(env.proxy.take_operations(), Vec::<String>::new());

        let hostnames = Hostnames::parse(&["else.example.org"], "else.example.org").expect("hostnames");
        let moved = Mutation::Site(Box::new(Site { hostnames, ..site.clone() }));
        let refused = env.store.write(&call, &WriteBatch::of(vec![moved])).await;
        assert!(
            matches!(refused, Outcome::NotApplied(WriteError::Store(StoreError::Denied(_)))),
            "{refused:?}"
        );
        assert_eq!(env.store.site(&site.id).await, Ok(Some(site)));
    }
}

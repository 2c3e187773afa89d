//! The lifecycle of a site with each of its requests broken in each way: a client that repeats every call without an
//! outcome reaches the same final state, and nothing is done or recorded twice.

use cdm_core::domain::site::Claimed;
use cdm_core::domain::{
    AuditEntry, Canonical, Fingerprint, IdempotencyKey, Operation, OperationInput, OperationState, Site,
    Status, Subject, TerminalStatus,
};
use cdm_core::ports::{
    CallContext, Clock, FeedEvent, IdempotencyRecord, Journal, Mutation, Outcome, SiteRepository, WriteBatch,
    WriteError,
};
use cdm_testkit::fixtures;
use cdm_testkit::proxy::{HttpFault, HttpResponse};

use super::TestEnv;
use super::lost_responses::{claim, event, release_claim};

/// Maximum attempts of one call; a fault breaks one request only.
const MAX_ATTEMPTS: usize = 3;

const FAILED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"sorry"}"#;
const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slow down"}"#;

/// The records that the lifecycle leaves.
#[derive(Debug, PartialEq, Eq)]
struct Remaining {
    claimed: Option<u64>,
    is_there: bool,
    host_is_taken: bool,
    operation_is_kept: bool,
    events: Vec<String>,
    audits: usize,
    answer: Option<String>,
}

/// Repeats a call under one write id until its outcome is known.
async fn until_known<T>(env: &TestEnv, ask: impl AsyncFn(&CallContext) -> Outcome<T, WriteError>) -> T {
    let first = env.suite.cx().call();
    for _ in 0..MAX_ATTEMPTS {
        let call = CallContext { write: first.write, ..env.suite.cx().call() };
        match ask(&call).await {
            Outcome::Applied(value) => return value,
            Outcome::Unknown(_) | Outcome::NotApplied(WriteError::Store(_)) => {}
            Outcome::NotApplied(refused) => panic!("a repeated call is rejected: {refused:?}"),
        }
    }
    panic!("the outcome stays unknown")
}

async fn run_lifecycle(env: &TestEnv, id: &str) -> Remaining {
    let store = &env.store;
    let write =
        async |batch: WriteBatch| until_known(env, async |call| store.write(call, &batch).await).await;
    let site_event = |what: &str| -> FeedEvent { event(&format!("{id} {what}")) };
    let site = Site { uid: env.suite.cx().uid(), ..fixtures::site(id) };
    let key = IdempotencyKey::parse(id).expect("a key");
    let record = IdempotencyRecord {
        actor: fixtures::actor(),
        key: key.clone(),
        fingerprint: Fingerprint::of("site.create", id, &Canonical::new()),
        answer: "made".to_owned(),
        at: env.clock.wall(),
    };
    let entry = AuditEntry {
        at: fixtures::CREATED_AT,
        actor: fixtures::actor(),
        action: "site.create".into(),
        target: id.to_owned(),
        request_id: None,
        outcome: "accepted".into(),
        operation: None,
        rollout: None,
        address: None,
        count: 1,
    };
    write(WriteBatch {
        audit: Some(entry),
        idempotency: Some(record),
        events: vec![site_event("created")],
        ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))])
    })
    .await;
    write(WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 1, ..site.clone() }))])).await;
    let rollout = until_known(env, async |call| store.allocate_ids(call, 2).await).await;
    let (claim, complete) = (claim(&site, rollout, 1), release_claim(&site, rollout, 1));
    let claimed = until_known(env, async |call| store.claim(call, &claim).await).await;
    until_known(env, async |call| store.release_claim(call, &complete).await).await;
    let state = OperationState {
        status: Status::Ended(TerminalStatus::Succeeded),
        ..fixtures::operation(rollout, OperationInput::Terminate)
    };
    let ended = Operation::live(Subject::Site(site.id.clone()), state);
    write(WriteBatch {
        events: vec![site_event("ended"), site_event("gone")],
        ..WriteBatch::of(vec![
            // A second application of an earlier write would have raised the version.
            Mutation::RemoveSite(site.id.clone(), site.uid, 4),
            Mutation::History(Box::new(ended.clone())),
        ])
    })
    .await;

    // No further request is broken, and readers have waited for writers that do not return.
    env.skip_reader_wait();
    let events = store.events(None, 10_000).await.expect("events");
    let audit = store.audit(None, 10_000).await.expect("audit");
    let own_event =
        |(_, event): (u64, FeedEvent)| event.what.strip_prefix(&format!("{id} ")).map(ToOwned::to_owned);
    Remaining {
        claimed: match claimed {
            Claimed::Taken { version, .. } => Some(version),
            Claimed::FencedOff => None,
        },
        is_there: store.site(&site.id).await.expect("a response").is_some(),
        host_is_taken: store.hostname(site.hostnames.canonical()).await.expect("a response").is_some(),
        operation_is_kept: store.history(&ended.id).await.expect("history").as_ref() == Some(&ended),
        events: events.into_iter().filter_map(own_event).collect(),
        audits: audit.items.iter().filter(|entry| entry.target == id).count(),
        answer: store.idempotency(&fixtures::actor(), &key).await.expect("a key").map(|kept| kept.answer),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_may_fail() {
    for env in TestEnv::all().await {
        let whole = run_lifecycle(&env, "whole").await;
        let event_names = ["created", "ended", "gone"].map(ToOwned::to_owned).to_vec();
        let expected = Remaining {
            claimed: Some(3),
            is_there: false,
            host_is_taken: false,
            operation_is_kept: true,
            events: event_names,
            audits: 1,
            answer: Some("made".to_owned()),
        };
        assert_eq!(whole, expected);
        // The requests before the final reads: draw, create; change; allocate ids; claim; release; hostnames, draw,
        // remove.
        let requests =
            env.proxy.take_operations().iter().position(|seen| seen == "Query").expect("a read of the feed");
        assert_eq!(requests, 9);
        let faults = || {
            let fault_response = |status, body: &str| HttpFault::Respond(HttpResponse::json(status, body));
            [
                HttpFault::LoseResponse,
                HttpFault::LoseRequest,
                fault_response(500, FAILED),
                fault_response(400, THROTTLED),
            ]
        };
        for at in 0..requests {
            for (which, fault) in faults().into_iter().enumerate() {
                env.proxy.plan(at as u64, fault.clone());
                let broken = run_lifecycle(&env, &format!("broken-{at}-{which}")).await;
                assert!(env.proxy.fired(), "the fault did not occur: {fault:?} at request {at}");
                assert_eq!(broken, expected, "{fault:?} at request {at}");
            }
        }
    }
}

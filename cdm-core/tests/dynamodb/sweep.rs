//! A site's life with each of its requests broken in each way: whoever repeats what he has no answer to comes to the same
//! end, and nothing is done or told twice.

use cdm_core::domain::site::Claimed;
use cdm_core::domain::{
    AuditEntry, Canonical, Fingerprint, IdempotencyKey, Operation, OperationInput, OperationState, Site,
    Status, Subject, TerminalStatus,
};
use cdm_core::ports::{
    CallContext, Clock, FeedEvent, IdempotencyRecord, Journal, Mutation, Outcome, SiteRepository, WriteBatch,
    WriteError,
};
use cdm_testkit::build;

use super::Lab;
use super::lost::{claim, event, release_claim};
use super::proxy::Fault;

/// How often one call is repeated; a fault breaks one request only.
const TRIES: usize = 3;

const FAILED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"sorry"}"#;
const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slow down"}"#;

/// What a life leaves.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    claimed: Option<u64>,
    is_there: bool,
    host_is_taken: bool,
    operation_is_kept: bool,
    events: Vec<String>,
    audits: usize,
    answer: Option<String>,
}

/// Asks under one write id until there is an answer.
async fn sure<T>(lab: &Lab, ask: impl AsyncFn(&CallContext) -> Outcome<T, WriteError>) -> T {
    let first = lab.bench.cx().call();
    for _ in 0..TRIES {
        let call = CallContext { write: first.write, ..lab.bench.cx().call() };
        match ask(&call).await {
            Outcome::Applied(value) => return value,
            Outcome::Unknown(_) | Outcome::NotApplied(WriteError::Store(_)) => {}
            Outcome::NotApplied(refused) => panic!("a repetition is refused: {refused:?}"),
        }
    }
    panic!("there is no answer")
}

async fn live(lab: &Lab, id: &str) -> Left {
    let store = &lab.store;
    let write = async |batch: WriteBatch| sure(lab, async |call| store.write(call, &batch).await).await;
    let tell = |what: &str| -> FeedEvent { event(&format!("{id} {what}")) };
    let site = Site { uid: lab.bench.cx().uid(), ..build::site(id) };
    let key = IdempotencyKey::parse(id).expect("a key");
    let record = IdempotencyRecord {
        actor: build::actor(),
        key: key.clone(),
        fingerprint: Fingerprint::of("site.create", id, &Canonical::new()),
        answer: "made".to_owned(),
        at: lab.clock.wall(),
    };
    let entry = AuditEntry {
        at: build::BORN,
        actor: build::actor(),
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
        events: vec![tell("created")],
        ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))])
    })
    .await;
    write(WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 1, ..site.clone() }))])).await;
    let rollout = sure(lab, async |call| store.allocate_ids(call, 2).await).await;
    let (claim, complete) = (claim(&site, rollout, 1), release_claim(&site, rollout, 1));
    let claimed = sure(lab, async |call| store.claim(call, &claim).await).await;
    sure(lab, async |call| store.release_claim(call, &complete).await).await;
    let state = OperationState {
        status: Status::Ended(TerminalStatus::Succeeded),
        ..build::operation(rollout, OperationInput::Terminate)
    };
    let ended = Operation::live(Subject::Site(site.id.clone()), state);
    write(WriteBatch {
        events: vec![tell("ended"), tell("gone")],
        ..WriteBatch::of(vec![
            // Whatever was done twice before would have made it another version.
            Mutation::RemoveSite(site.id.clone(), site.uid, 4),
            Mutation::History(Box::new(ended.clone())),
        ])
    })
    .await;

    // Nothing breaks any more, and readers have waited for whoever does not come.
    lab.wait_a_while();
    let events = store.events(None, 10_000).await.expect("events");
    let audit = store.audit(None, 10_000).await.expect("audit");
    let mine =
        |(_, event): (u64, FeedEvent)| event.what.strip_prefix(&format!("{id} ")).map(ToOwned::to_owned);
    Left {
        claimed: match claimed {
            Claimed::Taken { version, .. } => Some(version),
            Claimed::FencedOff => None,
        },
        is_there: store.site(&site.id).await.expect("an answer").is_some(),
        host_is_taken: store.hostname(site.hostnames.canonical()).await.expect("an answer").is_some(),
        operation_is_kept: store.history(&ended.id).await.expect("history").as_ref() == Some(&ended),
        events: events.into_iter().filter_map(mine).collect(),
        audits: audit.items.iter().filter(|entry| entry.target == id).count(),
        answer: store.idempotency(&build::actor(), &key).await.expect("a key").map(|kept| kept.answer),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_may_break() {
    for lab in Lab::all().await {
        let whole = live(&lab, "whole").await;
        let told = ["created", "ended", "gone"].map(ToOwned::to_owned).to_vec();
        let expected = Left {
            claimed: Some(3),
            is_there: false,
            host_is_taken: false,
            operation_is_kept: true,
            events: told,
            audits: 1,
            answer: Some("made".to_owned()),
        };
        assert_eq!(whole, expected);
        // Up to the reads at its end: draw, create; change; numbers; claim; complete; hostnames, draw, remove.
        let requests = lab.proxy.seen().iter().position(|seen| seen == "Query").expect("a read of the feed");
        assert_eq!(requests, 9);
        let faults = || {
            let answer = |status, body: &str| Fault::Answer(status, body.to_owned());
            [Fault::LoseAnswer, Fault::LoseRequest, answer(500, FAILED), answer(400, THROTTLED)]
        };
        for at in 0..requests {
            for (which, fault) in faults().into_iter().enumerate() {
                lab.proxy.after(at, fault.clone());
                let broken = live(&lab, &format!("broken-{at}-{which}")).await;
                assert!(!lab.proxy.is_armed(), "the fault has happened: {fault:?} at request {at}");
                assert_eq!(broken, expected, "{fault:?} at request {at}");
            }
        }
    }
}

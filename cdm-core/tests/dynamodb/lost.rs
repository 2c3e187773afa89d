//! An answer that is lost: the same write is asked for again, is known for its own, and leaves one trace.

use cdm_core::adapters::dynamodb::DynamoTokens;
use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::site::{Claim, ClaimIntent, Claimed, ReleaseClaim};
use cdm_core::domain::{Actor, Operation, Role, TerminalStatus, TokenHash, WorkerId};
use cdm_core::domain::{
    ClaimToken, Color, Direction, Fence, OperationId, OperationInput, RolloutKind, Site, Status, Subject,
    Token,
};
use cdm_core::ports::{FeedEvent, Journal, Mutation, Outcome, SiteRepository, TokenStore, WriteBatch};
use cdm_testkit::build;

use super::Lab;
use super::proxy::Fault;

pub(super) fn claim(site: &Site, rollout: u64, term: u64) -> Claim {
    Claim {
        id: site.id.clone(),
        uid: site.uid,
        claim_token: ClaimToken { rollout, direction: Direction::Forward, term },
        intent: ClaimIntent::Promote(Color::Green),
        ordinal: 0,
        number: rollout + 1,
        owner: WorkerId::new(&format!("worker-{term}")),
        requested_by: build::actor(),
        at: site.updated_at,
    }
}

pub(super) fn release_claim(site: &Site, rollout: u64, term: u64) -> ReleaseClaim {
    ReleaseClaim {
        id: site.id.clone(),
        claim_token: ClaimToken { rollout, direction: Direction::Forward, term },
        fence: Fence::new(rollout + 1, 1),
        outcome: Some(MemberOutcome::Moved),
        digest: None,
        service: Some(Color::Green),
        route: None,
        at: site.updated_at,
    }
}

pub(super) fn event(what: &str) -> FeedEvent {
    FeedEvent { at: build::BORN, subject: None, operation: None, rollout: Some(7), what: what.to_owned() }
}

/// What became of a batch whose request of that kind lost its answer, and of its repetition.
async fn twice(lab: &Lab, operation: &'static str, batch: &WriteBatch) {
    let call = lab.bench.cx().call();
    lab.proxy.next(operation, Fault::LoseAnswer);
    let first = lab.store.write(&call, batch).await;
    assert!(matches!(first, Outcome::Unknown(_)), "a lost answer is no answer: {first:?}");
    assert_eq!(lab.store.write(&call, batch).await, Outcome::Applied(()), "its own write is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_and_its_end_are_known_for_their_own() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let rollout = lab.number().await;
        let (call, claim) = (lab.bench.cx().call(), claim(&site, rollout, 1));
        lab.proxy.next("UpdateItem", Fault::LoseAnswer);
        assert!(matches!(lab.store.claim(&call, &claim).await, Outcome::Unknown(_)));
        let again = lab.store.claim(&call, &claim).await;
        assert!(matches!(again, Outcome::Applied(Claimed::Taken { epoch: 1, version: 2, .. })), "{again:?}");

        let (call, complete) = (lab.bench.cx().call(), release_claim(&site, rollout, 1));
        lab.proxy.next("UpdateItem", Fault::LoseAnswer);
        assert!(matches!(lab.store.release_claim(&call, &complete).await, Outcome::Unknown(_)));
        assert_eq!(lab.store.release_claim(&call, &complete).await, Outcome::Applied(()));
        let read = lab.store.site(&site.id).await.expect("an answer").expect("a site");
        assert_eq!((read.version, read.service, read.operation), (3, Color::Green, None));
    }
}

/// A take-over is decided on what was read, and written over that.
#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_is_known_for_its_own() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let rollout = lab.number().await;
        let first = lab.store.claim(&lab.bench.cx().call(), &claim(&site, rollout, 1)).await;
        assert!(matches!(first, Outcome::Applied(Claimed::Taken { .. })));
        let (call, over) =
            (lab.bench.cx().call(), Claim { intent: ClaimIntent::Recover, ..claim(&site, rollout, 2) });
        lab.proxy.next("PutItem", Fault::LoseAnswer);
        assert!(matches!(lab.store.claim(&call, &over).await, Outcome::Unknown(_)));
        let again = lab.store.claim(&call, &over).await;
        assert!(matches!(again, Outcome::Applied(Claimed::Taken { epoch: 2, version: 3, .. })), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_known_for_its_own() {
    for lab in Lab::all().await {
        let site = Site { uid: lab.bench.cx().uid(), ..build::site("a") };
        let create = WriteBatch {
            events: vec![event("created")],
            ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))])
        };
        twice(&lab, "TransactWriteItems", &create).await;
        let alone = WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 1, ..site.clone() }))]);
        twice(&lab, "PutItem", &alone).await;
        let rollout = build::rollout(lab.number().await, RolloutKind::Flush, Color::Blue, 1);
        let many = WriteBatch {
            events: vec![event("changed"), event("twice")],
            ..WriteBatch::of(vec![
                Mutation::Site(Box::new(Site { version: 2, ..site.clone() })),
                Mutation::CreateRollout(Box::new(rollout.clone())),
                Mutation::RolloutPage(build::page(rollout.number, 0, std::slice::from_ref(&site))),
            ])
        };
        twice(&lab, "TransactWriteItems", &many).await;
        assert_eq!(lab.store.site(&site.id).await.expect("an answer").map(|site| site.version), Some(3));
        let remove = WriteBatch {
            events: vec![event("removed")],
            ..WriteBatch::of(vec![Mutation::RemoveSite(site.id.clone(), site.uid, 3)])
        };
        twice(&lab, "TransactWriteItems", &remove).await;
        assert_eq!(lab.store.hostname(site.hostnames.canonical()).await, Ok(None));
        let events = lab.store.events(None, 100).await.expect("events");
        let told: Vec<&str> = events.iter().map(|(_, event)| event.what.as_str()).collect();
        assert_eq!(told, ["created", "changed", "twice", "removed"], "each is told once");
    }
}

/// Records without a version are told apart by whose write they are.
#[tokio::test(flavor = "multi_thread")]
async fn history_and_pages_are_known_for_their_own() {
    for lab in Lab::all().await {
        let site = lab.site("a").await;
        let number = lab.number().await;
        let operation = cdm_core::domain::OperationState {
            status: Status::Ended(TerminalStatus::Succeeded),
            ..build::operation(number, OperationInput::Create)
        };
        let ended = Operation {
            finished_at: Some(build::BORN),
            ..Operation::live(Subject::Site(site.id.clone()), operation)
        };
        let batch = |ended: &Operation| WriteBatch {
            events: vec![event("ended")],
            ..WriteBatch::of(vec![Mutation::History(Box::new(ended.clone()))])
        };
        twice(&lab, "TransactWriteItems", &batch(&ended)).await;
        let other = Operation { finished_at: None, ..ended.clone() };
        let late = lab.store.write(&lab.bench.cx().call(), &WriteBatch::of(batch(&other).writes)).await;
        assert_eq!(late, Outcome::Applied(()));
        let kept = lab.store.history(&OperationId::on(number, Subject::Site(site.id.clone()))).await;
        assert_eq!(kept, Ok(Some(ended)), "what became of an operation does not change");

        let page = build::page(number + 1, 0, std::slice::from_ref(&site));
        let batch =
            WriteBatch { events: vec![event("page")], ..WriteBatch::of(vec![Mutation::RolloutPage(page)]) };
        twice(&lab, "TransactWriteItems", &batch).await;
        let told = lab.store.events(None, 100).await.expect("events");
        assert_eq!(told.iter().map(|(_, event)| event.what.as_str()).collect::<Vec<_>>(), ["ended", "page"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_known_for_its_own() {
    for lab in Lab::all().await {
        let tokens = DynamoTokens::new(lab.table.clone());
        let id = lab.bench.cx().uid();
        let name = Actor::parse("someone").expect("a name");
        let token = Token {
            id,
            name: name.clone(),
            role: Role::Viewer,
            hash: TokenHash([7; 32]),
            loopback_only: false,
            created_by: name,
            created_at: build::BORN,
            expires_at: None,
            revoked_at: None,
        };
        let call = lab.bench.cx().call();
        lab.proxy.next("TransactWriteItems", Fault::LoseAnswer);
        assert!(matches!(tokens.create(&call, &token).await, Outcome::Unknown(_)));
        assert_eq!(tokens.create(&call, &token).await, Outcome::Applied(()));
        lab.proxy.next("UpdateItem", Fault::LoseAnswer);
        assert!(matches!(tokens.revoke(&call, id, build::BORN).await, Outcome::Unknown(_)));
        let revoked = Token { revoked_at: Some(build::BORN), ..token };
        assert_eq!(tokens.revoke(&call, id, build::BORN).await, Outcome::Applied(revoked));
    }
}

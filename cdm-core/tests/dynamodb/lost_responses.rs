//! Lost responses: the repeated write is recognized as the same write, and is applied once.

use cdm_core::adapters::dynamodb::DynamoTokens;
use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::site::{Claim, ClaimIntent, Claimed, ReleaseClaim};
use cdm_core::domain::{Actor, Epoch, Operation, Role, Term, TerminalStatus, TokenHash, WorkerId};
use cdm_core::domain::{
    ClaimToken, Color, Direction, Fence, OperationId, OperationInput, RolloutKind, Site, Status, Subject,
    Token,
};
use cdm_core::ports::{FeedEvent, Journal, Mutation, Outcome, SiteRepository, TokenStore, WriteBatch};
use cdm_testkit::fixtures;
use cdm_testkit::proxy::HttpFault;

use super::TestEnv;

pub(super) fn claim(site: &Site, rollout: u64, term: u64) -> Claim {
    Claim {
        id: site.id.clone(),
        uid: site.uid,
        claim_token: ClaimToken { rollout, direction: Direction::Forward, term: Term(term) },
        intent: ClaimIntent::Promote(Color::Green),
        ordinal: 0,
        number: rollout + 1,
        owner: WorkerId::new(&format!("worker-{term}")),
        requested_by: fixtures::actor(),
        at: site.updated_at,
    }
}

pub(super) fn release_claim(site: &Site, rollout: u64, term: u64) -> ReleaseClaim {
    ReleaseClaim {
        id: site.id.clone(),
        claim_token: ClaimToken { rollout, direction: Direction::Forward, term: Term(term) },
        fence: Fence::new(rollout + 1, Epoch(1)),
        outcome: Some(MemberOutcome::Moved),
        digest: None,
        service: Some(Color::Green),
        route: None,
        at: site.updated_at,
    }
}

pub(super) fn event(what: &str) -> FeedEvent {
    FeedEvent {
        at: fixtures::CREATED_AT,
        subject: None,
        operation: None,
        rollout: Some(7),
        what: what.to_owned(),
    }
}

/// Writes a batch whose request of that kind loses its response, and repeats it.
async fn twice(env: &TestEnv, operation: &'static str, batch: &WriteBatch) {
    let call = env.suite.cx().call();
    env.proxy.next(operation, HttpFault::LoseResponse);
    let first = env.store.write(&call, batch).await;
    assert!(matches!(first, Outcome::Unknown(_)), "a lost response has an unknown outcome: {first:?}");
    assert_eq!(env.store.write(&call, batch).await, Outcome::Applied(()), "the repeated write is recognized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_claim_and_release_are_recognized() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let rollout = env.number().await;
        let (call, claim) = (env.suite.cx().call(), claim(&site, rollout, 1));
        env.proxy.next("UpdateItem", HttpFault::LoseResponse);
        assert!(matches!(env.store.claim(&call, &claim).await, Outcome::Unknown(_)));
        let again = env.store.claim(&call, &claim).await;
        assert!(
            matches!(again, Outcome::Applied(Claimed::Taken { epoch: Epoch(1), version: 2, .. })),
            "{again:?}"
        );

        let (call, complete) = (env.suite.cx().call(), release_claim(&site, rollout, 1));
        env.proxy.next("UpdateItem", HttpFault::LoseResponse);
        assert!(matches!(env.store.release_claim(&call, &complete).await, Outcome::Unknown(_)));
        assert_eq!(env.store.release_claim(&call, &complete).await, Outcome::Applied(()));
        let read = env.store.site(&site.id).await.expect("a response").expect("a site");
        assert_eq!((read.version, read.service, read.operation), (3, Color::Green, None));
    }
}

/// A takeover is decided on the state that was read, and written conditionally on that state.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_takeover_is_recognized() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let rollout = env.number().await;
        let first = env.store.claim(&env.suite.cx().call(), &claim(&site, rollout, 1)).await;
        assert!(matches!(first, Outcome::Applied(Claimed::Taken { .. })));
        let (call, over) =
            (env.suite.cx().call(), Claim { intent: ClaimIntent::Recover, ..claim(&site, rollout, 2) });
        env.proxy.next("PutItem", HttpFault::LoseResponse);
        assert!(matches!(env.store.claim(&call, &over).await, Outcome::Unknown(_)));
        let again = env.store.claim(&call, &over).await;
        assert!(
            matches!(again, Outcome::Applied(Claimed::Taken { epoch: Epoch(2), version: 3, .. })),
            "{again:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_write_is_recognized() {
    for env in TestEnv::all().await {
        let site = Site { uid: env.suite.cx().uid(), ..fixtures::site("a") };
        let create = WriteBatch {
            events: vec![event("created")],
            ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(site.clone()))])
        };
        twice(&env, "TransactWriteItems", &create).await;
        let alone = WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 1, ..site.clone() }))]);
        twice(&env, "PutItem", &alone).await;
        let rollout = fixtures::rollout(env.number().await, RolloutKind::Flush, Color::Blue, 1);
        let many = WriteBatch {
            events: vec![event("changed"), event("twice")],
            ..WriteBatch::of(vec![
                Mutation::Site(Box::new(Site { version: 2, ..site.clone() })),
                Mutation::CreateRollout(Box::new(rollout.clone())),
                Mutation::RolloutPage(fixtures::page(rollout.number, 0, std::slice::from_ref(&site))),
            ])
        };
        twice(&env, "TransactWriteItems", &many).await;
        assert_eq!(env.store.site(&site.id).await.expect("a response").map(|site| site.version), Some(3));
        let remove = WriteBatch {
            events: vec![event("removed")],
            ..WriteBatch::of(vec![Mutation::RemoveSite(site.id.clone(), site.uid, 3)])
        };
        twice(&env, "TransactWriteItems", &remove).await;
        assert_eq!(env.store.hostname(site.hostnames.canonical()).await, Ok(None));
        let events = env.store.events(None, 100).await.expect("events");
        let events_read: Vec<&str> = events.iter().map(|(_, event)| event.what.as_str()).collect();
        assert_eq!(events_read, ["created", "changed", "twice", "removed"], "each event occurs once");
    }
}

/// Records without a version are recognized by the id of their last write.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_writes_of_history_and_pages_are_recognized() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let number = env.number().await;
        let operation = cdm_core::domain::OperationState {
            status: Status::Ended(TerminalStatus::Succeeded),
            ..fixtures::operation(number, OperationInput::Create)
        };
        let ended = Operation {
            finished_at: Some(fixtures::CREATED_AT),
            ..Operation::live(Subject::Site(site.id.clone()), operation)
        };
        let batch = |ended: &Operation| WriteBatch {
            events: vec![event("ended")],
            ..WriteBatch::of(vec![Mutation::History(Box::new(ended.clone()))])
        };
        twice(&env, "TransactWriteItems", &batch(&ended)).await;
        let other = Operation { finished_at: None, ..ended.clone() };
        let late = env.store.write(&env.suite.cx().call(), &WriteBatch::of(batch(&other).writes)).await;
        assert_eq!(late, Outcome::Applied(()));
        let kept = env.store.history(&OperationId::on(number, Subject::Site(site.id.clone()))).await;
        assert_eq!(kept, Ok(Some(ended)), "the outcome of an operation does not change");

        let page = fixtures::page(number + 1, 0, std::slice::from_ref(&site));
        let batch =
            WriteBatch { events: vec![event("page")], ..WriteBatch::of(vec![Mutation::RolloutPage(page)]) };
        twice(&env, "TransactWriteItems", &batch).await;
        let events_read = env.store.events(None, 100).await.expect("events");
        assert_eq!(
            events_read.iter().map(|(_, event)| event.what.as_str()).collect::<Vec<_>>(),
            ["ended", "page"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_create_of_a_token_is_recognized() {
    for env in TestEnv::all().await {
        let tokens = DynamoTokens::new(env.table.clone());
        let id = env.suite.cx().uid();
        let name = Actor::parse("someone").expect("a name");
        let token = Token {
            id,
            name: name.clone(),
            role: Role::Viewer,
            hash: TokenHash([7; 32]),
            loopback_only: false,
            created_by: name,
            created_at: fixtures::CREATED_AT,
            expires_at: None,
            revoked_at: None,
        };
        let call = env.suite.cx().call();
        env.proxy.next("TransactWriteItems", HttpFault::LoseResponse);
        assert!(matches!(tokens.create(&call, &token).await, Outcome::Unknown(_)));
        assert_eq!(tokens.create(&call, &token).await, Outcome::Applied(()));
        env.proxy.next("UpdateItem", HttpFault::LoseResponse);
        assert!(matches!(tokens.revoke(&call, id, fixtures::CREATED_AT).await, Outcome::Unknown(_)));
        let revoked = Token { revoked_at: Some(fixtures::CREATED_AT), ..token };
        assert_eq!(tokens.revoke(&call, id, fixtures::CREATED_AT).await, Outcome::Applied(revoked));
    }
}

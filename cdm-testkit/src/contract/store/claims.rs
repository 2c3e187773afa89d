//! How the owner of a rollout claims and releases sites, and how an owner that lost the rollout is fenced off.

use cdm_core::domain::operation::Move;
use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::site::{Claim, ClaimIntent, ClaimRefused, Claimed, LastOutcome, ReleaseClaim};
use cdm_core::domain::{
    ClaimToken, Color, Direction, Epoch, Fence, OperationInput, Phase, Routed, Site, Term,
};
use cdm_core::ports::{Store, WriteError};

use super::super::SuiteContext;
use super::env::{TestEnv, applied, provision, rejected};

/// A claim stores its operation in one write, and a repetition returns the same result.
pub async fn a_claim_takes_a_site(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut site = env.site("a");
    site.route = Some(Routed { service: Color::Blue, fence: Fence::new(1, Epoch(1)) });
    let site = env.create(site).await;
    let run = env.run().await;
    let (call, claim) = (env.call(), run.claim(&site, 1, ClaimIntent::Promote(Color::Green)));
    let course = Move { from: Color::Blue, to: Color::Green, routed: Color::Blue };
    let taken = Claimed::Taken { course, route: site.route, epoch: Epoch(1), version: site.version + 1 };
    assert_eq!(applied("a claim", store.claim(&call, &claim).await), taken, "a claim takes a free site");
    let mut expected = site.clone();
    expected.claim(&claim).expect("the domain takes a free site");
    expected.version += 1;
    assert_eq!(
        env.read(&site.id).await.as_ref(),
        Some(&expected),
        "a claim writes what the domain decides, once"
    );
    assert_eq!(
        applied("a repeated claim", store.claim(&call, &claim).await),
        taken,
        "a repetition returns the same result"
    );
    assert_eq!(env.read(&site.id).await.as_ref(), Some(&expected), "a repeated claim writes nothing");
    let (call, complete) = (env.call(), run.release_claim(&site, 1, 1));
    for _ in 0..2 {
        applied("a release, also repeated", store.release_claim(&call, &complete).await);
    }
    expected.release_claim(&complete).expect("the domain releases a claimed site");
    expected.version += 1;
    let last_outcome = Some(LastOutcome {
        rollout: run.rollout,
        direction: Direction::Forward,
        outcome: MemberOutcome::Moved,
        digest: complete.digest,
    });
    assert_eq!((expected.last_outcome, expected.service), (last_outcome, Color::Green));
    assert_eq!(env.read(&site.id).await, Some(expected), "a release writes what the domain decides, once");
    let again = rejected("a release of a released site", store.release_claim(&env.call(), &complete).await);
    assert_eq!(again, WriteError::Claim(ClaimRefused::Fenced), "a claim is released once");
}

/// The next owner takes over a site, and the lost owner can neither claim nor release it.
pub async fn a_take_over_fences_the_lost_owner(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let site = env.create(env.site("a")).await;
    let run = env.run().await;
    let intent = ClaimIntent::Upgrade(Color::Green);
    applied("a claim", store.claim(&env.call(), &run.claim(&site, 1, intent)).await);
    let over =
        applied("a take-over", store.claim(&env.call(), &run.claim(&site, 2, ClaimIntent::Recover)).await);
    assert!(
        matches!(over, Claimed::Taken { epoch: Epoch(2), version: 3, .. }),
        "a take-over raises the epoch: {over:?}"
    );
    let before = env.read(&site.id).await;
    let lost = rejected(
        "the lost owner's release",
        store.release_claim(&env.call(), &run.release_claim(&site, 1, 1)).await,
    );
    assert_eq!(lost, WriteError::Claim(ClaimRefused::Fenced), "an old fence releases nothing");
    let lost = rejected(
        "an old epoch's release",
        store.release_claim(&env.call(), &run.release_claim(&site, 2, 1)).await,
    );
    assert_eq!(lost, WriteError::Claim(ClaimRefused::Fenced), "an old epoch releases nothing");
    let lost =
        rejected("the lost owner's claim", store.claim(&env.call(), &run.claim(&site, 1, intent)).await);
    assert_eq!(lost, WriteError::Claim(ClaimRefused::Fenced), "a lower term claims nothing");
    assert_eq!(env.read(&site.id).await, before, "rejections write nothing");
    let undone = ReleaseClaim { outcome: None, service: None, route: None, ..run.release_claim(&site, 2, 2) };
    applied("the owner's release", store.release_claim(&env.call(), &undone).await);
    let again = applied("a claim", store.claim(&env.call(), &run.claim(&site, 2, intent)).await);
    assert!(
        matches!(again, Claimed::Taken { .. }),
        "a site released without an outcome can be claimed again"
    );
}

/// Each rejection of a claim has its reason, and writes nothing.
pub async fn a_claim_is_rejected(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let run = env.run().await;
    let intent = ClaimIntent::Upgrade(Color::Green);
    let reject = async |site: &Site, claim: &Claim, why: ClaimRefused| {
        let before = env.read(&site.id).await;
        let rejection = rejected("a claim", store.claim(&env.call(), claim).await);
        assert_eq!(rejection, WriteError::Claim(why), "a claim is rejected with its reason");
        assert_eq!(env.read(&site.id).await, before, "a rejected claim writes nothing");
    };
    let absent = env.site("absent");
    reject(&absent, &run.claim(&absent, 1, intent), ClaimRefused::Gone).await;
    let gone = rejected("no site", store.release_claim(&env.call(), &run.release_claim(&absent, 1, 1)).await);
    assert_eq!(gone, WriteError::Claim(ClaimRefused::Gone), "a missing site cannot be released");

    let site = env.create(env.site("a")).await;
    let mut other = run.claim(&site, 1, intent);
    other.uid = env.site("a").uid;
    reject(&site, &other, ClaimRefused::Gone).await;

    let inactive = env.create(Site { phase: Phase::Created, ..env.site("inactive") }).await;
    reject(&inactive, &run.claim(&inactive, 1, intent), ClaimRefused::NotActive).await;

    let busy = Site { operation: Some(env.operation(provision()).await), ..env.site("busy") };
    let busy = env.create(busy).await;
    reject(&busy, &run.claim(&busy, 1, intent), ClaimRefused::Busy).await;

    let ending =
        Site { operation: Some(env.operation(OperationInput::Terminate).await), ..env.site("ending") };
    let ending = env.create(ending).await;
    reject(&ending, &run.claim(&ending, 1, intent), ClaimRefused::Gone).await;

    let current = ClaimToken { rollout: run.rollout, direction: Direction::Rollback, term: Term(1) };
    let fenced = env.create(Site { claim_token: current, ..env.site("fenced") }).await;
    reject(&fenced, &run.claim(&fenced, 9, intent), ClaimRefused::Fenced).await;
}

/// A site with an outcome reports it to the next owner, and fences off the previous owner.
pub async fn a_settled_site_reports_its_outcome(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let site = env.create(env.site("a")).await;
    let run = env.run().await;
    let intent = ClaimIntent::Promote(Color::Green);
    applied("a claim", store.claim(&env.call(), &run.claim(&site, 1, intent)).await);
    applied("a release", store.release_claim(&env.call(), &run.release_claim(&site, 1, 1)).await);
    let version = env.version(&site.id).await;
    let call = env.call();
    for _ in 0..2 {
        let rejection = rejected("a settled site", store.claim(&call, &run.claim(&site, 2, intent)).await);
        assert_eq!(
            rejection,
            WriteError::Claim(ClaimRefused::AlreadyResolved(
                MemberOutcome::Moved,
                run.release_claim(&site, 1, 1).digest
            )),
            "a settled site reports its outcome"
        );
    }
    let after = env.read(&site.id).await.expect("a settled site stays");
    assert_eq!(after.claim_token, run.claim_token(2), "the response has raised the claim token");
    assert_eq!(after.version, version + 1, "raising the claim token is one write");
    let late = rejected("the previous owner", store.claim(&env.call(), &run.claim(&site, 1, intent)).await);
    assert_eq!(late, WriteError::Claim(ClaimRefused::Fenced), "the previous owner is fenced off");
}

/// Recovering a site without an operation prevents the lost owner from starting one.
pub async fn recovery_fences_off_a_lost_owner(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let run = env.run().await;
    let intent = ClaimIntent::Promote(Color::Green);
    let busy = Site { operation: Some(env.operation(provision()).await), ..env.site("busy") };
    for site in [env.site("free"), busy] {
        let site = env.create(site).await;
        let call = env.call();
        for _ in 0..2 {
            let recovered =
                applied("recovery", store.claim(&call, &run.claim(&site, 2, ClaimIntent::Recover)).await);
            assert_eq!(recovered, Claimed::FencedOff, "recovery finds no operation");
        }
        let after = env.read(&site.id).await.expect("a fenced site stays");
        let expected = Site { claim_token: run.claim_token(2), version: site.version + 1, ..site.clone() };
        assert_eq!(after, expected, "recovery raises the claim token and nothing else, in one write");
        let late = rejected("the lost owner", store.claim(&env.call(), &run.claim(&site, 1, intent)).await);
        assert_eq!(late, WriteError::Claim(ClaimRefused::Fenced), "the lost owner is fenced off");
        if site.operation.is_none() {
            let taken = applied("the owner", store.claim(&env.call(), &run.claim(&site, 2, intent)).await);
            assert!(
                matches!(taken, Claimed::Taken { epoch: Epoch(1), .. }),
                "the owner still claims it: {taken:?}"
            );
        }
    }
}

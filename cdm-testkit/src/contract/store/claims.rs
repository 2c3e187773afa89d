//! How a rollout's owner takes sites and lets go of them, and how a lost owner is kept out.

use cdm_core::domain::operation::Move;
use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::site::{Claim, ClaimIntent, ClaimRefused, Claimed, LastOutcome, ReleaseClaim};
use cdm_core::domain::{ClaimToken, Color, Direction, Fence, OperationInput, Phase, Routed, Site};
use cdm_core::ports::{Store, WriteError};

use super::super::Cx;
use super::scene::{Scene, applied, provision, refused};

/// A claim puts its operation in place in one write, and a repetition is answered alike.
pub async fn a_claim_takes_a_site(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut site = scene.site("a");
    site.route = Some(Routed { service: Color::Blue, fence: Fence::new(1, 1) });
    let site = scene.create(site).await;
    let run = scene.run().await;
    let (call, claim) = (scene.call(), run.claim(&site, 1, ClaimIntent::Promote(Color::Green)));
    let course = Move { from: Color::Blue, to: Color::Green, routed: Color::Blue };
    let taken = Claimed::Taken { course, route: site.route, epoch: 1, version: site.version + 1 };
    assert_eq!(applied("a claim", store.claim(&call, &claim).await), taken, "a claim takes a free site");
    let mut expected = site.clone();
    expected.claim(&claim).expect("the domain takes a free site");
    expected.version += 1;
    assert_eq!(
        scene.read(&site.id).await.as_ref(),
        Some(&expected),
        "a claim writes what the domain decides, once"
    );
    assert_eq!(
        applied("a repeated claim", store.claim(&call, &claim).await),
        taken,
        "a repetition is answered alike"
    );
    assert_eq!(scene.read(&site.id).await.as_ref(), Some(&expected), "a repeated claim writes nothing");
    let (call, complete) = (scene.call(), run.release_claim(&site, 1, 1));
    for _ in 0..2 {
        applied("a completion, also repeated", store.release_claim(&call, &complete).await);
    }
    expected.release_claim(&complete).expect("the domain lets a claimed site go");
    expected.version += 1;
    let last_outcome = Some(LastOutcome {
        rollout: run.rollout,
        direction: Direction::Forward,
        outcome: MemberOutcome::Moved,
        digest: complete.digest,
    });
    assert_eq!((expected.last_outcome, expected.service), (last_outcome, Color::Green));
    assert_eq!(
        scene.read(&site.id).await,
        Some(expected),
        "a completion writes what the domain decides, once"
    );
    let again =
        refused("a completion of what was let go", store.release_claim(&scene.call(), &complete).await);
    assert_eq!(again, WriteError::Claim(ClaimRefused::Fenced), "a claim is let go once");
}

/// The next owner takes a site over, and the lost one neither claims nor completes.
pub async fn a_take_over_fences_the_lost_owner(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let run = scene.run().await;
    let intent = ClaimIntent::Upgrade(Color::Green);
    applied("a claim", store.claim(&scene.call(), &run.claim(&site, 1, intent)).await);
    let over =
        applied("a take-over", store.claim(&scene.call(), &run.claim(&site, 2, ClaimIntent::Recover)).await);
    assert!(
        matches!(over, Claimed::Taken { epoch: 2, version: 3, .. }),
        "a take-over raises the epoch: {over:?}"
    );
    let before = scene.read(&site.id).await;
    let lost = refused(
        "the lost owner's completion",
        store.release_claim(&scene.call(), &run.release_claim(&site, 1, 1)).await,
    );
    assert_eq!(lost, WriteError::Claim(ClaimRefused::Fenced), "an old fence lets nothing go");
    let lost = refused(
        "an old epoch's completion",
        store.release_claim(&scene.call(), &run.release_claim(&site, 2, 1)).await,
    );
    assert_eq!(lost, WriteError::Claim(ClaimRefused::Fenced), "an old epoch lets nothing go");
    let lost =
        refused("the lost owner's claim", store.claim(&scene.call(), &run.claim(&site, 1, intent)).await);
    assert_eq!(lost, WriteError::Claim(ClaimRefused::Fenced), "a lower grant claims nothing");
    assert_eq!(scene.read(&site.id).await, before, "refusals write nothing");
    let undone = ReleaseClaim { outcome: None, service: None, route: None, ..run.release_claim(&site, 2, 2) };
    applied("the owner's completion", store.release_claim(&scene.call(), &undone).await);
    let again = applied("a claim", store.claim(&scene.call(), &run.claim(&site, 2, intent)).await);
    assert!(
        matches!(again, Claimed::Taken { .. }),
        "a site that was let go without an outcome is still to come"
    );
}

/// Every refusal of a claim by its name, and none of them writes.
pub async fn a_claim_is_refused(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let run = scene.run().await;
    let intent = ClaimIntent::Upgrade(Color::Green);
    let refuse = async |site: &Site, claim: &Claim, why: ClaimRefused| {
        let before = scene.read(&site.id).await;
        let answer = refused("a claim", store.claim(&scene.call(), claim).await);
        assert_eq!(answer, WriteError::Claim(why), "a claim is refused with its reason");
        assert_eq!(scene.read(&site.id).await, before, "a refused claim writes nothing");
    };
    let absent = scene.site("absent");
    refuse(&absent, &run.claim(&absent, 1, intent), ClaimRefused::Gone).await;
    let gone =
        refused("no site", store.release_claim(&scene.call(), &run.release_claim(&absent, 1, 1)).await);
    assert_eq!(gone, WriteError::Claim(ClaimRefused::Gone), "what is not there is not let go");

    let site = scene.create(scene.site("a")).await;
    let mut other = run.claim(&site, 1, intent);
    other.uid = scene.site("a").uid;
    refuse(&site, &other, ClaimRefused::Gone).await;

    let inactive = scene.create(Site { phase: Phase::Created, ..scene.site("inactive") }).await;
    refuse(&inactive, &run.claim(&inactive, 1, intent), ClaimRefused::NotActive).await;

    let busy = Site { operation: Some(scene.operation(provision()).await), ..scene.site("busy") };
    let busy = scene.create(busy).await;
    refuse(&busy, &run.claim(&busy, 1, intent), ClaimRefused::Busy).await;

    let ending =
        Site { operation: Some(scene.operation(OperationInput::Terminate).await), ..scene.site("ending") };
    let ending = scene.create(ending).await;
    refuse(&ending, &run.claim(&ending, 1, intent), ClaimRefused::Gone).await;

    let seen = ClaimToken { rollout: run.rollout, direction: Direction::Rollback, term: 1 };
    let fenced = scene.create(Site { claim_token: seen, ..scene.site("fenced") }).await;
    refuse(&fenced, &run.claim(&fenced, 9, intent), ClaimRefused::Fenced).await;
}

/// A site that a rollout has settled tells the next owner how, and shuts the one before out.
pub async fn a_settled_site_says_so(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let run = scene.run().await;
    let intent = ClaimIntent::Promote(Color::Green);
    applied("a claim", store.claim(&scene.call(), &run.claim(&site, 1, intent)).await);
    applied("a completion", store.release_claim(&scene.call(), &run.release_claim(&site, 1, 1)).await);
    let version = scene.version(&site.id).await;
    let call = scene.call();
    for _ in 0..2 {
        let answer = refused("a settled site", store.claim(&call, &run.claim(&site, 2, intent)).await);
        assert_eq!(
            answer,
            WriteError::Claim(ClaimRefused::AlreadyResolved(
                MemberOutcome::Moved,
                run.release_claim(&site, 1, 1).digest
            )),
            "a settled site says how"
        );
    }
    let after = scene.read(&site.id).await.expect("a settled site stays");
    assert_eq!(after.claim_token, run.claim_token(2), "the answer has raised the grant");
    assert_eq!(after.version, version + 1, "raising the grant is one write");
    let late = refused("the owner before", store.claim(&scene.call(), &run.claim(&site, 1, intent)).await);
    assert_eq!(late, WriteError::Claim(ClaimRefused::Fenced), "the owner before is shut out");
}

/// Settling a site on which nothing was begun keeps the lost owner from beginning.
pub async fn settling_keeps_a_lost_owner_out(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let run = scene.run().await;
    let intent = ClaimIntent::Promote(Color::Green);
    let busy = Site { operation: Some(scene.operation(provision()).await), ..scene.site("busy") };
    for site in [scene.site("free"), busy] {
        let site = scene.create(site).await;
        let call = scene.call();
        for _ in 0..2 {
            let barred =
                applied("settling", store.claim(&call, &run.claim(&site, 2, ClaimIntent::Recover)).await);
            assert_eq!(barred, Claimed::FencedOff, "settling finds nothing begun");
        }
        let after = scene.read(&site.id).await.expect("a barred site stays");
        let expected = Site { claim_token: run.claim_token(2), version: site.version + 1, ..site.clone() };
        assert_eq!(after, expected, "settling raises the grant and nothing else, in one write");
        let late = refused("the lost owner", store.claim(&scene.call(), &run.claim(&site, 1, intent)).await);
        assert_eq!(late, WriteError::Claim(ClaimRefused::Fenced), "the lost owner is kept out");
        if site.operation.is_none() {
            let taken = applied("the owner", store.claim(&scene.call(), &run.claim(&site, 2, intent)).await);
            assert!(matches!(taken, Claimed::Taken { epoch: 1, .. }), "the owner still claims it: {taken:?}");
        }
    }
}

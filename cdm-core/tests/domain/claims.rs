//! The rules by which a rollout claims and releases a site.

use cdm_core::domain::operation::{OperationInput, OperationState, Position};
use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::site::{
    Activation, Claim, ClaimIntent, ClaimRefused, Claimed, LastOutcome, ReleaseClaim,
};
use cdm_core::domain::{
    ClaimToken, Color, Direction, Epoch, Fence, Hostnames, OperationKind, Phase, Routed, Site, SiteId,
    SiteName, Status, Term, Theme, Uid, WorkerId,
};

use super::{NOW, actor};

pub(crate) fn active(id: &str) -> Site {
    Site {
        id: SiteId::parse(id).expect("a site id"),
        uid: Uid::from_parts(1, 1),
        name: SiteName::parse("Shop").expect("a name"),
        theme: Theme::parse("plain").expect("a theme"),
        hostnames: Hostnames::parse(&["shop.example"], "shop.example").expect("a hostname"),
        service: Color::Blue,
        route: Some(Routed { service: Color::Blue, fence: Fence::new(3, Epoch(2)) }),
        phase: Phase::Active,
        operation: None,
        claim_token: ClaimToken::default(),
        last_outcome: None,
        activation: Activation::Ever,
        created_at: NOW,
        updated_at: NOW,
        version: 5,
    }
}

const fn claim_token(direction: Direction, term: u64) -> ClaimToken {
    ClaimToken { rollout: 7, direction, term: Term(term) }
}

fn claim(site: &Site, claim_token: ClaimToken, intent: ClaimIntent) -> Claim {
    Claim {
        id: site.id.clone(),
        uid: site.uid,
        claim_token,
        intent,
        ordinal: 0,
        number: 8,
        owner: WorkerId::new(&format!("worker-{}", claim_token.term)),
        requested_by: actor(),
        at: NOW,
    }
}

const FORWARD: ClaimIntent = ClaimIntent::Promote(Color::Green);
const ROLLBACK: ClaimIntent = ClaimIntent::Promote(Color::Blue);

fn release_claim(
    site: &Site,
    claim_token: ClaimToken,
    epoch: Epoch,
    outcome: Option<MemberOutcome>,
    service: Color,
) -> ReleaseClaim {
    let fence = Fence::new(8, epoch);
    let route = Some(Routed { service, fence });
    ReleaseClaim {
        id: site.id.clone(),
        claim_token,
        fence,
        outcome,
        digest: None,
        service: Some(service),
        route,
        at: NOW,
    }
}

fn epoch(claimed: Result<Claimed, ClaimRefused>) -> Epoch {
    match claimed {
        Ok(Claimed::Taken { epoch, .. }) => epoch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_site_is_claimed_moved_and_released() {
    let mut site = active("shop");
    let (own_token, course) = (
        claim_token(Direction::Forward, 1),
        claim(&active("shop"), claim_token(Direction::Forward, 1), FORWARD),
    );
    let Ok(Claimed::Taken { course, route, epoch, version }) = site.claim(&course) else {
        panic!("not taken")
    };
    assert_eq!((course.from, course.to, course.routed), (Color::Blue, Color::Green, Color::Blue));
    assert_eq!((route, epoch, version), (site.route, Direction::Forward.first_epoch(), site.version + 1));
    let operation = site.operation.clone().expect("an operation");
    assert_eq!(
        (operation.status, operation.input.kind(), operation.fence()),
        (Status::Running, OperationKind::Promote, Fence::new(8, Epoch(1)))
    );

    let done = release_claim(&site, own_token, Epoch(1), Some(MemberOutcome::Moved), Color::Green);
    for wrong in [
        ReleaseClaim { claim_token: claim_token(Direction::Forward, 2), ..done.clone() },
        ReleaseClaim { fence: Fence::new(8, Epoch(2)), ..done.clone() },
        ReleaseClaim { fence: Fence::new(9, Epoch(1)), ..done.clone() },
    ] {
        let before = site.clone();
        assert_eq!(site.release_claim(&wrong), Err(ClaimRefused::Fenced));
        assert_eq!(site, before, "a rejected claim changes nothing");
    }
    assert_eq!(site.release_claim(&done), Ok(()));
    let last_outcome = LastOutcome {
        rollout: 7,
        direction: Direction::Forward,
        outcome: MemberOutcome::Moved,
        digest: None,
    };
    assert_eq!(
        (site.service, site.last_outcome, site.operation.is_none()),
        (Color::Green, Some(last_outcome), true)
    );
    assert_eq!(site.release_claim(&done), Err(ClaimRefused::Fenced), "a second release");
    let again = claim(&site, claim_token(Direction::Forward, 2), FORWARD);
    assert_eq!(site.claim(&again), Err(ClaimRefused::AlreadyResolved(MemberOutcome::Moved, None)));
}

#[test]
fn a_lost_owner_is_fenced_off() {
    // The operation had begun: the next owner takes over the claim under a new fence.
    let mut site = active("shop");
    let first = epoch(site.claim(&claim(&active("shop"), claim_token(Direction::Forward, 1), FORWARD)));
    let taken = claim(&site, claim_token(Direction::Forward, 2), ClaimIntent::Recover);
    let second = epoch(site.claim(&taken));
    assert!(second > first);
    let term = site.operation.as_ref().and_then(|operation| operation.member).map(|member| member.term);
    assert_eq!(term, Some(Term(2)));
    let late = claim(&site, claim_token(Direction::Forward, 1), FORWARD);
    assert_eq!(site.claim(&late), Err(ClaimRefused::Fenced));
    let stale = release_claim(
        &site,
        claim_token(Direction::Forward, 1),
        first,
        Some(MemberOutcome::Moved),
        Color::Green,
    );
    assert_eq!(site.release_claim(&stale), Err(ClaimRefused::Fenced));
    let fresh = release_claim(
        &site,
        claim_token(Direction::Forward, 2),
        second,
        Some(MemberOutcome::Moved),
        Color::Green,
    );
    assert_eq!(site.release_claim(&fresh), Ok(()));

    // The operation had not begun: it can no longer begin, and the site is unchanged.
    let mut site = active("shop");
    let barred = claim(&site, claim_token(Direction::Forward, 2), ClaimIntent::Recover);
    assert_eq!(site.claim(&barred), Ok(Claimed::FencedOff));
    assert_eq!((site.operation.is_none(), site.service), (true, Color::Blue));
    let late = claim(&site, claim_token(Direction::Forward, 1), FORWARD);
    assert_eq!(site.claim(&late), Err(ClaimRefused::Fenced));

    // Another operation is running: fencing off an owner is possible, moving the site is not.
    let mut busy = active("shop");
    let _ =
        epoch(busy.claim(&Claim {
            number: 99,
            ..claim(&active("shop"), claim_token(Direction::Forward, 1), FORWARD)
        }));
    let intent = claim(&busy, claim_token(Direction::Forward, 1), FORWARD);
    assert_eq!(busy.claim(&intent), Err(ClaimRefused::Busy));
    let settle = claim(&busy, claim_token(Direction::Forward, 3), ClaimIntent::Recover);
    assert_eq!(busy.claim(&settle), Ok(Claimed::FencedOff));
    let late = claim(&busy, claim_token(Direction::Forward, 2), FORWARD);
    assert_eq!(busy.claim(&late), Err(ClaimRefused::Fenced));
}

#[test]
fn directions_never_share_a_fence() {
    let mut site = active("shop");
    let mut seen = Vec::new();
    for (direction, intent, target) in
        [(Direction::Forward, FORWARD, Color::Green), (Direction::Rollback, ROLLBACK, Color::Blue)]
    {
        for term in 1..=5 {
            let claim = claim(&site, claim_token(direction, term), intent);
            seen.push(epoch(site.claim(&claim)));
        }
        let last = *seen.last().expect("claims");
        let outcome =
            if direction == Direction::Forward { MemberOutcome::Moved } else { MemberOutcome::Returned };
        assert_eq!(
            site.release_claim(&release_claim(&site, claim_token(direction, 5), last, Some(outcome), target)),
            Ok(())
        );
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    assert_eq!(site.service, Color::Blue);
    let out = claim(&site, claim_token(Direction::Forward, 6), FORWARD);
    assert_eq!(site.claim(&out), Err(ClaimRefused::Fenced), "a rollback outranks its forward direction");
}

#[test]
fn a_rejected_claim_states_the_reason() {
    let own_token = claim_token(Direction::Forward, 1);
    let other = Claim { uid: Uid::from_parts(1, 2), ..claim(&active("shop"), own_token, FORWARD) };
    assert_eq!(active("shop").claim(&other), Err(ClaimRefused::Gone));
    let mut created = Site { phase: Phase::Created, ..active("shop") };
    assert_eq!(created.claim(&claim(&active("shop"), own_token, FORWARD)), Err(ClaimRefused::NotActive));
    assert_eq!(
        (created.operation, created.claim_token),
        (None, ClaimToken::default()),
        "a rejected claim changes nothing"
    );
    let mut going = active("shop");
    going.operation = Some(terminate());
    assert_eq!(going.claim(&claim(&active("shop"), own_token, FORWARD)), Err(ClaimRefused::Gone));
    // A site that was claimed and not moved is released unchanged, and its outcome is still open.
    let mut site = active("shop");
    let first = epoch(site.claim(&claim(&active("shop"), own_token, FORWARD)));
    let undone = ReleaseClaim {
        service: None,
        route: None,
        ..release_claim(&site, own_token, first, None, Color::Green)
    };
    assert_eq!(site.release_claim(&undone), Ok(()));
    let unchanged = Site { claim_token: own_token, ..active("shop") };
    assert_eq!(site, unchanged);
}

fn terminate() -> OperationState {
    OperationState {
        number: 3,
        input: OperationInput::Terminate,
        pipeline: 1,
        epoch: Epoch(1),
        owner: None,
        status: Status::Queued,
        position: Position::Forward(0),
        attempts: 0,
        job: 1,
        next_poll_at: None,
        waiting_since: None,
        trouble_since: None,
        reason: None,
        cancel: false,
        locked_color: None,
        member: None,
        steps: Vec::new(),
        requested_by: actor(),
        retry_of: None,
        created_at: NOW,
        started_at: None,
    }
}

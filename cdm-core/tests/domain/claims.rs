//! The rules by which a rollout claims a site and lets it go.

use cdm_core::domain::operation::{Position, Slot, Task};
use cdm_core::domain::rollout::Outcome;
use cdm_core::domain::site::{Activation, Claim, ClaimRefused, Claimed, Complete, Settled, Want};
use cdm_core::domain::{
    Fence, Grant, Hostnames, Kind, Leg, Phase, Routed, Selector, Site, SiteId, SiteName, Status, Theme, Uid,
    WorkerId,
};

use super::{NOW, actor};

pub(crate) fn active(id: &str) -> Site {
    Site {
        id: SiteId::parse(id).expect("a site id"),
        uid: Uid::from_parts(1, 1),
        name: SiteName::parse("Shop").expect("a name"),
        theme: Theme::parse("plain").expect("a theme"),
        hostnames: Hostnames::parse(&["shop.example"], "shop.example").expect("a hostname"),
        service: Selector::Blue,
        route: Some(Routed { service: Selector::Blue, fence: Fence::new(3, 2) }),
        phase: Phase::Active,
        slot: None,
        grant: Grant::default(),
        settled: None,
        activation: Activation::Ever,
        created_at: NOW,
        updated_at: NOW,
        version: 5,
    }
}

const fn grant(leg: Leg, term: u64) -> Grant {
    Grant { rollout: 7, leg, term }
}

fn claim(site: &Site, grant: Grant, want: Want) -> Claim {
    Claim {
        id: site.id.clone(),
        uid: site.uid,
        grant,
        want,
        ordinal: 0,
        number: 8,
        owner: WorkerId::new(&format!("worker-{}", grant.term)),
        requested_by: actor(),
        at: NOW,
    }
}

const OUT: Want = Want::Promote(Selector::Green);
const BACK: Want = Want::Promote(Selector::Blue);

fn complete(site: &Site, grant: Grant, epoch: u64, outcome: Option<Outcome>, service: Selector) -> Complete {
    let fence = Fence::new(8, epoch);
    let route = Some(Routed { service, fence });
    Complete {
        id: site.id.clone(),
        grant,
        fence,
        outcome,
        digest: None,
        service: Some(service),
        route,
        at: NOW,
    }
}

fn epoch(claimed: Result<Claimed, ClaimRefused>) -> u64 {
    match claimed {
        Ok(Claimed::Taken { epoch, .. }) => epoch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_site_is_claimed_moved_and_let_go() {
    let mut site = active("shop");
    let (mine, course) = (grant(Leg::Out, 1), claim(&active("shop"), grant(Leg::Out, 1), OUT));
    let Ok(Claimed::Taken { course, route, epoch, version }) = site.claim(&course) else {
        panic!("not taken")
    };
    assert_eq!((course.from, course.to, course.routed), (Selector::Blue, Selector::Green, Selector::Blue));
    assert_eq!((route, epoch, version), (site.route, Leg::Out.first_epoch(), site.version + 1));
    let slot = site.slot.clone().expect("an operation");
    assert_eq!(
        (slot.status, slot.task.kind(), slot.fence()),
        (Status::Running, Kind::Promote, Fence::new(8, 1))
    );

    let done = complete(&site, mine, 1, Some(Outcome::Moved), Selector::Green);
    for wrong in [
        Complete { grant: grant(Leg::Out, 2), ..done.clone() },
        Complete { fence: Fence::new(8, 2), ..done.clone() },
        Complete { fence: Fence::new(9, 1), ..done.clone() },
    ] {
        let before = site.clone();
        assert_eq!(site.complete(&wrong), Err(ClaimRefused::Fenced));
        assert_eq!(site, before, "a refusal writes nothing");
    }
    assert_eq!(site.complete(&done), Ok(()));
    let settled = Settled { rollout: 7, leg: Leg::Out, outcome: Outcome::Moved, digest: None };
    assert_eq!((site.service, site.settled, site.slot.is_none()), (Selector::Green, Some(settled), true));
    assert_eq!(site.complete(&done), Err(ClaimRefused::Fenced), "let go twice");
    let again = claim(&site, grant(Leg::Out, 2), OUT);
    assert_eq!(site.claim(&again), Err(ClaimRefused::Settled(Outcome::Moved, None)));
}

#[test]
fn a_lost_owner_is_kept_out() {
    // It had begun: the next owner takes the claim over, under a fence of its own.
    let mut site = active("shop");
    let first = epoch(site.claim(&claim(&active("shop"), grant(Leg::Out, 1), OUT)));
    let taken = claim(&site, grant(Leg::Out, 2), Want::Settle);
    let second = epoch(site.claim(&taken));
    assert!(second > first);
    let term = site.slot.as_ref().and_then(|slot| slot.member).map(|member| member.term);
    assert_eq!(term, Some(2));
    let late = claim(&site, grant(Leg::Out, 1), OUT);
    assert_eq!(site.claim(&late), Err(ClaimRefused::Fenced));
    let stale = complete(&site, grant(Leg::Out, 1), first, Some(Outcome::Moved), Selector::Green);
    assert_eq!(site.complete(&stale), Err(ClaimRefused::Fenced));
    let fresh = complete(&site, grant(Leg::Out, 2), second, Some(Outcome::Moved), Selector::Green);
    assert_eq!(site.complete(&fresh), Ok(()));

    // It had not begun: it cannot any more, and the site is as it was.
    let mut site = active("shop");
    let barred = claim(&site, grant(Leg::Out, 2), Want::Settle);
    assert_eq!(site.claim(&barred), Ok(Claimed::Barred));
    assert_eq!((site.slot.is_none(), site.service), (true, Selector::Blue));
    let late = claim(&site, grant(Leg::Out, 1), OUT);
    assert_eq!(site.claim(&late), Err(ClaimRefused::Fenced));

    // Another operation is at work: that is no obstacle to keeping an owner out, but one to moving.
    let mut busy = active("shop");
    let _ = epoch(busy.claim(&Claim { number: 99, ..claim(&active("shop"), grant(Leg::Out, 1), OUT) }));
    let want = claim(&busy, grant(Leg::Out, 1), OUT);
    assert_eq!(busy.claim(&want), Err(ClaimRefused::Busy));
    let settle = claim(&busy, grant(Leg::Out, 3), Want::Settle);
    assert_eq!(busy.claim(&settle), Ok(Claimed::Barred));
    let late = claim(&busy, grant(Leg::Out, 2), OUT);
    assert_eq!(busy.claim(&late), Err(ClaimRefused::Fenced));
}

#[test]
fn legs_never_share_a_fence() {
    let mut site = active("shop");
    let mut seen = Vec::new();
    for (leg, want, target) in [(Leg::Out, OUT, Selector::Green), (Leg::Back, BACK, Selector::Blue)] {
        for term in 1..=5 {
            let claim = claim(&site, grant(leg, term), want);
            seen.push(epoch(site.claim(&claim)));
        }
        let last = *seen.last().expect("claims");
        let outcome = if leg == Leg::Out { Outcome::Moved } else { Outcome::Returned };
        assert_eq!(site.complete(&complete(&site, grant(leg, 5), last, Some(outcome), target)), Ok(()));
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    assert_eq!(site.service, Selector::Blue);
    let out = claim(&site, grant(Leg::Out, 6), OUT);
    assert_eq!(site.claim(&out), Err(ClaimRefused::Fenced), "the way back outranks the way out");
}

#[test]
fn a_site_that_cannot_be_moved_says_why() {
    let mine = grant(Leg::Out, 1);
    let other = Claim { uid: Uid::from_parts(1, 2), ..claim(&active("shop"), mine, OUT) };
    assert_eq!(active("shop").claim(&other), Err(ClaimRefused::Gone));
    let mut created = Site { phase: Phase::Created, ..active("shop") };
    assert_eq!(created.claim(&claim(&active("shop"), mine, OUT)), Err(ClaimRefused::NotActive));
    assert_eq!((created.slot, created.grant), (None, Grant::default()), "a refusal writes nothing");
    let mut going = active("shop");
    going.slot = Some(terminate());
    assert_eq!(going.claim(&claim(&active("shop"), mine, OUT)), Err(ClaimRefused::Gone));
    // What was taken and not moved is let go as it was, and is still to come.
    let mut site = active("shop");
    let first = epoch(site.claim(&claim(&active("shop"), mine, OUT)));
    let undone =
        Complete { service: None, route: None, ..complete(&site, mine, first, None, Selector::Green) };
    assert_eq!(site.complete(&undone), Ok(()));
    let as_it_was = Site { grant: mine, ..active("shop") };
    assert_eq!(site, as_it_was);
}

fn terminate() -> Slot {
    Slot {
        number: 3,
        task: Task::Terminate,
        pipeline: 1,
        epoch: 1,
        owner: None,
        status: Status::Queued,
        position: Position::Forward(0),
        attempts: 0,
        job: 1,
        wake: None,
        waiting_since: None,
        trouble_since: None,
        reason: None,
        cancel: false,
        holds: None,
        member: None,
        steps: Vec::new(),
        requested_by: actor(),
        retry_of: None,
        created_at: NOW,
        started_at: None,
    }
}

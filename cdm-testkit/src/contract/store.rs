//! What a store has to show: that it writes all or nothing, each write once, and nothing that is out of date.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use cdm_core::domain::operation::{Member, Move};
use cdm_core::domain::rollout::{Control, Outcome as Came};
use cdm_core::domain::site::{Claim, ClaimRefused, Claimed, Complete, Settled, Want};
use cdm_core::domain::{
    AuditEntry, End, Fence, Grant, Hostname, Hostnames, IdempotencyKey, Kind, Leg, Operation, OperationId,
    Phase, RolloutKind, RolloutStatus, Routed, Selector, Site, SiteId, SiteName, Slot, Status, Subject, Task,
    Timestamp, WorkerId,
};
use cdm_core::ports::{
    Batch, Call, FeedEvent, IdempotencyRecord, Live, LiveSubject, OperationQuery, Outcome, Refused,
    SiteQuery, Store, StoreError, Write,
};
use futures_util::future::join;

use super::Cx;
use crate::build;

/// Everything below, one after the other.
///
/// # Panics
/// With the broken promise.
pub async fn suite(store: &dyn Store, cx: &Cx<'_>) {
    creation_claims_hostnames(store, cx).await;
    a_hostname_has_one_owner(store, cx).await;
    an_id_has_one_site(store, cx).await;
    concurrent_creations_have_one_winner(store, cx).await;
    an_old_version_is_refused(store, cx).await;
    another_incarnation_is_refused(store, cx).await;
    a_batch_is_all_or_nothing(store, cx).await;
    a_repeated_write_is_written_once(store, cx).await;
    a_repeated_removal_is_applied(store, cx).await;
    names_are_no_prefixes(store, cx).await;
    removal_frees_names(store, cx).await;
    a_claim_takes_a_site(store, cx).await;
    a_take_over_fences_the_lost_owner(store, cx).await;
    a_claim_is_refused(store, cx).await;
    a_settled_site_says_so(store, cx).await;
    settling_keeps_a_lost_owner_out(store, cx).await;
    shared_records_carry_versions(store, cx).await;
    rollouts_keep_their_pages(store, cx).await;
    live_lists_what_is_to_be_done(store, cx).await;
    live_lists_rollouts(store, cx).await;
    operations_are_listed_newest_first(store, cx).await;
    numbers_never_repeat(store, cx).await;
    a_key_is_used_once(store, cx).await;
    an_old_key_is_forgotten(store, cx).await;
    sites_come_in_order(store, cx).await;
    audit_is_newest_first(store, cx).await;
    events_are_oldest_first(store, cx).await;
    beats_are_listed_until_they_stop(store, cx).await;
}

/// A created site is found by id and by each hostname, at version 1 whatever its field said.
pub async fn creation_claims_hostnames(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut site = scene.site("a");
    let other = format!("www.{}.example.org", site.id);
    site.hostnames = hostnames(&[site.hostnames.canonical().as_str(), &other]);
    site.version = 7;
    scene.write(vec![Write::CreateSite(Box::new(site.clone()))]).await;
    site.version = 1;
    assert_eq!(scene.read(&site.id).await.as_ref(), Some(&site), "a created site is read back, at version 1");
    for host in site.hostnames.all() {
        assert_eq!(scene.owner(host).await.as_ref(), Some(&site.id), "creation claims every hostname");
    }
    assert_eq!(scene.owner(&host(&format!("x.{other}"))).await, None, "nobody has a hostname nobody claimed");
}

/// A second site cannot take a hostname, and nothing of it is left behind.
pub async fn a_hostname_has_one_owner(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let owner = scene.create(scene.site("owner")).await;
    let mut thief = scene.site("thief");
    let (own, stolen) = (thief.hostnames.canonical().clone(), owner.hostnames.canonical().clone());
    thief.hostnames = hostnames(&[own.as_str(), stolen.as_str()]);
    let answer = refused(
        "a claimed hostname",
        scene.try_write(vec![Write::CreateSite(Box::new(thief.clone()))]).await,
    );
    let expected = Refused::HostnameTaken { host: stolen.clone(), site: owner.id.clone() };
    assert_eq!(answer, expected, "the refusal names the hostname and its owner");
    assert_eq!(scene.read(&thief.id).await, None, "a refused creation leaves no site");
    assert_eq!(scene.owner(&own).await, None, "a refused creation claims no hostname");
    assert_eq!(scene.owner(&stolen).await, Some(owner.id), "the hostname stays with its owner");
}

/// Creating an id that exists is a conflict, and changes nothing.
pub async fn an_id_has_one_site(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let first = scene.create(scene.site("a")).await;
    let mut second = scene.site("a");
    second.hostnames = hostnames(&[&format!("second.{}.example.org", second.id)]);
    let hosts = second.hostnames.clone();
    conflict("an id that exists", scene.try_write(vec![Write::CreateSite(Box::new(second))]).await);
    assert_eq!(
        scene.read(&first.id).await.as_ref(),
        Some(&first),
        "a refused creation leaves the site as it was"
    );
    assert_eq!(scene.owner(hosts.canonical()).await, None, "a refused creation claims no hostname");
}

/// Of two creations of one id at the same time, one is applied and the other is a conflict.
pub async fn concurrent_creations_have_one_winner(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let (one, mut two) = (scene.site("a"), scene.site("a"));
    two.hostnames = hostnames(&[&format!("two.{}.example.org", two.id)]);
    let answers = join(
        scene.try_write(vec![Write::CreateSite(Box::new(one.clone()))]),
        scene.try_write(vec![Write::CreateSite(Box::new(two.clone()))]),
    );
    let (winner, loser, lost) = match answers.await {
        (Outcome::Applied(()), lost) => (one, two, lost),
        (lost, Outcome::Applied(())) => (two, one, lost),
        neither => panic!("one of two concurrent creations is applied: {neither:?}"),
    };
    conflict("the other of two concurrent creations", lost);
    let uid = scene.read(&winner.id).await.map(|site| site.uid);
    assert_eq!(uid, Some(winner.uid), "the site is the winner's");
    assert_eq!(scene.owner(loser.hostnames.canonical()).await, None, "the loser claims no hostname");
}

/// A write raises the version by one; whoever has read before it is refused.
pub async fn an_old_version_is_refused(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let read = scene.create(scene.site("a")).await;
    let mut newer = read.clone();
    newer.service = Selector::Green;
    scene.write(vec![Write::Site(Box::new(newer.clone()))]).await;
    newer.version += 1;
    assert_eq!(scene.read(&read.id).await.as_ref(), Some(&newer), "a write raises the version by one");
    conflict(
        "a version that was read before another write",
        scene.try_write(vec![Write::Site(Box::new(read.clone()))]).await,
    );
    let ahead = Site { version: newer.version + 1, ..newer.clone() };
    conflict("a version that was never written", scene.try_write(vec![Write::Site(Box::new(ahead))]).await);
    conflict(
        "removing an old version",
        scene.try_write(vec![Write::RemoveSite(read.id.clone(), read.uid, read.version)]).await,
    );
    let absent = scene.site("absent");
    conflict("a site that is not there", scene.try_write(vec![Write::Site(Box::new(absent.clone()))]).await);
    conflict(
        "removing what is not there",
        scene.try_write(vec![Write::RemoveSite(absent.id, absent.uid, 1)]).await,
    );
    assert_eq!(scene.read(&read.id).await, Some(newer), "refused writes leave the site as it was");
}

/// What was read of a removed site does not fit its successor, though the versions are the same.
pub async fn another_incarnation_is_refused(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let old = scene.create(scene.site("a")).await;
    scene.write(vec![Write::RemoveSite(old.id.clone(), old.uid, old.version)]).await;
    let new = scene.create(scene.site("a")).await;
    assert_eq!(old.version, new.version, "a site begins at version 1");
    conflict("a write of another incarnation", scene.try_write(vec![Write::Site(Box::new(old))]).await);
    assert_eq!(scene.read(&new.id).await.as_ref(), Some(&new), "the successor stays as it was");
}

/// One record out of date keeps the whole batch out, with its audit entry, its key and its events.
pub async fn a_batch_is_all_or_nothing(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let (good, stale) = (scene.create(scene.site("good")).await, scene.create(scene.site("stale")).await);
    scene.write(vec![Write::Site(Box::new(stale.clone()))]).await;
    let (new, number) = (scene.site("new"), scene.number().await);
    let operation = scene.ended(&good.id, number, provision());
    let rollout = build::rollout(scene.number().await, RolloutKind::Flush, Selector::Blue, 1);
    let batch = Batch {
        writes: vec![
            Write::Site(Box::new(good.clone())),
            Write::CreateSite(Box::new(new.clone())),
            Write::CreateRollout(Box::new(rollout.clone())),
            Write::RolloutPage(build::page(rollout.number, 0, std::slice::from_ref(&good))),
            Write::History(Box::new(operation.clone())),
            Write::Site(Box::new(stale)),
        ],
        audit: Some(scene.audit("nothing")),
        idempotency: Some(scene.key("nothing")),
        events: vec![scene.event("nothing")],
    };
    conflict("a batch with one record out of date", store.write(&scene.call(), &batch).await);
    assert_eq!(
        scene.read(&good.id).await,
        Some(good),
        "a refused batch leaves its other records as they were"
    );
    assert_eq!(scene.read(&new.id).await, None, "a refused batch creates nothing");
    assert_eq!(scene.owner(new.hostnames.canonical()).await, None, "a refused batch claims nothing");
    let kept = (
        answered("rollout", store.rollout(rollout.number).await).is_some(),
        answered("rollout_page", store.rollout_page(rollout.number, 0).await).is_some(),
        answered("history", store.history(&operation.id).await).is_some(),
        scene.kept("nothing").await.is_some(),
        scene.audits().await.len(),
        scene.events().await.len(),
    );
    assert_eq!(kept, (false, false, false, false, 0, 0), "a refused batch leaves no trace");
}

/// The same batch under the same write id is applied again, and written once.
pub async fn a_repeated_write_is_written_once(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut site = scene.site("a");
    let batch = Batch {
        writes: vec![Write::CreateSite(Box::new(site.clone()))],
        audit: Some(scene.audit("create")),
        idempotency: Some(scene.key("create")),
        events: vec![scene.event("create")],
    };
    let call = scene.call();
    for _ in 0..3 {
        applied("a repeated creation", store.write(&call, &batch).await);
    }
    site.version = 1;
    assert_eq!(scene.read(&site.id).await.as_ref(), Some(&site), "a repeated creation is written once");
    let second = scene.create(scene.site("b")).await;
    let writes = vec![Write::Site(Box::new(site.clone())), Write::Site(Box::new(second.clone()))];
    let batch = Batch {
        audit: Some(scene.audit("change")),
        events: vec![scene.event("change")],
        ..Batch::of(writes)
    };
    let call = scene.call();
    for _ in 0..2 {
        applied("a repeated change", store.write(&call, &batch).await);
    }
    let versions = (scene.version(&site.id).await, scene.version(&second.id).await);
    assert_eq!(versions, (2, 2), "a repeated change is written once");
    assert_eq!(
        (scene.audits().await.len(), scene.events().await.len()),
        (2, 2),
        "repetitions leave no second trace"
    );
    let alone = Batch::of(vec![Write::Site(Box::new(Site { version: 2, ..second.clone() }))]);
    applied("a write after it", store.write(&scene.call(), &alone).await);
    applied("the batch again: its first record is still its own", store.write(&call, &batch).await);
    assert_eq!(scene.version(&second.id).await, 3, "a repetition does not undo what came after");
}

/// A removal whose answer was lost is repeated, also when the id was given away since.
pub async fn a_repeated_removal_is_applied(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let (call, removal) =
        (scene.call(), Batch::of(vec![Write::RemoveSite(site.id.clone(), site.uid, site.version)]));
    for _ in 0..2 {
        applied("a repeated removal", store.write(&call, &removal).await);
    }
    let next = scene.create(scene.site("a")).await;
    applied("a removal that is repeated late", store.write(&call, &removal).await);
    assert_eq!(scene.read(&site.id).await, Some(next), "a repeated removal spares the site that came after");
}

/// A site whose id begins like another's has nothing of it.
pub async fn names_are_no_prefixes(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let long = scene.create(scene.site("ab")).await;
    let id = scene.id("a");
    assert_eq!(scene.read(&id).await, None, "`ab` is not `a`");
    let short = scene.create(scene.site("a")).await;
    let busy = scene.slot(provision()).await;
    scene.change(&long, |site| site.slot = Some(busy.clone())).await;
    let ended = scene.ended(&long.id, scene.number().await, Task::Create);
    scene.write(vec![Write::History(Box::new(ended))]).await;
    let query = OperationQuery { site: Some(short.id.clone()), ..OperationQuery::default() };
    assert_eq!(scene.operations(&query).await, Vec::<u64>::new(), "operations of `ab` are not those of `a`");
    let host = short.hostnames.canonical();
    assert_eq!(scene.owner(host).await.as_ref(), Some(&short.id), "the hostname of `a` is that of `a`");
    scene.write(vec![Write::RemoveSite(short.id.clone(), short.uid, short.version)]).await;
    assert!(scene.read(&long.id).await.is_some(), "removing `a` spares `ab`");
    let owner = scene.owner(long.hostnames.canonical()).await;
    assert_eq!(owner, Some(long.id), "removing `a` spares the hostname of `ab`");
}

/// After a removal its hostnames are free, and the id begins again with another uid.
pub async fn removal_frees_names(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let host = site.hostnames.canonical().clone();
    scene.write(vec![Write::RemoveSite(site.id.clone(), site.uid, site.version)]).await;
    assert_eq!(scene.read(&site.id).await, None, "a removed site is gone");
    assert_eq!(scene.owner(&host).await, None, "a removal frees the hostnames");
    let heir = Site { hostnames: hostnames(&[host.as_str()]), ..scene.site("heir") };
    let heir = scene.create(heir).await;
    assert_eq!(
        scene.owner(&host).await.as_ref(),
        Some(&heir.id),
        "another site takes a hostname that is free"
    );
    let mut again = scene.site("a");
    again.hostnames = hostnames(&[&format!("again.{}.example.org", again.id)]);
    assert_ne!(again.uid, site.uid, "ids name each uid once");
    assert_eq!(scene.create(again).await.version, 1, "an id that is free begins again");
}

/// A claim puts its operation in place in one write, and a repetition is answered alike.
pub async fn a_claim_takes_a_site(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut site = scene.site("a");
    site.route = Some(Routed { service: Selector::Blue, fence: Fence::new(1, 1) });
    let site = scene.create(site).await;
    let run = scene.run().await;
    let (call, claim) = (scene.call(), run.claim(&site, 1, Want::Promote(Selector::Green)));
    let course = Move { from: Selector::Blue, to: Selector::Green, routed: Selector::Blue };
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
    let (call, complete) = (scene.call(), run.complete(&site, 1, 1));
    for _ in 0..2 {
        applied("a completion, also repeated", store.complete(&call, &complete).await);
    }
    expected.complete(&complete).expect("the domain lets a claimed site go");
    expected.version += 1;
    let settled = Some(Settled { rollout: run.rollout, leg: Leg::Out, outcome: Came::Moved });
    assert_eq!((expected.settled, expected.service), (settled, Selector::Green));
    assert_eq!(
        scene.read(&site.id).await,
        Some(expected),
        "a completion writes what the domain decides, once"
    );
    let again = refused("a completion of what was let go", store.complete(&scene.call(), &complete).await);
    assert_eq!(again, Refused::Claim(ClaimRefused::Fenced), "a claim is let go once");
}

/// The next owner takes a site over, and the lost one neither claims nor completes.
pub async fn a_take_over_fences_the_lost_owner(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let run = scene.run().await;
    let want = Want::Upgrade(Selector::Green);
    applied("a claim", store.claim(&scene.call(), &run.claim(&site, 1, want)).await);
    let over = applied("a take-over", store.claim(&scene.call(), &run.claim(&site, 2, Want::Settle)).await);
    assert!(
        matches!(over, Claimed::Taken { epoch: 2, version: 3, .. }),
        "a take-over raises the epoch: {over:?}"
    );
    let before = scene.read(&site.id).await;
    let lost = refused(
        "the lost owner's completion",
        store.complete(&scene.call(), &run.complete(&site, 1, 1)).await,
    );
    assert_eq!(lost, Refused::Claim(ClaimRefused::Fenced), "an old fence lets nothing go");
    let lost =
        refused("an old epoch's completion", store.complete(&scene.call(), &run.complete(&site, 2, 1)).await);
    assert_eq!(lost, Refused::Claim(ClaimRefused::Fenced), "an old epoch lets nothing go");
    let lost =
        refused("the lost owner's claim", store.claim(&scene.call(), &run.claim(&site, 1, want)).await);
    assert_eq!(lost, Refused::Claim(ClaimRefused::Fenced), "a lower grant claims nothing");
    assert_eq!(scene.read(&site.id).await, before, "refusals write nothing");
    let undone = Complete { outcome: None, service: None, route: None, ..run.complete(&site, 2, 2) };
    applied("the owner's completion", store.complete(&scene.call(), &undone).await);
    let again = applied("a claim", store.claim(&scene.call(), &run.claim(&site, 2, want)).await);
    assert!(
        matches!(again, Claimed::Taken { .. }),
        "a site that was let go without an outcome is still to come"
    );
}

/// Every refusal of a claim by its name, and none of them writes.
pub async fn a_claim_is_refused(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let run = scene.run().await;
    let want = Want::Upgrade(Selector::Green);
    let refuse = async |site: &Site, claim: &Claim, why: ClaimRefused| {
        let before = scene.read(&site.id).await;
        let answer = refused("a claim", store.claim(&scene.call(), claim).await);
        assert_eq!(answer, Refused::Claim(why), "a claim is refused with its reason");
        assert_eq!(scene.read(&site.id).await, before, "a refused claim writes nothing");
    };
    let absent = scene.site("absent");
    refuse(&absent, &run.claim(&absent, 1, want), ClaimRefused::Gone).await;
    let gone = refused("no site", store.complete(&scene.call(), &run.complete(&absent, 1, 1)).await);
    assert_eq!(gone, Refused::Claim(ClaimRefused::Gone), "what is not there is not let go");

    let site = scene.create(scene.site("a")).await;
    let mut other = run.claim(&site, 1, want);
    other.uid = scene.site("a").uid;
    refuse(&site, &other, ClaimRefused::Gone).await;

    let inactive = scene.create(Site { phase: Phase::Created, ..scene.site("inactive") }).await;
    refuse(&inactive, &run.claim(&inactive, 1, want), ClaimRefused::NotActive).await;

    let busy = Site { slot: Some(scene.slot(provision()).await), ..scene.site("busy") };
    let busy = scene.create(busy).await;
    refuse(&busy, &run.claim(&busy, 1, want), ClaimRefused::Busy).await;

    let ending = Site { slot: Some(scene.slot(Task::Terminate).await), ..scene.site("ending") };
    let ending = scene.create(ending).await;
    refuse(&ending, &run.claim(&ending, 1, want), ClaimRefused::Gone).await;

    let seen = Grant { rollout: run.rollout, leg: Leg::Back, term: 1 };
    let fenced = scene.create(Site { grant: seen, ..scene.site("fenced") }).await;
    refuse(&fenced, &run.claim(&fenced, 9, want), ClaimRefused::Fenced).await;
}

/// A site that a rollout has settled tells the next owner how, and shuts the one before out.
pub async fn a_settled_site_says_so(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let run = scene.run().await;
    let want = Want::Promote(Selector::Green);
    applied("a claim", store.claim(&scene.call(), &run.claim(&site, 1, want)).await);
    applied("a completion", store.complete(&scene.call(), &run.complete(&site, 1, 1)).await);
    let version = scene.version(&site.id).await;
    let call = scene.call();
    for _ in 0..2 {
        let answer = refused("a settled site", store.claim(&call, &run.claim(&site, 2, want)).await);
        assert_eq!(answer, Refused::Claim(ClaimRefused::Settled(Came::Moved)), "a settled site says how");
    }
    let after = scene.read(&site.id).await.expect("a settled site stays");
    assert_eq!(after.grant, run.grant(2), "the answer has raised the grant");
    assert_eq!(after.version, version + 1, "raising the grant is one write");
    let late = refused("the owner before", store.claim(&scene.call(), &run.claim(&site, 1, want)).await);
    assert_eq!(late, Refused::Claim(ClaimRefused::Fenced), "the owner before is shut out");
}

/// Settling a site on which nothing was begun keeps the lost owner from beginning.
pub async fn settling_keeps_a_lost_owner_out(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let run = scene.run().await;
    let want = Want::Promote(Selector::Green);
    let busy = Site { slot: Some(scene.slot(provision()).await), ..scene.site("busy") };
    for site in [scene.site("free"), busy] {
        let site = scene.create(site).await;
        let call = scene.call();
        for _ in 0..2 {
            let barred = applied("settling", store.claim(&call, &run.claim(&site, 2, Want::Settle)).await);
            assert_eq!(barred, Claimed::Barred, "settling finds nothing begun");
        }
        let after = scene.read(&site.id).await.expect("a barred site stays");
        let expected = Site { grant: run.grant(2), version: site.version + 1, ..site.clone() };
        assert_eq!(after, expected, "settling raises the grant and nothing else, in one write");
        let late = refused("the lost owner", store.claim(&scene.call(), &run.claim(&site, 1, want)).await);
        assert_eq!(late, Refused::Claim(ClaimRefused::Fenced), "the lost owner is kept out");
        if site.slot.is_none() {
            let taken = applied("the owner", store.claim(&scene.call(), &run.claim(&site, 2, want)).await);
            assert!(matches!(taken, Claimed::Taken { epoch: 1, .. }), "the owner still claims it: {taken:?}");
        }
    }
}

/// The colours' records and the platform's begin empty at version 0 and are fenced by version like a site's.
pub async fn shared_records_carry_versions(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let number = scene.number().await;
    for selector in Selector::ALL {
        let mut colour = answered("colour", store.colour(selector).await);
        assert_eq!(colour.selector, selector, "each colour has a record of its own");
        let stale = colour.clone();
        colour.hold.moves.insert(number);
        let call = scene.call();
        for _ in 0..2 {
            let batch = Batch::of(vec![Write::Colour(Box::new(colour.clone()))]);
            applied("a colour's write, also repeated", store.write(&call, &batch).await);
        }
        colour.version += 1;
        assert_eq!(answered("colour", store.colour(selector).await), colour, "a colour is written once");
        conflict("a colour's old version", scene.try_write(vec![Write::Colour(Box::new(stale))]).await);
        colour.hold.release(number);
        scene.write(vec![Write::Colour(Box::new(colour))]).await;
    }
    let stale = answered("fleet", store.fleet().await);
    let mut fleet = stale.clone();
    fleet.rollout = Some(number);
    scene.write(vec![Write::Fleet(fleet.clone())]).await;
    fleet.version += 1;
    assert_eq!(answered("fleet", store.fleet().await), fleet, "the platform's record is read back");
    conflict("the platform's old version", scene.try_write(vec![Write::Fleet(stale.clone())]).await);
    scene.write(vec![Write::Fleet(cdm_core::domain::Fleet { version: fleet.version, ..stale })]).await;
}

/// A rollout is created once, fenced by version, and its pages are read back; lists are newest first.
pub async fn rollouts_keep_their_pages(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let mut rollout = build::rollout(scene.number().await, RolloutKind::Upgrade, Selector::Green, 2);
        let pages = [scene.site("a"), scene.site("b")].map(|site| vec![site]);
        let mut writes = vec![Write::CreateRollout(Box::new(rollout.clone()))];
        for (at, sites) in (0..).zip(&pages) {
            writes.push(Write::RolloutPage(build::page(rollout.number, at, sites)));
        }
        scene.write(writes).await;
        conflict(
            "a rollout that exists",
            scene.try_write(vec![Write::CreateRollout(Box::new(rollout.clone()))]).await,
        );
        rollout.version = 1;
        let read = answered("rollout", store.rollout(rollout.number).await);
        assert_eq!(read.as_ref(), Some(&rollout), "a rollout begins at version 1");
        let mut page = build::page(rollout.number, 1, &pages[1]);
        let read = answered("rollout_page", store.rollout_page(rollout.number, 1).await);
        assert_eq!(read.as_ref(), Some(&page), "a page is read back");
        page.members[0].outcome = Some(Came::Moved);
        let stale = rollout.clone();
        rollout.status = RolloutStatus::Succeeded;
        scene.write(vec![Write::Rollout(Box::new(rollout.clone())), Write::RolloutPage(page.clone())]).await;
        page.members[0].outcome = None;
        conflict(
            "a rollout's old version",
            scene.try_write(vec![Write::Rollout(Box::new(stale)), Write::RolloutPage(page.clone())]).await,
        );
        page.members[0].outcome = Some(Came::Moved);
        let read = answered("rollout_page", store.rollout_page(rollout.number, 1).await);
        assert_eq!(read, Some(page), "a page is replaced with its rollout, or not at all");
        assert_eq!(
            answered("rollout_page", store.rollout_page(rollout.number, 2).await),
            None,
            "no page, no answer"
        );
        numbers.push(rollout.number);
    }
    numbers.reverse();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = answered("rollouts", store.rollouts(before, 2).await);
        assert!(page.items.len() <= 2, "a page has no more items than were asked for");
        seen.extend(
            page.items.iter().map(|rollout| rollout.number).filter(|number| numbers.contains(number)),
        );
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, numbers, "rollouts are listed once each, newest first");
}

/// What is queued, running or waiting is listed, with what a worker has to know; what rests is not.
pub async fn live_lists_what_is_to_be_done(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut site = scene.create(Site { phase: Phase::Created, ..scene.site("a") }).await;
    let mut slot = scene.slot(provision()).await;
    let (worker, wake) = (WorkerId::new(&scene.tag), scene.wall().after(Duration::from_secs(60)));
    let about = |slot: &Slot, wake| Live {
        subject: LiveSubject::Operation(Subject::Site(site.id.clone())),
        number: slot.number,
        owner: slot.owner.clone(),
        wake,
        asked: slot.cancel,
    };
    let mut steps = vec![(slot.clone(), Some(about(&slot, None)))];
    (slot.status, slot.owner) = (Status::Running, Some(worker));
    steps.push((slot.clone(), Some(about(&slot, None))));
    (slot.status, slot.wake) = (Status::Waiting, Some(wake));
    steps.push((slot.clone(), Some(about(&slot, Some(wake)))));
    slot.cancel = true;
    steps.push((slot.clone(), Some(about(&slot, Some(wake)))));
    (slot.status, slot.owner, slot.wake, slot.cancel) = (Status::Parked, None, None, false);
    steps.push((slot.clone(), None));
    slot.status = Status::Queued;
    steps.push((slot.clone(), Some(about(&slot, None))));
    let member = Member { rollout: slot.number, ordinal: 0, leg: Leg::Out, term: 1 };
    steps.push((Slot { member: Some(member), status: Status::Running, ..slot.clone() }, None));
    let subject = LiveSubject::Operation(Subject::Site(site.id.clone()));
    for (slot, expected) in steps {
        let status = slot.status;
        site = scene.change(&site, |site| site.slot = Some(slot)).await;
        scene.lists(&subject, expected, &format!("an operation that is {status}")).await;
    }
    site = scene.change(&site, |site| site.slot = Some(slot.clone())).await;
    site = scene.change(&site, |site| site.slot = None).await;
    scene.lists(&subject, None, "an operation that has ended").await;
    site = scene.change(&site, |site| site.slot = Some(slot.clone())).await;
    scene.write(vec![Write::RemoveSite(site.id.clone(), site.uid, site.version)]).await;
    scene.lists(&subject, None, "an operation that went with its site").await;

    let mut fleet = answered("fleet", store.fleet().await);
    fleet.slot = Some(scene.slot(Task::Select(Selector::Blue)).await);
    let number = fleet.slot.as_ref().map(|slot| slot.number);
    scene.write(vec![Write::Fleet(fleet.clone())]).await;
    let subject = LiveSubject::Operation(Subject::Fleet);
    let expected =
        number.map(|number| Live { subject: subject.clone(), number, owner: None, wake: None, asked: false });
    scene.lists(&subject, expected, "a queued select").await;
    (fleet.slot, fleet.version) = (None, fleet.version + 1);
    scene.write(vec![Write::Fleet(fleet)]).await;
    scene.lists(&subject, None, "a select that has ended").await;
}

/// Rollouts are listed while they wait or run, and no longer.
pub async fn live_lists_rollouts(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut rollout = build::rollout(scene.number().await, RolloutKind::Flush, Selector::Blue, 1);
    let (number, worker) = (rollout.number, Some(WorkerId::new(&scene.tag)));
    let subject = LiveSubject::Rollout(number);
    let wake = Some(scene.wall().after(Duration::from_secs(60)));
    let live =
        |owner, wake, asked| Some(Live { subject: LiveSubject::Rollout(number), number, owner, wake, asked });
    scene.write(vec![Write::CreateRollout(Box::new(rollout.clone()))]).await;
    rollout.version = 1;
    scene.lists(&subject, live(None, None, false), "an accepted rollout").await;
    let steps = [
        (RolloutStatus::Waiting, None, wake, None, live(None, wake, false)),
        (RolloutStatus::Running, worker.clone(), None, None, live(worker.clone(), None, false)),
        (RolloutStatus::Running, worker.clone(), None, Some(Control::Pause), live(worker, None, true)),
        (RolloutStatus::Paused, None, None, None, None),
        (RolloutStatus::Waiting, None, None, None, live(None, None, false)),
        (RolloutStatus::Halted, None, None, None, None),
        (RolloutStatus::Aborted, None, None, None, None),
    ];
    for (status, owner, wake, control, expected) in steps {
        (rollout.status, rollout.owner, rollout.wake, rollout.control) = (status, owner, wake, control);
        scene.write(vec![Write::Rollout(Box::new(rollout.clone()))]).await;
        rollout.version += 1;
        scene.lists(&subject, expected, &format!("a rollout that is {}", status.as_str())).await;
    }
}

/// Live and ended operations are one list, newest first; what has ended is found by its id.
pub async fn operations_are_listed_newest_first(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(Site { phase: Phase::Created, ..scene.site("a") }).await;
    let mut numbers = Vec::new();
    for task in [Task::Create, provision(), provision()] {
        let ended = scene.ended(&site.id, scene.number().await, task);
        let call = scene.call();
        for _ in 0..2 {
            let batch = Batch::of(vec![Write::History(Box::new(ended.clone()))]);
            applied("history, also repeated", store.write(&call, &batch).await);
        }
        assert_eq!(
            answered("history", store.history(&ended.id).await).as_ref(),
            Some(&ended),
            "history is kept"
        );
        numbers.insert(0, ended.id.number);
    }
    let parked = Slot { status: Status::Parked, ..scene.slot(provision()).await };
    numbers.insert(0, parked.number);
    let on = OperationId::on(parked.number, Subject::Site(site.id.clone()));
    scene.change(&site, |site| site.slot = Some(parked)).await;
    assert_eq!(
        answered("history", store.history(&on).await),
        None,
        "what has not ended is in its subject's record"
    );
    let of_site = OperationQuery { site: Some(site.id.clone()), ..OperationQuery::default() };
    scene
        .eventually("every operation of a site, newest first", async || {
            scene.operations(&of_site).await == numbers
        })
        .await;
    let created = OperationQuery { kind: Some(Kind::Create), ..of_site.clone() };
    assert_eq!(scene.operations(&created).await, numbers[3..], "operations are found by kind");
    let resting = OperationQuery { status: Some(Status::Parked), ..of_site };
    assert_eq!(scene.operations(&resting).await, numbers[..1], "operations are found by status");
}

/// Drawn numbers are positive, consecutive within a draw, and drawn once.
pub async fn numbers_never_repeat(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut drawn = BTreeSet::new();
    for counts in [(1, 1), (5, 300), (1, 2)] {
        let (one, two) = (scene.call(), scene.call());
        let (first, second) = join(store.numbers(&one, counts.0), store.numbers(&two, counts.1)).await;
        for (first, count) in [(applied("numbers", first), counts.0), (applied("numbers", second), counts.1)]
        {
            for number in (first..).take(count as usize) {
                assert!(number > 0 && drawn.insert(number), "a number is drawn once: {number}");
            }
        }
    }
}

/// A key is used once by one actor, and its first answer is read back.
pub async fn a_key_is_used_once(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let record = scene.key("key");
    assert_eq!(scene.kept("key").await, None, "an unused key has no answer");
    let site = scene.site("a");
    let with = |write, record: &IdempotencyRecord| Batch {
        idempotency: Some(record.clone()),
        ..Batch::of(vec![write])
    };
    let create = with(Write::CreateSite(Box::new(site.clone())), &record);
    applied("a write with a key", store.write(&scene.call(), &create).await);
    assert_eq!(scene.kept("key").await.as_ref(), Some(&record), "the first answer is read back");
    let answer = refused("the same request again", store.write(&scene.call(), &create).await);
    assert_eq!(answer, Refused::KeyUsed, "a used key outranks the conflict that its first use has caused");
    let other = scene.site("b");
    let second = IdempotencyRecord { answer: "another".to_owned(), ..record.clone() };
    let again = with(Write::CreateSite(Box::new(other.clone())), &second);
    assert_eq!(
        refused("a used key", store.write(&scene.call(), &again).await),
        Refused::KeyUsed,
        "a key is used once"
    );
    assert_eq!(scene.read(&other.id).await, None, "a batch under a used key writes nothing");
    assert_eq!(scene.kept("key").await.as_ref(), Some(&record), "the first answer stays");
    let actor = cdm_core::domain::Actor::parse("someone else").expect("an actor");
    let theirs = IdempotencyRecord { actor: actor.clone(), ..second };
    applied(
        "another's key",
        store.write(&scene.call(), &with(Write::CreateSite(Box::new(other)), &theirs)).await,
    );
    let read = answered("idempotency", store.idempotency(&actor, &theirs.key).await);
    assert_eq!(read, Some(theirs), "each actor has keys of its own");
}

/// A key's answer is kept for 24 hours; then the key is as good as new.
pub async fn an_old_key_is_forgotten(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let now = scene.wall().millis();
    let young = Timestamp::from_millis(now.saturating_sub(23 * 60 * 60 * 1000));
    let old = Timestamp::from_millis(now.saturating_sub(25 * 60 * 60 * 1000));
    for (name, at, kept) in [("young", young, true), ("old", old, false)] {
        let batch = |id: &str, record| Batch {
            idempotency: Some(record),
            ..Batch::of(vec![Write::CreateSite(Box::new(scene.site(id)))])
        };
        let record = IdempotencyRecord { at, ..scene.key(name) };
        applied("a key", store.write(&scene.call(), &batch(&format!("{name}1"), record.clone())).await);
        assert_eq!(scene.kept(name).await, kept.then_some(record), "an answer is kept for 24 hours");
        let again = store.write(&scene.call(), &batch(&format!("{name}2"), scene.key(name))).await;
        assert_eq!(again == Outcome::Applied(()), !kept, "a key is free again after 24 hours, not before");
    }
}

/// Pages of sites follow one another in order of ids, and the last one says that it is the last.
pub async fn sites_come_in_order(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut ids = Vec::new();
    for suffix in ["e", "c", "a", "d", "b"] {
        let mut site = scene.site(suffix);
        site.service = if suffix == "c" { Selector::Green } else { Selector::Blue };
        site.phase = if suffix == "d" { Phase::Created } else { Phase::Active };
        site.name = SiteName::parse(&format!("Ours {}", scene.tag)).expect("a site name");
        ids.push(scene.create(site).await.id);
    }
    ids.sort();
    let all = SiteQuery { text: Some(scene.tag.clone()), ..SiteQuery::default() };
    let green = SiteQuery { service: Some(Selector::Green), ..all.clone() };
    let active = SiteQuery { state: Some(cdm_core::domain::State::Active), ..all.clone() };
    let host = SiteQuery { text: Some(format!("{}.example", ids[4])), ..SiteQuery::default() };
    let active_ids = [0, 1, 2, 4].map(|at| ids[at].clone());
    for (query, expected) in
        [(all, &ids[..]), (green, &ids[2..3]), (active, &active_ids[..]), (host, &ids[4..])]
    {
        scene.eventually("what a query has", async || scene.sites(&query).await == expected).await;
        let count = async || answered("count", store.count(&query).await) == expected.len() as u64;
        scene.eventually("how many sites a query has", count).await;
    }
}

/// Audit entries are read newest first, and the last page says that it is the last.
pub async fn audit_is_newest_first(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut expected = Vec::new();
    for at in 0..5 {
        let entry = scene.audit(&at.to_string());
        let batch = Batch { audit: Some(entry.clone()), ..Batch::default() };
        applied("an audit entry alone", store.write(&scene.call(), &batch).await);
        expected.insert(0, entry);
    }
    assert_eq!(scene.audits().await, expected, "audit entries are read once each, newest first");
}

/// Events are read oldest first, also those of one batch, and the last page says that it is the last.
pub async fn events_are_oldest_first(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        let version = scene.version(&site.id).await;
        let events = [1, 2].map(|at| scene.event(&format!("{round}-{at}")));
        expected.extend(events.clone());
        let writes = vec![Write::Site(Box::new(Site { version, ..site.clone() }))];
        let batch = Batch { events: events.to_vec(), ..Batch::of(writes) };
        applied("events", store.write(&scene.call(), &batch).await);
    }
    assert_eq!(scene.events().await, expected, "events are read once each, oldest first");
}

/// A worker is listed with its last beat until it says that it stops.
pub async fn beats_are_listed_until_they_stop(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let workers = ["w", "w2"].map(|name| WorkerId::new(&format!("{}{name}", scene.tag)));
    let count = async |worker: &WorkerId| {
        let beats = answered("beats", store.beats().await);
        beats.into_iter().find(|beat| beat.worker == *worker).map(|beat| beat.count)
    };
    for beat in [1, 2, 7] {
        for worker in &workers {
            applied("a beat", store.beat(&scene.call(), worker, Some(beat)).await);
            assert_eq!(count(worker).await, Some(beat), "a worker's last beat is listed");
        }
    }
    for _ in 0..2 {
        applied("a stop, also repeated", store.beat(&scene.call(), &workers[0], None).await);
    }
    assert_eq!(count(&workers[0]).await, None, "a worker that has stopped is not listed");
    assert_eq!(count(&workers[1]).await, Some(7), "the others are");
}

/// Names of one test's own, so that it finds nothing of others.
struct Scene<'a> {
    store: &'a dyn Store,
    cx: &'a Cx<'a>,
    tag: String,
}

impl<'a> Scene<'a> {
    fn new(store: &'a dyn Store, cx: &'a Cx<'a>) -> Self {
        Self { store, cx, tag: format!("t{}", &cx.uid().to_string()[10..]) }
    }

    fn call(&self) -> Call {
        self.cx.call()
    }

    /// What people's clocks show.
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.cx.uid().millis())
    }

    fn id(&self, suffix: &str) -> SiteId {
        SiteId::parse(&format!("{}{suffix}", self.tag)).expect("a site id")
    }

    /// A site of a fresh uid that is not written yet.
    fn site(&self, suffix: &str) -> Site {
        Site { uid: self.cx.uid(), ..build::site(self.id(suffix).as_str()) }
    }

    fn ended(&self, id: &SiteId, number: u64, task: Task) -> Operation {
        let slot = Slot { status: Status::Ended(End::Succeeded), ..build::slot(number, task) };
        let operation = Operation::live(Subject::Site(id.clone()), slot);
        Operation { finished_at: Some(self.wall()), ..operation }
    }

    fn audit(&self, target: &str) -> AuditEntry {
        AuditEntry {
            at: self.wall(),
            actor: build::actor(),
            action: "site.promote".into(),
            target: format!("{}{target}", self.tag),
            request_id: Some(self.tag.clone()),
            outcome: "accepted".into(),
            operation: Some(OperationId::on(1, Subject::Fleet)),
        }
    }

    fn event(&self, what: &str) -> FeedEvent {
        FeedEvent {
            at: self.wall(),
            subject: Some(Subject::Site(self.id("a"))),
            operation: Some(OperationId::on(1, Subject::Site(self.id("a")))),
            rollout: None,
            what: format!("{}{what}", self.tag),
        }
    }

    fn key(&self, name: &str) -> IdempotencyRecord {
        IdempotencyRecord {
            actor: build::actor(),
            key: IdempotencyKey::parse(&format!("{}{name}", self.tag)).expect("a key"),
            fingerprint: u64::MAX,
            answer: format!("{name} was answered"),
            at: self.wall(),
        }
    }

    async fn number(&self) -> u64 {
        applied("numbers", self.store.numbers(&self.call(), 1).await)
    }

    async fn slot(&self, task: Task) -> Slot {
        build::slot(self.number().await, task)
    }

    async fn run(&self) -> Run {
        let rollout = applied("numbers", self.store.numbers(&self.call(), 2).await);
        Run { rollout, member: rollout + 1 }
    }

    async fn try_write(&self, writes: Vec<Write>) -> Outcome<(), Refused> {
        self.store.write(&self.call(), &Batch::of(writes)).await
    }

    async fn write(&self, writes: Vec<Write>) {
        applied("a write of what is as expected", self.try_write(writes).await);
    }

    async fn create(&self, site: Site) -> Site {
        self.write(vec![Write::CreateSite(Box::new(site.clone()))]).await;
        Site { version: 1, ..site }
    }

    async fn change(&self, site: &Site, change: impl FnOnce(&mut Site)) -> Site {
        let mut site = site.clone();
        change(&mut site);
        self.write(vec![Write::Site(Box::new(site.clone()))]).await;
        Site { version: site.version + 1, ..site }
    }

    async fn read(&self, id: &SiteId) -> Option<Site> {
        answered("site", self.store.site(id).await)
    }

    async fn version(&self, id: &SiteId) -> u64 {
        self.read(id).await.map_or(0, |site| site.version)
    }

    async fn owner(&self, host: &Hostname) -> Option<SiteId> {
        answered("hostname", self.store.hostname(host).await)
    }

    async fn kept(&self, name: &str) -> Option<IdempotencyRecord> {
        let key = self.key(name);
        answered("idempotency", self.store.idempotency(&key.actor, &key.key).await)
    }

    async fn sites(&self, query: &SiteQuery) -> Vec<SiteId> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = answered("sites", self.store.sites(query, after.as_ref(), 2).await);
            assert!(page.items.len() <= 2, "a page has no more items than were asked for");
            ids.extend(page.items.into_iter().map(|site| site.id));
            assert!(page.next.is_none() || page.next > after, "a page begins after the one before");
            after = page.next;
            if after.is_none() {
                return ids;
            }
        }
    }

    async fn operations(&self, query: &OperationQuery) -> Vec<u64> {
        let (mut numbers, mut before) = (Vec::new(), None);
        loop {
            let page = answered("operations", self.store.operations(query, before, 2).await);
            assert!(page.items.len() <= 2, "a page has no more items than were asked for");
            numbers.extend(page.items.into_iter().map(|operation| operation.id.number));
            before = page.next;
            if before.is_none() {
                return numbers;
            }
        }
    }

    async fn audits(&self) -> Vec<AuditEntry> {
        let (mut entries, mut before) = (Vec::new(), None);
        loop {
            let page = answered("audit", self.store.audit(before, 3).await);
            assert!(page.items.len() <= 3, "a page has no more items than were asked for");
            entries.extend(page.items.into_iter().filter(|entry| entry.target.starts_with(&self.tag)));
            before = page.next;
            if before.is_none() {
                return entries;
            }
        }
    }

    async fn events(&self) -> Vec<FeedEvent> {
        let (mut events, mut after) = (Vec::new(), None);
        loop {
            let page = answered("events", self.store.events(after, 3).await);
            assert!(page.items.len() <= 3, "a page has no more items than were asked for");
            events.extend(page.items.into_iter().filter(|event| event.what.starts_with(&self.tag)));
            after = page.next;
            if after.is_none() {
                return events;
            }
        }
    }

    /// Asserts what `live` says of one subject.
    async fn lists(&self, subject: &LiveSubject, expected: Option<Live>, what: &str) {
        let promise = format!("live has of {what} {expected:?}");
        let agrees = async || {
            let mut live = answered("live", self.store.live().await);
            live.retain(|live| live.subject == *subject);
            live == expected.as_slice()
        };
        self.eventually(&promise, agrees).await;
    }

    /// Asserts what may lag: asks again for a while.
    async fn eventually(&self, promise: &str, holds: impl AsyncFn() -> bool) {
        self.cx.until(promise, async || holds().await.then_some(())).await;
    }
}

/// A rollout with one member.
struct Run {
    rollout: u64,
    member: u64,
}

impl Run {
    const fn grant(&self, term: u64) -> Grant {
        Grant { rollout: self.rollout, leg: Leg::Out, term }
    }

    fn claim(&self, site: &Site, term: u64, want: Want) -> Claim {
        Claim {
            id: site.id.clone(),
            uid: site.uid,
            grant: self.grant(term),
            want,
            ordinal: 0,
            number: self.member,
            owner: WorkerId::new(&format!("worker-{term}")),
            requested_by: build::actor(),
            at: site.updated_at.after(Duration::from_secs(term)),
        }
    }

    fn complete(&self, site: &Site, term: u64, epoch: u64) -> Complete {
        let fence = Fence::new(self.member, epoch);
        Complete {
            id: site.id.clone(),
            grant: self.grant(term),
            fence,
            outcome: Some(Came::Moved),
            service: Some(Selector::Green),
            route: Some(Routed { service: Selector::Green, fence }),
            at: site.updated_at.after(Duration::from_secs(100)),
        }
    }
}

const fn provision() -> Task {
    Task::Provision(Selector::Blue)
}

fn host(name: &str) -> Hostname {
    Hostname::parse(name).expect("a hostname")
}

fn hostnames(names: &[&str]) -> Hostnames {
    Hostnames::parse(names, names[0]).expect("hostnames")
}

#[track_caller]
fn answered<T>(read: &str, answer: Result<T, StoreError>) -> T {
    answer.unwrap_or_else(|error| panic!("`{read}` is answered: {error:?}"))
}

#[track_caller]
fn applied<T: Debug>(what: &str, outcome: Outcome<T, Refused>) -> T {
    match outcome {
        Outcome::Applied(value) => value,
        Outcome::NotApplied(_) | Outcome::Unknown(_) => panic!("{what} is applied: {outcome:?}"),
    }
}

#[track_caller]
fn refused<T: Debug>(what: &str, outcome: Outcome<T, Refused>) -> Refused {
    match outcome {
        Outcome::NotApplied(refused) => refused,
        Outcome::Applied(_) | Outcome::Unknown(_) => panic!("{what} is refused: {outcome:?}"),
    }
}

#[track_caller]
fn conflict(what: &str, outcome: Outcome<(), Refused>) {
    let answer = refused(what, outcome);
    assert!(matches!(answer, Refused::Conflict(_)), "{what} is a conflict: {answer:?}");
}

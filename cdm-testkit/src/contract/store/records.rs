//! Records, batches and keys: all or nothing, each write once, and nothing that is out of date.

use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::user::{PasswordHash, RecoveryHash, SecondFactor, Session, User, Users};
use cdm_core::domain::webhook::{DeliveryState, Topic, Webhook, Webhooks};
use cdm_core::domain::{
    Actor, Color, OperationInput, Role, RolloutKind, RolloutStatus, Site, Timestamp, TokenHash, UserName,
    WorkerId,
};
use cdm_core::ports::{IdempotencyRecord, Mutation, OperationQuery, Outcome, Store, WriteBatch, WriteError};
use futures_util::future::join;

use super::super::Cx;
use super::scene::{Scene, answered, applied, conflict, host, hostnames, provision, refused};
use crate::build;

/// A created site is found by id and by each hostname, at version 1 whatever its field said.
pub async fn creation_claims_hostnames(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut site = scene.site("a");
    let other = format!("www.{}.example.org", site.id);
    site.hostnames = hostnames(&[site.hostnames.canonical().as_str(), &other]);
    site.version = 7;
    scene.write(vec![Mutation::CreateSite(Box::new(site.clone()))]).await;
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
        scene.try_write(vec![Mutation::CreateSite(Box::new(thief.clone()))]).await,
    );
    let expected = WriteError::HostnameTaken { host: stolen.clone(), site: owner.id.clone() };
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
    conflict("an id that exists", scene.try_write(vec![Mutation::CreateSite(Box::new(second))]).await);
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
        scene.try_write(vec![Mutation::CreateSite(Box::new(one.clone()))]),
        scene.try_write(vec![Mutation::CreateSite(Box::new(two.clone()))]),
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
    newer.service = Color::Green;
    scene.write(vec![Mutation::Site(Box::new(newer.clone()))]).await;
    newer.version += 1;
    assert_eq!(scene.read(&read.id).await.as_ref(), Some(&newer), "a write raises the version by one");
    conflict(
        "a version that was read before another write",
        scene.try_write(vec![Mutation::Site(Box::new(read.clone()))]).await,
    );
    let ahead = Site { version: newer.version + 1, ..newer.clone() };
    conflict(
        "a version that was never written",
        scene.try_write(vec![Mutation::Site(Box::new(ahead))]).await,
    );
    conflict(
        "removing an old version",
        scene.try_write(vec![Mutation::RemoveSite(read.id.clone(), read.uid, read.version)]).await,
    );
    let absent = scene.site("absent");
    conflict(
        "a site that is not there",
        scene.try_write(vec![Mutation::Site(Box::new(absent.clone()))]).await,
    );
    conflict(
        "removing what is not there",
        scene.try_write(vec![Mutation::RemoveSite(absent.id, absent.uid, 1)]).await,
    );
    assert_eq!(scene.read(&read.id).await, Some(newer), "refused writes leave the site as it was");
}

/// What was read of a removed site does not fit its successor, though the versions are the same.
pub async fn another_incarnation_is_refused(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let old = scene.create(scene.site("a")).await;
    scene.write(vec![Mutation::RemoveSite(old.id.clone(), old.uid, old.version)]).await;
    let new = scene.create(scene.site("a")).await;
    assert_eq!(old.version, new.version, "a site begins at version 1");
    conflict("a write of another incarnation", scene.try_write(vec![Mutation::Site(Box::new(old))]).await);
    assert_eq!(scene.read(&new.id).await.as_ref(), Some(&new), "the successor stays as it was");
}

/// One record out of date keeps the whole batch out, with its audit entry, its key and its events.
pub async fn a_batch_is_all_or_nothing(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let (good, stale) = (scene.create(scene.site("good")).await, scene.create(scene.site("stale")).await);
    scene.write(vec![Mutation::Site(Box::new(stale.clone()))]).await;
    let (new, number) = (scene.site("new"), scene.number().await);
    let operation = scene.ended(&good.id, number, provision());
    let rollout = build::rollout(scene.number().await, RolloutKind::Flush, Color::Blue, 1);
    let batch = WriteBatch {
        writes: vec![
            Mutation::Site(Box::new(good.clone())),
            Mutation::CreateSite(Box::new(new.clone())),
            Mutation::CreateRollout(Box::new(rollout.clone())),
            Mutation::RolloutPage(build::page(rollout.number, 0, std::slice::from_ref(&good))),
            Mutation::History(Box::new(operation.clone())),
            Mutation::Site(Box::new(stale)),
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
    let batch = WriteBatch {
        writes: vec![Mutation::CreateSite(Box::new(site.clone()))],
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
    let writes = vec![Mutation::Site(Box::new(site.clone())), Mutation::Site(Box::new(second.clone()))];
    let batch = WriteBatch {
        audit: Some(scene.audit("change")),
        events: vec![scene.event("change")],
        ..WriteBatch::of(writes)
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
    let alone = WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 2, ..second.clone() }))]);
    applied("a write after it", store.write(&scene.call(), &alone).await);
    applied("the batch again: its first record is still its own", store.write(&call, &batch).await);
    assert_eq!(scene.version(&second.id).await, 3, "a repetition does not undo what came after");
}

/// A removal whose answer was lost is repeated, also when the id was given away since.
pub async fn a_repeated_removal_is_applied(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let (call, removal) =
        (scene.call(), WriteBatch::of(vec![Mutation::RemoveSite(site.id.clone(), site.uid, site.version)]));
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
    let busy = scene.operation(provision()).await;
    scene.change(&long, |site| site.operation = Some(busy.clone())).await;
    let ended = scene.ended(&long.id, scene.number().await, OperationInput::Create);
    scene.write(vec![Mutation::History(Box::new(ended))]).await;
    let query = OperationQuery { site: Some(short.id.clone()), ..OperationQuery::default() };
    assert_eq!(scene.operations(&query).await, Vec::<u64>::new(), "operations of `ab` are not those of `a`");
    let host = short.hostnames.canonical();
    assert_eq!(scene.owner(host).await.as_ref(), Some(&short.id), "the hostname of `a` is that of `a`");
    scene.write(vec![Mutation::RemoveSite(short.id.clone(), short.uid, short.version)]).await;
    assert!(scene.read(&long.id).await.is_some(), "removing `a` spares `ab`");
    let owner = scene.owner(long.hostnames.canonical()).await;
    assert_eq!(owner, Some(long.id), "removing `a` spares the hostname of `ab`");
}

/// After a removal its hostnames are free, and the id begins again with another uid.
pub async fn removal_frees_names(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let host = site.hostnames.canonical().clone();
    scene.write(vec![Mutation::RemoveSite(site.id.clone(), site.uid, site.version)]).await;
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

/// The colours' records and the platform's begin empty at version 0 and are fenced by version like a site's.
pub async fn shared_records_carry_versions(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let number = scene.number().await;
    for color in Color::ALL {
        let mut service = answered("colour", store.service(color).await);
        assert_eq!(service.color, color, "each colour has a record of its own");
        let stale = service.clone();
        service.lock.moves.insert(number);
        let call = scene.call();
        for _ in 0..2 {
            let batch = WriteBatch::of(vec![Mutation::Service(Box::new(service.clone()))]);
            applied("a colour's write, also repeated", store.write(&call, &batch).await);
        }
        service.version += 1;
        assert_eq!(answered("colour", store.service(color).await), service, "a colour is written once");
        conflict("a colour's old version", scene.try_write(vec![Mutation::Service(Box::new(stale))]).await);
        service.lock.release(number);
        scene.write(vec![Mutation::Service(Box::new(service))]).await;
    }
    let stale = answered("fleet", store.fleet().await);
    let mut fleet = stale.clone();
    fleet.rollout = Some(number);
    scene.write(vec![Mutation::Fleet(Box::new(fleet.clone()))]).await;
    fleet.version += 1;
    assert_eq!(answered("fleet", store.fleet().await), fleet, "the platform's record is read back");
    conflict(
        "the platform's old version",
        scene.try_write(vec![Mutation::Fleet(Box::new(stale.clone()))]).await,
    );
    let newer = cdm_core::domain::Fleet { version: fleet.version, ..stale };
    scene.write(vec![Mutation::Fleet(Box::new(newer))]).await;
}

/// The webhooks' record is fenced by version and comes back whole.
pub async fn webhooks_are_one_record(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let stale = answered("webhooks", store.webhooks().await);
    let then = Timestamp::from_millis(1_700_000_000_123);
    let webhook = |number, standing| Webhook {
        number,
        uid: cx.uid(),
        url: format!("https://hooks.example.com:8443/{number}?a=%20\"'"),
        topics: Topic::usual(),
        by: Actor::parse("ops").expect("an actor"),
        at: then,
        cursor: u64::MAX >> 1,
        standing,
    };
    let why = "the receiver answers 503".to_owned();
    let failing = DeliveryState::Failing { times: 3, since: then, next: then, why: why.clone() };
    let list = vec![
        webhook(1, DeliveryState::Active),
        webhook(2, failing),
        webhook(3, DeliveryState::Stopped { at: then, why }),
    ];
    let mut webhooks = Webhooks { dispatcher: Some(WorkerId::new("w")), list, version: stale.version };
    let call = scene.call();
    for _ in 0..2 {
        let batch = WriteBatch::of(vec![Mutation::Webhooks(Box::new(webhooks.clone()))]);
        applied("the webhooks' write, also repeated", store.write(&call, &batch).await);
    }
    webhooks.version += 1;
    assert_eq!(answered("webhooks", store.webhooks().await), webhooks, "the webhooks are read back");
    let late = scene.try_write(vec![Mutation::Webhooks(Box::new(stale.clone()))]).await;
    conflict("the webhooks' old version", late);
    scene.write(vec![Mutation::Webhooks(Box::new(Webhooks { version: webhooks.version, ..stale }))]).await;
}

/// The users' record is fenced by version and comes back whole.
pub async fn users_are_one_record(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let stale = answered("users", store.users().await);
    let then = Timestamp::from_millis(1_700_000_000_123);
    let user = |name, role, removed| User {
        name: UserName::parse(name).expect("a user name"),
        role,
        password: PasswordHash::new("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned()),
        second: None,
        identity: None,
        by: Actor::parse("ops").expect("an actor"),
        at: then,
        removed,
    };
    let second = SecondFactor {
        sealed: "sealed".to_owned(),
        at: then,
        step: 56_666_666,
        recovery: vec![RecoveryHash([9; 16])],
    };
    let ada =
        User { second: Some(second), identity: Some(TokenHash([5; 32])), ..user("ada", Role::Admin, None) };
    let list = vec![ada, user("b.c@example.com", Role::Viewer, Some(then))];
    let session = |from: Option<&str>| Session {
        id: cx.uid(),
        user: list[0].name.clone(),
        hash: TokenHash([7; 32]),
        from: from.map(str::to_owned),
        at: then,
        until: then.after(Session::LASTS),
        used: from.map(|_| then.after(Session::TOUCH)),
    };
    let sessions = vec![session(None), session(Some("2001:db8::1"))];
    let mut users = Users { list, sessions, version: stale.version };
    let call = scene.call();
    for _ in 0..2 {
        let batch = WriteBatch::of(vec![Mutation::Users(Box::new(users.clone()))]);
        applied("the users' write, also repeated", store.write(&call, &batch).await);
    }
    users.version += 1;
    assert_eq!(answered("users", store.users().await), users, "the users are read back");
    let late = scene.try_write(vec![Mutation::Users(Box::new(stale.clone()))]).await;
    conflict("the users' old version", late);
    scene.write(vec![Mutation::Users(Box::new(Users { version: users.version, ..stale }))]).await;
}

/// A rollout is created once, fenced by version, and its pages are read back; lists are newest first.
pub async fn rollouts_keep_their_pages(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let mut rollout = build::rollout(scene.number().await, RolloutKind::Upgrade, Color::Green, 2);
        let pages = [scene.site("a"), scene.site("b")].map(|site| vec![site]);
        let mut writes = vec![Mutation::CreateRollout(Box::new(rollout.clone()))];
        for (at, sites) in (0..).zip(&pages) {
            writes.push(Mutation::RolloutPage(build::page(rollout.number, at, sites)));
        }
        scene.write(writes).await;
        conflict(
            "a rollout that exists",
            scene.try_write(vec![Mutation::CreateRollout(Box::new(rollout.clone()))]).await,
        );
        rollout.version = 1;
        let read = answered("rollout", store.rollout(rollout.number).await);
        assert_eq!(read.as_ref(), Some(&rollout), "a rollout begins at version 1");
        let mut page = build::page(rollout.number, 1, &pages[1]);
        let read = answered("rollout_page", store.rollout_page(rollout.number, 1).await);
        assert_eq!(read.as_ref(), Some(&page), "a page is read back");
        page.members[0].outcome = Some(MemberOutcome::Moved);
        let stale = rollout.clone();
        rollout.status = RolloutStatus::Succeeded;
        scene
            .write(vec![Mutation::Rollout(Box::new(rollout.clone())), Mutation::RolloutPage(page.clone())])
            .await;
        page.members[0].outcome = None;
        conflict(
            "a rollout's old version",
            scene
                .try_write(vec![Mutation::Rollout(Box::new(stale)), Mutation::RolloutPage(page.clone())])
                .await,
        );
        conflict(
            "a page by itself, once its rollout is there",
            scene.try_write(vec![Mutation::RolloutPage(page.clone())]).await,
        );
        page.members[0].outcome = Some(MemberOutcome::Moved);
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

/// A key is used once by one actor, and its first answer is read back.
pub async fn a_key_is_used_once(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let record = scene.key("key");
    assert_eq!(scene.kept("key").await, None, "an unused key has no answer");
    let site = scene.site("a");
    let with = |write, record: &IdempotencyRecord| WriteBatch {
        idempotency: Some(record.clone()),
        ..WriteBatch::of(vec![write])
    };
    let create = with(Mutation::CreateSite(Box::new(site.clone())), &record);
    applied("a write with a key", store.write(&scene.call(), &create).await);
    assert_eq!(scene.kept("key").await.as_ref(), Some(&record), "the first answer is read back");
    let answer = refused("the same request again", store.write(&scene.call(), &create).await);
    assert_eq!(answer, WriteError::KeyUsed, "a used key outranks the conflict that its first use has caused");
    let other = scene.site("b");
    let second = IdempotencyRecord { answer: "another".to_owned(), ..record.clone() };
    let again = with(Mutation::CreateSite(Box::new(other.clone())), &second);
    assert_eq!(
        refused("a used key", store.write(&scene.call(), &again).await),
        WriteError::KeyUsed,
        "a key is used once"
    );
    assert_eq!(scene.read(&other.id).await, None, "a batch under a used key writes nothing");
    assert_eq!(scene.kept("key").await.as_ref(), Some(&record), "the first answer stays");
    let actor = cdm_core::domain::Actor::parse("someone else").expect("an actor");
    let theirs = IdempotencyRecord { actor: actor.clone(), ..second };
    applied(
        "another's key",
        store.write(&scene.call(), &with(Mutation::CreateSite(Box::new(other)), &theirs)).await,
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
        let batch = |id: &str, record| WriteBatch {
            idempotency: Some(record),
            ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(scene.site(id)))])
        };
        let record = IdempotencyRecord { at, ..scene.key(name) };
        applied("a key", store.write(&scene.call(), &batch(&format!("{name}1"), record.clone())).await);
        assert_eq!(scene.kept(name).await, kept.then_some(record), "an answer is kept for 24 hours");
        let again = store.write(&scene.call(), &batch(&format!("{name}2"), scene.key(name))).await;
        assert_eq!(again == Outcome::Applied(()), !kept, "a key is free again after 24 hours, not before");
    }
}

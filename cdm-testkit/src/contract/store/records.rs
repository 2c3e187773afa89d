//! Records, batches and idempotency keys: all or nothing, written once, and rejected if outdated.

use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::user::{PasswordHash, RecoveryHash, SecondFactor, Session, User, Users};
use cdm_core::domain::webhook::{DeliveryState, Topic, Webhook, Webhooks};
use cdm_core::domain::{
    Actor, Color, OperationInput, Role, RolloutKind, RolloutStatus, Site, Timestamp, TokenHash, UserName,
    WorkerId,
};
use cdm_core::ports::{IdempotencyRecord, Mutation, OperationQuery, Outcome, Store, WriteBatch, WriteError};
use futures_util::future::join;

use super::super::SuiteContext;
use super::env::{TestEnv, applied, conflict, host, hostnames, provision, read_value, rejected};
use crate::fixtures;

/// A created site is found by id and by each hostname, at version 1, regardless of its version field.
pub async fn creation_claims_hostnames(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut site = env.site("a");
    let other = format!("www.{}.example.org", site.id);
    site.hostnames = hostnames(&[site.hostnames.canonical().as_str(), &other]);
    site.version = 7;
    env.write(vec![Mutation::CreateSite(Box::new(site.clone()))]).await;
    site.version = 1;
    assert_eq!(env.read(&site.id).await.as_ref(), Some(&site), "a created site is read back, at version 1");
    for host in site.hostnames.all() {
        assert_eq!(env.owner(host).await.as_ref(), Some(&site.id), "creation claims every hostname");
    }
    assert_eq!(env.owner(&host(&format!("x.{other}"))).await, None, "an unclaimed hostname has no owner");
}

/// A second site cannot take a hostname, and its rejected creation leaves nothing behind.
pub async fn a_hostname_has_one_owner(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let owner = env.create(env.site("owner")).await;
    let mut intruder = env.site("thief");
    let (own, stolen) = (intruder.hostnames.canonical().clone(), owner.hostnames.canonical().clone());
    intruder.hostnames = hostnames(&[own.as_str(), stolen.as_str()]);
    let error = rejected(
        "a claimed hostname",
        env.try_write(vec![Mutation::CreateSite(Box::new(intruder.clone()))]).await,
    );
    let expected = WriteError::HostnameTaken { host: stolen.clone(), site: owner.id.clone() };
    assert_eq!(error, expected, "the error names the hostname and its owner");
    assert_eq!(env.read(&intruder.id).await, None, "a rejected creation leaves no site");
    assert_eq!(env.owner(&own).await, None, "a rejected creation claims no hostname");
    assert_eq!(env.owner(&stolen).await, Some(owner.id), "the hostname stays with its owner");
}

/// Creating an existing id is a conflict, and changes nothing.
pub async fn an_id_has_one_site(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let first = env.create(env.site("a")).await;
    let mut second = env.site("a");
    second.hostnames = hostnames(&[&format!("second.{}.example.org", second.id)]);
    let hosts = second.hostnames.clone();
    conflict("an id that exists", env.try_write(vec![Mutation::CreateSite(Box::new(second))]).await);
    assert_eq!(
        env.read(&first.id).await.as_ref(),
        Some(&first),
        "a rejected creation leaves the site unchanged"
    );
    assert_eq!(env.owner(hosts.canonical()).await, None, "a rejected creation claims no hostname");
}

/// Of two concurrent creations of one id, one is applied and the other is a conflict.
pub async fn concurrent_creations_have_one_winner(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let (one, mut two) = (env.site("a"), env.site("a"));
    two.hostnames = hostnames(&[&format!("two.{}.example.org", two.id)]);
    let outcomes = join(
        env.try_write(vec![Mutation::CreateSite(Box::new(one.clone()))]),
        env.try_write(vec![Mutation::CreateSite(Box::new(two.clone()))]),
    );
    let (winner, loser, lost) = match outcomes.await {
        (Outcome::Applied(()), lost) => (one, two, lost),
        (lost, Outcome::Applied(())) => (two, one, lost),
        neither => panic!("one of two concurrent creations is applied: {neither:?}"),
    };
    conflict("the other of two concurrent creations", lost);
    let uid = env.read(&winner.id).await.map(|site| site.uid);
    assert_eq!(uid, Some(winner.uid), "the site is the winner's");
    assert_eq!(env.owner(loser.hostnames.canonical()).await, None, "the loser claims no hostname");
}

/// A write raises the version by one; a write of an older version is rejected.
pub async fn an_old_version_is_rejected(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let read = env.create(env.site("a")).await;
    let mut newer = read.clone();
    newer.service = Color::Green;
    env.write(vec![Mutation::Site(Box::new(newer.clone()))]).await;
    newer.version += 1;
    assert_eq!(env.read(&read.id).await.as_ref(), Some(&newer), "a write raises the version by one");
    conflict(
        "a version that was read before another write",
        env.try_write(vec![Mutation::Site(Box::new(read.clone()))]).await,
    );
    let ahead = Site { version: newer.version + 1, ..newer.clone() };
    conflict("a version that was never written", env.try_write(vec![Mutation::Site(Box::new(ahead))]).await);
    conflict(
        "removing an old version",
        env.try_write(vec![Mutation::RemoveSite(read.id.clone(), read.uid, read.version)]).await,
    );
    let absent = env.site("absent");
    conflict("a missing site", env.try_write(vec![Mutation::Site(Box::new(absent.clone()))]).await);
    conflict(
        "removing a missing site",
        env.try_write(vec![Mutation::RemoveSite(absent.id, absent.uid, 1)]).await,
    );
    assert_eq!(env.read(&read.id).await, Some(newer), "rejected writes leave the site unchanged");
}

/// A read of a removed site cannot be written to its successor, even if the versions are equal.
pub async fn another_incarnation_is_rejected(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let old = env.create(env.site("a")).await;
    env.write(vec![Mutation::RemoveSite(old.id.clone(), old.uid, old.version)]).await;
    let new = env.create(env.site("a")).await;
    assert_eq!(old.version, new.version, "a site begins at version 1");
    conflict("a write of another incarnation", env.try_write(vec![Mutation::Site(Box::new(old))]).await);
    assert_eq!(env.read(&new.id).await.as_ref(), Some(&new), "the successor is unchanged");
}

/// One outdated record rejects the whole batch, with its audit entry, idempotency key and events.
pub async fn a_batch_is_all_or_nothing(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let (good, stale) = (env.create(env.site("good")).await, env.create(env.site("stale")).await);
    env.write(vec![Mutation::Site(Box::new(stale.clone()))]).await;
    let (new, number) = (env.site("new"), env.number().await);
    let operation = env.ended(&good.id, number, provision());
    let rollout = fixtures::rollout(env.number().await, RolloutKind::Flush, Color::Blue, 1);
    let batch = WriteBatch {
        writes: vec![
            Mutation::Site(Box::new(good.clone())),
            Mutation::CreateSite(Box::new(new.clone())),
            Mutation::CreateRollout(Box::new(rollout.clone())),
            Mutation::RolloutPage(fixtures::page(rollout.number, 0, std::slice::from_ref(&good))),
            Mutation::History(Box::new(operation.clone())),
            Mutation::Site(Box::new(stale)),
        ],
        audit: Some(env.audit("nothing")),
        idempotency: Some(env.key("nothing")),
        events: vec![env.event("nothing")],
    };
    conflict("a batch with one outdated record", store.write(&env.call(), &batch).await);
    assert_eq!(env.read(&good.id).await, Some(good), "a rejected batch leaves its other records unchanged");
    assert_eq!(env.read(&new.id).await, None, "a rejected batch creates nothing");
    assert_eq!(env.owner(new.hostnames.canonical()).await, None, "a rejected batch claims nothing");
    let kept = (
        read_value("rollout", store.rollout(rollout.number).await).is_some(),
        read_value("rollout_page", store.rollout_page(rollout.number, 0).await).is_some(),
        read_value("history", store.history(&operation.id).await).is_some(),
        env.stored_key("nothing").await.is_some(),
        env.audits().await.len(),
        env.events().await.len(),
    );
    assert_eq!(kept, (false, false, false, false, 0, 0), "a rejected batch leaves no trace");
}

/// The same batch with the same write id is applied again, and written once.
pub async fn a_repeated_write_is_written_once(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut site = env.site("a");
    let batch = WriteBatch {
        writes: vec![Mutation::CreateSite(Box::new(site.clone()))],
        audit: Some(env.audit("create")),
        idempotency: Some(env.key("create")),
        events: vec![env.event("create")],
    };
    let call = env.call();
    for _ in 0..3 {
        applied("a repeated creation", store.write(&call, &batch).await);
    }
    site.version = 1;
    assert_eq!(env.read(&site.id).await.as_ref(), Some(&site), "a repeated creation is written once");
    let second = env.create(env.site("b")).await;
    let writes = vec![Mutation::Site(Box::new(site.clone())), Mutation::Site(Box::new(second.clone()))];
    let batch = WriteBatch {
        audit: Some(env.audit("change")),
        events: vec![env.event("change")],
        ..WriteBatch::of(writes)
    };
    let call = env.call();
    for _ in 0..2 {
        applied("a repeated change", store.write(&call, &batch).await);
    }
    let versions = (env.version(&site.id).await, env.version(&second.id).await);
    assert_eq!(versions, (2, 2), "a repeated change is written once");
    assert_eq!(
        (env.audits().await.len(), env.events().await.len()),
        (2, 2),
        "repetitions leave no second trace"
    );
    let alone = WriteBatch::of(vec![Mutation::Site(Box::new(Site { version: 2, ..second.clone() }))]);
    applied("a write after it", store.write(&env.call(), &alone).await);
    applied("the batch again: its first record is still its own", store.write(&call, &batch).await);
    assert_eq!(env.version(&second.id).await, 3, "a repetition does not undo later writes");
}

/// A removal with a lost response may be repeated, even after the id was used again.
pub async fn a_repeated_removal_is_applied(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let site = env.create(env.site("a")).await;
    let (call, removal) =
        (env.call(), WriteBatch::of(vec![Mutation::RemoveSite(site.id.clone(), site.uid, site.version)]));
    for _ in 0..2 {
        applied("a repeated removal", store.write(&call, &removal).await);
    }
    let next = env.create(env.site("a")).await;
    applied("a removal that is repeated late", store.write(&call, &removal).await);
    assert_eq!(env.read(&site.id).await, Some(next), "a repeated removal keeps the later site");
}

/// A site whose id begins with another site's id is independent of it.
pub async fn ids_are_not_matched_by_prefix(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let long = env.create(env.site("ab")).await;
    let id = env.id("a");
    assert_eq!(env.read(&id).await, None, "`ab` is not `a`");
    let short = env.create(env.site("a")).await;
    let busy = env.operation(provision()).await;
    env.change(&long, |site| site.operation = Some(busy.clone())).await;
    let ended = env.ended(&long.id, env.number().await, OperationInput::Create);
    env.write(vec![Mutation::History(Box::new(ended))]).await;
    let query = OperationQuery { site: Some(short.id.clone()), ..OperationQuery::default() };
    assert_eq!(env.operations(&query).await, Vec::<u64>::new(), "operations of `ab` are not those of `a`");
    let host = short.hostnames.canonical();
    assert_eq!(env.owner(host).await.as_ref(), Some(&short.id), "the hostname of `a` is that of `a`");
    env.write(vec![Mutation::RemoveSite(short.id.clone(), short.uid, short.version)]).await;
    assert!(env.read(&long.id).await.is_some(), "removing `a` keeps `ab`");
    let owner = env.owner(long.hostnames.canonical()).await;
    assert_eq!(owner, Some(long.id), "removing `a` keeps the hostname of `ab`");
}

/// A removal frees the hostnames, and the id can be used again with another uid.
pub async fn removal_frees_names(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let site = env.create(env.site("a")).await;
    let host = site.hostnames.canonical().clone();
    env.write(vec![Mutation::RemoveSite(site.id.clone(), site.uid, site.version)]).await;
    assert_eq!(env.read(&site.id).await, None, "a removed site is gone");
    assert_eq!(env.owner(&host).await, None, "a removal frees the hostnames");
    let successor = Site { hostnames: hostnames(&[host.as_str()]), ..env.site("heir") };
    let successor = env.create(successor).await;
    assert_eq!(env.owner(&host).await.as_ref(), Some(&successor.id), "another site takes a free hostname");
    let mut again = env.site("a");
    again.hostnames = hostnames(&[&format!("again.{}.example.org", again.id)]);
    assert_ne!(again.uid, site.uid, "each incarnation has a unique uid");
    assert_eq!(env.create(again).await.version, 1, "a free id begins again");
}

/// The records of the services and the fleet begin empty at version 0, and are fenced by version like a site's.
pub async fn shared_records_carry_versions(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let number = env.number().await;
    for color in Color::ALL {
        let mut service = read_value("service", store.service(color).await);
        assert_eq!(service.color, color, "each service has its own record");
        let stale = service.clone();
        service.lock.moves.insert(number);
        let call = env.call();
        for _ in 0..2 {
            let batch = WriteBatch::of(vec![Mutation::Service(Box::new(service.clone()))]);
            applied("a service's write, also repeated", store.write(&call, &batch).await);
        }
        service.version += 1;
        assert_eq!(read_value("service", store.service(color).await), service, "a service is written once");
        conflict(
            "an old version of a service",
            env.try_write(vec![Mutation::Service(Box::new(stale))]).await,
        );
        service.lock.release(number);
        env.write(vec![Mutation::Service(Box::new(service))]).await;
    }
    let stale = read_value("fleet", store.fleet().await);
    let mut fleet = stale.clone();
    fleet.rollout = Some(number);
    env.write(vec![Mutation::Fleet(Box::new(fleet.clone()))]).await;
    fleet.version += 1;
    assert_eq!(read_value("fleet", store.fleet().await), fleet, "the fleet's record is read back");
    conflict(
        "an old version of the fleet",
        env.try_write(vec![Mutation::Fleet(Box::new(stale.clone()))]).await,
    );
    let newer = cdm_core::domain::Fleet { version: fleet.version, ..stale };
    env.write(vec![Mutation::Fleet(Box::new(newer))]).await;
}

/// The webhooks' record is fenced by version and read back unchanged.
pub async fn webhooks_are_one_record(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let stale = read_value("webhooks", store.webhooks().await);
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
    let call = env.call();
    for _ in 0..2 {
        let batch = WriteBatch::of(vec![Mutation::Webhooks(Box::new(webhooks.clone()))]);
        applied("a write of the webhooks, also repeated", store.write(&call, &batch).await);
    }
    webhooks.version += 1;
    assert_eq!(read_value("webhooks", store.webhooks().await), webhooks, "the webhooks are read back");
    let late = env.try_write(vec![Mutation::Webhooks(Box::new(stale.clone()))]).await;
    conflict("an old version of the webhooks", late);
    env.write(vec![Mutation::Webhooks(Box::new(Webhooks { version: webhooks.version, ..stale }))]).await;
}

/// The users' record is fenced by version and read back unchanged.
pub async fn users_are_one_record(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let stale = read_value("users", store.users().await);
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
    let call = env.call();
    for _ in 0..2 {
        let batch = WriteBatch::of(vec![Mutation::Users(Box::new(users.clone()))]);
        applied("a write of the users, also repeated", store.write(&call, &batch).await);
    }
    users.version += 1;
    assert_eq!(read_value("users", store.users().await), users, "the users are read back");
    let late = env.try_write(vec![Mutation::Users(Box::new(stale.clone()))]).await;
    conflict("an old version of the users", late);
    env.write(vec![Mutation::Users(Box::new(Users { version: users.version, ..stale }))]).await;
}

/// A rollout is created once, fenced by version, and read back with its pages. Lists are newest first.
pub async fn rollouts_keep_their_pages(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let mut rollout = fixtures::rollout(env.number().await, RolloutKind::Upgrade, Color::Green, 2);
        let pages = [env.site("a"), env.site("b")].map(|site| vec![site]);
        let mut writes = vec![Mutation::CreateRollout(Box::new(rollout.clone()))];
        for (at, sites) in (0..).zip(&pages) {
            writes.push(Mutation::RolloutPage(fixtures::page(rollout.number, at, sites)));
        }
        env.write(writes).await;
        conflict(
            "a rollout that exists",
            env.try_write(vec![Mutation::CreateRollout(Box::new(rollout.clone()))]).await,
        );
        rollout.version = 1;
        let read = read_value("rollout", store.rollout(rollout.number).await);
        assert_eq!(read.as_ref(), Some(&rollout), "a rollout begins at version 1");
        let mut page = fixtures::page(rollout.number, 1, &pages[1]);
        let read = read_value("rollout_page", store.rollout_page(rollout.number, 1).await);
        assert_eq!(read.as_ref(), Some(&page), "a page is read back");
        page.members[0].outcome = Some(MemberOutcome::Moved);
        let stale = rollout.clone();
        rollout.status = RolloutStatus::Succeeded;
        env.write(vec![Mutation::Rollout(Box::new(rollout.clone())), Mutation::RolloutPage(page.clone())])
            .await;
        page.members[0].outcome = None;
        conflict(
            "an old version of a rollout",
            env.try_write(vec![Mutation::Rollout(Box::new(stale)), Mutation::RolloutPage(page.clone())])
                .await,
        );
        conflict(
            "a page without its rollout, once the rollout exists",
            env.try_write(vec![Mutation::RolloutPage(page.clone())]).await,
        );
        page.members[0].outcome = Some(MemberOutcome::Moved);
        let read = read_value("rollout_page", store.rollout_page(rollout.number, 1).await);
        assert_eq!(read, Some(page), "a page is replaced only together with its rollout");
        assert_eq!(
            read_value("rollout_page", store.rollout_page(rollout.number, 2).await),
            None,
            "a missing page reads as `None`"
        );
        numbers.push(rollout.number);
    }
    numbers.reverse();
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = read_value("rollouts", store.rollouts(before, 2).await);
        assert!(page.items.len() <= 2, "a page has at most the requested number of items");
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

/// An actor uses a key once, and the first response is read back.
pub async fn an_idempotency_key_is_used_once(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let record = env.key("key");
    assert_eq!(env.stored_key("key").await, None, "an unused key has no response");
    let site = env.site("a");
    let with = |write, record: &IdempotencyRecord| WriteBatch {
        idempotency: Some(record.clone()),
        ..WriteBatch::of(vec![write])
    };
    let create = with(Mutation::CreateSite(Box::new(site.clone())), &record);
    applied("a write with a key", store.write(&env.call(), &create).await);
    assert_eq!(env.stored_key("key").await.as_ref(), Some(&record), "the first response is read back");
    let error = rejected("the same request again", store.write(&env.call(), &create).await);
    assert_eq!(
        error,
        WriteError::KeyUsed,
        "a used key takes precedence over the conflict that its first use caused"
    );
    let other = env.site("b");
    let second = IdempotencyRecord { answer: "another".to_owned(), ..record.clone() };
    let again = with(Mutation::CreateSite(Box::new(other.clone())), &second);
    assert_eq!(
        rejected("a used key", store.write(&env.call(), &again).await),
        WriteError::KeyUsed,
        "a key is used once"
    );
    assert_eq!(env.read(&other.id).await, None, "a batch under a used key writes nothing");
    assert_eq!(env.stored_key("key").await.as_ref(), Some(&record), "the first response stays");
    let actor = cdm_core::domain::Actor::parse("someone else").expect("an actor");
    let theirs = IdempotencyRecord { actor: actor.clone(), ..second };
    applied(
        "another's key",
        store.write(&env.call(), &with(Mutation::CreateSite(Box::new(other)), &theirs)).await,
    );
    let read = read_value("idempotency", store.idempotency(&actor, &theirs.key).await);
    assert_eq!(read, Some(theirs), "each actor has its own keys");
}

/// The response of a key is kept for 24 hours; then the key can be used again.
pub async fn an_idempotency_key_expires(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let now = env.wall().millis();
    let young = Timestamp::from_millis(now.saturating_sub(23 * 60 * 60 * 1000));
    let old = Timestamp::from_millis(now.saturating_sub(25 * 60 * 60 * 1000));
    for (name, at, kept) in [("young", young, true), ("old", old, false)] {
        let batch = |id: &str, record| WriteBatch {
            idempotency: Some(record),
            ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(env.site(id)))])
        };
        let record = IdempotencyRecord { at, ..env.key(name) };
        applied("a key", store.write(&env.call(), &batch(&format!("{name}1"), record.clone())).await);
        assert_eq!(env.stored_key(name).await, kept.then_some(record), "a response is kept for 24 hours");
        let again = store.write(&env.call(), &batch(&format!("{name}2"), env.key(name))).await;
        assert_eq!(
            again == Outcome::Applied(()),
            !kept,
            "a key can be used again after 24 hours, not before"
        );
    }
}

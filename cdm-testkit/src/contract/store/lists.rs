//! Lists, counts and allocated numbers: complete, in order, and without repetitions.

use std::collections::BTreeSet;
use std::time::Duration;

use cdm_core::domain::operation::Member;
use cdm_core::domain::rollout::Control;
use cdm_core::domain::{
    AuditEntry, Color, Direction, Fence, Hostname, Hostnames, OperationId, OperationInput, OperationKind,
    OperationState, Phase, RolloutKind, RolloutStatus, Routed, Site, SiteName, Status, Subject, Term,
    Timestamp, WorkerId,
};
use cdm_core::ports::{
    FeedEvent, Mutation, Old, OperationQuery, PendingWork, SiteQuery, Store, WorkItem, WriteBatch,
};
use futures_util::future::join;

use super::super::SuiteContext;
use super::env::{TestEnv, applied, provision, read_value};
use crate::fixtures;

/// Queued, running and waiting operations are listed with what a worker needs; parked and ended operations are
/// not.
pub async fn pending_work_lists_operations(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut site = env.create(Site { phase: Phase::Created, ..env.site("a") }).await;
    let mut operation = env.operation(provision()).await;
    let (worker, next_poll_at) = (WorkerId::new(&env.tag), env.wall().after(Duration::from_secs(60)));
    let about = |operation: &OperationState, next_poll_at| PendingWork {
        subject: WorkItem::Operation(Subject::Site(site.id.clone())),
        number: operation.number,
        owner: operation.owner.clone(),
        next_poll_at,
        control_requested: operation.cancel,
    };
    let mut steps = vec![(operation.clone(), Some(about(&operation, None)))];
    (operation.status, operation.owner) = (Status::Running, Some(worker));
    steps.push((operation.clone(), Some(about(&operation, None))));
    (operation.status, operation.next_poll_at) = (Status::Waiting, Some(next_poll_at));
    steps.push((operation.clone(), Some(about(&operation, Some(next_poll_at)))));
    operation.cancel = true;
    steps.push((operation.clone(), Some(about(&operation, Some(next_poll_at)))));
    (operation.status, operation.owner, operation.next_poll_at, operation.cancel) =
        (Status::Parked, None, None, false);
    steps.push((operation.clone(), None));
    operation.status = Status::Queued;
    steps.push((operation.clone(), Some(about(&operation, None))));
    let member =
        Member { rollout: operation.number, ordinal: 0, direction: Direction::Forward, term: Term(1) };
    steps.push((OperationState { member: Some(member), status: Status::Running, ..operation.clone() }, None));
    let subject = WorkItem::Operation(Subject::Site(site.id.clone()));
    for (operation, expected) in steps {
        let status = operation.status;
        site = env.change(&site, |site| site.operation = Some(operation)).await;
        env.assert_pending_work(&subject, expected, &format!("an operation that is {status}")).await;
    }
    site = env.change(&site, |site| site.operation = Some(operation.clone())).await;
    site = env.change(&site, |site| site.operation = None).await;
    env.assert_pending_work(&subject, None, "an operation that has ended").await;
    site = env.change(&site, |site| site.operation = Some(operation.clone())).await;
    env.write(vec![Mutation::RemoveSite(site.id.clone(), site.uid, site.version)]).await;
    env.assert_pending_work(&subject, None, "an operation that was removed with its site").await;

    let mut fleet = read_value("fleet", store.fleet().await);
    fleet.operation = Some(env.operation(OperationInput::Select(Color::Blue)).await);
    let number = fleet.operation.as_ref().map(|operation| operation.number);
    env.write(vec![Mutation::Fleet(Box::new(fleet.clone()))]).await;
    let subject = WorkItem::Operation(Subject::Fleet);
    let expected = number.map(|number| PendingWork {
        subject: subject.clone(),
        number,
        owner: None,
        next_poll_at: None,
        control_requested: false,
    });
    env.assert_pending_work(&subject, expected, "a queued select").await;
    (fleet.operation, fleet.version) = (None, fleet.version + 1);
    env.write(vec![Mutation::Fleet(Box::new(fleet))]).await;
    env.assert_pending_work(&subject, None, "a select that has ended").await;
}

/// Rollouts are listed while they are waiting or running.
pub async fn pending_work_lists_rollouts(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut rollout = fixtures::rollout(env.number().await, RolloutKind::Flush, Color::Blue, 1);
    let (number, worker) = (rollout.number, Some(WorkerId::new(&env.tag)));
    let subject = WorkItem::Rollout(number);
    let next_poll_at = Some(env.wall().after(Duration::from_secs(60)));
    let live = |owner, next_poll_at, control_requested| {
        Some(PendingWork {
            subject: WorkItem::Rollout(number),
            number,
            owner,
            next_poll_at,
            control_requested,
        })
    };
    env.write(vec![Mutation::CreateRollout(Box::new(rollout.clone()))]).await;
    rollout.version = 1;
    env.assert_pending_work(&subject, live(None, None, false), "an accepted rollout").await;
    let steps = [
        (RolloutStatus::Waiting, None, next_poll_at, None, live(None, next_poll_at, false)),
        (RolloutStatus::Running, worker.clone(), None, None, live(worker.clone(), None, false)),
        (RolloutStatus::Running, worker.clone(), None, Some(Control::Pause), live(worker, None, true)),
        (RolloutStatus::Paused, None, None, None, None),
        (RolloutStatus::Waiting, None, None, None, live(None, None, false)),
        (RolloutStatus::Halted, None, None, None, None),
        (RolloutStatus::Aborted, None, None, None, None),
    ];
    for (status, owner, next_poll_at, control, expected) in steps {
        (rollout.status, rollout.owner, rollout.next_poll_at, rollout.control) =
            (status, owner, next_poll_at, control);
        env.write(vec![Mutation::Rollout(Box::new(rollout.clone()))]).await;
        rollout.version += 1;
        env.assert_pending_work(&subject, expected, &format!("a rollout that is {}", status.as_str())).await;
    }
}

/// Unfinished and ended operations form one list, newest first. An ended operation is found by its id.
pub async fn operations_are_listed_newest_first(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let site = env.create(Site { phase: Phase::Created, ..env.site("a") }).await;
    let mut numbers = Vec::new();
    for input in [OperationInput::Create, provision(), provision()] {
        let ended = env.ended(&site.id, env.number().await, input);
        let call = env.call();
        for _ in 0..2 {
            let batch = WriteBatch::of(vec![Mutation::History(Box::new(ended.clone()))]);
            applied("history, also repeated", store.write(&call, &batch).await);
        }
        assert_eq!(
            read_value("history", store.history(&ended.id).await).as_ref(),
            Some(&ended),
            "history is kept"
        );
        numbers.insert(0, ended.id.number);
    }
    let parked = OperationState { status: Status::Parked, ..env.operation(provision()).await };
    numbers.insert(0, parked.number);
    let on = OperationId::on(parked.number, Subject::Site(site.id.clone()));
    env.change(&site, |site| site.operation = Some(parked)).await;
    assert_eq!(
        read_value("history", store.history(&on).await),
        None,
        "an unfinished operation is in its subject's record"
    );
    let of_site = OperationQuery { site: Some(site.id.clone()), ..OperationQuery::default() };
    env.eventually("every operation of a site, newest first", async || {
        env.operations(&of_site).await == numbers
    })
    .await;
    let created = OperationQuery { kind: Some(OperationKind::Create), ..of_site.clone() };
    assert_eq!(env.operations(&created).await, numbers[3..], "operations are found by kind");
    let resting = OperationQuery { status: Some(Status::Parked), ..of_site };
    assert_eq!(env.operations(&resting).await, numbers[..1], "operations are found by status");
}

/// Allocated numbers are positive, consecutive within one allocation, and unique.
pub async fn allocated_numbers_are_unique(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut allocated = BTreeSet::new();
    for counts in [(1, 1), (5, 300), (1, 2)] {
        let (one, two) = (env.call(), env.call());
        let (first, second) =
            join(store.allocate_ids(&one, counts.0), store.allocate_ids(&two, counts.1)).await;
        for (first, count) in [(applied("numbers", first), counts.0), (applied("numbers", second), counts.1)]
        {
            for number in (first..).take(count as usize) {
                assert!(number > 0 && allocated.insert(number), "a number is allocated once: {number}");
            }
        }
    }
}

/// Pages of sites are in the order of ids, and the last page is marked as the last.
pub async fn sites_are_listed_by_id(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut ids = Vec::new();
    for suffix in ["e", "c", "a", "d", "b"] {
        let mut site = env.site(suffix);
        site.service = if suffix == "c" { Color::Green } else { Color::Blue };
        site.phase = if suffix == "d" { Phase::Created } else { Phase::Active };
        let elsewhere = Routed { service: site.service.other(), fence: Fence::default() };
        site.route = match suffix {
            "a" => Some(Routed { service: site.service, ..elsewhere }),
            "b" => Some(elsewhere),
            _ => None,
        };
        site.name = SiteName::parse(&format!("Ours {}", env.tag)).expect("a site name");
        ids.push(env.create(site).await.id);
    }
    ids.sort();
    let all = SiteQuery { text: Some(env.tag.clone()), ..SiteQuery::default() };
    let green = SiteQuery { service: Some(Color::Green), ..all.clone() };
    let active = SiteQuery { state: Some(cdm_core::domain::State::Active), ..all.clone() };
    let drifted = SiteQuery { drifted: true, ..all.clone() };
    let host = SiteQuery { text: Some(format!("{}.example", ids[4])), ..SiteQuery::default() };
    let active_ids = [0, 1, 2, 4].map(|at| ids[at].clone());
    for (query, expected) in [
        (all, &ids[..]),
        (green, &ids[2..3]),
        (active, &active_ids[..]),
        (drifted, &ids[1..2]),
        (host, &ids[4..]),
    ] {
        env.eventually("the sites of a query", async || env.sites(&query).await == expected).await;
        let count = async || read_value("count", store.count(&query).await) == expected.len() as u64;
        env.eventually("the number of sites of a query", count).await;
    }
}

/// Search ignores case and accepts each spelling of a hostname, in every store alike.
pub async fn search_ignores_case_and_spelling(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut site = env.site("a");
    let tag = env.tag.clone();
    site.name = SiteName::parse(&format!("Blumen ΣΊΣΥΦΟΣ Straße {tag}")).expect("a site name");
    let hosts = [format!("münchen-{tag}.example"), format!("r3---{tag}.example")];
    site.hostnames = Hostnames::parse(&hosts, &hosts[0]).expect("hostnames");
    let id = env.create(site).await.id;
    for text in [
        format!("BLUMEN σίσυφοσ straße {tag}"),
        format!("blumen Σίσυφος Straße {tag}"),
        format!("Blumen σι\u{301}συφος straße {tag}"),
        format!("BLUMEN ΣΊΣΥΦΟΣ STRA\u{1e9e}E {}", tag.to_uppercase()),
        format!("MÜNCHEN-{tag}"),
        format!("mu\u{308}nchen-{tag}"),
        format!("München-{tag}\u{ff0e}EXAMPLE."),
        hosts[0].clone(),
        Hostname::parse(&hosts[0]).expect("a hostname").to_string(),
        Hostname::parse(&hosts[0]).expect("a hostname").as_str().to_uppercase(),
        format!("R3---{tag}"),
        id.as_str().to_uppercase(),
    ] {
        let query = SiteQuery { text: Some(text.clone()), ..SiteQuery::default() };
        env.eventually(&format!("a search for {text:?}"), async || env.sites(&query).await == [id.clone()])
            .await;
        assert_eq!(read_value("count", store.count(&query).await), 1, "{text:?}");
    }
    for text in
        [format!("munchen-{tag}"), format!("strasse {tag}"), format!("blumen_{tag}"), format!("%{tag}")]
    {
        let query = SiteQuery { text: Some(text.clone()), ..SiteQuery::default() };
        assert_eq!(env.sites(&query).await, [], "{text:?}");
        assert_eq!(read_value("count", store.count(&query).await), 0, "{text:?}");
    }
}

/// Audit entries are listed newest first, and the last page is marked as the last.
pub async fn audit_is_newest_first(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let mut expected = Vec::new();
    for at in 0..5 {
        let entry = env.audit(&at.to_string());
        let batch = WriteBatch { audit: Some(entry.clone()), ..WriteBatch::default() };
        applied("an audit entry alone", store.write(&env.call(), &batch).await);
        expected.insert(0, entry);
    }
    assert_eq!(env.audits().await, expected, "audit entries are read once each, newest first");
}

/// Old audit entries are deleted oldest first, at most the requested number at once. Newer entries stay, and so
/// do events that a webhook has not received yet.
pub async fn old_entries_are_deleted(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let aged = |day: u64| Timestamp::from_millis(day * 86_400_000);
    let mut kept = Vec::new();
    for day in 1..=5 {
        let entry = AuditEntry { at: aged(day), ..env.audit(&day.to_string()) };
        let event = FeedEvent { at: aged(day), ..env.event(&day.to_string()) };
        let batch = WriteBatch { audit: Some(entry.clone()), events: vec![event], ..WriteBatch::default() };
        applied("an audit entry and an event", store.write(&env.call(), &batch).await);
        kept.insert(0, entry);
    }
    let newest =
        WriteBatch { audit: Some(env.audit("new")), events: vec![env.event("new")], ..WriteBatch::default() };
    applied("the newest", store.write(&env.call(), &newest).await);
    let last = read_value("last_event", store.last_event().await);
    let old = Old { audit_before: aged(4), events_before: Timestamp::default(), events_to: None, most: 2 };
    let mut deletions = 0;
    let old_entries = async || {
        let audits = env.audits().await;
        audits.into_iter().filter(|entry| entry.at <= aged(5)).count()
    };
    let before = old_entries().await;
    applied("a delete", store.delete_old(&env.call(), &old).await);
    assert!(before - old_entries().await <= 2, "at most the requested number is deleted at once");
    let all = Old { most: 90, ..old };
    while old_entries().await > 2 && deletions < 100 {
        applied("a delete", store.delete_old(&env.call(), &all).await);
        deletions += 1;
    }
    let found: Vec<_> = env.audits().await.into_iter().filter(|entry| entry.at <= aged(5)).collect();
    assert_eq!(found, kept[..2], "newer entries stay");
    assert_eq!(env.events().await.len(), 6, "no event is old enough");
    // A webhook that has received nothing yet retains all events.
    let retained = Old { events_before: aged(9), events_to: Some(0), ..all };
    applied("a delete", store.delete_old(&env.call(), &retained).await);
    assert_eq!(env.events().await.len(), 6, "an event that a webhook must receive stays");
    applied("a delete", store.delete_old(&env.call(), &Old { events_to: None, ..retained }).await);
    assert!(env.events().await.iter().any(|event| event.at > aged(5)), "newer events stay");
    assert_eq!(read_value("last_event", store.last_event().await), last, "the last event number stays");
}

/// Events are listed oldest first, also within a batch. Each keeps its number, and the last number is known.
pub async fn events_are_oldest_first(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let site = env.create(env.site("a")).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        let version = env.version(&site.id).await;
        let events = [1, 2].map(|at| env.event(&format!("{round}-{at}")));
        expected.extend(events.clone());
        let writes = vec![Mutation::Site(Box::new(Site { version, ..site.clone() }))];
        let batch = WriteBatch { events: events.to_vec(), ..WriteBatch::of(writes) };
        applied("events", store.write(&env.call(), &batch).await);
    }
    assert_eq!(env.events().await, expected, "events are read once each, oldest first");
    let all = read_value("events", store.events(None, 1_000_000).await);
    let own = all.iter().position(|(_, event)| *event == expected[0]).expect("the first event");
    let after = all[own].0;
    let rest = read_value("events", store.events(Some(after), 1_000_000).await);
    assert!(rest.starts_with(&all[own + 1..]), "an event has the same number wherever a page begins");
    let last = read_value("last_event", store.last_event().await);
    assert!(last >= all.last().map(|(number, _)| *number), "the last event is not before the listed events");
    let beyond = read_value("events", store.events(last, 1).await);
    assert!(
        beyond.iter().all(|(number, _)| Some(*number) > last),
        "no event up to the last is listed after it"
    );
}

/// A worker is listed with its last heartbeat until it reports its stop.
pub async fn heartbeats_are_listed_until_the_worker_stops(store: &dyn Store, cx: &SuiteContext<'_>) {
    let env = TestEnv::new(store, cx);
    let workers = ["w", "w2"].map(|name| WorkerId::new(&format!("{}{name}", env.tag)));
    let count = async |worker: &WorkerId| {
        let heartbeats = read_value("beats", store.heartbeats().await);
        heartbeats.into_iter().find(|beat| beat.worker == *worker).map(|beat| beat.count)
    };
    for beat in [1, 2, 7] {
        for worker in &workers {
            applied("a heartbeat", store.heartbeat(&env.call(), worker, Some(beat)).await);
            assert_eq!(count(worker).await, Some(beat), "a worker's last heartbeat is listed");
        }
    }
    for _ in 0..2 {
        applied("a stop, also repeated", store.heartbeat(&env.call(), &workers[0], None).await);
    }
    assert_eq!(count(&workers[0]).await, None, "a worker that has stopped is not listed");
    assert_eq!(count(&workers[1]).await, Some(7), "the other workers are listed");
}

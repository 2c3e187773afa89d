//! What is listed, counted and drawn: complete, in order, and once.

use std::collections::BTreeSet;
use std::time::Duration;

use cdm_core::domain::operation::Member;
use cdm_core::domain::rollout::Control;
use cdm_core::domain::{
    AuditEntry, Color, Direction, Fence, Hostname, Hostnames, OperationId, OperationInput, OperationKind,
    OperationState, Phase, RolloutKind, RolloutStatus, Routed, Site, SiteName, Status, Subject, Timestamp,
    WorkerId,
};
use cdm_core::ports::{
    FeedEvent, Mutation, Old, OperationQuery, PendingWork, SiteQuery, Store, WorkItem, WriteBatch,
};
use futures_util::future::join;

use super::super::Cx;
use super::scene::{Scene, answered, applied, provision};
use crate::build;

/// What is queued, running or waiting is listed, with what a worker has to know; what rests is not.
pub async fn live_lists_what_is_to_be_done(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut site = scene.create(Site { phase: Phase::Created, ..scene.site("a") }).await;
    let mut operation = scene.operation(provision()).await;
    let (worker, next_poll_at) = (WorkerId::new(&scene.tag), scene.wall().after(Duration::from_secs(60)));
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
    let member = Member { rollout: operation.number, ordinal: 0, direction: Direction::Forward, term: 1 };
    steps.push((OperationState { member: Some(member), status: Status::Running, ..operation.clone() }, None));
    let subject = WorkItem::Operation(Subject::Site(site.id.clone()));
    for (operation, expected) in steps {
        let status = operation.status;
        site = scene.change(&site, |site| site.operation = Some(operation)).await;
        scene.lists(&subject, expected, &format!("an operation that is {status}")).await;
    }
    site = scene.change(&site, |site| site.operation = Some(operation.clone())).await;
    site = scene.change(&site, |site| site.operation = None).await;
    scene.lists(&subject, None, "an operation that has ended").await;
    site = scene.change(&site, |site| site.operation = Some(operation.clone())).await;
    scene.write(vec![Mutation::RemoveSite(site.id.clone(), site.uid, site.version)]).await;
    scene.lists(&subject, None, "an operation that went with its site").await;

    let mut fleet = answered("fleet", store.fleet().await);
    fleet.operation = Some(scene.operation(OperationInput::Select(Color::Blue)).await);
    let number = fleet.operation.as_ref().map(|operation| operation.number);
    scene.write(vec![Mutation::Fleet(Box::new(fleet.clone()))]).await;
    let subject = WorkItem::Operation(Subject::Fleet);
    let expected = number.map(|number| PendingWork {
        subject: subject.clone(),
        number,
        owner: None,
        next_poll_at: None,
        control_requested: false,
    });
    scene.lists(&subject, expected, "a queued select").await;
    (fleet.operation, fleet.version) = (None, fleet.version + 1);
    scene.write(vec![Mutation::Fleet(Box::new(fleet))]).await;
    scene.lists(&subject, None, "a select that has ended").await;
}

/// Rollouts are listed while they wait or run, and no longer.
pub async fn live_lists_rollouts(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut rollout = build::rollout(scene.number().await, RolloutKind::Flush, Color::Blue, 1);
    let (number, worker) = (rollout.number, Some(WorkerId::new(&scene.tag)));
    let subject = WorkItem::Rollout(number);
    let next_poll_at = Some(scene.wall().after(Duration::from_secs(60)));
    let live = |owner, next_poll_at, control_requested| {
        Some(PendingWork {
            subject: WorkItem::Rollout(number),
            number,
            owner,
            next_poll_at,
            control_requested,
        })
    };
    scene.write(vec![Mutation::CreateRollout(Box::new(rollout.clone()))]).await;
    rollout.version = 1;
    scene.lists(&subject, live(None, None, false), "an accepted rollout").await;
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
        scene.write(vec![Mutation::Rollout(Box::new(rollout.clone()))]).await;
        rollout.version += 1;
        scene.lists(&subject, expected, &format!("a rollout that is {}", status.as_str())).await;
    }
}

/// Live and ended operations are one list, newest first; what has ended is found by its id.
pub async fn operations_are_listed_newest_first(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(Site { phase: Phase::Created, ..scene.site("a") }).await;
    let mut numbers = Vec::new();
    for input in [OperationInput::Create, provision(), provision()] {
        let ended = scene.ended(&site.id, scene.number().await, input);
        let call = scene.call();
        for _ in 0..2 {
            let batch = WriteBatch::of(vec![Mutation::History(Box::new(ended.clone()))]);
            applied("history, also repeated", store.write(&call, &batch).await);
        }
        assert_eq!(
            answered("history", store.history(&ended.id).await).as_ref(),
            Some(&ended),
            "history is kept"
        );
        numbers.insert(0, ended.id.number);
    }
    let parked = OperationState { status: Status::Parked, ..scene.operation(provision()).await };
    numbers.insert(0, parked.number);
    let on = OperationId::on(parked.number, Subject::Site(site.id.clone()));
    scene.change(&site, |site| site.operation = Some(parked)).await;
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
    let created = OperationQuery { kind: Some(OperationKind::Create), ..of_site.clone() };
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
        let (first, second) =
            join(store.allocate_ids(&one, counts.0), store.allocate_ids(&two, counts.1)).await;
        for (first, count) in [(applied("numbers", first), counts.0), (applied("numbers", second), counts.1)]
        {
            for number in (first..).take(count as usize) {
                assert!(number > 0 && drawn.insert(number), "a number is drawn once: {number}");
            }
        }
    }
}

/// Pages of sites follow one another in order of ids, and the last one says that it is the last.
pub async fn sites_come_in_order(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut ids = Vec::new();
    for suffix in ["e", "c", "a", "d", "b"] {
        let mut site = scene.site(suffix);
        site.service = if suffix == "c" { Color::Green } else { Color::Blue };
        site.phase = if suffix == "d" { Phase::Created } else { Phase::Active };
        let elsewhere = Routed { service: site.service.other(), fence: Fence::default() };
        site.route = match suffix {
            "a" => Some(Routed { service: site.service, ..elsewhere }),
            "b" => Some(elsewhere),
            _ => None,
        };
        site.name = SiteName::parse(&format!("Ours {}", scene.tag)).expect("a site name");
        ids.push(scene.create(site).await.id);
    }
    ids.sort();
    let all = SiteQuery { text: Some(scene.tag.clone()), ..SiteQuery::default() };
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
        scene.eventually("what a query has", async || scene.sites(&query).await == expected).await;
        let count = async || answered("count", store.count(&query).await) == expected.len() as u64;
        scene.eventually("how many sites a query has", count).await;
    }
}

/// A text is looked for without case, and hostnames in each of their spellings; in every store alike.
pub async fn search_ignores_case_and_spelling(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut site = scene.site("a");
    let tag = scene.tag.clone();
    site.name = SiteName::parse(&format!("Blumen ΣΊΣΥΦΟΣ Straße {tag}")).expect("a site name");
    let hosts = [format!("münchen-{tag}.example"), format!("r3---{tag}.example")];
    site.hostnames = Hostnames::parse(&hosts, &hosts[0]).expect("hostnames");
    let id = scene.create(site).await.id;
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
        scene
            .eventually(&format!("a search for {text:?}"), async || scene.sites(&query).await == [id.clone()])
            .await;
        assert_eq!(answered("count", store.count(&query).await), 1, "{text:?}");
    }
    for text in
        [format!("munchen-{tag}"), format!("strasse {tag}"), format!("blumen_{tag}"), format!("%{tag}")]
    {
        let query = SiteQuery { text: Some(text.clone()), ..SiteQuery::default() };
        assert_eq!(scene.sites(&query).await, [], "{text:?}");
        assert_eq!(answered("count", store.count(&query).await), 0, "{text:?}");
    }
}

/// Audit entries are read newest first, and the last page says that it is the last.
pub async fn audit_is_newest_first(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let mut expected = Vec::new();
    for at in 0..5 {
        let entry = scene.audit(&at.to_string());
        let batch = WriteBatch { audit: Some(entry.clone()), ..WriteBatch::default() };
        applied("an audit entry alone", store.write(&scene.call(), &batch).await);
        expected.insert(0, entry);
    }
    assert_eq!(scene.audits().await, expected, "audit entries are read once each, newest first");
}

/// Old audit entries are deleted oldest first and no more at once than was asked for; what is newer stays, and so do
/// events that somebody still has to be told of.
pub async fn old_entries_are_deleted(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let aged = |day: u64| Timestamp::from_millis(day * 86_400_000);
    let mut kept = Vec::new();
    for day in 1..=5 {
        let entry = AuditEntry { at: aged(day), ..scene.audit(&day.to_string()) };
        let event = FeedEvent { at: aged(day), ..scene.event(&day.to_string()) };
        let batch = WriteBatch { audit: Some(entry.clone()), events: vec![event], ..WriteBatch::default() };
        applied("an audit entry and an event", store.write(&scene.call(), &batch).await);
        kept.insert(0, entry);
    }
    let newest = WriteBatch {
        audit: Some(scene.audit("new")),
        events: vec![scene.event("new")],
        ..WriteBatch::default()
    };
    applied("the newest", store.write(&scene.call(), &newest).await);
    let last = answered("last_event", store.last_event().await);
    let old = Old { audit_before: aged(4), events_before: Timestamp::default(), events_to: None, most: 2 };
    let mut looked = 0;
    let left = async || {
        let audits = scene.audits().await;
        audits.into_iter().filter(|entry| entry.at <= aged(5)).count()
    };
    let before = left().await;
    applied("a delete", store.delete_old(&scene.call(), &old).await);
    assert!(before - left().await <= 2, "no more are deleted at once than was asked for");
    let all = Old { most: 90, ..old };
    while left().await > 2 && looked < 100 {
        applied("a delete", store.delete_old(&scene.call(), &all).await);
        looked += 1;
    }
    let found: Vec<_> = scene.audits().await.into_iter().filter(|entry| entry.at <= aged(5)).collect();
    assert_eq!(found, kept[..2], "what is newer stays");
    assert_eq!(scene.events().await.len(), 6, "no event is as old");
    // A receiver that was told of nothing yet holds all of them.
    let held = Old { events_before: aged(9), events_to: Some(0), ..all };
    applied("a delete", store.delete_old(&scene.call(), &held).await);
    assert_eq!(scene.events().await.len(), 6, "an event that somebody has to be told of stays");
    applied("a delete", store.delete_old(&scene.call(), &Old { events_to: None, ..held }).await);
    assert!(scene.events().await.iter().any(|event| event.at > aged(5)), "what is newer stays");
    assert_eq!(answered("last_event", store.last_event().await), last, "the last number stays the last");
}

/// Events are read oldest first, also those of one batch; each keeps its number, and the last of them is known.
pub async fn events_are_oldest_first(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let site = scene.create(scene.site("a")).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        let version = scene.version(&site.id).await;
        let events = [1, 2].map(|at| scene.event(&format!("{round}-{at}")));
        expected.extend(events.clone());
        let writes = vec![Mutation::Site(Box::new(Site { version, ..site.clone() }))];
        let batch = WriteBatch { events: events.to_vec(), ..WriteBatch::of(writes) };
        applied("events", store.write(&scene.call(), &batch).await);
    }
    assert_eq!(scene.events().await, expected, "events are read once each, oldest first");
    let all = answered("events", store.events(None, 1_000_000).await);
    let own = all.iter().position(|(_, event)| *event == expected[0]).expect("the first event");
    let after = all[own].0;
    let rest = answered("events", store.events(Some(after), 1_000_000).await);
    assert!(rest.starts_with(&all[own + 1..]), "an event has the same number wherever a page begins");
    let last = answered("last_event", store.last_event().await);
    assert!(
        last >= all.last().map(|(number, _)| *number),
        "the last event is not before those that were read"
    );
    let beyond = answered("events", store.events(last, 1).await);
    assert!(beyond.iter().all(|(number, _)| Some(*number) > last), "nothing up to the last comes after it");
}

/// A worker is listed with its last beat until it says that it stops.
pub async fn beats_are_listed_until_they_stop(store: &dyn Store, cx: &Cx<'_>) {
    let scene = Scene::new(store, cx);
    let workers = ["w", "w2"].map(|name| WorkerId::new(&format!("{}{name}", scene.tag)));
    let count = async |worker: &WorkerId| {
        let heartbeats = answered("beats", store.heartbeats().await);
        heartbeats.into_iter().find(|beat| beat.worker == *worker).map(|beat| beat.count)
    };
    for beat in [1, 2, 7] {
        for worker in &workers {
            applied("a beat", store.heartbeat(&scene.call(), worker, Some(beat)).await);
            assert_eq!(count(worker).await, Some(beat), "a worker's last beat is listed");
        }
    }
    for _ in 0..2 {
        applied("a stop, also repeated", store.heartbeat(&scene.call(), &workers[0], None).await);
    }
    assert_eq!(count(&workers[0]).await, None, "a worker that has stopped is not listed");
    assert_eq!(count(&workers[1]).await, Some(7), "the others are");
}

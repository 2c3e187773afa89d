//! Invariants of a quiescent platform: nothing is left over, missing, leaked or still being written.

use std::collections::BTreeSet;

use cdm_core::domain::lifecycle::Phase;
use cdm_core::domain::rollout::MemberOutcome;
use cdm_core::domain::{
    Color, OperationId, ReasonCode, RolloutStatus, SecretKind, SecretName, Status, Subject, Uid,
};
use cdm_core::ports::{Credentials, WorkItem};

use super::{World, now};
use crate::check::Violation;
use crate::ids::SECRET_MARKER;

impl World {
    /// Returns the parked operations, which wait for a person.
    pub fn parked(&self) -> Vec<OperationId> {
        let sites = self.store.all_sites();
        let of_sites = sites.into_iter().filter_map(|site| {
            let operation = site.operation.clone().filter(|operation| operation.status == Status::Parked)?;
            Some(OperationId::on(operation.number, Subject::Site(site.id)))
        });
        let of_services = Color::ALL.into_iter().filter_map(|color| {
            let operation = now(self.raw.store.service(color))
                .ok()?
                .operation
                .filter(|operation| operation.status == Status::Parked)?;
            Some(OperationId::on(operation.number, Subject::Service(color)))
        });
        let fleet = now(self.raw.store.fleet()).ok().and_then(|fleet| fleet.operation);
        let of_fleet = fleet
            .filter(|operation| operation.status == Status::Parked)
            .map(|operation| OperationId::on(operation.number, Subject::Fleet));
        of_sites.chain(of_services).chain(of_fleet).collect()
    }

    /// Returns whether this is a rollout whose target runs another digest than the rollout may move sites to.
    pub(super) fn waits_for_operator(&self, subject: &WorkItem) -> bool {
        let WorkItem::Rollout(number) = subject else { return false };
        let Ok(Some(rollout)) = now(self.raw.store.rollout(*number)) else { return false };
        let waits = rollout.status == RolloutStatus::Waiting
            && rollout.control.is_none()
            && rollout.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::DigestChanged);
        // Reading a service is a logged effect, and [`World::wake_after`] counts effects: read only if needed.
        waits
            && now(self.raw.cluster.service(rollout.target)).is_ok_and(|view| view.digest != rollout.wanted())
    }

    /// Returns how many illegal transitions workers have rejected.
    pub fn illegal_transitions(&self) -> u64 {
        self.workers.iter().map(|worker| worker.illegal_transitions()).sum()
    }
}

/// Returns the violations of the current state.
pub(super) fn violations(world: &mut World) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broken = |invariant, detail: String| found.push(Violation { invariant, detail });
    let sites = world.store.all_sites();
    let uids: BTreeSet<Uid> = sites.iter().map(|site| site.uid).collect();
    let webhooks = now(world.raw().store.webhooks()).map(|webhooks| webhooks.list).unwrap_or_default();
    let is_key = |name: &SecretName| webhooks.iter().any(|webhook| webhook.key() == *name);

    let illegal = world.illegal_transitions();
    if illegal > 0 {
        broken("LegalTransition", format!("{illegal} transitions were rejected"));
    }

    let orphan = |uid: &Uid| !uids.contains(uid);
    for (name, _) in world.secrets.values().iter().filter(|(name, _)| orphan(&name.uid) && !is_key(name)) {
        broken("NoOrphans", format!("the secret {name}"));
    }
    for uid in world.databases.uids().iter().filter(|uid| orphan(uid)) {
        broken("NoOrphans", format!("the database of {uid}"));
    }
    for route in world.cluster.routes().iter().filter(|route| orphan(&route.uid)) {
        broken("NoOrphans", format!("the route of {}", route.uid));
    }
    for (name, ..) in world.cluster.jobs().iter().filter(|(_, uid, _)| uid.as_ref().is_some_and(orphan)) {
        broken("NoOrphans", format!("the job {name}"));
    }
    for key in world.objects.keys() {
        let uid = key
            .strip_prefix("sites/")
            .and_then(|rest| rest.split('/').next())
            .and_then(|uid| Uid::parse(uid).ok());
        let known = uid.is_some_and(|uid| uids.contains(&uid));
        if !known && !world.foreign().contains(&key) {
            broken("NoOrphans", format!("the object {key}"));
        }
    }
    for key in world.foreign() {
        if !world.objects.keys().contains(key) {
            broken("NoForeign", format!("the foreign object {key} is gone"));
        }
    }
    let owners: BTreeSet<_> = sites.iter().map(|site| site.id.clone()).collect();
    for (host, owner) in world.store.hostnames() {
        if !owners.contains(&owner) {
            broken("NoOrphans", format!("the hostname {host} of `{owner}`"));
        }
    }

    let secrets = world.secrets.values();
    let stored =
        |name: &SecretName| secrets.iter().find(|(stored, _)| stored == name).map(|(_, value)| value);
    for site in &sites {
        let database = stored(&SecretName { uid: site.uid, kind: SecretKind::Database });
        let cms = stored(&SecretName { uid: site.uid, kind: SecretKind::Cms });
        if site.phase != Phase::New && site.operation.is_none() && (database.is_none() || cms.is_none()) {
            broken("Complete", format!("`{}` has no credentials", site.id));
        }
        if world.databases.uids().contains(&site.uid)
            && let Some(Credentials::Database(credentials)) = database
            && !world.databases.password_is(site.uid, &credentials.password)
        {
            broken("Complete", format!("the password of `{}` is not the stored one", site.id));
        }
        if site.phase == Phase::Active && site.operation.is_none() {
            let routes = world.cluster.routes();
            let route = routes.iter().find(|route| route.uid == site.uid);
            if route.map(|route| route.service) != site.routed_service() {
                broken("Complete", format!("the route of `{}` is not where its record says", site.id));
            }
            if route.is_none() {
                broken("RouteAlways", format!("`{}` is active without a route", site.id));
            }
            if !world.databases.uids().contains(&site.uid) {
                broken("Complete", format!("`{}` is active without a database", site.id));
            }
            if !world.databases.contents(site.uid).is_some_and(|contents| contents.is_complete()) {
                broken("SignIn", format!("`{}` is active and its installation is not complete", site.id));
            }
            if !world.objects.keys().contains(&site.prefix().marker()) {
                broken("Complete", format!("`{}` is active without its prefix", site.id));
            }
        }
    }

    for rollout in world.store.all_rollouts() {
        let outcomes = world.store.pages(rollout.number).into_iter().flat_map(|page| page.members);
        let members: Vec<_> = outcomes.collect();
        if matches!(rollout.status, RolloutStatus::Succeeded | RolloutStatus::Failed | RolloutStatus::Halted)
        {
            let flushes = world.cluster.flushes();
            let moved = [MemberOutcome::Moved, MemberOutcome::InPlace, MemberOutcome::Returned];
            let stale = members.iter().filter(|member| member.outcome.is_some_and(|it| moved.contains(&it)));
            for member in stale.filter(|member| !flushes.contains(&(rollout.number, member.uid))) {
                broken(
                    "NoStaleCache",
                    format!("the caches of `{}` were not flushed after its move", member.id),
                );
            }
        }
        let mut recount = cdm_core::domain::rollout::Counts::default();
        for outcome in members.into_iter().filter_map(|member| member.outcome) {
            recount.add(outcome);
        }
        if recount != rollout.counts() {
            broken(
                "TotalsAgree",
                format!("the counts are {:?}, the members have {recount:?}", rollout.counts()),
            );
        }
        if rollout.status.ended() {
            let claimed = sites.iter().filter(|site| {
                let member = site.operation.as_ref().and_then(|operation| operation.member);
                member.is_some_and(|member| member.rollout == rollout.number)
            });
            for site in claimed {
                broken("NoLostWork", format!("`{}` is still held by an ended rollout", site.id));
            }
        }
        if !rollout.status.runnable() && rollout.locked_color.is_some() {
            broken("NoOrphans", format!("a rollout that is {} has a lock", rollout.status.as_str()));
        }
    }
    for color in cdm_core::domain::Color::ALL {
        let Ok(service) = now(world.raw().store.service(color)) else { continue };
        let idle = service.operation.is_none();
        let busy = sites.iter().any(|site| site.operation.is_some());
        if idle && service.lock.deploy.is_some()
            || !busy && world.is_quiescent() && !service.lock.moves.is_empty()
        {
            broken("NoOrphans", format!("a lock on `{color}`: {:?}", service.lock));
        }
    }

    if world.is_quiescent() {
        let before = world.log.len();
        world.clock.advance(std::time::Duration::from_secs(120));
        for _ in 0..2 {
            let _ = world.run_once();
        }
        let after = world.log.since(before);
        let writes =
            after.iter().filter(|effect| !matches!(effect.kind, crate::log::EffectKind::ServiceRead(..)));
        if let Some(effect) = writes.into_iter().next() {
            broken("Stable", format!("{effect:?} while quiescent"));
        }
    }

    if let Some(sink) = leak(world) {
        broken("NoSecretOut", sink);
    }
    found
}

/// Returns the first output that contains a secret.
fn leak(world: &World) -> Option<String> {
    let store = &world.raw().store;
    let events = now(store.events(None, 1_000_000)).map(|events| format!("{events:?}")).unwrap_or_default();
    let audit = now(store.audit(None, 1_000_000)).map(|page| format!("{:?}", page.items)).unwrap_or_default();
    let operations = now(store.operations(&cdm_core::ports::OperationQuery::default(), None, 1_000_000));
    let sinks = [
        ("the events", events),
        ("the audit", audit),
        ("the operations", operations.map(|page| format!("{:?}", page.items)).unwrap_or_default()),
        ("the sites", format!("{:?}", world.store.all_sites())),
        ("the log", format!("{:?}", world.log.since(0))),
        ("the jobs", format!("{:?}", world.cluster.jobs())),
    ];
    sinks.into_iter().find(|(_, text)| text.contains(SECRET_MARKER)).map(|(sink, _)| sink.to_owned())
}

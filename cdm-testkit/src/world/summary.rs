//! The outcome of a run, without the values that differ between runs. The differential oracle compares two
//! summaries.

use std::collections::BTreeMap;
use std::fmt;

use cdm_core::domain::operation::{Operation, Status, Subject};
use cdm_core::domain::{Color, Uid};

use super::{World, now};
use crate::log::EffectKind;

/// The end state of a platform, and how often each resource was created, deleted and moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary(BTreeMap<String, String>);

impl Summary {
    /// Collects the end state and the effects of `world`.
    pub fn of(world: &World) -> Self {
        let mut all = BTreeMap::new();
        let mut names: BTreeMap<Uid, String> = BTreeMap::new();
        let log = world.log.since(0);
        let mut generations: BTreeMap<String, u32> = BTreeMap::new();
        for effect in &log {
            if let EffectKind::Site(None, Some(site)) = &effect.kind {
                let generation = generations.entry(site.id.to_string()).or_default();
                *generation += 1;
                names.insert(site.uid, format!("{}#{generation}", site.id));
            }
        }
        let name = |uid: &Uid| names.get(uid).cloned().unwrap_or_else(|| "unknown".to_owned());
        let mut put = |key: String, value: String| {
            all.insert(key, value);
        };

        for site in world.store.all_sites() {
            let operation = site
                .operation
                .as_ref()
                .map(|operation| format!("{} {}", operation.input.kind(), operation.status));
            let state =
                format!("{} {} {:?} {operation:?}", site.state(), site.service, site.routed_service());
            put(format!("site {}", name(&site.uid)), state);
            let objects = world.objects.keys().iter().filter(|key| site.prefix().holds(key)).count();
            put(format!("objects {}", name(&site.uid)), objects.to_string());
        }
        for (host, owner) in world.store.hostnames() {
            put(format!("hostname {host}"), owner.to_string());
        }
        for route in world.cluster.routes() {
            put(format!("route {}", name(&route.uid)), route.service.to_string());
        }
        let secrets = world.secrets.values();
        for (secret, _) in &secrets {
            put(format!("secret {} {:?}", name(&secret.uid), secret.kind), "stored".to_owned());
        }
        for secret in world.secrets.deleting() {
            put(format!("secret {} {:?}", name(&secret.uid), secret.kind), "deleting".to_owned());
        }
        for uid in world.databases.uids() {
            put(format!("database {}", name(&uid)), "present".to_owned());
        }
        for color in Color::ALL {
            if let Ok(service) = now(world.raw().store.service(color)) {
                let releases: Vec<String> = service
                    .releases
                    .iter()
                    .map(|r| format!("{} {:?}", r.digest.short(), r.verdict))
                    .collect();
                let running = service.running.map(|digest| digest.short());
                put(
                    format!("record of {color}"),
                    format!("{running:?} {releases:?} {:?}", service.operation.is_some()),
                );
            }
            if let Ok(view) = now(world.raw().cluster.service(color)) {
                let digest = view.digest.map(|digest| digest.short());
                put(format!("service {color}"), format!("{digest:?} ready={}", view.is_ready()));
            }
        }
        let rollouts: Vec<u64> = world.store.all_rollouts().iter().map(|rollout| rollout.number).collect();
        for (by, uid) in world.cluster.flushes() {
            if let Some(index) = rollouts.iter().position(|number| *number == by) {
                put(format!("flushed {} by rollout {index}", name(&uid)), "yes".to_owned());
            }
        }
        if let Ok(canary) = now(world.raw().cluster.canary()) {
            let canary = canary.map(|canary| (canary.color, canary.digest.map(|digest| digest.short())));
            put("canary".to_owned(), format!("{canary:?}"));
        }
        for (index, rollout) in world.store.all_rollouts().iter().enumerate() {
            let status = rollout.status.as_str();
            put(format!("rollout {index}"), format!("{status} {:?} of {}", rollout.counts(), rollout.total));
        }

        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for effect in &log {
            if let Some(key) = counted(&effect.kind, &name) {
                *counts.entry(key).or_default() += 1;
            }
        }
        for (key, count) in counts {
            put(key, count.to_string());
        }
        Self(all)
    }

    /// Returns the end state alone, without the counts of effects.
    #[must_use]
    pub fn end_state(mut self) -> Self {
        self.0.retain(|key, _| !key.starts_with("n "));
        self
    }

    /// Describes each difference between two summaries; empty if they are equal.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let keys = self.0.keys().chain(other.0.keys());
        let mut keys: Vec<&String> = keys.collect();
        keys.sort();
        keys.dedup();
        let nothing = String::from("-");
        keys.into_iter()
            .filter_map(|key| {
                let (mine, theirs) =
                    (self.0.get(key).unwrap_or(&nothing), other.0.get(key).unwrap_or(&nothing));
                (mine != theirs).then(|| format!("{key}: {mine} | {theirs}"))
            })
            .collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.0 {
            writeln!(f, "{key}: {value}")?;
        }
        Ok(())
    }
}

/// Returns the key under which an effect is counted: creations, deletions, moves and ends. Harmless repetitions
/// are not counted.
fn counted(kind: &EffectKind, name: &impl Fn(&Uid) -> String) -> Option<String> {
    Some(match kind {
        EffectKind::SecretCreated(secret) => {
            format!("n secret created {} {:?}", name(&secret.uid), secret.kind)
        }
        EffectKind::SecretDeleted(secret) => {
            format!("n secret deleted {} {:?}", name(&secret.uid), secret.kind)
        }
        EffectKind::MarkerPut(uid) => format!("n marker put {}", name(uid)),
        EffectKind::ObjectDeleted(uid, _) => format!("n objects deleted {}", name(uid)),
        EffectKind::DatabaseEnsured { uid, created: true } => format!("n database created {}", name(uid)),
        EffectKind::DatabaseDropped(uid) => format!("n database dropped {}", name(uid)),
        EffectKind::CanarySet(color, _) => format!("n canary set {color}"),
        EffectKind::ImageSet(color, from, to) if from != to => {
            format!("n image set {color} {:?}", to.map(|digest| digest.short()))
        }
        EffectKind::RouteCreated(uid, to) => format!("n route created {} {to}", name(uid)),
        EffectKind::RouteMoved(uid, from, to) if from != to => format!("n route moved {} {to}", name(uid)),
        EffectKind::Released(uid, _) => format!("n released {}", name(uid)),
        // The number of jobs that flush a rollout's sites depends on timing. The flushed sites are in the end
        // state above.
        EffectKind::JobStarted(job, ..) if job.as_str().starts_with("rollout-") => return None,
        EffectKind::JobStarted(_, Some(uid), word) => format!("n job {word} {}", name(uid)),
        EffectKind::JobStarted(_, None, word) => format!("n job {word} batch"),
        EffectKind::Ended(operation) => ended(operation),
        EffectKind::DatabaseEnsured { created: false, .. }
        | EffectKind::DatabaseRenewed(_)
        | EffectKind::RouteMoved(..)
        | EffectKind::ImageSet(..)
        | EffectKind::Site(..)
        | EffectKind::Service(_)
        | EffectKind::Fleet(_)
        | EffectKind::Rollout(_)
        | EffectKind::ServiceRead(..)
        | EffectKind::Rejected(_) => return None,
    })
}

fn ended(operation: &Operation) -> String {
    let subject = match &operation.subject {
        Subject::Site(id) => id.to_string(),
        other => other.to_string(),
    };
    let status: Status = operation.state.status;
    format!("n ended {} {subject} {status}", operation.state.input.kind())
}

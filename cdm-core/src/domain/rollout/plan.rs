//! The plan of a rollout: its effects, computed from the present state of the fleet before the rollout is requested. A
//! hash identifies the plan, so that the actual request is rejected if the fleet has changed since.

use super::{RolloutKind, RolloutMember, RolloutSpec, Wave, Window};
use crate::domain::{Canonical, Color, Digest, SiteId, Uid};

/// A site in the scope of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The id of the site.
    pub id: SiteId,
    /// The uid, which distinguishes it from an earlier or later site of the same id.
    pub uid: Uid,
    /// The service in the record of the site.
    pub service: Color,
    /// The service that the route was last confirmed to point to.
    pub routed: Option<Color>,
    /// Whether an operation runs on the site or is parked.
    pub busy: bool,
    /// Whether a freeze stops moves of the site.
    pub frozen: bool,
}

/// The inputs of a plan besides the sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanInputs {
    /// The specification, as requested.
    pub spec: RolloutSpec,
    /// The service that the sites move to.
    pub target: Color,
    /// The digest that the target runs.
    pub running: Option<Digest>,
    /// Whether the target is ready.
    pub ready: bool,
    /// The digest that a rollback would restore for sites that are on the target already.
    pub rollback_digest: Option<Digest>,
}

/// The effect of a plan on a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The site would be moved or assigned to the target.
    Move,
    /// The site is on the target already.
    InPlace,
    /// Another operation has not ended. The site is skipped unless that operation ends in time.
    Busy,
    /// A freeze stops moves of the site. The site is skipped.
    Frozen,
}

/// One wave of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedWave {
    /// The size as it was requested, such as `25` or `10%`.
    pub name: String,
    /// The number of sites.
    pub total: u32,
    /// The number of sites that would be moved.
    pub moves: u32,
    /// The number of sites that are on the target already.
    pub in_place: u32,
}

/// The calls of a plan if no call fails and no site is skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallEstimate {
    /// Writes of the records of sites: a claim and a release each.
    pub site_writes: u64,
    /// Writes of routes, one for each site that a promote moves.
    pub route_writes: u64,
    /// Writes of the record and the pages of the rollout: a write grants further sites and begins a flush, or stores that
    /// caches were flushed.
    pub checkpoints: u64,
    /// Jobs that flush caches, at most. The sites that move during one job are flushed by the next one together.
    pub jobs: u64,
    /// Probes of sites, if the rollout has a health gate.
    pub probes: u64,
}

/// A warning to the user who applies a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The stable code, such as `busy`.
    pub code: &'static str,
    /// The text for users.
    pub message: String,
}

/// The effects of a rollout that was not started yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The inputs besides the sites.
    pub inputs: PlanInputs,
    /// The waves, in order.
    pub waves: Vec<PlannedWave>,
    /// The first sites, at most [`Plan::SHOWN`], each with the index of its wave and the effect.
    pub sites: Vec<(Candidate, usize, Change)>,
    /// The names of the steps: those of the deploy, if the rollout deploys first, and those of each site.
    pub steps: Vec<&'static str>,
    /// The calls that the rollout would make.
    pub calls: CallEstimate,
    /// The warnings to the user who applies the plan.
    pub warnings: Vec<Warning>,
    /// The hash of the request and of the state of the fleet.
    pub hash: String,
}

impl From<Candidate> for RolloutMember {
    fn from(site: Candidate) -> Self {
        Self::new(site.id, site.uid)
    }
}

impl PlanInputs {
    /// Returns the effect on a site.
    pub fn change(&self, site: &Candidate) -> Change {
        let service = match self.spec.kind {
            RolloutKind::Promote => site.routed.unwrap_or(site.service),
            RolloutKind::Upgrade | RolloutKind::Flush => site.service,
        };
        match site {
            _ if site.frozen => Change::Frozen,
            _ if site.busy => Change::Busy,
            _ if service == self.target => Change::InPlace,
            _ => Change::Move,
        }
    }

    /// Returns the digest that the target must run.
    pub fn digest(&self) -> Option<Digest> {
        self.spec.digest.or(self.running)
    }

    /// Returns whether the target runs another digest, so that the rollout deploys first.
    pub fn deploys(&self) -> bool {
        self.spec.digest.is_some() && self.spec.digest != self.running
    }
}

impl Plan {
    /// The limit of sites in a plan.
    pub const SHOWN: usize = 100;

    /// Creates the plan of these sites in these waves. `steps` are the names of the steps of a rollout of this kind.
    pub fn new(inputs: PlanInputs, waves: &[Wave], sites: &[Candidate], steps: Vec<&'static str>) -> Self {
        let changes: Vec<Change> = sites.iter().map(|site| inputs.change(site)).collect();
        let (mut start, mut planned, mut shown) = (0, Vec::new(), Vec::new());
        for (index, wave) in waves.iter().enumerate() {
            let (from, to) = (start as usize, (wave.end as usize).min(sites.len()));
            let count = |change| {
                let of_wave = changes[from..to].iter().filter(|is| **is == change);
                u32::try_from(of_wave.count()).unwrap_or(u32::MAX)
            };
            let (moves, in_place) = (count(Change::Move), count(Change::InPlace));
            planned.push(PlannedWave { name: wave.name.clone(), total: wave.end - start, moves, in_place });
            let remaining = Self::SHOWN - shown.len();
            let more = sites[from..to].iter().zip(&changes[from..to]).take(remaining);
            shown.extend(more.map(|(site, change)| (site.clone(), index, *change)));
            start = wave.end;
        }
        let hash = hash(&inputs, sites);
        let calls = inputs.calls(waves, &changes);
        let warnings = inputs.warnings(&changes);
        Self { waves: planned, sites: shown, steps, calls, warnings, hash, inputs }
    }
}

/// Returns the hash of the plan for these sites.
pub fn hash(inputs: &PlanInputs, sites: &[Candidate]) -> String {
    // The readiness of the target changes without a request, and is checked before each move.
    let PlanInputs { spec, target, running, rollback_digest, .. } = inputs;
    let kind = match spec.kind {
        RolloutKind::Upgrade => "upgrade",
        RolloutKind::Promote => "promote",
        RolloutKind::Flush => "flush",
    };
    let base = Canonical::new()
        .nested("spec", &spec.encode())
        .field("kind", kind)
        .field("target", target)
        .optional("running", *running)
        .optional("digest", inputs.digest())
        .optional("putBack", *rollback_digest);
    let sites = sites.iter().fold(base, |encoded, Candidate { id, uid, service, routed, .. }| {
        encoded.field("site", id).field("uid", uid).field("service", service).optional("routed", *routed)
    });
    sites.sha256()
}

impl PlanInputs {
    fn calls(&self, waves: &[Wave], changes: &[Change]) -> CallEstimate {
        let count = |change| changes.iter().filter(|is| **is == change).count() as u64;
        let (moves, in_place) = (count(Change::Move), count(Change::InPlace));
        let windows = windows(waves, Window::size(self.spec.max_concurrent));
        let bakes = if self.spec.bake.is_zero() { 0 } else { waves.len().saturating_sub(1) as u64 };
        let probes = match &self.spec.gate {
            None => 0,
            Some(gate) if gate.latency().is_none() => 2 * moves + in_place,
            Some(_) => 3 * moves + in_place,
        };
        CallEstimate {
            site_writes: if self.spec.kind.moves() { 2 * (moves + in_place) } else { 0 },
            route_writes: if self.spec.kind == RolloutKind::Promote { moves } else { 0 },
            // The claim of the owner, another one after each bake time, and for each window its grant and its flush.
            checkpoints: 1 + 2 * windows + bakes,
            jobs: windows,
            probes,
        }
    }

    fn warnings(&self, changes: &[Change]) -> Vec<Warning> {
        let count = |change| changes.iter().filter(|is| **is == change).count();
        let (in_place, busy, frozen) = (count(Change::InPlace), count(Change::Busy), count(Change::Frozen));
        let target = self.target;
        let mut warnings = Vec::new();
        let mut warn = |code, message| warnings.push(Warning { code, message });
        if changes.is_empty() {
            warn("empty", "no site is in scope: there is nothing to start".to_owned());
        }
        if self.deploys() {
            let message = format!("`{target}` runs another digest; the new one is deployed first");
            warn("deploy_first", message);
        }
        if in_place > 0 && self.spec.kind == RolloutKind::Promote {
            let exposed =
                if self.deploys() { "see the new image at once, all of them" } else { "are not moved" };
            let back = match (self.spec.auto_rollback, self.rollback_digest) {
                (false, _) => "a halt leaves them as they are".to_owned(),
                (true, Some(digest)) => format!("a halt by the health gate restores {digest} for them"),
                (true, None) => "there is no healthy digest that a halt could restore for them".to_owned(),
            };
            warn("in_place", format!("{in_place} sites are on `{target}` already and {exposed}; {back}"));
        }
        if !self.ready && self.spec.kind == RolloutKind::Promote {
            warn("not_ready", format!("`{target}` is not ready; the rollout waits until it is"));
        }
        if busy > 0 {
            let message = format!(
                "operations run on {busy} sites; each site is skipped unless its operation ends in time"
            );
            warn("busy", message);
        }
        if frozen > 0 {
            let noun = if frozen == 1 { "site is frozen and is" } else { "sites are frozen and are" };
            warn("frozen", format!("{frozen} {noun} skipped"));
        }
        warnings
    }
}

/// Returns the number of windows of all waves.
fn windows(waves: &[Wave], size: u32) -> u64 {
    let mut start = 0;
    let sizes = waves.iter().map(|wave| wave.end - std::mem::replace(&mut start, wave.end));
    sizes.map(|sites| u64::from(sites.div_ceil(size))).sum()
}

//! What a rollout would do, before it is asked for: decided from the fleet as it stands, and named by a hash, so that
//! the real request can be refused when the fleet has changed since.

use super::{RolloutKind, Wave, Window};
use crate::domain::{Canonical, Color, Digest, SiteId, Uid};

/// A site as a plan sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: SiteId,
    /// Which incarnation.
    pub uid: Uid,
    /// The service of its record.
    pub service: Color,
    /// Where its route was last seen to point.
    pub routed: Option<Color>,
    /// Whether an operation is at work on it.
    pub busy: bool,
    /// Whether a freeze stops its moves.
    pub frozen: bool,
}

/// What decides of a plan besides the sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanInputs {
    /// What is done to each site.
    pub kind: RolloutKind,
    /// Where to.
    pub target: Color,
    /// What the target runs.
    pub running: Option<Digest>,
    /// The digest that the target shall run.
    pub digest: Option<Digest>,
    /// Whether every pod of the target is there.
    pub ready: bool,
    /// Whether sites are asked before and after their move, and whether that is timed.
    pub gate: Option<Timed>,
    /// Whether a halt takes the moved sites back.
    pub auto_rollback: bool,
    /// Whether waves wait for their time.
    pub bakes: bool,
    /// The digest that would be put back under sites that are in place.
    pub put_back: Option<Digest>,
    /// How many sites at once.
    pub max_concurrent: u32,
}

/// Whether a gate times the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// What would happen to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It would be moved, or assigned, to the target.
    Move,
    /// It is on the target already.
    InPlace,
    /// An operation is at work on it; it is skipped unless that ends in time.
    Busy,
    /// A freeze stops it; it is skipped.
    Frozen,
}

/// One wave of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedWave {
    /// As it was asked for.
    pub name: String,
    /// How many sites.
    pub total: u32,
    /// How many of them would be moved.
    pub moves: u32,
    /// How many are on the target already.
    pub in_place: u32,
}

/// What a plan costs, when nothing goes wrong and no site is skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallEstimate {
    /// Writes of sites' own records: a claim and a completion each.
    pub site_writes: u64,
    /// Routes that are written.
    pub route_writes: u64,
    /// Writes of the rollout's record and pages.
    pub checkpoints: u64,
    /// Jobs that flush caches, at most: what is moved during one is flushed by the next.
    pub jobs: u64,
    /// Requests to the sites themselves.
    pub probes: u64,
}

/// Something that whoever applies a plan should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// A stable word.
    pub code: &'static str,
    /// The particulars.
    pub message: String,
}

/// What a rollout would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What decides besides the sites.
    pub inputs: PlanInputs,
    /// The waves.
    pub waves: Vec<PlannedWave>,
    /// The first sites, at most [`Plan::SHOWN`], with the index of their wave and what would happen to them.
    pub sites: Vec<(Candidate, usize, Change)>,
    /// What is done once, then what is done to each site and each group of sites, by the names that users see.
    pub steps: Vec<&'static str>,
    /// What it costs.
    pub calls: CallEstimate,
    /// What should be known.
    pub warnings: Vec<Warning>,
    /// Names the plan: another fleet, or another request, has another.
    pub hash: String,
}

impl PlanInputs {
    /// What would happen to a site.
    pub fn change(&self, site: &Candidate) -> Change {
        let place = match self.kind {
            RolloutKind::Promote => site.routed.unwrap_or(site.service),
            RolloutKind::Upgrade | RolloutKind::Flush => site.service,
        };
        match site {
            _ if site.frozen => Change::Frozen,
            _ if site.busy => Change::Busy,
            _ if place == self.target => Change::InPlace,
            _ => Change::Move,
        }
    }

    /// Returns whether the target runs another digest, so that the rollout deploys first.
    pub fn deploys(&self) -> bool {
        self.digest.is_some() && self.digest != self.running
    }
}

impl Plan {
    /// How many sites a plan shows.
    pub const SHOWN: usize = 100;

    /// Plans these sites in these waves. `steps` are the names of the steps of a rollout of this kind, `spec` encodes the
    /// request.
    pub fn new(
        inputs: PlanInputs,
        waves: &[Wave],
        sites: &[Candidate],
        steps: Vec<&'static str>,
        spec: &Canonical,
    ) -> Self {
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
            let room = Self::SHOWN - shown.len();
            let more = sites[from..to].iter().zip(&changes[from..to]).take(room);
            shown.extend(more.map(|(site, change)| (site.clone(), index, *change)));
            start = wave.end;
        }
        let hash = hash(&inputs, sites, spec);
        let calls = inputs.calls(waves, &changes);
        let warnings = inputs.warnings(&changes);
        Self { waves: planned, sites: shown, steps, calls, warnings, hash, inputs }
    }
}

/// The hash of the plan for these sites.
pub fn hash(inputs: &PlanInputs, sites: &[Candidate], asked: &Canonical) -> String {
    // Whether the target is ready changes by itself, and is checked before each move.
    let PlanInputs { kind, target, running, digest, put_back, .. } = inputs;
    let kind = match kind {
        RolloutKind::Upgrade => "upgrade",
        RolloutKind::Promote => "promote",
        RolloutKind::Flush => "flush",
    };
    let base = Canonical::new()
        .nested("spec", asked)
        .field("kind", kind)
        .field("target", target)
        .optional("running", *running)
        .optional("digest", *digest)
        .optional("putBack", *put_back);
    let sites = sites.iter().fold(base, |encoded, Candidate { id, uid, service, routed, .. }| {
        encoded.field("site", id).field("uid", uid).field("service", service).optional("routed", *routed)
    });
    sites.sha256()
}

impl PlanInputs {
    fn calls(&self, waves: &[Wave], changes: &[Change]) -> CallEstimate {
        let count = |change| changes.iter().filter(|is| **is == change).count() as u64;
        let (moves, in_place) = (count(Change::Move), count(Change::InPlace));
        let windows = windows(waves, Window::size(self.max_concurrent));
        let asked = match self.gate {
            None => 0,
            Some(Timed::No) => 2 * moves + in_place,
            Some(Timed::Yes) => 3 * moves + in_place,
        };
        CallEstimate {
            site_writes: if self.kind.moves() { 2 * (moves + in_place) } else { 0 },
            route_writes: if self.kind == RolloutKind::Promote { moves } else { 0 },
            // The owner's claim, another after each rest, and for each window its outcomes and what follows.
            checkpoints: 1 + 2 * windows + if self.bakes { waves.len().saturating_sub(1) as u64 } else { 0 },
            jobs: windows,
            probes: asked,
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
        if in_place > 0 && self.kind == RolloutKind::Promote {
            let exposed =
                if self.deploys() { "see the new image at once, all of them" } else { "are not moved" };
            let back = match (self.auto_rollback, self.put_back) {
                (false, _) => "a halt leaves them as they are".to_owned(),
                (true, Some(digest)) => format!("a halt by the gate puts {digest} back under them"),
                (true, None) => "there is no healthy digest that a halt could put back under them".to_owned(),
            };
            warn("in_place", format!("{in_place} sites are on `{target}` already and {exposed}; {back}"));
        }
        if !self.ready && self.kind == RolloutKind::Promote {
            warn("not_ready", format!("`{target}` is not ready; the rollout waits until it is"));
        }
        if busy > 0 {
            let message =
                format!("operations are at work on {busy} sites; those that do not end are skipped");
            warn("busy", message);
        }
        if frozen > 0 {
            let told = if frozen == 1 { "site is frozen and is" } else { "sites are frozen and are" };
            warn("frozen", format!("{frozen} {told} skipped"));
        }
        warnings
    }
}

/// How many windows the waves are gone through in.
fn windows(waves: &[Wave], size: u32) -> u64 {
    let mut start = 0;
    let sizes = waves.iter().map(|wave| wave.end - std::mem::replace(&mut start, wave.end));
    sizes.map(|sites| u64::from(sites.div_ceil(size))).sum()
}

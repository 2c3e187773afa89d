//! A rollout's plan on the wire.

use cdm_core::domain::rollout::{self, Change};
use serde::Serialize;
use utoipa::ToSchema;

use super::words::{ChangeWord, ServiceName};

/// What a rollout would do.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Names this plan: sent back as `planHash`, the rollout is refused if it would not be this one any more.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub plan_hash: String,
    /// Where the sites would go.
    #[schema(value_type = ServiceName)]
    pub service: String,
    /// The digest that the service has to run.
    #[schema(required = true)]
    pub digest: Option<String>,
    /// The digest that it runs.
    #[schema(required = true)]
    pub running: Option<String>,
    /// All sites.
    pub total: u32,
    /// How many of them would be moved, or assigned.
    pub moves: u32,
    /// How many are on the service already.
    pub in_place: u32,
    /// The waves.
    pub waves: Vec<PlannedWave>,
    /// The first 100 sites.
    pub sites: Vec<PlannedSite>,
    /// What is done, by the names of steps.
    pub steps: Vec<String>,
    /// What it costs, when nothing goes wrong.
    pub calls: Calls,
    /// What should be known before.
    pub warnings: Vec<Warning>,
}

/// A wave of a plan.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedWave {
    /// As it was asked for.
    pub name: String,
    /// How many sites.
    pub total: u32,
    /// How many of them would be moved.
    pub moves: u32,
    /// How many are there already.
    pub in_place: u32,
}

/// A site of a plan.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSite {
    /// Its id.
    pub id: String,
    /// The service of its record.
    #[schema(value_type = ServiceName)]
    pub service: String,
    /// Where its route was last seen to point.
    #[schema(value_type = Option<ServiceName>, required = true)]
    pub routed_service: Option<String>,
    /// The name of its wave.
    pub wave: String,
    /// What would happen to it.
    #[schema(value_type = ChangeWord)]
    pub change: String,
}

/// What a plan costs.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// Writes of sites' own records.
    pub site_writes: u64,
    /// Routes that are written.
    pub route_writes: u64,
    /// Writes of the rollout's own records.
    pub checkpoints: u64,
    /// Jobs that flush caches, at most: what is moved during one is flushed by the next.
    pub jobs: u64,
    /// Requests to the sites.
    pub probes: u64,
}

/// Something to know before.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Warning {
    /// A stable word.
    #[schema(pattern = "^[a-z_]+$")]
    pub code: String,
    /// The particulars.
    pub message: String,
}

/// What would happen to a site, in a word.
pub(crate) const fn change(change: Change) -> &'static str {
    match change {
        Change::Move => "move",
        Change::InPlace => "in_place",
        Change::Busy => "busy",
        Change::Frozen => "frozen",
    }
}

impl From<&rollout::Plan> for Plan {
    fn from(plan: &rollout::Plan) -> Self {
        let waves: Vec<_> = plan.waves.iter().map(PlannedWave::from).collect();
        let name = |wave: usize| plan.waves.get(wave).map(|wave| wave.name.clone()).unwrap_or_default();
        let site = |(site, wave, what): &(rollout::Candidate, usize, Change)| PlannedSite {
            id: site.id.to_string(),
            service: site.service.to_string(),
            routed_service: site.routed.map(|service| service.to_string()),
            wave: name(*wave),
            change: change(*what).to_owned(),
        };
        let rollout::CallEstimate { site_writes, route_writes, checkpoints, jobs, probes } = plan.calls;
        let told = |warning: &rollout::Warning| Warning {
            code: warning.code.to_owned(),
            message: warning.message.clone(),
        };
        Self {
            plan_hash: plan.hash.clone(),
            service: plan.inputs.target.to_string(),
            digest: plan.inputs.digest.map(|digest| digest.to_string()),
            running: plan.inputs.running.map(|digest| digest.to_string()),
            total: waves.iter().map(|wave| wave.total).sum(),
            moves: waves.iter().map(|wave| wave.moves).sum(),
            in_place: waves.iter().map(|wave| wave.in_place).sum(),
            waves,
            sites: plan.sites.iter().map(site).collect(),
            steps: plan.steps.iter().map(|step| (*step).to_owned()).collect(),
            calls: Calls { site_writes, route_writes, checkpoints, jobs, probes },
            warnings: plan.warnings.iter().map(told).collect(),
        }
    }
}

impl Plan {
    /// Whether it has sites, and all that it names.
    pub(crate) fn can_start(&self) -> bool {
        self.total > 0 && self.warnings.iter().all(|warning| warning.code != "unknown_sites")
    }
}

impl From<&rollout::PlannedWave> for PlannedWave {
    fn from(wave: &rollout::PlannedWave) -> Self {
        Self { name: wave.name.clone(), total: wave.total, moves: wave.moves, in_place: wave.in_place }
    }
}

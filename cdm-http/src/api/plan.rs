//! The plan of a rollout in API responses.

use cdm_core::domain::rollout::{self, Change};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Digest, ServiceName, SiteId, wire_enum};

wire_enum! {
    /// What a rollout would do with a site.
    pub enum PlannedChange from Change {
        /// The site is moved or assigned to the service.
        Move = "move" (Change::Move),
        /// The site is already on the service.
        InPlace = "in_place" (Change::InPlace),
        /// The site is skipped because another operation runs on it.
        Busy = "busy" (Change::Busy),
        /// The site is skipped because it is frozen.
        Frozen = "frozen" (Change::Frozen),
    }
}

wire_enum! {
    /// The code of a warning about a plan.
    pub enum WarningCode {
        /// No site is in scope.
        Empty = "empty",
        /// An image is deployed before the rollout.
        DeployFirst = "deploy_first",
        /// Sites are already on the service.
        InPlace = "in_place",
        /// The service is not ready.
        NotReady = "not_ready",
        /// Other operations run on sites of the plan.
        Busy = "busy",
        /// Sites of the plan are frozen, or all sites are.
        Frozen = "frozen",
        /// Another rollout is not finished.
        RolloutInFlight = "rollout_in_flight",
        /// Requested sites do not exist.
        UnknownSites = "unknown_sites",
    }
}

/// The plan of a rollout: what it would do if it were started now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The hash of the plan. If it is sent as `planHash` with the request to start the rollout, the request is rejected if
    /// the plan has changed.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub plan_hash: String,
    /// The service that the sites would be assigned or moved to.
    pub service: ServiceName,
    /// The digest that the service must run.
    #[schema(required = true)]
    pub digest: Option<Digest>,
    /// The digest that the service runs now.
    #[schema(required = true)]
    pub running: Option<Digest>,
    /// The number of sites in the plan.
    pub total: u32,
    /// The number of sites that would be moved or assigned.
    pub moves: u32,
    /// The number of sites that are already on the service.
    pub in_place: u32,
    /// The waves, in their order.
    pub waves: Vec<PlannedWave>,
    /// The first 100 sites.
    pub sites: Vec<PlannedSite>,
    /// The names of the steps for each site.
    pub steps: Vec<String>,
    /// The number of calls to the backends if no call fails.
    pub calls: Calls,
    /// Warnings to consider before the start.
    pub warnings: Vec<Warning>,
}

/// A wave of a plan.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedWave {
    /// The wave as it was requested, such as `10%`.
    pub name: String,
    /// The number of sites in the wave.
    pub total: u32,
    /// The number of sites that would be moved.
    pub moves: u32,
    /// The number of sites that are already on the service.
    pub in_place: u32,
}

/// A site of a plan.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSite {
    /// The id of the site.
    pub id: SiteId,
    /// The service that the site is assigned to.
    pub service: ServiceName,
    /// The last observed target of the site's route; null without a route.
    #[schema(required = true)]
    pub routed_service: Option<ServiceName>,
    /// The name of the site's wave.
    pub wave: String,
    /// What the rollout would do with the site.
    pub change: PlannedChange,
}

/// The calls that a plan needs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// Writes of site records.
    pub site_writes: u64,
    /// Writes of routes in the cluster.
    pub route_writes: u64,
    /// Writes of the rollout's records.
    pub checkpoints: u64,
    /// The maximum number of jobs that flush caches. Sites that are moved while a job runs are flushed by the next job.
    pub jobs: u64,
    /// Requests of the health gate to the sites.
    pub probes: u64,
}

/// A warning about a plan.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Warning {
    /// A stable code, for programs.
    #[schema(value_type = String, pattern = "^[a-z_]+$")]
    pub code: WarningCode,
    /// The details, for people. The text may change.
    pub message: String,
}

impl From<&rollout::Plan> for Plan {
    fn from(plan: &rollout::Plan) -> Self {
        let waves: Vec<_> = plan.waves.iter().map(PlannedWave::from).collect();
        let name = |wave: usize| plan.waves.get(wave).map(|wave| wave.name.clone()).unwrap_or_default();
        let site = |(site, wave, planned): &(rollout::Candidate, usize, Change)| PlannedSite {
            id: SiteId::from(&site.id),
            service: site.service.into(),
            routed_service: site.routed.map(ServiceName::from),
            wave: name(*wave),
            change: (*planned).into(),
        };
        let rollout::CallEstimate { site_writes, route_writes, checkpoints, jobs, probes } = plan.calls;
        let warning = |warning: &rollout::Warning| Warning {
            code: WarningCode::from(warning.code),
            message: warning.message.clone(),
        };
        Self {
            plan_hash: plan.hash.clone(),
            service: plan.inputs.target.into(),
            digest: plan.inputs.digest().as_ref().map(Digest::from),
            running: plan.inputs.running.as_ref().map(Digest::from),
            total: waves.iter().map(|wave| wave.total).sum(),
            moves: waves.iter().map(|wave| wave.moves).sum(),
            in_place: waves.iter().map(|wave| wave.in_place).sum(),
            waves,
            sites: plan.sites.iter().map(site).collect(),
            steps: plan.steps.iter().map(|step| (*step).to_owned()).collect(),
            calls: Calls { site_writes, route_writes, checkpoints, jobs, probes },
            warnings: plan.warnings.iter().map(warning).collect(),
        }
    }
}

impl Plan {
    /// Returns whether a rollout with this plan can start: it has sites, and all requested sites exist.
    pub fn can_start(&self) -> bool {
        self.total > 0 && self.warnings.iter().all(|warning| warning.code != WarningCode::UnknownSites)
    }
}

impl From<&rollout::PlannedWave> for PlannedWave {
    fn from(wave: &rollout::PlannedWave) -> Self {
        Self { name: wave.name.clone(), total: wave.total, moves: wave.moves, in_place: wave.in_place }
    }
}

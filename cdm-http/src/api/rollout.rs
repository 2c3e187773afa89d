//! Rollouts in API requests and responses.

use std::time::Duration;

use cdm_core::domain::rollout::{self, Budget, MemberOutcome, RolloutSpec, WaveTarget};
use cdm_core::domain::{self, Color};
use cdm_core::manager::{Force, Resume, RolloutScope};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::gate::Gate;
use super::operation::Reason;
use super::services::{Flag, digest, digest_of};
use super::{
    ActorName, Digest, Fields, InvalidFields, OperationId, RolloutId, ServiceName, SiteId, Time, wire_enum,
};

/// The allowed number of concurrent sites.
const CONCURRENT: std::ops::RangeInclusive<u32> = 1..=512;

/// The maximum bake time between two waves.
const MAX_BAKE: Duration = Duration::from_secs(86_400);

/// The maximum number of sites of a rollout.
const MAX_SITES: u32 = 1_000_000;

wire_enum! {
    /// What a rollout does with each site; `flush` only flushes caches, as the hook of a deploy.
    pub enum RolloutKind from domain::RolloutKind {
        /// Assigns each site to the service.
        Upgrade = "upgrade" (domain::RolloutKind::Upgrade),
        /// Moves each site and its route to the service.
        Promote = "promote" (domain::RolloutKind::Promote),
        /// Flushes the caches of each site.
        Flush = "flush" (domain::RolloutKind::Flush),
    }
}

wire_enum! {
    /// The status of a rollout; `paused` and `halted` rollouts can be resumed.
    pub enum RolloutStatus from domain::RolloutStatus {
        /// The rollout waits for a condition.
        Waiting = "waiting" (domain::RolloutStatus::Waiting),
        /// Sites are being processed.
        Running = "running" (domain::RolloutStatus::Running),
        /// A user paused the rollout.
        Paused = "paused" (domain::RolloutStatus::Paused),
        /// The rollout stopped because too many sites of a wave failed.
        Halted = "halted" (domain::RolloutStatus::Halted),
        /// A user aborted the rollout.
        Aborted = "aborted" (domain::RolloutStatus::Aborted),
        /// All waves are finished.
        Succeeded = "succeeded" (domain::RolloutStatus::Succeeded),
        /// The rollout failed.
        Failed = "failed" (domain::RolloutStatus::Failed),
    }
}

wire_enum! {
    /// How a site failed, or why it was skipped.
    pub enum SiteOutcome {
        /// The site was not moved.
        Failed = "failed",
        /// The health gate rejected the site before its move.
        Unhealthy = "unhealthy",
        /// The health gate rejected a site that is already on the service.
        UnhealthyInPlace = "unhealthy_in_place",
        /// The site was moved back.
        Returned = "returned",
        /// The site needs a user.
        Parked = "parked",
        /// The site no longer existed.
        Gone = "gone",
        /// The site was not active.
        Inactive = "inactive",
        /// Another operation was in progress on the site.
        Busy = "busy",
        /// The site was frozen.
        Frozen = "frozen",
    }
}

impl From<MemberOutcome> for SiteOutcome {
    fn from(outcome: MemberOutcome) -> Self {
        match outcome {
            MemberOutcome::Failed => Self::Failed,
            MemberOutcome::Unhealthy => Self::Unhealthy,
            MemberOutcome::UnhealthyInPlace => Self::UnhealthyInPlace,
            MemberOutcome::Returned => Self::Returned,
            MemberOutcome::Parked => Self::Parked,
            MemberOutcome::SkippedGone => Self::Gone,
            MemberOutcome::SkippedInactive => Self::Inactive,
            MemberOutcome::SkippedBusy => Self::Busy,
            MemberOutcome::SkippedFrozen => Self::Frozen,
            // The outcomes of success, which the list of failures does not contain.
            MemberOutcome::Moved | MemberOutcome::InPlace => Self::Other(outcome.as_str().to_owned()),
        }
    }
}

/// A rollout: an operation on many sites, in waves.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The opaque id of the rollout.
    pub id: RolloutId,
    /// What the rollout does with each site.
    pub kind: RolloutKind,
    /// Whether the rollout also moves routes.
    pub promote: bool,
    /// The image that the service must run.
    #[schema(required = true)]
    pub image_tag: Option<String>,
    /// The service that the sites are assigned or moved to.
    pub service: ServiceName,
    /// The digest with which the rollout was started.
    #[schema(required = true)]
    pub digest: Option<Digest>,
    /// The digest that a user accepted in place of `digest` when they resumed the rollout; sites have moved to it since.
    #[schema(required = true)]
    pub accepted_digest: Option<Digest>,
    /// The requested sites; in a retry, the requested sites of the first rollout.
    pub scope: Scope,
    /// The status of the rollout.
    pub status: RolloutStatus,
    /// Whether the rollout has `succeeded` although sites failed, are parked or were skipped.
    pub partial: bool,
    /// The waves, in their order.
    pub waves: Vec<Wave>,
    /// The numbers of all sites by result.
    #[serde(flatten)]
    pub counts: Counts,
    /// The first sites that failed, were parked or were skipped, at most 20; `GET /operations?rollout=` lists all of them.
    pub failures: Vec<Failure>,
    /// The maximum number of concurrent sites.
    pub max_concurrent: u32,
    /// How many sites of a wave may fail: a count or a percentage.
    pub failure_budget: String,
    /// Whether the moved sites are moved back when the rollout halts.
    pub auto_rollback: bool,
    /// The check that each site must pass before and after its move.
    #[schema(required = true)]
    pub gate: Option<Gate>,
    /// The bake time between two waves, in seconds.
    pub bake: u64,
    /// The deploy of the previous digest that a halt requested.
    #[schema(required = true)]
    pub rollback: Option<OperationId>,
    /// The deploy that runs before the rollout.
    #[schema(required = true)]
    pub after: Option<OperationId>,
    /// The rollout whose failed and skipped sites this rollout repeats.
    #[schema(required = true)]
    pub retry_of: Option<RolloutId>,
    /// Why the rollout waits, is paused or halted, or has failed.
    #[schema(required = true)]
    pub reason: Option<Reason>,
    /// The actor who requested the rollout.
    pub requested_by: ActorName,
    /// When the rollout was accepted.
    pub created_at: Time,
    /// When a worker first claimed the rollout.
    #[schema(required = true)]
    pub started_at: Option<Time>,
    /// When the rollout ended.
    #[schema(required = true)]
    pub finished_at: Option<Time>,
}

/// The requested sites of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Scope {
    /// All sites of one kind.
    Named(ScopeName),
    /// The sites with these ids.
    Sites(ScopeSites),
}

wire_enum! {
    /// The sites of a rollout: `active` for the sites on the active canary, `inactive` for the sites on the other service, or `all`; for the hooks of a deploy, the name of a service for the sites on it.
    pub enum ScopeName {
        /// The sites on the active canary.
        Active = "active",
        /// The sites on the other service.
        Inactive = "inactive",
        /// All sites, on both services.
        All = "all",
        /// The sites on blue; never in a request.
        Blue = "blue",
        /// The sites on green; never in a request.
        Green = "green",
    }
}

/// An explicit list of sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeSites {
    /// The ids of the sites.
    pub sites: Vec<SiteId>,
}

impl From<&RolloutScope> for Scope {
    fn from(scope: &RolloutScope) -> Self {
        match scope {
            RolloutScope::Active => Self::Named(ScopeName::Active),
            RolloutScope::Inactive => Self::Named(ScopeName::Inactive),
            RolloutScope::All => Self::Named(ScopeName::All),
            RolloutScope::Service(Color::Blue) => Self::Named(ScopeName::Blue),
            RolloutScope::Service(Color::Green) => Self::Named(ScopeName::Green),
            RolloutScope::Sites(sites) => {
                Self::Sites(ScopeSites { sites: sites.iter().map(SiteId::from).collect() })
            }
        }
    }
}

/// The schema of a scope in a request, which does not contain the names of services.
#[derive(Debug)]
struct RequestedScope;

impl PartialSchema for RequestedScope {
    fn schema() -> RefOr<Schema> {
        let names = ObjectBuilder::new().schema_type(Type::String);
        let names = names.enum_values(Some(["active", "inactive", "all"]));
        let description = "The sites on the active canary, the sites on the other service, or all sites; or the sites of a list.";
        let schema = OneOfBuilder::new().item(names).item(Ref::from_schema_name("ScopeSites"));
        schema.description(Some(description)).into()
    }
}

impl ToSchema for RequestedScope {}

/// Numbers of sites by result.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// The number of all sites.
    pub total: u32,
    /// Sites on the target service.
    pub succeeded: u32,
    /// Sites on their previous service: moved back, or never moved.
    pub failed: u32,
    /// Sites that are being processed.
    pub running: u32,
    /// Sites that are not started.
    pub pending: u32,
    /// Sites that are terminated, inactive, busy or frozen.
    pub skipped: u32,
    /// Moved sites that need a user.
    pub parked: u32,
}

/// A site that failed, was parked or was skipped.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The id of the site.
    pub site: SiteId,
    /// The result for the site.
    pub outcome: SiteOutcome,
    /// The error, or why the site was skipped.
    #[schema(required = true)]
    pub message: Option<String>,
}

impl From<&rollout::MemberFailure> for Failure {
    fn from(failure: &rollout::MemberFailure) -> Self {
        Self {
            site: SiteId::from(&failure.site),
            outcome: failure.outcome.into(),
            message: failure.why.clone(),
        }
    }
}

/// A wave of a rollout.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Wave {
    /// The wave as it was requested, such as `10%`.
    pub name: String,
    /// The numbers of the wave's sites by result.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Counts {
    const fn new(total: u32, running: u32, counts: rollout::Counts) -> Self {
        let rollout::Counts { succeeded, failed, skipped, parked } = counts;
        let pending = total.saturating_sub(counts.resolved()).saturating_sub(running);
        Self { total, succeeded, failed, running, pending, skipped, parked }
    }
}

impl Rollout {
    /// Returns the rollout as the API shows it; `image` is the image of its digest.
    pub fn new(rollout: &rollout::Rollout, image: Option<String>) -> Self {
        let working = rollout.status == domain::RolloutStatus::Running && rollout.running() > 0;
        let mut start = 0;
        let waves = rollout.waves.iter().map(|wave| {
            let total = wave.end - std::mem::replace(&mut start, wave.end);
            let begun = rollout.window().end.min(wave.end).saturating_sub(wave.end - total);
            let running = if working { begun.saturating_sub(wave.counts.resolved()) } else { 0 };
            Wave { name: wave.name.clone(), counts: Counts::new(total, running, wave.counts) }
        });
        Self {
            id: RolloutId::from_number(rollout.number),
            kind: rollout.spec.kind.into(),
            promote: rollout.spec.kind == domain::RolloutKind::Promote,
            image_tag: image,
            service: rollout.target.into(),
            digest: rollout.spec.digest.as_ref().map(Digest::from),
            accepted_digest: rollout.accepted_digest.as_ref().map(Digest::from),
            scope: Scope::from(&rollout.spec.scope),
            status: rollout.status.into(),
            partial: rollout.is_partial(),
            waves: waves.collect(),
            counts: Counts::new(rollout.total, rollout.running(), rollout.counts()),
            failures: rollout.failures.iter().map(Failure::from).collect(),
            max_concurrent: rollout.spec.max_concurrent,
            failure_budget: rollout.spec.budget.to_string(),
            auto_rollback: rollout.spec.auto_rollback,
            gate: rollout.spec.gate.as_ref().map(Gate::from),
            bake: rollout.spec.bake.as_secs(),
            rollback: rollout.rollback.as_ref().map(OperationId::from),
            after: rollout.awaited_deploy().map(OperationId::from),
            retry_of: rollout.retry_of.map(RolloutId::from_number),
            reason: rollout.reason.as_ref().map(Reason::from),
            requested_by: ActorName::from(&rollout.requested_by),
            created_at: rollout.created_at.into(),
            started_at: rollout.started_at.map(Time),
            finished_at: rollout.finished_at.map(Time),
        }
    }
}

/// A request to resume a rollout.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeRollout {
    /// The digest that the service runs, in the format of `imageTag`. It accepts that the sites move to this digest instead
    /// of the rollout's.
    #[schema(pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_digest: Option<String>,
    /// Whether to resume even if that digest is marked bad; needs the role `admin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

impl ResumeRollout {
    /// Validates the request; `repository` is the configured image repository.
    ///
    /// # Errors
    /// The errors of all invalid fields.
    pub fn parse(&self, repository: Option<&str>) -> Result<Resume, InvalidFields> {
        let accept = self.accept_digest.as_deref().map(|text| digest_of("acceptDigest", text, repository));
        Ok(Resume { accept: accept.transpose()?, force: to_force(self.force.unwrap_or(false)) })
    }
}

/// Converts the JSON field `force`.
const fn to_force(force: bool) -> Force {
    if force { Force::Yes } else { Force::No }
}

/// A request to start a rollout.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRollout {
    /// The image that the service must run. Default: the image that the service runs.
    #[schema(pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<String>,
    /// Whether the rollout also moves routes.
    pub promote: Flag,
    /// The sites of the rollout. Default: the sites on the active canary.
    #[schema(value_type = Option<RequestedScope>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The end of each wave: counts or percentages of all sites, cumulative; the last is `100%`.
    #[schema(value_type = Option<Vec<WaveText>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waves: Option<Vec<String>>,
    /// The maximum number of concurrent sites. Default: 64.
    #[schema(minimum = 1, maximum = 512)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// How many sites of a wave may fail before the rollout halts. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_budget: Option<RequestedBudget>,
    /// Whether the moved sites are moved back when the rollout halts. Default: `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_rollback: Option<bool>,
    /// The check that each site must pass before and after its move; only with `promote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// The bake time between two waves, in seconds. Default: 0.
    #[schema(minimum = 0, maximum = 86400)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bake: Option<u64>,
    /// Whether to return only the plan, without a change. Default: `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// The `planHash` of a plan; the request is rejected if the plan has changed.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
}

/// The end of a wave: a count or a percentage of all sites.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, pattern = "^([1-9][0-9]{0,6}|(100|[1-9][0-9]?)%)$")]
pub struct WaveText(pub String);

/// A number of sites.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[schema(value_type = u32, minimum = 0, maximum = 1_000_000)]
pub struct BudgetCount(pub u32);

/// A percentage of a wave's sites.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(value_type = String, pattern = "^(0|[1-9][0-9]?|100)%$")]
pub struct BudgetPercent(pub String);

/// A count, or a percentage of the wave.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RequestedBudget {
    /// A number of sites.
    Count(BudgetCount),
    /// A percentage of the wave's sites, such as `5%`.
    Percent(BudgetPercent),
}

impl StartRollout {
    /// Validates the request; `repository` is the configured image repository.
    ///
    /// # Errors
    /// The errors of all invalid fields.
    pub fn parse(&self, repository: Option<&str>) -> Result<RolloutSpec, InvalidFields> {
        let digest = self.image_tag.as_deref().map(|image| digest(image, repository)).transpose()?;
        let mut fields = Fields::default();
        let scope = match &self.scope {
            None | Some(Scope::Named(ScopeName::Active)) => Some(RolloutScope::Active),
            Some(Scope::Named(ScopeName::Inactive)) => Some(RolloutScope::Inactive),
            Some(Scope::Named(ScopeName::All)) => Some(RolloutScope::All),
            Some(Scope::Named(ScopeName::Blue | ScopeName::Green | ScopeName::Other(_))) => {
                fields.reject(
                    "scope",
                    "the scope must be `active`, `inactive`, `all` or an object with `sites`",
                );
                None
            }
            Some(Scope::Sites(named)) => {
                let ids = named
                    .sites
                    .iter()
                    .map(|id| fields.parse("scope.sites", domain::SiteId::parse(id.as_str())));
                ids.collect::<Option<Vec<_>>>().map(RolloutScope::Sites)
            }
        };
        let waves = self.waves.iter().flatten().map(|wave| fields.parse("waves", WaveTarget::parse(wave)));
        let waves = waves.collect::<Option<Vec<_>>>();
        if let Some(waves) = &waves {
            fields.parse("waves", rollout::plan_waves(waves, MAX_SITES));
        }
        let max_concurrent = self.max_concurrent.unwrap_or(64);
        if !CONCURRENT.contains(&max_concurrent) {
            fields.reject("maxConcurrent", "the number of concurrent sites must be from 1 to 512");
        }
        let budget = match &self.failure_budget {
            None => Some(Budget::Count(0)),
            Some(RequestedBudget::Count(BudgetCount(count))) => {
                if *count > MAX_SITES {
                    fields.reject("failureBudget", "the budget must be at most 1000000 sites");
                }
                Some(Budget::Count(*count))
            }
            Some(RequestedBudget::Percent(BudgetPercent(text))) => {
                let number = text.strip_suffix('%').unwrap_or("").parse::<u8>().ok();
                let number = number.filter(|number| *number <= 100 && format!("{number}%") == *text);
                if number.is_none() {
                    fields.reject(
                        "failureBudget",
                        "the budget must be a number of sites, or a percentage such as `5%`",
                    );
                }
                number.map(Budget::Percent)
            }
        };
        let promote = self.promote.is_set();
        let gate = self.gate.as_ref().map(|gate| fields.parse("gate", gate.parse()));
        if gate.is_some() && !promote {
            fields.reject("gate", "a gate is allowed only with `promote`, since it checks moved routes");
        }
        let hash = |text: &String| {
            text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if self.plan_hash.as_ref().is_some_and(|text| !hash(text)) {
            fields.reject("planHash", "the plan hash must have 64 lower-case hex digits");
        }
        let bake = Duration::from_secs(self.bake.unwrap_or(0));
        if bake > MAX_BAKE {
            fields.reject("bake", "the bake time must be from 0 to 86400 seconds");
        }
        let auto_rollback = self.auto_rollback.unwrap_or(false);
        let parsed = (|| {
            let (scope, waves, budget) = (scope?, waves?, budget?);
            let gate = match gate {
                None => None,
                Some(gate) => Some(gate?),
            };
            let kind = if promote { domain::RolloutKind::Promote } else { domain::RolloutKind::Upgrade };
            Some(RolloutSpec {
                kind,
                digest,
                scope,
                waves,
                max_concurrent,
                budget,
                auto_rollback,
                gate,
                bake,
            })
        })();
        fields.finish(parsed)
    }
}

//! Rollouts in API requests and responses.

use std::time::Duration;

use cdm_core::domain::SiteId;
use cdm_core::domain::rollout::{self, Budget, RolloutKind, RolloutStatus, WaveTarget};
use cdm_core::manager::{Force, Resume, RolloutRequest, RolloutScope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::enums::{
    OutcomeWord, RolloutStatus as StatusWord, RolloutWord, ScopeName, ServiceName, outcome, rollout_kind,
};
use super::gate::Gate;
use super::operation::Reason;
use super::services::{Flag, digest, digest_of};
use super::time;
use crate::error::ApiError;
use crate::extract::Fields;

/// The allowed number of concurrent sites.
const CONCURRENT: std::ops::RangeInclusive<u32> = 1..=512;

/// The maximum bake time between two waves.
const MAX_BAKE: Duration = Duration::from_secs(86_400);

/// The maximum number of sites of a rollout.
const MAX_SITES: u32 = 1_000_000;

/// Formats the id of a rollout.
pub(crate) fn id(number: u64) -> String {
    format!("rollout-{number}")
}

/// Returns the number in the id of a rollout; `None` if the id is not valid.
pub(crate) fn number(id: &str) -> Option<u64> {
    let number = id.strip_prefix("rollout-")?.parse().ok()?;
    (self::id(number) == id).then_some(number)
}

/// A rollout: an operation on many sites, in waves.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The opaque id of the rollout.
    pub id: String,
    /// What the rollout does with each site.
    #[schema(value_type = RolloutWord)]
    pub kind: String,
    /// Whether the rollout also moves routes.
    pub promote: bool,
    /// The image that the service must run.
    #[schema(required = true)]
    pub image_tag: Option<String>,
    /// The service that the sites are assigned or moved to.
    #[schema(value_type = ServiceName)]
    pub service: String,
    /// The digest with which the rollout was started.
    #[schema(required = true)]
    pub digest: Option<String>,
    /// The digest that a user accepted in place of `digest` when they resumed the rollout; sites have moved to it since.
    #[schema(required = true)]
    pub accepted_digest: Option<String>,
    /// The requested sites; in a retry, the requested sites of the first rollout.
    pub scope: ScopeShown,
    /// The status of the rollout.
    #[schema(value_type = StatusWord)]
    pub status: String,
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
    pub rollback: Option<String>,
    /// The deploy that runs before the rollout.
    #[schema(required = true)]
    pub after: Option<String>,
    /// The rollout whose failed and skipped sites this rollout repeats.
    #[schema(required = true)]
    pub retry_of: Option<String>,
    /// Why the rollout waits, is paused or halted, or has failed.
    #[schema(required = true)]
    pub reason: Option<Reason>,
    /// The actor who requested the rollout.
    pub requested_by: String,
    /// When the rollout was accepted.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When a worker first claimed the rollout.
    #[schema(required = true, format = DateTime)]
    pub started_at: Option<String>,
    /// When the rollout ended.
    #[schema(required = true, format = DateTime)]
    pub finished_at: Option<String>,
}

/// The requested sites of a rollout.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ScopeShown {
    /// All sites of one kind.
    Word(ScopeName),
    /// The sites with these ids.
    Sites(ScopeSites),
}

impl From<&RolloutScope> for ScopeShown {
    fn from(scope: &RolloutScope) -> Self {
        match scope {
            RolloutScope::Active => Self::Word(ScopeName("active")),
            RolloutScope::Inactive => Self::Word(ScopeName("inactive")),
            RolloutScope::All => Self::Word(ScopeName("all")),
            RolloutScope::Service(color) => Self::Word(ScopeName(color.as_str())),
            RolloutScope::Sites(sites) => {
                Self::Sites(ScopeSites { sites: sites.iter().map(ToString::to_string).collect() })
            }
        }
    }
}

/// Numbers of sites by result.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Failure {
    /// The id of the site.
    pub site: String,
    /// The result for the site.
    #[schema(value_type = OutcomeWord)]
    pub outcome: String,
    /// The error, or why the site was skipped.
    #[schema(required = true)]
    pub message: Option<String>,
}

impl From<&rollout::MemberFailure> for Failure {
    fn from(failure: &rollout::MemberFailure) -> Self {
        Self {
            site: failure.site.to_string(),
            outcome: outcome(failure.outcome).to_owned(),
            message: failure.why.clone(),
        }
    }
}

/// A wave of a rollout.
#[derive(Clone, Debug, Serialize, ToSchema)]
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
    pub(crate) fn new(rollout: &rollout::Rollout, image: Option<String>) -> Self {
        let working = rollout.status == RolloutStatus::Running && rollout.running() > 0;
        let mut start = 0;
        let waves = rollout.waves.iter().map(|wave| {
            let total = wave.end - std::mem::replace(&mut start, wave.end);
            let begun = rollout.window.end.min(wave.end).saturating_sub(wave.end - total);
            let running = if working { begun.saturating_sub(wave.counts.resolved()) } else { 0 };
            Wave { name: wave.name.clone(), counts: Counts::new(total, running, wave.counts) }
        });
        Self {
            id: id(rollout.number),
            kind: rollout_kind(rollout.kind).to_owned(),
            promote: rollout.kind == RolloutKind::Promote,
            image_tag: image,
            service: rollout.target.to_string(),
            digest: rollout.digest.map(|digest| digest.to_string()),
            accepted_digest: rollout.accepted_digest.map(|digest| digest.to_string()),
            scope: ScopeShown::from(&rollout.scope),
            status: rollout.status.as_str().to_owned(),
            partial: rollout.is_partial(),
            waves: waves.collect(),
            counts: Counts::new(rollout.total, rollout.running(), rollout.counts()),
            failures: rollout.failures.iter().map(Failure::from).collect(),
            max_concurrent: rollout.max_concurrent,
            failure_budget: match rollout.budget {
                Budget::Count(count) => count.to_string(),
                Budget::Percent(percent) => format!("{percent}%"),
            },
            auto_rollback: rollout.auto_rollback,
            gate: rollout.gate.as_ref().map(Gate::from),
            bake: rollout.bake.as_secs(),
            rollback: rollout.rollback.as_ref().map(ToString::to_string),
            after: rollout.after.as_ref().map(ToString::to_string),
            retry_of: rollout.retry_of.map(id),
            reason: rollout.reason.as_ref().map(Reason::from),
            requested_by: rollout.requested_by.to_string(),
            created_at: time(rollout.created_at),
            started_at: rollout.started_at.map(time),
            finished_at: rollout.finished_at.map(time),
        }
    }
}

/// A request to resume a rollout.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeRollout {
    /// The digest that the service runs, in the format of `imageTag`. It accepts that the sites move to this digest instead
    /// of the rollout's.
    #[schema(pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$")]
    pub accept_digest: Option<String>,
    /// Whether to resume even if that digest is marked bad; needs the role `admin`.
    pub force: Option<bool>,
}

impl ResumeRollout {
    /// Parses the request; `repository` is the configured image repository.
    pub(crate) fn parse(&self, repository: Option<&str>) -> Result<Resume, ApiError> {
        let accept = self.accept_digest.as_deref().map(|text| digest_of("acceptDigest", text, repository));
        Ok(Resume { accept: accept.transpose()?, force: to_force(self.force.unwrap_or(false)) })
    }
}

/// Converts the JSON field `force`.
const fn to_force(force: bool) -> Force {
    if force { Force::Yes } else { Force::No }
}

/// A request to start a rollout.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRollout {
    /// The image that the service must run. Default: the image that the service runs.
    #[schema(pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$")]
    pub image_tag: Option<String>,
    /// Whether the rollout also moves routes.
    pub promote: Flag,
    /// The sites of the rollout. Default: the sites on the active canary.
    pub scope: Option<Scope>,
    /// The end of each wave: counts or percentages of all sites, cumulative; the last is `100%`.
    #[schema(value_type = Option<Vec<WaveText>>)]
    pub waves: Option<Vec<String>>,
    /// The maximum number of concurrent sites. Default: 64.
    #[schema(minimum = 1, maximum = 512)]
    pub max_concurrent: Option<u32>,
    /// How many sites of a wave may fail before the rollout halts. Default: 0.
    pub failure_budget: Option<BudgetText>,
    /// Whether the moved sites are moved back when the rollout halts. Default: `false`.
    pub auto_rollback: Option<bool>,
    /// The check that each site must pass before and after its move; only with `promote`.
    pub gate: Option<Gate>,
    /// The bake time between two waves, in seconds. Default: 0.
    #[schema(minimum = 0, maximum = 86400)]
    pub bake: Option<u64>,
    /// Whether to return only the plan, without a change. Default: `false`.
    pub dry_run: Option<bool>,
    /// The `planHash` of a plan; the request is rejected if the plan has changed.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub plan_hash: Option<String>,
}

/// The sites of a rollout.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Scope {
    /// The sites on a service, or all sites.
    Word(ScopeWord),
    /// The sites with these ids.
    Sites(ScopeSites),
}

/// The sites on the active canary, the sites on the other service, or all sites.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScopeWord {
    /// The sites on the active canary.
    Active,
    /// The sites on the other service.
    Inactive,
    /// All sites, on both services.
    All,
}

/// An explicit list of sites.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeSites {
    /// The ids of the sites.
    pub sites: Vec<String>,
}

/// The end of a wave: a count or a percentage of all sites.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, pattern = "^([1-9][0-9]{0,6}|(100|[1-9][0-9]?)%)$")]
pub struct WaveText(pub String);

/// A number of sites.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[schema(value_type = u32, minimum = 0, maximum = 1_000_000)]
pub struct BudgetCount(pub u32);

/// A percentage of a wave's sites.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(value_type = String, pattern = "^(0|[1-9][0-9]?|100)%$")]
pub struct BudgetPercent(pub String);

/// A count, or a percentage of the wave.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum BudgetText {
    /// A number of sites.
    Count(BudgetCount),
    /// A percentage of the wave's sites, such as `5%`.
    Percent(BudgetPercent),
}

impl StartRollout {
    /// Parses the request; `repository` is the configured image repository.
    pub(crate) fn parse(&self, repository: Option<&str>) -> Result<RolloutRequest, ApiError> {
        let digest = self.image_tag.as_deref().map(|image| digest(image, repository)).transpose()?;
        let mut fields = Fields::default();
        let scope = match &self.scope {
            None | Some(Scope::Word(ScopeWord::Active)) => Some(RolloutScope::Active),
            Some(Scope::Word(ScopeWord::Inactive)) => Some(RolloutScope::Inactive),
            Some(Scope::Word(ScopeWord::All)) => Some(RolloutScope::All),
            Some(Scope::Sites(named)) => {
                let ids = named.sites.iter().map(|id| fields.parse("scope.sites", SiteId::parse(id)));
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
            Some(BudgetText::Count(BudgetCount(count))) => {
                if *count > MAX_SITES {
                    fields.reject("failureBudget", "the budget must be at most 1000000 sites");
                }
                Some(Budget::Count(*count))
            }
            Some(BudgetText::Percent(BudgetPercent(text))) => {
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
            Some(RolloutRequest {
                promote,
                digest,
                scope,
                waves,
                max_concurrent,
                budget,
                auto_rollback,
                gate,
                bake,
                plan: self.plan_hash.clone(),
            })
        })();
        fields.finish(parsed)
    }
}

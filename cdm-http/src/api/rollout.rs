//! A rollout on the wire.

use std::time::Duration;

use cdm_core::domain::SiteId;
use cdm_core::domain::rollout::{self, Budget, RolloutKind, RolloutStatus, WaveTarget};
use cdm_core::manager::{Force, Resume, RolloutRequest, RolloutScope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::gate::Gate;
use super::operation::Reason;
use super::services::{Flag, digest, digest_of};
use super::time;
use super::words::{
    OutcomeWord, RolloutStatus as StatusWord, RolloutWord, ScopeName, ServiceName, outcome, rollout_kind,
};
use crate::error::Refusal;
use crate::input::Fields;

/// Sites at once, at most.
const CONCURRENT: std::ops::RangeInclusive<u32> = 1..=512;

/// Between two waves, at most.
const LONGEST_BAKE: Duration = Duration::from_secs(86_400);

/// Sites of one rollout, at most.
const MOST: u32 = 1_000_000;

/// A rollout's id.
pub(crate) fn id(number: u64) -> String {
    format!("rollout-{number}")
}

/// The number of a rollout's id.
pub(crate) fn number(id: &str) -> Option<u64> {
    let number = id.strip_prefix("rollout-")?.parse().ok()?;
    (self::id(number) == id).then_some(number)
}

/// A rollout over many sites.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Its opaque name.
    pub id: String,
    /// What it does to each of its sites.
    #[schema(value_type = RolloutWord)]
    pub kind: String,
    /// Whether routes move too.
    pub promote: bool,
    /// The image that the service has to run.
    #[schema(required = true)]
    pub image_tag: Option<String>,
    /// Where the sites go.
    #[schema(value_type = ServiceName)]
    pub service: String,
    /// The digest that it was started for.
    #[schema(required = true)]
    pub digest: Option<String>,
    /// The digest that a person has accepted in place of that one: sites move on it since.
    #[schema(required = true)]
    pub accepted_digest: Option<String>,
    /// Which sites were asked for; a retry shows what the first rollout was asked for.
    pub scope: ScopeShown,
    /// Where it is.
    #[schema(value_type = StatusWord)]
    pub status: String,
    /// Whether it has `succeeded` with sites that failed, were parked or skipped.
    pub partial: bool,
    /// The waves.
    pub waves: Vec<Wave>,
    /// All sites.
    #[serde(flatten)]
    pub counts: Counts,
    /// The first sites that failed, were parked or skipped, at most 20; `GET /operations?rollout=` has them all.
    pub failures: Vec<Failure>,
    /// Sites at once, at most.
    pub max_concurrent: u32,
    /// How many sites of a wave may fail: a count or a percentage.
    pub failure_budget: String,
    /// Whether a halt takes the moved sites back.
    pub auto_rollback: bool,
    /// What each site has to answer before and after its move.
    #[schema(required = true)]
    pub gate: Option<Gate>,
    /// Seconds between one wave and the next.
    pub bake: u64,
    /// The deploy that puts the digest before this one back, where a halt asked for it.
    #[schema(required = true)]
    pub rollback: Option<String>,
    /// The deploy that comes first.
    #[schema(required = true)]
    pub after: Option<String>,
    /// The rollout whose failed sites it takes up.
    #[schema(required = true)]
    pub retry_of: Option<String>,
    /// Why it waits, is paused, halted or failed.
    #[schema(required = true)]
    pub reason: Option<Reason>,
    /// Whose request it was.
    pub requested_by: String,
    /// When it was accepted.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When a worker first had it.
    #[schema(required = true, format = DateTime)]
    pub started_at: Option<String>,
    /// When it ended.
    #[schema(required = true, format = DateTime)]
    pub finished_at: Option<String>,
}

/// Which sites were asked for, as the request said it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ScopeShown {
    /// In a word.
    Word(ScopeName),
    /// These.
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

/// How many sites are where.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Counts {
    /// All.
    pub total: u32,
    /// Where the rollout wants them.
    pub succeeded: u32,
    /// Where they were, moved back or never moved.
    pub failed: u32,
    /// At work.
    pub running: u32,
    /// Nothing was done to them yet.
    pub pending: u32,
    /// Gone, inactive or busy.
    pub skipped: u32,
    /// Moved, waiting for a person.
    pub parked: u32,
}

/// A site that came out badly.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Failure {
    /// Which.
    pub site: String,
    /// How.
    #[schema(value_type = OutcomeWord)]
    pub outcome: String,
    /// Why.
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

/// One wave.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Wave {
    /// As it was asked for.
    pub name: String,
    /// Its sites.
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

/// How a rollout is to go on.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeRollout {
    /// The digest that the service runs, where that is another one than the rollout's and sites are to move on it.
    /// Named as an `imageTag` is.
    #[schema(pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$")]
    pub accept_digest: Option<String>,
    /// Whether also where that digest is marked bad; takes the role `admin`.
    pub force: Option<bool>,
}

impl ResumeRollout {
    /// What is asked; `repository` is the configured one of images.
    pub(crate) fn parse(&self, repository: Option<&str>) -> Result<Resume, Refusal> {
        let accept = self.accept_digest.as_deref().map(|text| digest_of("acceptDigest", text, repository));
        Ok(Resume { accept: accept.transpose()?, force: forced(self.force.unwrap_or(false)) })
    }
}

/// Whether the caller insists.
pub(crate) const fn forced(force: bool) -> Force {
    if force { Force::Yes } else { Force::No }
}

/// A rollout to start.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRollout {
    /// The image that the service has to run; the one that it runs where it is left out.
    #[schema(pattern = "^(([A-Za-z0-9._/:-]*@)?sha256:)?[0-9a-f]{64}$")]
    pub image_tag: Option<String>,
    /// Whether routes move too.
    pub promote: Flag,
    /// Which sites; those on the active canary where it is left out.
    pub scope: Option<Scope>,
    /// How far each wave goes: counts or percentages, cumulative, the last `100%`.
    #[schema(value_type = Option<Vec<WaveText>>)]
    pub waves: Option<Vec<String>>,
    /// Sites at once, at most.
    #[schema(minimum = 1, maximum = 512)]
    pub max_concurrent: Option<u32>,
    /// How many sites of a wave may fail.
    pub failure_budget: Option<BudgetText>,
    /// Whether a halt takes the moved sites back.
    pub auto_rollback: Option<bool>,
    /// What each site has to answer before and after its move; only where routes move.
    pub gate: Option<Gate>,
    /// Seconds between one wave and the next.
    #[schema(minimum = 0, maximum = 86400)]
    pub bake: Option<u64>,
    /// Whether only the plan is asked for.
    pub dry_run: Option<bool>,
    /// The `planHash` of a plan that has to hold still.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub plan_hash: Option<String>,
}

/// Which sites.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Scope {
    /// Those on a service, or all.
    Word(ScopeWord),
    /// These.
    Sites(ScopeSites),
}

/// Those on the active canary, those on the other service, or all.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScopeWord {
    /// Those on the active canary.
    Active,
    /// Those on the other service.
    Inactive,
    /// All.
    All,
}

/// Sites by name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeSites {
    /// Their ids.
    pub sites: Vec<String>,
}

/// How far a wave goes: a count or a percentage of all sites.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, pattern = "^([1-9][0-9]{0,6}|(100|[1-9][0-9]?)%)$")]
pub struct WaveText(pub String);

/// So many sites.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[schema(value_type = u32, minimum = 0, maximum = 1_000_000)]
pub struct BudgetCount(pub u32);

/// So many hundredths of a wave's sites.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(value_type = String, pattern = "^(0|[1-9][0-9]?|100)%$")]
pub struct BudgetPercent(pub String);

/// A count, or a percentage of the wave.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum BudgetText {
    /// So many.
    Count(BudgetCount),
    /// So many hundredths, such as `5%`.
    Percent(BudgetPercent),
}

impl StartRollout {
    /// The request; `repository` is the configured one of images.
    pub(crate) fn parse(&self, repository: Option<&str>) -> Result<RolloutRequest, Refusal> {
        let digest = self.image_tag.as_deref().map(|image| digest(image, repository)).transpose()?;
        let mut fields = Fields::default();
        let scope = match &self.scope {
            None | Some(Scope::Word(ScopeWord::Active)) => Some(RolloutScope::Active),
            Some(Scope::Word(ScopeWord::Inactive)) => Some(RolloutScope::Inactive),
            Some(Scope::Word(ScopeWord::All)) => Some(RolloutScope::All),
            Some(Scope::Sites(named)) => {
                let ids = named.sites.iter().map(|id| fields.take("scope.sites", SiteId::parse(id)));
                ids.collect::<Option<Vec<_>>>().map(RolloutScope::Sites)
            }
        };
        let waves = self.waves.iter().flatten().map(|wave| fields.take("waves", WaveTarget::parse(wave)));
        let waves = waves.collect::<Option<Vec<_>>>();
        if let Some(waves) = &waves {
            fields.take("waves", rollout::plan_waves(waves, MOST));
        }
        let max_concurrent = self.max_concurrent.unwrap_or(64);
        if !CONCURRENT.contains(&max_concurrent) {
            fields.refuse("maxConcurrent", "from 1 to 512 sites at once");
        }
        let budget = match &self.failure_budget {
            None => Some(Budget::Count(0)),
            Some(BudgetText::Count(BudgetCount(count))) => {
                if *count > MOST {
                    fields.refuse("failureBudget", "a budget is at most 1000000 sites");
                }
                Some(Budget::Count(*count))
            }
            Some(BudgetText::Percent(BudgetPercent(text))) => {
                let number = text.strip_suffix('%').unwrap_or("").parse::<u8>().ok();
                let number = number.filter(|number| *number <= 100 && format!("{number}%") == *text);
                if number.is_none() {
                    fields.refuse("failureBudget", "a budget is a count, or a percentage such as \"5%\"");
                }
                number.map(Budget::Percent)
            }
        };
        let promote = self.promote.is_set();
        let gate = self.gate.as_ref().map(|gate| fields.take("gate", gate.parse()));
        if gate.is_some() && !promote {
            fields.refuse("gate", "a gate is about sites whose routes move: only with `promote`");
        }
        let hash = |text: &String| {
            text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if self.plan_hash.as_ref().is_some_and(|text| !hash(text)) {
            fields.refuse("planHash", "a plan's hash is 64 lower-case hex digits");
        }
        let bake = Duration::from_secs(self.bake.unwrap_or(0));
        if bake > LONGEST_BAKE {
            fields.refuse("bake", "from 0 to 86400 seconds between two waves");
        }
        let auto_rollback = self.auto_rollback.unwrap_or(false);
        let taken = (|| {
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
        fields.end(taken)
    }
}

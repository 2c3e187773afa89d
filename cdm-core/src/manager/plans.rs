//! What a rollout would do, without doing it; and whether that is still so.

use super::rollouts::RolloutRequest;
use super::{Action, Manager, ManagerError, Request};
use crate::domain::rollout::{self, Budget, Candidate, Plan, PlanInputs, Timed, Warning};
use crate::domain::service::rollback_choice;
use crate::domain::{Canonical, Color, Fleet, RolloutKind, RolloutScope, SiteId};
use crate::pipelines::{Scope, candidates, member_steps};

impl Manager {
    /// What this rollout would do if it were asked for now. Changes nothing.
    ///
    /// # Errors
    /// `forbidden` and `invalid` for what [`Manager::rollout`] would refuse as that. A site that is not there, and that no
    /// site is in scope, is a warning.
    pub async fn plan(&self, request: &Request, wanted: &RolloutRequest) -> Result<Plan, ManagerError> {
        self.authorize(request, wanted.action(), "fleet").await?;
        wanted.judge()?;
        let target = self.canary().await?;
        let fleet = self.ports.store.fleet().await?;
        let (inputs, sites) = self.survey(wanted, target, &fleet).await?;
        let unknown = wanted.unknown(&sites);
        let total = u32::try_from(sites.len()).unwrap_or(u32::MAX);
        let waves = rollout::plan_waves(&wanted.waves, total)?;
        let steps = member_steps(inputs.kind, inputs.gate.is_some(), inputs.deploys());
        let mut plan = Plan::new(inputs, &waves, &sites, steps, &wanted.spec_content());
        let mut warn = |code, message| plan.warnings.push(Warning { code, message });
        if !unknown.is_empty() {
            let refused = ManagerError::UnknownSites(unknown);
            warn("unknown_sites", format!("{refused}; until then this rollout is refused"));
        }
        if let Some(other) = fleet.rollout {
            warn(
                "rollout_in_flight",
                format!("rollout-{other} is unfinished; until then this one is refused"),
            );
        }
        if let Some(freeze) = fleet.frozen(self.now()) {
            warn("frozen", format!("{}; until then this rollout is refused", freeze.describe()));
        }
        Ok(plan)
    }

    /// What a rollout meets: the services as they stand, and the sites in scope.
    pub(super) async fn survey(
        &self,
        wanted: &RolloutRequest,
        target: Color,
        fleet: &Fleet,
    ) -> Result<(PlanInputs, Vec<Candidate>), ManagerError> {
        let scope = match &wanted.scope {
            RolloutScope::Active => Scope::Service(target),
            RolloutScope::Inactive => Scope::Service(target.other()),
            RolloutScope::All => Scope::All,
            RolloutScope::Service(color) => Scope::Service(*color),
            RolloutScope::Sites(ids) => Scope::Sites(ids.clone()),
        };
        let sites = candidates(&self.ports, &scope, fleet, self.now()).await?;
        let view = self.ports.cluster.service(target).await?;
        let put_back = if wanted.auto_rollback {
            let store = &self.ports.store;
            let (own, other) = (store.service(target).await?, store.service(target.other()).await?);
            rollback_choice(&own, &other, wanted.digest.or(view.digest))
        } else {
            None
        };
        let timed = |latency: Option<u32>| if latency.is_some() { Timed::Yes } else { Timed::No };
        let inputs = PlanInputs {
            kind: if wanted.promote { RolloutKind::Promote } else { RolloutKind::Upgrade },
            target,
            running: view.digest,
            digest: wanted.digest.or(view.digest),
            ready: view.is_ready(),
            gate: wanted.gate.as_ref().map(|gate| timed(gate.latency())),
            auto_rollback: wanted.auto_rollback,
            bakes: !wanted.bake.is_zero(),
            put_back,
            max_concurrent: wanted.max_concurrent,
        };
        Ok((inputs, sites))
    }
}

impl RolloutRequest {
    /// What it asks for: an image that it names may have to be deployed first, whatever runs now.
    pub(super) const fn action(&self) -> Action {
        if self.digest.is_some() { Action::StartRolloutWithImage } else { Action::StartRollout }
    }

    /// Encodes what the rollout is to do. The hash of a plan covers it.
    pub(super) fn spec_content(&self) -> Canonical {
        let scope = match &self.scope {
            RolloutScope::Active => Canonical::new().field("kind", "active"),
            RolloutScope::Inactive => Canonical::new().field("kind", "inactive"),
            RolloutScope::All => Canonical::new().field("kind", "all"),
            RolloutScope::Service(service) => {
                Canonical::new().field("kind", "service").field("service", service)
            }
            RolloutScope::Sites(ids) => Canonical::new().field("kind", "sites").list("sites", ids),
        };
        let budget = match self.budget {
            Budget::Count(sites) => sites.to_string(),
            Budget::Percent(percent) => format!("{percent}%"),
        };
        let content = Canonical::new()
            .field("promote", self.promote)
            .optional("digest", self.digest)
            .nested("scope", &scope)
            .list("waves", &self.waves)
            .field("maxConcurrent", self.max_concurrent)
            .field("budget", budget)
            .field("autoRollback", self.auto_rollback)
            .field("bakeMillis", self.bake.as_millis());
        let Some(gate) = &self.gate else { return content };
        let gate = Canonical::new()
            .field("path", gate.path())
            .field("status", gate.status())
            .optional("contains", gate.text())
            .optional("latencyThousandths", gate.latency())
            .field("settleMillis", gate.settle().as_millis());
        content.nested("gate", &gate)
    }

    /// Encodes the whole request, with the plan that it was made for.
    pub(super) fn content(&self) -> Canonical {
        Canonical::new().nested("spec", &self.spec_content()).optional("plan", self.plan.as_ref())
    }

    /// The sites that are named and not there.
    pub(super) fn unknown(&self, found: &[Candidate]) -> Vec<SiteId> {
        let RolloutScope::Sites(ids) = &self.scope else { return Vec::new() };
        let mut unknown: Vec<_> =
            ids.iter().filter(|id| found.iter().all(|site| site.id != **id)).cloned().collect();
        unknown.sort();
        unknown.dedup();
        unknown
    }

    /// Refuses what makes no sense whatever the fleet is like.
    pub(super) fn judge(&self) -> Result<(), ManagerError> {
        if self.gate.is_some() && !self.promote {
            return Err(ManagerError::Invalid("a gate is about sites whose routes move".to_owned()));
        }
        Ok(())
    }
}

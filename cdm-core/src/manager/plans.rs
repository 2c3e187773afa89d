//! Plans of rollouts: what a rollout would do now.

use super::rollouts::RolloutRequest;
use super::{Action, Manager, ManagerError, Request};
use crate::domain::rollout::{self, Budget, Candidate, Plan, PlanInputs, Timed, Warning};
use crate::domain::service::rollback_choice;
use crate::domain::{Canonical, Color, Fleet, RolloutKind, RolloutScope, SiteId};
use crate::pipelines::{Scope, candidates, member_steps};

impl Manager {
    /// Returns what a rollout would do if it started now. Changes nothing.
    ///
    /// # Errors
    /// Returns `forbidden` and `invalid` in the cases in which [`Manager::rollout`] does. Unknown sites and an empty
    /// scope are warnings instead of errors.
    pub async fn plan(&self, request: &Request, requested: &RolloutRequest) -> Result<Plan, ManagerError> {
        self.authorize(request, requested.action(), "fleet").await?;
        requested.validate()?;
        let target = self.canary().await?;
        let fleet = self.ports.store.fleet().await?;
        let (inputs, sites) = self.plan_inputs(requested, target, &fleet).await?;
        let unknown = requested.unknown_sites(&sites);
        let total = u32::try_from(sites.len()).unwrap_or(u32::MAX);
        let waves = rollout::plan_waves(&requested.waves, total)?;
        let steps = member_steps(inputs.kind, inputs.gate.is_some(), inputs.deploys());
        let mut plan = Plan::new(inputs, &waves, &sites, steps, &requested.spec_content());
        let mut warn = |code, message| plan.warnings.push(Warning { code, message });
        if !unknown.is_empty() {
            let error = ManagerError::UnknownSites(unknown);
            warn("unknown_sites", format!("{error}; otherwise the rollout is rejected"));
        }
        if let Some(other) = fleet.rollout {
            warn(
                "rollout_in_flight",
                format!("rollout-{other} is not finished; this rollout is rejected until it ends"),
            );
        }
        if let Some(freeze) = fleet.frozen(self.now()) {
            warn("frozen", format!("{}; the rollout is rejected until the freeze ends", freeze.describe()));
        }
        Ok(plan)
    }

    /// Reads the inputs of a plan: the state of the services and the sites in scope.
    pub(super) async fn plan_inputs(
        &self,
        requested: &RolloutRequest,
        target: Color,
        fleet: &Fleet,
    ) -> Result<(PlanInputs, Vec<Candidate>), ManagerError> {
        let scope = match &requested.scope {
            RolloutScope::Active => Scope::Service(target),
            RolloutScope::Inactive => Scope::Service(target.other()),
            RolloutScope::All => Scope::All,
            RolloutScope::Service(color) => Scope::Service(*color),
            RolloutScope::Sites(ids) => Scope::Sites(ids.clone()),
        };
        let sites = candidates(&self.ports, &scope, fleet, self.now()).await?;
        let view = self.ports.cluster.service(target).await?;
        let rollback_digest = if requested.auto_rollback {
            let store = &self.ports.store;
            let (own, other) = (store.service(target).await?, store.service(target.other()).await?);
            rollback_choice(&own, &other, requested.digest.or(view.digest))
        } else {
            None
        };
        let timed = |latency: Option<u32>| if latency.is_some() { Timed::Yes } else { Timed::No };
        let inputs = PlanInputs {
            kind: if requested.promote { RolloutKind::Promote } else { RolloutKind::Upgrade },
            target,
            running: view.digest,
            digest: requested.digest.or(view.digest),
            ready: view.is_ready(),
            gate: requested.gate.as_ref().map(|gate| timed(gate.latency())),
            auto_rollback: requested.auto_rollback,
            bakes: !requested.bake.is_zero(),
            rollback_digest,
            max_concurrent: requested.max_concurrent,
        };
        Ok((inputs, sites))
    }
}

impl RolloutRequest {
    /// Returns the action of the request. A request with a digest may require a deploy, regardless of the digest that
    /// runs now.
    pub(super) const fn action(&self) -> Action {
        if self.digest.is_some() { Action::StartRolloutWithImage } else { Action::StartRollout }
    }

    /// Encodes what the rollout does. The hash of a plan includes this encoding.
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

    /// Encodes the complete request, including the hash of the plan.
    pub(super) fn content(&self) -> Canonical {
        Canonical::new().nested("spec", &self.spec_content()).optional("plan", self.plan.as_ref())
    }

    /// Returns the sites that the request names and that do not exist.
    pub(super) fn unknown_sites(&self, found: &[Candidate]) -> Vec<SiteId> {
        let RolloutScope::Sites(ids) = &self.scope else { return Vec::new() };
        let mut unknown: Vec<_> =
            ids.iter().filter(|id| found.iter().all(|site| site.id != **id)).cloned().collect();
        unknown.sort();
        unknown.dedup();
        unknown
    }

    /// Rejects combinations that are invalid regardless of the fleet's state.
    pub(super) fn validate(&self) -> Result<(), ManagerError> {
        if self.gate.is_some() && !self.promote {
            return Err(ManagerError::Invalid(
                "a gate requires a promote, because only a promote moves routes".to_owned(),
            ));
        }
        Ok(())
    }
}

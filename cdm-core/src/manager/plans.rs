//! Plans of rollouts: what a rollout would do now.

use super::{Action, Manager, ManagerError, Request};
use crate::domain::rollout::{self, Candidate, Plan, PlanInputs, RolloutSpec, Warning};
use crate::domain::service::rollback_choice;
use crate::domain::{Color, Fleet, RolloutKind, RolloutScope, SiteId};
use crate::pipelines::{Scope, candidates, member_steps};

impl Manager {
    /// Returns what a rollout would do if it started now. Changes nothing.
    ///
    /// # Errors
    /// Returns `forbidden` and `invalid` in the cases in which [`Manager::rollout`] does. Unknown sites and an empty
    /// scope are warnings instead of errors.
    pub async fn plan(&self, request: &Request, spec: &RolloutSpec) -> Result<Plan, ManagerError> {
        self.authorize(request, action_of(spec), "fleet").await?;
        validate(spec)?;
        let target = self.canary().await?;
        let fleet = self.ports.store.fleet().await?;
        let (inputs, sites) = self.plan_inputs(spec, target, &fleet).await?;
        let unknown = unknown_sites(spec, &sites);
        let total = u32::try_from(sites.len()).unwrap_or(u32::MAX);
        let waves = rollout::plan_waves(&spec.waves, total)?;
        let steps = member_steps(inputs.spec.kind, inputs.spec.gate.is_some(), inputs.deploys());
        let mut plan = Plan::new(inputs, &waves, &sites, steps);
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
        spec: &RolloutSpec,
        target: Color,
        fleet: &Fleet,
    ) -> Result<(PlanInputs, Vec<Candidate>), ManagerError> {
        let scope = match &spec.scope {
            RolloutScope::Active => Scope::Service(target),
            RolloutScope::Inactive => Scope::Service(target.other()),
            RolloutScope::All => Scope::All,
            RolloutScope::Service(color) => Scope::Service(*color),
            RolloutScope::Sites(ids) => Scope::Sites(ids.clone()),
        };
        let sites = candidates(&self.ports, &scope, fleet, self.now()).await?;
        let view = self.ports.cluster.service(target).await?;
        let rollback_digest = if spec.auto_rollback {
            let store = &self.ports.store;
            let (own, other) = (store.service(target).await?, store.service(target.other()).await?);
            rollback_choice(&own, &other, spec.digest.or(view.digest))
        } else {
            None
        };
        let spec = spec.clone();
        let (running, ready) = (view.digest, view.is_ready());
        Ok((PlanInputs { spec, target, running, ready, rollback_digest }, sites))
    }
}

/// Returns the action of a request for a rollout. A request with a digest may require a deploy, regardless of the digest
/// that runs now.
pub(super) const fn action_of(spec: &RolloutSpec) -> Action {
    if spec.digest.is_some() { Action::StartRolloutWithImage } else { Action::StartRollout }
}

/// Returns the sites that the specification names and that do not exist.
pub(super) fn unknown_sites(spec: &RolloutSpec, found: &[Candidate]) -> Vec<SiteId> {
    let RolloutScope::Sites(ids) = &spec.scope else { return Vec::new() };
    let mut unknown: Vec<_> =
        ids.iter().filter(|id| found.iter().all(|site| site.id != **id)).cloned().collect();
    unknown.sort();
    unknown.dedup();
    unknown
}

/// Rejects combinations that are invalid regardless of the fleet's state.
pub(super) fn validate(spec: &RolloutSpec) -> Result<(), ManagerError> {
    if spec.kind == RolloutKind::Flush {
        let message = "only a deploy starts a rollout that only flushes caches";
        return Err(ManagerError::Invalid(message.to_owned()));
    }
    if spec.gate.is_some() && spec.kind != RolloutKind::Promote {
        return Err(ManagerError::Invalid(
            "a gate requires a promote, because only a promote moves routes".to_owned(),
        ));
    }
    Ok(())
}

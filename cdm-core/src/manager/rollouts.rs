//! Requests about rollouts.

use std::time::Duration;

use super::blue_green::Image;
use super::submit::{Decision, Written};
use super::{Accepted, Action, Force, Manager, ManagerError, Request, Work};
use crate::domain::operation::Hooks;
use crate::domain::rollout::{
    Budget, HealthGate, MemberOutcome, RolloutEvent, RolloutMember, RolloutPage, WaveTarget, hash,
};
use crate::domain::{
    Canonical, Color, Digest, Direction, Fleet, OperationId, Rollout, RolloutKind, RolloutScope,
};
use crate::pipelines::NewRollout;
use crate::ports::{FeedEvent, Mutation, Page, WriteBatch};

/// A rollout to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutRequest {
    /// Whether routes are moved. The default is `false`: sites are only assigned to the target.
    pub promote: bool,
    /// The digest that the target has to run; deployed first if the target runs another one. `None`, the default,
    /// uses the running digest.
    pub digest: Option<Digest>,
    /// The sites of the rollout. The default is the sites that are assigned to the active service.
    pub scope: RolloutScope,
    /// The sizes of the waves. An empty list, the default, makes one wave of all sites.
    pub waves: Vec<WaveTarget>,
    /// The maximum number of sites that are moved in parallel; 64 by default. A higher number is faster and affects
    /// more sites at the same time.
    pub max_concurrent: u32,
    /// The number or share of a wave's sites that may fail before the rollout halts; 0 by default.
    pub budget: Budget,
    /// Whether a halt moves the moved sites back and restores the previous digest if sites were already on the
    /// target; `false` by default.
    pub auto_rollback: bool,
    /// The health gate that each site has to pass before and after its move; `None`, the default, moves sites without
    /// a check.
    pub gate: Option<HealthGate>,
    /// The bake time between two waves; zero by default. A longer bake time detects slow failures but makes the
    /// rollout slower.
    pub bake: Duration,
    /// The hash of the plan that the user has reviewed. The request is rejected if the plan has changed; `None` skips
    /// the check.
    pub plan: Option<String>,
}

/// The options of a resume request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The digest that sites move to from now on, which the target has to run; `None` keeps the rollout's digest.
    pub accept: Option<Digest>,
    /// Whether the accepted digest may be bad.
    pub force: Force,
}

impl Resume {
    pub(super) fn content(self) -> Canonical {
        self.force.content().optional("accept", self.accept)
    }
}

impl Default for RolloutRequest {
    fn default() -> Self {
        Self {
            promote: false,
            digest: None,
            scope: RolloutScope::Active,
            waves: Vec::new(),
            max_concurrent: 64,
            budget: Budget::Count(0),
            auto_rollback: false,
            gate: None,
            bake: Duration::ZERO,
            plan: None,
        }
    }
}

impl Manager {
    /// Starts a rollout to the active canary service. The target, the digest and the sites are fixed at the start.
    ///
    /// # Errors
    /// Returns `unknown_sites` for named sites that do not exist, `rollout_in_flight` while another unfinished
    /// rollout moves sites, `empty_plan` if no site is in scope, `invalid` for invalid waves, and the errors of
    /// [`Manager::deploy`] if the digest has to be deployed.
    pub async fn rollout(
        &self,
        request: &Request,
        requested: &RolloutRequest,
    ) -> Result<Accepted, ManagerError> {
        requested.validate()?;
        self.submit(request, requested.action(), "fleet", &requested.content(), || async {
            let target = self.canary().await?;
            // Freezes are checked for each site at its move, not here.
            let (inputs, sites) = self.plan_inputs(requested, target, &Fleet::default()).await?;
            let unknown = requested.unknown_sites(&sites);
            if !unknown.is_empty() {
                return Err(ManagerError::UnknownSites(unknown));
            }
            if requested
                .plan
                .as_ref()
                .is_some_and(|plan| *plan != hash(&inputs, &sites, &requested.spec_content()))
            {
                return Err(ManagerError::PlanChanged);
            }
            let members = sites.into_iter().map(RolloutMember::from).collect();
            self.decide_rollout(request, requested, (target, inputs.running), members, None).await
        })
        .await
    }

    async fn decide_rollout(
        &self,
        request: &Request,
        requested: &RolloutRequest,
        (target, running): (Color, Option<Digest>),
        members: Vec<RolloutMember>,
        retry_of: Option<u64>,
    ) -> Result<Decision, ManagerError> {
        let fleet = self.ports.store.fleet().await?;
        if let Some(other) = fleet.rollout {
            return Err(ManagerError::RolloutInFlight(other));
        }
        if let Some(freeze) = fleet.frozen(self.now()) {
            return Err(ManagerError::Frozen(Box::new(freeze.clone())));
        }
        if members.is_empty() {
            return Err(ManagerError::EmptyPlan);
        }
        let (mut after, mut extra) = (None, Vec::new());
        if let Some(digest) = requested.digest.filter(|digest| Some(*digest) != running) {
            let image = Image { hooks: Hooks::Skip, ..Image::deployed(target, digest, false) };
            let deploy = self.deploy_writes(request, &image, None).await?;
            (after, extra) = (Some(deploy.0), deploy.1);
        }
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let first_number = self.allocate_ids(count.max(1)).await?;
        let rollout = NewRollout {
            // Allocated after the fleet was read, so it is higher than the number of every earlier rollout.
            number: self.allocate_ids(1).await?,
            kind: if requested.promote { RolloutKind::Promote } else { RolloutKind::Upgrade },
            target,
            digest: requested.digest.or(running),
            scope: requested.scope.clone(),
            members,
            waves: requested.waves.clone(),
            max_concurrent: requested.max_concurrent,
            budget: requested.budget,
            auto_rollback: requested.auto_rollback,
            gate: requested.gate.clone(),
            bake: requested.bake,
            after,
            retry_of,
            first_number,
            requested_by: request.actor.clone(),
            now: self.now(),
        };
        let number = rollout.number;
        let (before, mut batch) = rollout.batches()?;
        for pages in &before {
            if let Written::Changed = self.write(pages).await? {
                return Err(ManagerError::Contended);
            }
        }
        batch.writes.push(Mutation::Fleet(Box::new(Fleet {
            rollout: Some(number),
            newest: number,
            ..fleet
        })));
        batch.writes.extend(extra);
        batch.events = vec![self.rollout_event(number, "waiting")];
        Ok(Decision { batch, accepted: Accepted::Rollout(number) })
    }

    fn rollout_event(&self, number: u64, what: &str) -> FeedEvent {
        FeedEvent {
            at: self.now(),
            subject: None,
            operation: None,
            rollout: Some(number),
            what: what.to_owned(),
        }
    }

    /// Pauses a rollout: no further site is moved after the next checkpoint.
    ///
    /// # Errors
    /// Returns `not_found` or `illegal_transition`.
    pub async fn pause(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.request(request, Action::PauseRollout, number, RolloutEvent::Pause).await
    }

    /// Continues a paused or halted rollout with the rollout's digest.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::pause`], and `digest_changed` while the target runs another digest.
    pub async fn resume(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.resume_on(request, number, Resume::default()).await
    }

    /// Continues a paused, halted or waiting rollout. If the caller accepts the digest that the target runs, sites
    /// move to that digest from now on.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::resume`], `digest_changed` if the target does not run the accepted digest,
    /// and `bad_digest` for a bad digest, unless the caller overrides the verdict and has the required role.
    pub async fn resume_on(
        &self,
        request: &Request,
        number: u64,
        resume: Resume,
    ) -> Result<Accepted, ManagerError> {
        let target = format!("rollout-{number}");
        let content = resume.content();
        self.submit(request, Action::ResumeRollout, &target, &content, || async move {
            let mut rollout = self.get_rollout(number).await?;
            let before = rollout.clone();
            rollout.resume(resume.accept, self.now())?;
            self.check_digest(request, &before, resume).await?;
            let batch = WriteBatch::of(vec![Mutation::Rollout(Box::new(rollout))]);
            let events = vec![self.rollout_event(number, RolloutEvent::Resume.as_str())];
            Ok(Decision { batch: WriteBatch { events, ..batch }, accepted: Accepted::Rollout(number) })
        })
        .await
    }

    /// Rejects a resume unless the target runs the accepted digest, or the rollout's digest if the caller accepts none.
    /// A rollout that rolls back, only flushes caches, or waits for its own deploy is not checked, because it moves no
    /// site to the running digest.
    async fn check_digest(
        &self,
        request: &Request,
        rollout: &Rollout,
        resume: Resume,
    ) -> Result<(), ManagerError> {
        let moves =
            rollout.kind.moves() && rollout.direction == Direction::Forward && rollout.after.is_none();
        let wanted = rollout.wanted();
        if !moves || (resume.accept.is_none() && wanted.is_none()) {
            return Ok(());
        }
        let running = self.ports.cluster.service(rollout.target).await?.digest;
        if resume.accept.or(wanted) != running {
            return Err(ManagerError::DigestChanged { target: rollout.target, wanted, running });
        }
        if let Some(accepted) = resume.accept.filter(|accepted| Some(*accepted) != wanted)
            && self.why_bad(accepted).await?.is_some()
        {
            self.reject_bad_digest(accepted, resume.force).await?;
            request.may_on(Action::ResumeRollout, Work::MovesToBadDigest)?;
        }
        Ok(())
    }

    /// Returns the digest that the target runs, if it differs from the rollout's digest and the rollout can still
    /// move sites. Returns `None` if the cluster is unavailable.
    pub async fn conflicting_digest(&self, rollout: &Rollout) -> Option<Digest> {
        let moves =
            rollout.kind.moves() && rollout.direction == Direction::Forward && rollout.after.is_none();
        let wanted = rollout.wanted().filter(|_| moves && !rollout.status.ended())?;
        let running = self.ports.cluster.service(rollout.target).await.ok()?.digest;
        running.filter(|running| *running != wanted)
    }

    /// Stops a rollout permanently, before its owner is granted further work. An abort outranks every other request.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::pause`].
    pub async fn abort(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.request(request, Action::AbortRollout, number, RolloutEvent::Abort).await
    }

    async fn request(
        &self,
        request: &Request,
        action: Action,
        number: u64,
        event: RolloutEvent,
    ) -> Result<Accepted, ManagerError> {
        self.submit(request, action, &format!("rollout-{number}"), &Canonical::new(), || async {
            let mut rollout = self.get_rollout(number).await?;
            rollout.request(event, self.now())?;
            let mut writes = Vec::new();
            if rollout.status.ended() {
                let fleet = self.ports.store.fleet().await?;
                if fleet.rollout == Some(number) {
                    writes.push(Mutation::Fleet(Box::new(Fleet { rollout: None, ..fleet })));
                }
            }
            let events = vec![self.rollout_event(number, event.as_str())];
            writes.insert(0, Mutation::Rollout(Box::new(rollout)));
            Ok(Decision {
                batch: WriteBatch { events, ..WriteBatch::of(writes) },
                accepted: Accepted::Rollout(number),
            })
        })
        .await
    }

    /// Starts a new rollout of the same kind with the failed and skipped sites of an ended one. If the target no
    /// longer runs the ended rollout's digest, the digest is deployed first, which requires a higher role.
    ///
    /// # Errors
    /// Returns `forbidden`, `illegal_transition` if the rollout has not ended, `bad_digest` if the digest is bad, and
    /// the errors of [`Manager::rollout`].
    pub async fn retry_rollout(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.retry_rollout_with(request, number, Force::No).await
    }

    /// Retries a rollout as [`Manager::retry_rollout`] does; with `force` also with a bad digest.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::retry_rollout`].
    pub async fn retry_rollout_with(
        &self,
        request: &Request,
        number: u64,
        force: Force,
    ) -> Result<Accepted, ManagerError> {
        let content = force.content();
        self.submit(request, Action::RetryRollout, &format!("rollout-{number}"), &content, || async {
            let rollout = self.get_rollout(number).await?;
            let running = self.ports.cluster.service(rollout.target).await?.digest;
            request.may_on(Action::RetryRollout, Work::of_retry(&rollout, running))?;
            if !rollout.status.ended() {
                let status = rollout.status.as_str();
                return Err(ManagerError::IllegalTransition(format!(
                    "a rollout that is {status} is not retried"
                )));
            }
            if let Some(digest) = rollout.wanted()
                && self.why_bad(digest).await?.is_some()
            {
                self.reject_bad_digest(digest, force).await?;
                request.may_on(Action::RetryRollout, Work::MovesToBadDigest)?;
            }
            let members = self.unfinished(&rollout).await?;
            let requested = RolloutRequest {
                promote: rollout.kind == RolloutKind::Promote,
                digest: rollout.wanted(),
                scope: rollout.scope.clone(),
                max_concurrent: rollout.max_concurrent,
                budget: rollout.budget,
                auto_rollback: rollout.auto_rollback,
                gate: rollout.gate.clone(),
                bake: rollout.bake,
                ..RolloutRequest::default()
            };
            self.decide_rollout(request, &requested, (rollout.target, running), members, Some(number)).await
        })
        .await
    }

    /// Returns the work that a retry of a rollout would do now.
    ///
    /// # Errors
    /// Returns an error if the cluster is unavailable.
    pub async fn retry_work(&self, rollout: &Rollout) -> Result<Work, ManagerError> {
        Ok(Work::of_retry(rollout, self.ports.cluster.service(rollout.target).await?.digest))
    }

    /// Returns the sites that the rollout did not complete.
    async fn unfinished(&self, rollout: &Rollout) -> Result<Vec<RolloutMember>, ManagerError> {
        let mut members = Vec::new();
        for page in 0..rollout.total.div_ceil(RolloutPage::SIZE) {
            let page = self.ports.store.rollout_page(rollout.number, page).await?;
            let all = page.into_iter().flat_map(|page| page.members);
            members.extend(all.filter(|member| match member.outcome {
                Some(MemberOutcome::Moved | MemberOutcome::InPlace | MemberOutcome::SkippedGone) => false,
                Some(_) => true,
                None => true,
            }));
        }
        for member in &mut members {
            *member = RolloutMember::new(member.id.clone(), member.uid);
        }
        Ok(members)
    }

    /// Returns a rollout.
    ///
    /// # Errors
    /// Returns `not_found` if the rollout does not exist.
    pub async fn get_rollout(&self, number: u64) -> Result<Rollout, ManagerError> {
        self.ports.store.rollout(number).await?.ok_or_else(|| ManagerError::no_rollout(number))
    }

    /// Returns rollouts with numbers below `before`, newest first, at most 1,000 per call.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn rollouts(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Rollout, u64>, ManagerError> {
        Ok(self.ports.store.rollouts(before, limit.min(1_000)).await?)
    }

    /// Returns the id of a member's operation.
    pub(super) fn member_id(rollout: &Rollout, ordinal: u32) -> OperationId {
        let number = rollout.first_number + u64::from(ordinal);
        OperationId {
            number,
            parent: crate::domain::operation::OperationParent::Rollout(rollout.number, ordinal),
        }
    }
}

//! Requests about rollouts.

use super::blue_green::Image;
use super::plans::{action_of, unknown_sites, validate};
use super::submit::{Decision, Written};
use super::{Accepted, Action, Force, Manager, ManagerError, Request, Work};
use crate::domain::operation::Hooks;
use crate::domain::rollout::{
    MemberOutcome, RolloutEvent, RolloutMember, RolloutPage, RolloutSpec, Timing, hash,
};
use crate::domain::{Canonical, Color, Digest, Fleet, OperationId, Rollout, RolloutKind};
use crate::pipelines::NewRollout;
use crate::ports::{FeedEvent, Mutation, Page, WriteBatch};

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

/// Encodes a request for a rollout, including the hash of the plan.
pub(super) fn content(spec: &RolloutSpec, plan: Option<&str>) -> Canonical {
    Canonical::new().nested("spec", &spec.encode()).optional("plan", plan)
}

impl Manager {
    /// Starts a rollout to the active canary service. The target, the digest and the sites are fixed at the start. `plan` is
    /// the hash of the plan that the user has reviewed; `None` skips the check that the plan has not changed.
    ///
    /// # Errors
    /// Returns `unknown_sites` for named sites that do not exist, `rollout_in_flight` while another unfinished
    /// rollout moves sites, `plan_changed` if the plan has another hash now, `empty_plan` if no site is in scope, `invalid`
    /// for invalid waves, and the errors of
    /// [`Manager::deploy`] if the digest has to be deployed.
    pub async fn rollout(
        &self,
        request: &Request,
        spec: &RolloutSpec,
        plan: Option<&str>,
    ) -> Result<Accepted, ManagerError> {
        validate(spec)?;
        self.submit(request, action_of(spec), "fleet", &content(spec, plan), || async {
            let target = self.canary().await?;
            // Freezes are checked for each site at its move, not here.
            let (inputs, sites) = self.plan_inputs(spec, target, &Fleet::default()).await?;
            let unknown = unknown_sites(spec, &sites);
            if !unknown.is_empty() {
                return Err(ManagerError::UnknownSites(unknown));
            }
            if plan.is_some_and(|plan| *plan != hash(&inputs, &sites)) {
                return Err(ManagerError::PlanChanged);
            }
            let members = sites.into_iter().map(RolloutMember::from).collect();
            self.decide_rollout(request, spec, (target, inputs.running), members, None).await
        })
        .await
    }

    async fn decide_rollout(
        &self,
        request: &Request,
        spec: &RolloutSpec,
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
        if let Some(digest) = spec.digest.filter(|digest| Some(*digest) != running) {
            let image = Image { hooks: Hooks::Skip, ..Image::deployed(target, digest, false) };
            let deploy = self.deploy_writes(request, &image, None).await?;
            (after, extra) = (Some(deploy.0), deploy.1);
        }
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let first_number = self.allocate_ids(count.max(1)).await?;
        let rollout = NewRollout {
            // Allocated after the fleet was read, so it is higher than the number of every earlier rollout.
            number: self.allocate_ids(1).await?,
            spec: RolloutSpec { digest: spec.digest.or(running), ..spec.clone() },
            target,
            members,
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

    /// Pauses a rollout: sites in progress are finished, and no further site is moved.
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
            let rollout = self.get_rollout(number).await?;
            let event = RolloutEvent::Resume(resume.accept);
            let (next, _) = rollout.advance(&event, &Timing::default(), self.now())?;
            self.check_digest(request, &rollout, resume).await?;
            let batch = WriteBatch::of(vec![Mutation::Rollout(Box::new(next))]);
            let events = vec![self.rollout_event(number, event.as_str())];
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
        let wanted = rollout.wanted();
        if !rollout.moves_to_target() || (resume.accept.is_none() && wanted.is_none()) {
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
        let moves = rollout.moves_to_target() && !rollout.status.ended();
        let wanted = rollout.wanted().filter(|_| moves)?;
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
            let rollout = self.get_rollout(number).await?;
            let (rollout, _) = rollout.advance(&event, &Timing::default(), self.now())?;
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
            // The hooks of a deploy are retried as an upgrade of the same sites, which flushes their caches, too.
            let kind = match rollout.spec.kind {
                RolloutKind::Promote => RolloutKind::Promote,
                RolloutKind::Upgrade | RolloutKind::Flush => RolloutKind::Upgrade,
            };
            let digest = rollout.wanted();
            let spec = RolloutSpec { kind, digest, waves: Vec::new(), ..rollout.spec };
            self.decide_rollout(request, &spec, (rollout.target, running), members, Some(number)).await
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

//! What may be asked of rollouts.

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
    /// Whether routes are moved too.
    pub promote: bool,
    /// The digest that the target has to run; it is deployed first where it does not.
    pub digest: Option<Digest>,
    /// Which sites.
    pub scope: RolloutScope,
    /// The waves; none for a single one.
    pub waves: Vec<WaveTarget>,
    /// How many sites at once.
    pub max_concurrent: u32,
    /// How many sites of a wave may fail.
    pub budget: Budget,
    /// Whether a halt takes the moved sites back, and puts the digest before back where sites were on the target
    /// already.
    pub auto_rollback: bool,
    /// What each site has to answer before and after its move.
    pub gate: Option<HealthGate>,
    /// How long it rests between two waves.
    pub bake: Duration,
    /// The hash of a plan that has to hold still.
    pub plan: Option<String>,
}

/// How a rollout is to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The digest that the target runs, where sites are to move on that from now on.
    pub accept: Option<Digest>,
    /// Whether also on a bad one.
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
    /// Starts a rollout to the active canary service. Its target, its digest and its sites are fixed here.
    ///
    /// # Errors
    /// `unknown_sites` for sites that are named and not there; `rollout_in_flight` while another unfinished rollout moves
    /// sites; `empty_plan` where no site is in scope; those of [`Manager::deploy`] where it has to deploy first; `invalid`
    /// for waves that do not make sense.
    pub async fn rollout(
        &self,
        request: &Request,
        wanted: &RolloutRequest,
    ) -> Result<Accepted, ManagerError> {
        wanted.judge()?;
        self.submit(request, wanted.action(), "fleet", &wanted.content(), || async {
            let target = self.canary().await?;
            // Who is frozen is decided when each site has its turn.
            let (inputs, sites) = self.survey(wanted, target, &Fleet::default()).await?;
            let unknown = wanted.unknown(&sites);
            if !unknown.is_empty() {
                return Err(ManagerError::UnknownSites(unknown));
            }
            if wanted.plan.as_ref().is_some_and(|plan| *plan != hash(&inputs, &sites, &wanted.spec_content()))
            {
                return Err(ManagerError::PlanChanged);
            }
            let members = sites.into_iter().map(RolloutMember::from).collect();
            self.decide_rollout(request, wanted, (target, inputs.running), members, None).await
        })
        .await
    }

    async fn decide_rollout(
        &self,
        request: &Request,
        wanted: &RolloutRequest,
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
        if let Some(digest) = wanted.digest.filter(|digest| Some(*digest) != running) {
            let image = Image { hooks: Hooks::Skip, ..Image::deployed(target, digest, false) };
            let deploy = self.deploy_writes(request, &image, None).await?;
            (after, extra) = (Some(deploy.0), deploy.1);
        }
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let first_number = self.allocate_ids(count.max(1)).await?;
        let draft = NewRollout {
            // Drawn after the fleet was read, so it is higher than that of every rollout accepted before.
            number: self.allocate_ids(1).await?,
            kind: if wanted.promote { RolloutKind::Promote } else { RolloutKind::Upgrade },
            target,
            digest: wanted.digest.or(running),
            scope: wanted.scope.clone(),
            members,
            waves: wanted.waves.clone(),
            max_concurrent: wanted.max_concurrent,
            budget: wanted.budget,
            auto_rollback: wanted.auto_rollback,
            gate: wanted.gate.clone(),
            bake: wanted.bake,
            after,
            retry_of,
            first_number,
            requested_by: request.actor.clone(),
            now: self.now(),
        };
        let number = draft.number;
        let (before, mut batch) = draft.batches()?;
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

    /// Pauses a rollout: no site is begun after the next checkpoint.
    ///
    /// # Errors
    /// `not_found`, `illegal_transition`.
    pub async fn pause(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.request(request, Action::PauseRollout, number, RolloutEvent::Pause).await
    }

    /// Lets a paused or halted rollout go on, on the digest that it was moving sites on.
    ///
    /// # Errors
    /// As [`Manager::pause`]; `digest_changed` while the target runs another digest.
    pub async fn resume(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.resume_on(request, number, Resume::default()).await
    }

    /// Lets a paused, halted or waiting rollout go on, on the digest that the target runs where the caller accepts that.
    ///
    /// # Errors
    /// As [`Manager::resume`]; `digest_changed` too where the accepted digest does not run; `bad_digest` for one that is
    /// bad, unless the caller insists and has the role for it.
    pub async fn resume_on(
        &self,
        request: &Request,
        number: u64,
        wanted: Resume,
    ) -> Result<Accepted, ManagerError> {
        let target = format!("rollout-{number}");
        let content = wanted.content();
        self.submit(request, Action::ResumeRollout, &target, &content, || async move {
            let mut rollout = self.get_rollout(number).await?;
            let before = rollout.clone();
            rollout.resume(wanted.accept, self.now())?;
            self.judge_digest(request, &before, wanted).await?;
            let batch = WriteBatch::of(vec![Mutation::Rollout(Box::new(rollout))]);
            let events = vec![self.rollout_event(number, RolloutEvent::Resume.as_str())];
            Ok(Decision { batch: WriteBatch { events, ..batch }, accepted: Accepted::Rollout(number) })
        })
        .await
    }

    /// Refuses to go on with another digest than the one that sites may move on, or that the caller accepts. A rollout that
    /// goes back, flushes only, or waits for its own deploy moves no site on what runs now.
    async fn judge_digest(
        &self,
        request: &Request,
        rollout: &Rollout,
        asked: Resume,
    ) -> Result<(), ManagerError> {
        let moves =
            rollout.kind.moves() && rollout.direction == Direction::Forward && rollout.after.is_none();
        let wanted = rollout.wanted();
        if !moves || (asked.accept.is_none() && wanted.is_none()) {
            return Ok(());
        }
        let running = self.ports.cluster.service(rollout.target).await?.digest;
        if asked.accept.or(wanted) != running {
            return Err(ManagerError::DigestChanged { target: rollout.target, wanted, running });
        }
        if let Some(accepted) = asked.accept.filter(|accepted| Some(*accepted) != wanted)
            && self.why_bad(accepted).await?.is_some()
        {
            self.refuse_bad(accepted, asked.force).await?;
            request.may_on(Action::ResumeRollout, Work::MovesToBadDigest)?;
        }
        Ok(())
    }

    /// The digest that a rollout's target runs, where it is another one than sites may move on while it may still move
    /// some; `None` too where the cluster does not say.
    pub async fn digest_in_the_way(&self, rollout: &Rollout) -> Option<Digest> {
        let moves =
            rollout.kind.moves() && rollout.direction == Direction::Forward && rollout.after.is_none();
        let wanted = rollout.wanted().filter(|_| moves && !rollout.status.ended())?;
        let running = self.ports.cluster.service(rollout.target).await.ok()?.digest;
        running.filter(|running| *running != wanted)
    }

    /// Stops a rollout for good, before its owner's next grant of work. It outranks everything else that was asked.
    ///
    /// # Errors
    /// As [`Manager::pause`].
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

    /// Starts a new rollout, of the same kind, with the sites of an ended one that failed or were skipped. Where the target
    /// does not run that one's digest any more, it is deployed first, which takes another role.
    ///
    /// # Errors
    /// `forbidden`; `illegal_transition` while it has not ended; `bad_digest` where its digest is bad; those of
    /// [`Manager::rollout`].
    pub async fn retry_rollout(&self, request: &Request, number: u64) -> Result<Accepted, ManagerError> {
        self.retry_rollout_with(request, number, Force::No).await
    }

    /// The same; with `force` also on a digest that is bad.
    ///
    /// # Errors
    /// As [`Manager::retry_rollout`].
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
                self.refuse_bad(digest, force).await?;
                request.may_on(Action::RetryRollout, Work::MovesToBadDigest)?;
            }
            let members = self.unfinished(&rollout).await?;
            let wanted = RolloutRequest {
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
            self.decide_rollout(request, &wanted, (rollout.target, running), members, Some(number)).await
        })
        .await
    }

    /// What a retry of a rollout would do now.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn retry_work(&self, rollout: &Rollout) -> Result<Work, ManagerError> {
        Ok(Work::of_retry(rollout, self.ports.cluster.service(rollout.target).await?.digest))
    }

    /// The sites that are not where the rollout wanted them.
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

    /// A rollout.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get_rollout(&self, number: u64) -> Result<Rollout, ManagerError> {
        self.ports.store.rollout(number).await?.ok_or_else(|| ManagerError::no_rollout(number))
    }

    /// Rollouts, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn rollouts(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Rollout, u64>, ManagerError> {
        Ok(self.ports.store.rollouts(before, limit.min(1_000)).await?)
    }

    /// The operation of a rollout's member.
    pub(super) fn member_id(rollout: &Rollout, ordinal: u32) -> OperationId {
        let number = rollout.first_number + u64::from(ordinal);
        OperationId {
            number,
            parent: crate::domain::operation::OperationParent::Rollout(rollout.number, ordinal),
        }
    }
}

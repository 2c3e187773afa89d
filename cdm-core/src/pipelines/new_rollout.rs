//! A rollout before it is accepted: its sites, its waves, its pages.

use std::time::Duration;

use crate::domain::fence::Direction;
use crate::domain::rollout::{
    self, Budget, Candidate, HealthGate, RolloutMember, RolloutPage, WaveTarget, Window,
};
use crate::domain::{
    Actor, Color, Digest, Fleet, NameError, OperationId, Phase, Rollout, RolloutKind, RolloutScope,
    RolloutStatus, Site, SiteId, Timestamp,
};
use crate::ports::{Mutation, Ports, SiteQuery, StoreError, WriteBatch};

/// Sites at once where nobody says otherwise; more gains nothing at one API server.
pub(crate) const MAX_CONCURRENT: u32 = 64;

/// Pages that are written together with the rollout itself. A longer list is written before it, under a number that
/// nobody knows until the rollout is accepted.
const PAGES_AT_ONCE: usize = 80;

/// Which sites a rollout takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those whose record names this service.
    Service(Color),
    /// All.
    All,
    /// These.
    Sites(Vec<SiteId>),
}

/// The active sites in a scope, in the order of their ids.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn candidates(
    ports: &Ports,
    scope: &Scope,
    fleet: &Fleet,
    now: Timestamp,
) -> Result<Vec<Candidate>, StoreError> {
    let candidate = |site: &Site| Candidate {
        id: site.id.clone(),
        uid: site.uid,
        service: site.service,
        routed: site.routed_service(),
        busy: site.operation.is_some(),
        frozen: fleet.freezes(&site.id, now).is_some(),
    };
    let mut sites = Vec::new();
    let service = match scope {
        Scope::Sites(ids) => {
            for id in ids {
                sites.extend(ports.store.site(id).await?.iter().map(candidate));
            }
            sites.sort_by(|a, b| a.id.cmp(&b.id));
            sites.dedup_by(|a, b| a.id == b.id);
            return Ok(sites);
        }
        Scope::Service(color) => Some(*color),
        Scope::All => None,
    };
    let query = SiteQuery { service, ..SiteQuery::default() };
    let mut after = None;
    loop {
        let page = ports.store.sites(&query, after.as_ref(), 1_000).await?;
        sites.extend(page.items.iter().filter(|site| site.phase == Phase::Active).map(candidate));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(sites),
        }
    }
}

/// The members of a rollout over a scope, in the order of their ids: its active sites, or those that are listed. A
/// listed site that is not there is left out.
///
/// # Errors
/// When the store does not answer.
pub async fn membership(ports: &Ports, scope: &Scope) -> Result<Vec<RolloutMember>, StoreError> {
    let sites = candidates(ports, scope, &Fleet::default(), Timestamp::from_millis(0)).await?;
    Ok(sites.into_iter().map(RolloutMember::from).collect())
}

/// How many members, as the counts of a rollout are kept.
pub(crate) fn count(members: &[RolloutMember]) -> u32 {
    u32::try_from(members.len()).unwrap_or(u32::MAX)
}

/// Everything about a rollout that is fixed when it is accepted.
#[derive(Clone, Debug)]
pub struct NewRollout {
    /// Its number.
    pub number: u64,
    /// What it does.
    pub kind: RolloutKind,
    /// Where to.
    pub target: Color,
    /// The digest the target has to run.
    pub digest: Option<Digest>,
    /// As it was asked for.
    pub scope: RolloutScope,
    /// The sites.
    pub members: Vec<RolloutMember>,
    /// The waves; none for a single one.
    pub waves: Vec<WaveTarget>,
    /// How many sites at once.
    pub max_concurrent: u32,
    /// How many may fail.
    pub budget: Budget,
    /// Whether a halt takes the moved sites back.
    pub auto_rollback: bool,
    /// What each site has to answer.
    pub gate: Option<HealthGate>,
    /// How long it rests between two waves.
    pub bake: Duration,
    /// The deploy that has to succeed first.
    pub after: Option<OperationId>,
    /// The rollout whose failed sites these are.
    pub retry_of: Option<u64>,
    /// The first of the members' operation numbers.
    pub first_number: u64,
    /// Whose request it is.
    pub requested_by: Actor,
    /// Now.
    pub now: Timestamp,
}

impl NewRollout {
    /// The rollout's record.
    ///
    /// # Errors
    /// When the waves do not cover the sites.
    pub fn head(&self) -> Result<Rollout, NameError> {
        let total = count(&self.members);
        Ok(Rollout {
            number: self.number,
            kind: self.kind,
            target: self.target,
            digest: self.digest,
            accepted_digest: None,
            scope: self.scope.clone(),
            waves: rollout::plan_waves(&self.waves, total)?,
            max_concurrent: self.max_concurrent.max(1),
            budget: self.budget,
            auto_rollback: self.auto_rollback,
            gate: self.gate.clone(),
            bake: self.bake,
            status: RolloutStatus::Waiting,
            control: None,
            owner: None,
            term: 0,
            direction: Direction::Forward,
            window: Window::default(),
            acknowledged_failures: 0,
            unhealthy: 0,
            in_place: 0,
            failures: Vec::new(),
            baking: None,
            image_rejected: false,
            rollback: None,
            rollback_end: 0,
            job: 1,
            first_number: self.first_number,
            total,
            after: self.after.clone(),
            locked_color: None,
            flushing: false,
            pending_flush: None,
            flush_from: 0,
            samples: Vec::new(),
            needs_recovery: false,
            reason: None,
            waiting_since: None,
            next_poll_at: None,
            retry_of: self.retry_of,
            requested_by: self.requested_by.clone(),
            created_at: self.now,
            started_at: None,
            finished_at: None,
            version: 0,
        })
    }

    /// The batches that create it: those of its pages that must come first, and the one that is its acceptance.
    ///
    /// # Errors
    /// As [`NewRollout::head`].
    pub fn batches(self) -> Result<(Vec<WriteBatch>, WriteBatch), NameError> {
        let head = self.head()?;
        let mut pages: Vec<Mutation> = Vec::new();
        let mut members = self.members.into_iter();
        for page in 0..head.total.div_ceil(RolloutPage::SIZE) {
            let members = members.by_ref().take(RolloutPage::SIZE as usize).collect();
            pages.push(Mutation::RolloutPage(RolloutPage { rollout: self.number, page, members }));
        }
        let mut before = Vec::new();
        while pages.len() > PAGES_AT_ONCE {
            before.push(WriteBatch::of(pages.drain(..PAGES_AT_ONCE).collect()));
        }
        pages.insert(0, Mutation::CreateRollout(Box::new(head)));
        Ok((before, WriteBatch::of(pages)))
    }
}

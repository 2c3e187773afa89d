//! The creation of a rollout: its sites, its waves and its pages.

use crate::domain::rollout::{
    self, Candidate, Progress, RolloutMember, RolloutPage, RolloutPhase, RolloutSpec, WaveTarget,
};
use crate::domain::{
    Actor, Color, Fleet, NameError, OperationId, Phase, Rollout, RolloutStatus, Site, SiteId, Term, Timestamp,
};
use crate::ports::{Mutation, Ports, SiteQuery, StoreError, WriteBatch};

/// The limit of pages in one batch. The other pages of a longer list are written before the record of the rollout, under
/// a number that is not used until the rollout is accepted.
const PAGES_AT_ONCE: usize = 80;

/// The sites of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The active sites whose record names this service.
    Service(Color),
    /// The active sites of both services.
    All,
    /// The sites with these ids.
    Sites(Vec<SiteId>),
}

/// Returns the active sites in a scope, or the listed sites, in the order of their ids.
///
/// # Errors
/// An error of the store.
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

/// Returns the members of a rollout over a scope, in the order of their ids: its active sites, or the listed sites. A
/// listed site that does not exist is left out.
///
/// # Errors
/// An error of the store.
pub async fn membership(ports: &Ports, scope: &Scope) -> Result<Vec<RolloutMember>, StoreError> {
    let sites = candidates(ports, scope, &Fleet::default(), Timestamp::from_millis(0)).await?;
    Ok(sites.into_iter().map(RolloutMember::from).collect())
}

/// Returns the number of members, in the type of the counts of a rollout.
pub(crate) fn count(members: &[RolloutMember]) -> u32 {
    u32::try_from(members.len()).unwrap_or(u32::MAX)
}

/// The properties of a rollout that are fixed when it is accepted.
#[derive(Clone, Debug)]
pub struct NewRollout {
    /// The number, from the same sequence as the numbers of operations.
    pub number: u64,
    /// What the user has chosen. The digest is the one that the target must run; `None`: any digest.
    pub spec: RolloutSpec,
    /// The service that the sites move to.
    pub target: Color,
    /// The sites that the request was resolved to.
    pub members: Vec<RolloutMember>,
    /// The deploy that must succeed before sites move.
    pub after: Option<OperationId>,
    /// The rollout whose failed sites this one retries.
    pub retry_of: Option<u64>,
    /// The operation number of the first site.
    pub first_number: u64,
    /// The actor that requested the rollout.
    pub requested_by: Actor,
    /// The time of acceptance.
    pub now: Timestamp,
}

impl NewRollout {
    /// Returns the record of the rollout. Its specification names only the waves that have sites.
    ///
    /// # Errors
    /// The targets of the waves are invalid; see [`rollout::plan_waves`].
    pub fn record(&self) -> Result<Rollout, NameError> {
        let total = count(&self.members);
        let waves = rollout::plan_waves(&self.spec.waves, total)?;
        let targets = waves.iter().map(|wave| WaveTarget::parse(&wave.name)).collect::<Result<_, _>>()?;
        let max_concurrent = self.spec.max_concurrent.max(1);
        let moving = RolloutPhase::Moving(Progress::default());
        Ok(Rollout {
            number: self.number,
            spec: RolloutSpec { waves: targets, max_concurrent, ..self.spec.clone() },
            target: self.target,
            accepted_digest: None,
            waves,
            status: RolloutStatus::Waiting,
            phase: self.after.clone().map_or(moving, RolloutPhase::Deploying),
            control: None,
            owner: None,
            term: Term::default(),
            needs_recovery: false,
            acknowledged_failures: 0,
            unhealthy: 0,
            in_place: 0,
            failures: Vec::new(),
            image_rejected: false,
            rollback: None,
            first_number: self.first_number,
            total,
            locked_color: None,
            samples: Vec::new(),
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

    /// Returns the batches that create the rollout: those of pages that are written first, and the one that contains the
    /// record, which is the acceptance.
    ///
    /// # Errors
    /// As [`NewRollout::record`].
    pub fn batches(self) -> Result<(Vec<WriteBatch>, WriteBatch), NameError> {
        let record = self.record()?;
        let mut pages: Vec<Mutation> = Vec::new();
        let mut members = self.members.into_iter();
        for page in 0..record.total.div_ceil(RolloutPage::SIZE) {
            let members = members.by_ref().take(RolloutPage::SIZE as usize).collect();
            pages.push(Mutation::RolloutPage(RolloutPage { rollout: self.number, page, members }));
        }
        let mut before = Vec::new();
        while pages.len() > PAGES_AT_ONCE {
            before.push(WriteBatch::of(pages.drain(..PAGES_AT_ONCE).collect()));
        }
        pages.insert(0, Mutation::CreateRollout(Box::new(record)));
        Ok((before, WriteBatch::of(pages)))
    }
}

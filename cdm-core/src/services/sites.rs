//! What may be asked of sites.

use super::admit::{Decision, queued_event};
use super::{Accepted, Action, Request, ServiceError, Services};
use crate::domain::lifecycle::Phase;
use crate::domain::operation::{Move, Operation, Status, Subject, Task};
use crate::domain::site::Activation;
use crate::domain::{
    Canonical, Grant, Hostnames, Kind, OperationId, Selector, Site, SiteId, SiteName, Theme,
};
use crate::ports::{Batch, Page, SiteQuery, Write};

/// A site to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSite {
    /// Its id.
    pub id: SiteId,
    /// Its title.
    pub name: SiteName,
    /// Its theme.
    pub theme: Theme,
    /// Where it is to be served.
    pub hostnames: Hostnames,
    /// The service; the active canary where none is named.
    pub service: Option<Selector>,
}

impl NewSite {
    pub(super) fn content(&self) -> Canonical {
        Canonical::new()
            .field("id", &self.id)
            .field("name", &self.name)
            .field("theme", &self.theme)
            .list("hostnames", self.hostnames.all())
            .field("canonicalHostname", self.hostnames.canonical())
            .optional("service", self.service)
    }
}

impl Services {
    /// Creates a site: its record, its claims on hostnames and its credentials.
    ///
    /// # Errors
    /// `site_exists`, `hostname_taken`; nothing is claimed then.
    pub async fn create_site(&self, request: &Request, new: &NewSite) -> Result<Accepted, ServiceError> {
        let content = new.content();
        self.admit(request, Action::CreateSite, new.id.as_str(), &content, || async {
            if self.ports.store.site(&new.id).await?.is_some() {
                return Err(ServiceError::SiteExists(new.id.clone()));
            }
            for host in new.hostnames.all() {
                if let Some(site) = self.ports.store.hostname(host).await? {
                    return Err(ServiceError::HostnameTaken { host: host.clone(), site });
                }
            }
            let service = match new.service {
                Some(service) => service,
                None => self.canary().await?,
            };
            let now = self.now();
            let slot = self.registry.queued(self.number().await?, Task::Create, &request.actor, now);
            let id = OperationId::on(slot.number, Subject::Site(new.id.clone()));
            let site = Site {
                id: new.id.clone(),
                uid: self.ports.ids.uid(now),
                name: new.name.clone(),
                theme: new.theme.clone(),
                hostnames: new.hostnames.clone(),
                service,
                route: None,
                phase: Phase::New,
                activation: Activation::Never,
                slot: Some(slot),
                grant: Grant::default(),
                settled: None,
                created_at: now,
                updated_at: now,
                version: 0,
            };
            let events = vec![queued_event(&id, Subject::Site(new.id.clone()), now)];
            let batch = Batch { events, ..Batch::of(vec![Write::CreateSite(Box::new(site))]) };
            Ok(Decision { batch, accepted: Accepted::Operation(id) })
        })
        .await
    }

    /// Makes a created site live.
    ///
    /// # Errors
    /// `not_found`, `illegal_transition`, `operation_in_flight`.
    pub async fn provision(&self, request: &Request, id: &SiteId) -> Result<Accepted, ServiceError> {
        self.begin(request, id, Kind::Provision).await
    }

    /// Assigns a site to the active canary service without moving its route.
    ///
    /// # Errors
    /// As [`Services::provision`].
    pub async fn upgrade(&self, request: &Request, id: &SiteId) -> Result<Accepted, ServiceError> {
        self.begin(request, id, Kind::Upgrade).await
    }

    /// Moves a site's route and assignment to the active canary service.
    ///
    /// # Errors
    /// As [`Services::provision`].
    pub async fn promote(&self, request: &Request, id: &SiteId) -> Result<Accepted, ServiceError> {
        self.begin(request, id, Kind::Promote).await
    }

    /// Removes a site for good. While that is under way, another request answers with the same operation. A parked
    /// operation of the site ends cancelled.
    ///
    /// # Errors
    /// As [`Services::provision`].
    pub async fn terminate(&self, request: &Request, id: &SiteId) -> Result<Accepted, ServiceError> {
        self.begin(request, id, Kind::Terminate).await
    }

    async fn begin(&self, request: &Request, id: &SiteId, kind: Kind) -> Result<Accepted, ServiceError> {
        let action = match kind {
            Kind::Provision => Action::Provision,
            Kind::Upgrade => Action::Upgrade,
            Kind::Promote => Action::Promote,
            Kind::Terminate | Kind::Create | Kind::Deploy | Kind::Select => Action::Terminate,
        };
        self.admit(request, action, id.as_str(), &Canonical::new(), || self.decide(request, id, kind, None))
            .await
    }

    /// Decides on an operation of an existing site.
    pub(super) async fn decide(
        &self,
        request: &Request,
        id: &SiteId,
        kind: Kind,
        retry_of: Option<&OperationId>,
    ) -> Result<Decision, ServiceError> {
        let Some(mut site) = self.ports.store.site(id).await? else { return Err(ServiceError::no_site(id)) };
        let now = self.now();
        let subject = Subject::Site(id.clone());
        let mut writes = Vec::new();
        if let Some(member) = site.slot.as_ref().and_then(|slot| slot.member) {
            return Err(ServiceError::RolloutInFlight(member.rollout));
        }
        if let Some(slot) = &site.slot {
            let at_work = Operation::live(subject.clone(), slot.clone());
            match (kind, slot.task.kind(), slot.status) {
                (Kind::Terminate, Kind::Terminate, _) => {
                    return Ok(Decision::answer(Accepted::Operation(at_work.id)));
                }
                (Kind::Terminate, _, Status::Parked) => {
                    let mut displaced = Operation { finished_at: Some(now), ..at_work };
                    displaced.slot.status = slot.status.next(crate::domain::operation::Event::Displace)?;
                    writes.push(Write::History(Box::new(displaced)));
                    if let Some(selector) = slot.holds {
                        let mut colour = self.ports.store.colour(selector).await?;
                        colour.hold.release(slot.number);
                        writes.push(Write::Colour(Box::new(colour)));
                    }
                }
                (_, _, Status::Parked) => return Err(ServiceError::OperationParked(at_work.id)),
                _ => return Err(ServiceError::OperationInFlight(at_work.id)),
            }
        }
        if matches!(kind, Kind::Upgrade | Kind::Promote) {
            self.may_move(id).await?;
        }
        let course =
            |to| Move { from: site.service, to, routed: site.routed_service().unwrap_or(site.service) };
        let task = match kind {
            Kind::Provision => Task::Provision(site.service),
            Kind::Upgrade => Task::Upgrade(course(self.canary().await?)),
            Kind::Promote => Task::Promote(course(self.canary().await?)),
            _ => Task::Terminate,
        };
        let mut slot = self.registry.queued(self.number().await?, task, &request.actor, now);
        slot.retry_of = retry_of.cloned();
        let operation = OperationId::on(slot.number, subject.clone());
        site.begin(slot, now)?;
        writes.insert(0, Write::Site(Box::new(site)));
        let events = vec![queued_event(&operation, subject, now)];
        let batch = Batch { events, ..Batch::of(writes) };
        Ok(Decision { batch, accepted: Accepted::Operation(operation) })
    }

    /// A site.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn site(&self, id: &SiteId) -> Result<Site, ServiceError> {
        self.ports.store.site(id).await?.ok_or_else(|| ServiceError::no_site(id))
    }

    /// Sites in the order of their ids, at most 1,000 at once.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, ServiceError> {
        Ok(self.ports.store.sites(query, after, limit.min(1_000)).await?)
    }
}

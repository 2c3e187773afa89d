//! Accepts operations on sites, and reads sites.

use super::submit::{Decision, queued_event};
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::lifecycle::Phase;
use crate::domain::operation::{Move, Operation, OperationInput, Status, Subject};
use crate::domain::site::Activation;
use crate::domain::{
    Canonical, ClaimToken, Color, Hostnames, OperationId, OperationKind, Site, SiteId, SiteName, Theme,
};
use crate::ports::{Mutation, Page, SiteQuery, WriteBatch};

/// A site to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSite {
    /// The id of the site.
    pub id: SiteId,
    /// The title of the site.
    pub name: SiteName,
    /// The theme to activate.
    pub theme: Theme,
    /// The hostnames to serve.
    pub hostnames: Hostnames,
    /// The color of the service to assign the site to; `None` for the active canary.
    pub service: Option<Color>,
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

impl Manager {
    /// Creates a site: its record, the claims on its hostnames, and its credentials.
    ///
    /// # Errors
    /// Returns `site_exists` or `hostname_taken`. No hostname is claimed in these cases.
    pub async fn create_site(&self, request: &Request, new: &NewSite) -> Result<Accepted, ManagerError> {
        let content = new.content();
        self.submit(request, Action::CreateSite, new.id.as_str(), &content, || async {
            if self.ports.store.site(&new.id).await?.is_some() {
                return Err(ManagerError::SiteExists(new.id.clone()));
            }
            for host in new.hostnames.all() {
                if let Some(site) = self.ports.store.hostname(host).await? {
                    return Err(ManagerError::HostnameTaken { host: host.clone(), site });
                }
            }
            let service = match new.service {
                Some(service) => service,
                None => self.canary().await?,
            };
            let now = self.now();
            let operation =
                self.registry.queued(self.number().await?, OperationInput::Create, &request.actor, now);
            let id = OperationId::on(operation.number, Subject::Site(new.id.clone()));
            let site = Site {
                id: new.id.clone(),
                uid: self.ports.entropy.uid(now),
                name: new.name.clone(),
                theme: new.theme.clone(),
                hostnames: new.hostnames.clone(),
                service,
                route: None,
                phase: Phase::New,
                activation: Activation::Never,
                operation: Some(operation),
                claim_token: ClaimToken::default(),
                last_outcome: None,
                created_at: now,
                updated_at: now,
                version: 0,
            };
            let events = vec![queued_event(&id, Subject::Site(new.id.clone()), now)];
            let batch = WriteBatch { events, ..WriteBatch::of(vec![Mutation::CreateSite(Box::new(site))]) };
            Ok(Decision { batch, accepted: Accepted::Operation(id) })
        })
        .await
    }

    /// Provisions a created site and makes it active.
    ///
    /// # Errors
    /// Returns `not_found`, `illegal_transition` or `operation_in_flight`.
    pub async fn provision(&self, request: &Request, id: &SiteId) -> Result<Accepted, ManagerError> {
        self.begin(request, id, OperationKind::Provision).await
    }

    /// Assigns a site to the active canary service without moving its route.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::provision`], and `frozen`.
    pub async fn upgrade(&self, request: &Request, id: &SiteId) -> Result<Accepted, ManagerError> {
        self.begin(request, id, OperationKind::Upgrade).await
    }

    /// Moves a site's route and assignment to the active canary service.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::provision`], and `frozen`.
    pub async fn promote(&self, request: &Request, id: &SiteId) -> Result<Accepted, ManagerError> {
        self.begin(request, id, OperationKind::Promote).await
    }

    /// Removes a site permanently. A repeated request returns the operation in progress. A parked operation of the
    /// site ends as canceled.
    ///
    /// # Errors
    /// Returns the errors of [`Manager::provision`].
    pub async fn terminate(&self, request: &Request, id: &SiteId) -> Result<Accepted, ManagerError> {
        self.begin(request, id, OperationKind::Terminate).await
    }

    async fn begin(
        &self,
        request: &Request,
        id: &SiteId,
        kind: OperationKind,
    ) -> Result<Accepted, ManagerError> {
        let action = match kind {
            OperationKind::Provision => Action::Provision,
            OperationKind::Upgrade => Action::Upgrade,
            OperationKind::Promote => Action::Promote,
            OperationKind::Terminate
            | OperationKind::Create
            | OperationKind::Deploy
            | OperationKind::Select => Action::Terminate,
        };
        self.submit(request, action, id.as_str(), &Canonical::new(), || self.decide(request, id, kind, None))
            .await
    }

    /// Decides on an operation of an existing site.
    pub(super) async fn decide(
        &self,
        request: &Request,
        id: &SiteId,
        kind: OperationKind,
        retry_of: Option<&OperationId>,
    ) -> Result<Decision, ManagerError> {
        let Some(mut site) = self.ports.store.site(id).await? else { return Err(ManagerError::no_site(id)) };
        let now = self.now();
        let subject = Subject::Site(id.clone());
        let mut writes = Vec::new();
        if let Some(member) = site.operation.as_ref().and_then(|current| current.member) {
            return Err(ManagerError::RolloutInFlight(member.rollout));
        }
        if let Some(current) = &site.operation {
            let in_progress = Operation::live(subject.clone(), current.clone());
            match (kind, current.input.kind(), current.status) {
                (OperationKind::Terminate, OperationKind::Terminate, _) => {
                    return Ok(Decision::without_write(Accepted::Operation(in_progress.id)));
                }
                (OperationKind::Terminate, _, Status::Parked) => {
                    let mut displaced = Operation { finished_at: Some(now), ..in_progress };
                    displaced.state.status =
                        current.status.next(crate::domain::operation::Event::Displace)?;
                    writes.push(Mutation::History(Box::new(displaced)));
                    if let Some(color) = current.locked_color {
                        let mut service = self.ports.store.service(color).await?;
                        service.lock.release(current.number);
                        writes.push(Mutation::Service(Box::new(service)));
                    }
                }
                (_, _, Status::Parked) => return Err(ManagerError::OperationParked(in_progress.id)),
                _ => return Err(ManagerError::OperationInFlight(in_progress.id)),
            }
        }
        if matches!(kind, OperationKind::Upgrade | OperationKind::Promote) {
            self.check_freezes(id).await?;
        }
        let move_to =
            |to| Move { from: site.service, to, routed: site.routed_service().unwrap_or(site.service) };
        let input = match kind {
            OperationKind::Provision => OperationInput::Provision(site.service),
            OperationKind::Upgrade => OperationInput::Upgrade(move_to(self.canary().await?)),
            OperationKind::Promote => OperationInput::Promote(move_to(self.canary().await?)),
            _ => OperationInput::Terminate,
        };
        let mut current = self.registry.queued(self.number().await?, input, &request.actor, now);
        current.retry_of = retry_of.cloned();
        let operation = OperationId::on(current.number, subject.clone());
        site.begin(current, now)?;
        writes.insert(0, Mutation::Site(Box::new(site)));
        let events = vec![queued_event(&operation, subject, now)];
        let batch = WriteBatch { events, ..WriteBatch::of(writes) };
        Ok(Decision { batch, accepted: Accepted::Operation(operation) })
    }

    /// Returns a site.
    ///
    /// # Errors
    /// Returns `not_found` if the site does not exist.
    pub async fn site(&self, id: &SiteId) -> Result<Site, ManagerError> {
        self.ports.store.site(id).await?.ok_or_else(|| ManagerError::no_site(id))
    }

    /// Returns sites ordered by id, starting after `after`, at most 1,000 per call.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn sites(
        &self,
        query: &SiteQuery,
        after: Option<&SiteId>,
        limit: usize,
    ) -> Result<Page<Site, SiteId>, ManagerError> {
        Ok(self.ports.store.sites(query, after, limit.min(1_000)).await?)
    }
}

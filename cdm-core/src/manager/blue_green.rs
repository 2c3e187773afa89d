//! Selects the active canary, deploys and rolls back images, and marks digests.

use super::submit::{Decision, queued_event};
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::operation::{
    Deploy, Event, Hooks, Operation, OperationInput, OperationState, Status, Subject,
};
use crate::domain::service::{Release, Verdict, rollback_choice};
use crate::domain::{
    Canonical, Color, Digest, Fleet, Freeze, OperationId, OperationKind, Service, Timestamp,
};
use crate::ports::{Canary, Mutation, ServiceView, SiteQuery, WriteBatch};

/// The image to deploy, and the service that is to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeployRequest {
    /// The digest of the image to deploy.
    pub digest: Digest,
    /// The color of the service; `None` for the active canary.
    pub service: Option<Color>,
    /// Whether the sites that are assigned to the service are routed to it after the deploy.
    pub promote: bool,
}

impl DeployRequest {
    pub(super) fn content(&self) -> Canonical {
        Canonical::new()
            .field("digest", self.digest)
            .optional("service", self.service)
            .field("promote", self.promote)
    }
}

/// The state of both services and the canary.
#[derive(Clone, Debug)]
pub struct FleetView {
    /// The color of the active canary service.
    pub canary: Color,
    /// The digest that the canary was set to.
    pub image: Option<Digest>,
    /// The blue service, then the green one.
    pub services: [ServiceStatus; 2],
    /// The number of the unfinished rollout that moves sites.
    pub rollout: Option<u64>,
    /// The freezes that are in force.
    pub freezes: Vec<Freeze>,
}

impl FleetView {
    /// Returns the state of a service.
    pub const fn service(&self, color: Color) -> &ServiceStatus {
        let [blue, green] = &self.services;
        match color {
            Color::Blue => blue,
            Color::Green => green,
        }
    }
}

/// The state of one service.
#[derive(Clone, Debug)]
pub struct ServiceStatus {
    /// The observed state of the workload.
    pub view: ServiceView,
    /// The number of sites that are assigned to the service.
    pub sites: u64,
    /// The verdict on the running digest.
    pub verdict: Verdict,
    /// The deploy in progress or parked.
    pub operation: Option<OperationId>,
    /// The releases of the service, newest first.
    pub releases: Vec<Release>,
}

/// Whether the caller overrides a bad verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// Respects the verdict. This is the default.
    #[default]
    No,
    /// Overrides the verdict and continues.
    Yes,
}

impl Force {
    pub(super) fn content(self) -> Canonical {
        Canonical::new().field("force", self == Self::Yes)
    }
}

/// The result of a select request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The operation; `None` if the service was already active.
    pub operation: Option<OperationId>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl Manager {
    /// Returns the active canary service, which is blue before the first select.
    pub(super) async fn canary(&self) -> Result<Color, ManagerError> {
        Ok(self.ports.cluster.canary().await?.map_or(Color::Blue, |canary| canary.color))
    }

    /// Returns the state of both services.
    ///
    /// # Errors
    /// Returns an error if a backend is unavailable.
    pub async fn services(&self) -> Result<FleetView, ManagerError> {
        let canary = self.ports.cluster.canary().await?;
        let fleet = self.ports.store.fleet().await?;
        let services = [self.service(Color::Blue).await?, self.service(Color::Green).await?];
        let Canary { color, digest, .. } = match canary {
            Some(canary) => canary,
            None => Canary {
                color: Color::Blue,
                digest: None,
                version: crate::ports::CanaryVersion(String::new()),
            },
        };
        let now = self.now();
        let freezes = fleet.freezes.into_iter().filter(|freeze| freeze.holds(now)).collect();
        Ok(FleetView { canary: color, image: digest, services, rollout: fleet.rollout, freezes })
    }

    async fn service(&self, color: Color) -> Result<ServiceStatus, ManagerError> {
        let (record, view) = self.service_with_verdict(color).await?;
        let query = SiteQuery { service: Some(color), ..SiteQuery::default() };
        let sites = self.ports.store.count(&query).await?;
        let running = record.releases.iter().find(|release| Some(release.digest) == view.digest);
        let verdict = running.map_or(Verdict::Unknown, |release| release.verdict);
        let operation =
            record.operation.as_ref().map(|state| OperationId::on(state.number, Subject::Service(color)));
        Ok(ServiceStatus { view, sites, verdict, operation, releases: record.releases })
    }

    /// Makes a service the active canary. The canary gets the image that the service runs.
    ///
    /// # Errors
    /// Returns `operation_in_flight` while another select is in progress or parked.
    pub async fn select(&self, request: &Request, color: Color) -> Result<Selected, ManagerError> {
        let view = self.ports.cluster.service(color).await?;
        let mut warnings = Vec::new();
        if !view.is_ready() {
            warnings.push(format!(
                "`{color}` is not ready: {} of {} pods are available",
                view.available, view.desired
            ));
        }
        let accepted = self
            .submit(request, Action::Select, color.as_str(), &Canonical::new(), || async {
                let fleet = self.ports.store.fleet().await?;
                if let Some(current) = &fleet.operation {
                    let in_progress = OperationId::on(current.number, Subject::Fleet);
                    let same = current.input == OperationInput::Select(color);
                    return match current.status {
                        _ if same => Ok(Decision::without_write(Accepted::Operation(in_progress))),
                        Status::Parked => Err(ManagerError::OperationParked(in_progress)),
                        _ => Err(ManagerError::OperationInFlight(in_progress)),
                    };
                }
                let active = self.ports.cluster.canary().await?;
                if active.is_some_and(|canary| canary.color == color && canary.digest == view.digest) {
                    return Ok(Decision::without_write(Accepted::Done));
                }
                let now = self.now();
                let current = self.registry.queued(
                    self.number().await?,
                    OperationInput::Select(color),
                    &request.actor,
                    now,
                );
                let id = OperationId::on(current.number, Subject::Fleet);
                let events = vec![queued_event(&id, Subject::Fleet, now)];
                let write = Mutation::Fleet(Box::new(Fleet { operation: Some(current), ..fleet }));
                Ok(Decision {
                    batch: WriteBatch { events, ..WriteBatch::of(vec![write]) },
                    accepted: Accepted::Operation(id),
                })
            })
            .await?;
        let operation = match accepted {
            Accepted::Operation(id) => Some(id),
            Accepted::Rollout(_) | Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => None,
        };
        Ok(Selected { operation, warnings })
    }

    /// Deploys an image to a service and runs its hooks. A parked deploy of the service ends as canceled.
    ///
    /// # Errors
    /// Returns `operation_in_flight` while a deploy of the service is in progress, and `rollout_in_flight` while a
    /// rollout moves sites to the service.
    pub async fn deploy(&self, request: &Request, deploy: DeployRequest) -> Result<Accepted, ManagerError> {
        self.submit(request, Action::Deploy, &deploy.digest.to_string(), &deploy.content(), || async move {
            let color = match deploy.service {
                Some(color) => color,
                None => self.canary().await?,
            };
            let image = Image::deployed(color, deploy.digest, deploy.promote);
            self.decide_deploy(request, &image, None).await
        })
        .await
    }

    /// Deploys the newest healthy digest other than the running one; see [`rollback_choice`].
    ///
    /// # Errors
    /// Returns `no_healthy_digest`, and the errors of [`Manager::deploy`].
    pub async fn rollback(
        &self,
        request: &Request,
        service: Option<Color>,
    ) -> Result<Accepted, ManagerError> {
        let target = service.map_or("canary", Color::as_str);
        self.submit(request, Action::RollBack, target, &Canonical::new(), || async move {
            let color = match service {
                Some(color) => color,
                None => self.canary().await?,
            };
            let digest = self.rollback_target(color).await?;
            let image = Image { rolls_back: true, ..Image::deployed(color, digest, false) };
            self.decide_deploy(request, &image, None).await
        })
        .await
    }

    /// Returns the digest that a rollback of a service would deploy now.
    ///
    /// # Errors
    /// Returns `no_healthy_digest` if no digest qualifies.
    pub async fn rollback_target(&self, color: Color) -> Result<Digest, ManagerError> {
        let (own, view) = self.service_with_verdict(color).await?;
        let (other, _) = self.service_with_verdict(color.other()).await?;
        rollback_choice(&own, &other, view.digest).ok_or(ManagerError::NoHealthyDigest)
    }

    pub(super) async fn decide_deploy(
        &self,
        request: &Request,
        image: &Image,
        retry_of: Option<&OperationId>,
    ) -> Result<Decision, ManagerError> {
        let (id, writes) = self.deploy_writes(request, image, retry_of).await?;
        let events = vec![queued_event(&id, Subject::Service(image.color), self.now())];
        Ok(Decision {
            batch: WriteBatch { events, ..WriteBatch::of(writes) },
            accepted: Accepted::Operation(id),
        })
    }

    /// Returns the writes that store a deploy in a service's record.
    pub(super) async fn deploy_writes(
        &self,
        request: &Request,
        image: &Image,
        retry_of: Option<&OperationId>,
    ) -> Result<(OperationId, Vec<Mutation>), ManagerError> {
        let Image { color, digest, promote, hooks, rolls_back } = *image;
        let mut service = self.ports.store.service(color).await?;
        let now = self.now();
        let mut writes = Vec::new();
        if let Some(operation) = &service.operation {
            writes.push(displace(Subject::Service(color), operation, now)?);
            let number = operation.number;
            service.lock.release(number);
        }
        let fleet = self.ports.store.fleet().await?;
        if let Some(rollout) = fleet.rollout.filter(|rollout| service.lock.moves.contains(rollout)) {
            return Err(ManagerError::RolloutInFlight(rollout));
        }
        if let Some(freeze) = fleet.frozen(now).filter(|_| promote) {
            return Err(ManagerError::Frozen(Box::new(freeze.clone())));
        }
        let input = OperationInput::Deploy(Box::new(Deploy {
            color,
            digest,
            promote,
            hooks,
            previous: None,
            rollout: None,
            rolls_back,
        }));
        let mut operation = self.registry.queued(self.number().await?, input, &request.actor, now);
        operation.retry_of = retry_of.cloned();
        let id = OperationId::on(operation.number, Subject::Service(color));
        service.operation = Some(operation);
        writes.insert(0, Mutation::Service(Box::new(service)));
        Ok((id, writes))
    }

    /// Rejects a digest that is bad on either service, unless the caller overrides the verdict.
    ///
    /// # Errors
    /// Returns `bad_digest`.
    pub(super) async fn reject_bad_digest(&self, digest: Digest, force: Force) -> Result<(), ManagerError> {
        match self.why_bad(digest).await?.filter(|_| force == Force::No) {
            Some(reason) => Err(ManagerError::BadDigest { digest, reason }),
            None => Ok(()),
        }
    }

    /// Returns why a digest is bad on either service; `None` if the digest is not bad.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn why_bad(&self, digest: Digest) -> Result<Option<String>, ManagerError> {
        for color in Color::ALL {
            let service = self.ports.store.service(color).await?;
            if let Some(release) = service.bad_release(&digest) {
                return Ok(Some(release.reason.clone().unwrap_or_else(|| "it was marked as bad".to_owned())));
            }
        }
        Ok(None)
    }

    /// Returns the releases of a service, newest first.
    ///
    /// # Errors
    /// Returns an error if a backend is unavailable.
    pub async fn history(&self, color: Color) -> Result<Vec<Release>, ManagerError> {
        Ok(self.service_with_verdict(color).await?.0.releases)
    }

    /// Returns a service's record with its current verdict, which can depend on time alone, and the observed state of
    /// the service.
    async fn service_with_verdict(&self, color: Color) -> Result<(Service, ServiceView), ManagerError> {
        let view = self.ports.cluster.service(color).await?;
        let mut service = self.ports.store.service(color).await?;
        service.confirm_healthy(view.is_ready() && view.digest == service.running, self.now());
        Ok((service, view))
    }

    /// Sets a user's verdict on a digest for both services.
    ///
    /// # Errors
    /// Returns `not_found` if the digest was never deployed.
    pub async fn mark(
        &self,
        request: &Request,
        digest: Digest,
        verdict: Verdict,
        reason: &str,
    ) -> Result<Accepted, ManagerError> {
        let content = Canonical::new().field("verdict", verdict.as_str()).field("reason", reason);
        self.submit(request, Action::Mark, &digest.to_string(), &content, || async {
            let mut writes = Vec::new();
            for color in Color::ALL {
                let mut service: Service = self.ports.store.service(color).await?;
                if service.releases.iter().any(|release| release.digest == digest) {
                    service.judge(&digest, verdict, reason);
                    writes.push(Mutation::Service(Box::new(service)));
                }
            }
            if writes.is_empty() {
                return Err(ManagerError::NotFound { what: format!("a release of `{digest}`") });
            }
            Ok(Decision { batch: WriteBatch::of(writes), accepted: Accepted::Done })
        })
        .await
    }
}

/// The image of a deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) color: Color,
    pub(super) digest: Digest,
    /// Whether the service's sites are routed to it after the deploy.
    pub(super) promote: bool,
    pub(super) hooks: Hooks,
    /// Whether the deploy rolls back the running digest.
    pub(super) rolls_back: bool,
}

impl Image {
    pub(super) const fn deployed(color: Color, digest: Digest, promote: bool) -> Self {
        Self { color, digest, promote, hooks: Hooks::Run, rolls_back: false }
    }
}

/// Ends a parked deploy as canceled, so that another deploy replaces it. Any other operation is an error.
fn displace(subject: Subject, operation: &OperationState, now: Timestamp) -> Result<Mutation, ManagerError> {
    let current = Operation::live(subject, operation.clone());
    match (operation.status, operation.input.kind()) {
        (Status::Parked, OperationKind::Deploy) => {}
        (Status::Parked, _) => return Err(ManagerError::OperationParked(current.id)),
        (_, _) => return Err(ManagerError::OperationInFlight(current.id)),
    }
    let mut displaced = Operation { finished_at: Some(now), ..current };
    displaced.state.status = operation.status.next(Event::Displace)?;
    Ok(Mutation::History(Box::new(displaced)))
}

//! What may be asked of the two services.

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

/// An image to deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeployRequest {
    /// The image.
    pub digest: Digest,
    /// The colour; the active canary where none is named.
    pub service: Option<Color>,
    /// Whether the colour's sites are routed to it afterwards.
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

/// Both services and which one is the canary.
#[derive(Clone, Debug)]
pub struct FleetView {
    /// The active service.
    pub canary: Color,
    /// The digest that the canary was given.
    pub image: Option<Digest>,
    /// Blue, then green.
    pub services: [ServiceStatus; 2],
    /// The unfinished rollout that moves sites.
    pub rollout: Option<u64>,
    /// What stops moves.
    pub freezes: Vec<Freeze>,
}

impl FleetView {
    /// How a service stands.
    pub const fn service(&self, color: Color) -> &ServiceStatus {
        let [blue, green] = &self.services;
        match color {
            Color::Blue => blue,
            Color::Green => green,
        }
    }
}

/// One service.
#[derive(Clone, Debug)]
pub struct ServiceStatus {
    /// How it stands.
    pub view: ServiceView,
    /// How many sites its record names.
    pub sites: u64,
    /// What is known of the digest that it runs.
    pub verdict: Verdict,
    /// The deploy at work on it.
    pub operation: Option<OperationId>,
    /// What was deployed to it, newest first.
    pub releases: Vec<Release>,
}

/// Whether the caller insists on what a verdict speaks against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// Not.
    #[default]
    No,
    /// Yes.
    Yes,
}

impl Force {
    pub(super) fn content(self) -> Canonical {
        Canonical::new().field("force", self == Self::Yes)
    }
}

/// What came of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The operation; `None` when it was active already.
    pub operation: Option<OperationId>,
    /// What the caller should know.
    pub warnings: Vec<String>,
}

impl Manager {
    /// The active canary service; blue before anything was selected.
    pub(super) async fn canary(&self) -> Result<Color, ManagerError> {
        Ok(self.ports.cluster.canary().await?.map_or(Color::Blue, |canary| canary.color))
    }

    /// Both services as they stand.
    ///
    /// # Errors
    /// When a backend does not answer.
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
        let (record, view) = self.judged(color).await?;
        let query = SiteQuery { service: Some(color), ..SiteQuery::default() };
        let sites = self.ports.store.count(&query).await?;
        let running = record.releases.iter().find(|release| Some(release.digest) == view.digest);
        let verdict = running.map_or(Verdict::Unknown, |release| release.verdict);
        let operation =
            record.operation.as_ref().map(|state| OperationId::on(state.number, Subject::Service(color)));
        Ok(ServiceStatus { view, sites, verdict, operation, releases: record.releases })
    }

    /// Makes a service the active canary. The canary takes the image that the service runs.
    ///
    /// # Errors
    /// `operation_in_flight` while another selection is at work.
    pub async fn select(&self, request: &Request, color: Color) -> Result<Selected, ManagerError> {
        let view = self.ports.cluster.service(color).await?;
        let mut warnings = Vec::new();
        if !view.is_ready() {
            warnings.push(format!(
                "`{color}` is not ready: {} of {} pods available",
                view.available, view.desired
            ));
        }
        let accepted = self
            .submit(request, Action::Select, color.as_str(), &Canonical::new(), || async {
                let fleet = self.ports.store.fleet().await?;
                if let Some(current) = &fleet.operation {
                    let at_work = OperationId::on(current.number, Subject::Fleet);
                    let same = current.input == OperationInput::Select(color);
                    return match current.status {
                        _ if same => Ok(Decision::answer(Accepted::Operation(at_work))),
                        Status::Parked => Err(ManagerError::OperationParked(at_work)),
                        _ => Err(ManagerError::OperationInFlight(at_work)),
                    };
                }
                let active = self.ports.cluster.canary().await?;
                if active.is_some_and(|canary| canary.color == color && canary.digest == view.digest) {
                    return Ok(Decision::answer(Accepted::Done));
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

    /// Sets an image on a colour and runs its hooks. A parked deploy of that colour ends cancelled.
    ///
    /// # Errors
    /// `operation_in_flight` while a deploy is at work on it; `rollout_in_flight` while a rollout moves sites to it.
    pub async fn deploy(&self, request: &Request, deploy: DeployRequest) -> Result<Accepted, ManagerError> {
        self.submit(request, Action::Deploy, &deploy.digest.to_string(), &deploy.content(), || async move {
            let color = match deploy.service {
                Some(color) => color,
                None => self.canary().await?,
            };
            let wanted = Image::deployed(color, deploy.digest, deploy.promote);
            self.decide_deploy(request, &wanted, None).await
        })
        .await
    }

    /// Deploys the newest healthy digest other than the one that runs; see
    /// [`rollback_choice`].
    ///
    /// # Errors
    /// `no_healthy_digest`, and those of [`Manager::deploy`].
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
            let wanted = Image { rolls_back: true, ..Image::deployed(color, digest, false) };
            self.decide_deploy(request, &wanted, None).await
        })
        .await
    }

    /// The digest that a rollback of a service would deploy now.
    ///
    /// # Errors
    /// `no_healthy_digest`.
    pub async fn rollback_target(&self, color: Color) -> Result<Digest, ManagerError> {
        let (own, view) = self.judged(color).await?;
        let (other, _) = self.judged(color.other()).await?;
        rollback_choice(&own, &other, view.digest).ok_or(ManagerError::NoHealthyDigest)
    }

    pub(super) async fn decide_deploy(
        &self,
        request: &Request,
        wanted: &Image,
        retry_of: Option<&OperationId>,
    ) -> Result<Decision, ManagerError> {
        let (id, writes) = self.deploy_writes(request, wanted, retry_of).await?;
        let events = vec![queued_event(&id, Subject::Service(wanted.color), self.now())];
        Ok(Decision {
            batch: WriteBatch { events, ..WriteBatch::of(writes) },
            accepted: Accepted::Operation(id),
        })
    }

    /// The writes that put a deploy into a colour's slot.
    pub(super) async fn deploy_writes(
        &self,
        request: &Request,
        wanted: &Image,
        retry_of: Option<&OperationId>,
    ) -> Result<(OperationId, Vec<Mutation>), ManagerError> {
        let Image { color, digest, promote, hooks, rolls_back } = *wanted;
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

    /// Refuses a digest that is bad on either service, unless the caller insists on it.
    ///
    /// # Errors
    /// `bad_digest`.
    pub(super) async fn refuse_bad(&self, digest: Digest, force: Force) -> Result<(), ManagerError> {
        match self.why_bad(digest).await?.filter(|_| force == Force::No) {
            Some(reason) => Err(ManagerError::BadDigest { digest, reason }),
            None => Ok(()),
        }
    }

    /// Why a digest is bad, where it is on either service.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn why_bad(&self, digest: Digest) -> Result<Option<String>, ManagerError> {
        for color in Color::ALL {
            let service = self.ports.store.service(color).await?;
            if let Some(release) = service.condemned(&digest) {
                return Ok(Some(release.reason.clone().unwrap_or_else(|| "it was marked".to_owned())));
            }
        }
        Ok(None)
    }

    /// What was deployed to a service, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn history(&self, color: Color) -> Result<Vec<Release>, ManagerError> {
        Ok(self.judged(color).await?.0.releases)
    }

    /// A colour with the verdict that time alone has brought, and how its service stands.
    async fn judged(&self, color: Color) -> Result<(Service, ServiceView), ManagerError> {
        let view = self.ports.cluster.service(color).await?;
        let mut service = self.ports.store.service(color).await?;
        service.ripen(view.is_ready() && view.digest == service.running, self.now());
        Ok((service, view))
    }

    /// A person's verdict on a digest, for both services.
    ///
    /// # Errors
    /// `not_found` when the digest was never deployed.
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

/// An image on its way to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) color: Color,
    pub(super) digest: Digest,
    /// Whether the service's sites are routed to it afterwards.
    pub(super) promote: bool,
    pub(super) hooks: Hooks,
    /// Whether what runs is taken back by it.
    pub(super) rolls_back: bool,
}

impl Image {
    pub(super) const fn deployed(color: Color, digest: Digest, promote: bool) -> Self {
        Self { color, digest, promote, hooks: Hooks::Run, rolls_back: false }
    }
}

/// A parked deploy ends cancelled when another takes its place; any other is in the way.
fn displace(subject: Subject, operation: &OperationState, now: Timestamp) -> Result<Mutation, ManagerError> {
    let at_work = Operation::live(subject, operation.clone());
    match (operation.status, operation.input.kind()) {
        (Status::Parked, OperationKind::Deploy) => {}
        (Status::Parked, _) => return Err(ManagerError::OperationParked(at_work.id)),
        (_, _) => return Err(ManagerError::OperationInFlight(at_work.id)),
    }
    let mut displaced = Operation { finished_at: Some(now), ..at_work };
    displaced.state.status = operation.status.next(Event::Displace)?;
    Ok(Mutation::History(Box::new(displaced)))
}

//! What may be asked of the two services.

use super::admit::{Decision, queued_event};
use super::{Accepted, Action, Request, ServiceError, Services};
use crate::domain::colour::{Release, Verdict, rollback_choice};
use crate::domain::operation::{Deploy, Event, Hooks, Operation, Slot, Status, Subject, Task};
use crate::domain::{Canonical, Colour, Digest, Fleet, Freeze, Kind, OperationId, Selector, Timestamp};
use crate::ports::{Batch, Canary, ServiceView, SiteQuery, Write};

/// An image to deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeployRequest {
    /// The image.
    pub digest: Digest,
    /// The colour; the active canary where none is named.
    pub service: Option<Selector>,
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
    pub canary: Selector,
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
    pub const fn service(&self, selector: Selector) -> &ServiceStatus {
        let [blue, green] = &self.services;
        match selector {
            Selector::Blue => blue,
            Selector::Green => green,
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

impl Services {
    /// The active canary service; blue before anything was selected.
    pub(super) async fn canary(&self) -> Result<Selector, ServiceError> {
        Ok(self.ports.cluster.canary().await?.map_or(Selector::Blue, |canary| canary.selector))
    }

    /// Both services as they stand.
    ///
    /// # Errors
    /// When a backend does not answer.
    pub async fn services(&self) -> Result<FleetView, ServiceError> {
        let canary = self.ports.cluster.canary().await?;
        let fleet = self.ports.store.fleet().await?;
        let services = [self.service(Selector::Blue).await?, self.service(Selector::Green).await?];
        let Canary { selector, digest, .. } = match canary {
            Some(canary) => canary,
            None => Canary {
                selector: Selector::Blue,
                digest: None,
                version: crate::ports::CanaryVersion(String::new()),
            },
        };
        let now = self.now();
        let freezes = fleet.freezes.into_iter().filter(|freeze| freeze.holds(now)).collect();
        Ok(FleetView { canary: selector, image: digest, services, rollout: fleet.rollout, freezes })
    }

    async fn service(&self, selector: Selector) -> Result<ServiceStatus, ServiceError> {
        let (colour, view) = self.judged(selector).await?;
        let query = SiteQuery { service: Some(selector), ..SiteQuery::default() };
        let sites = self.ports.store.count(&query).await?;
        let running = colour.releases.iter().find(|release| Some(release.digest) == view.digest);
        let verdict = running.map_or(Verdict::Unknown, |release| release.verdict);
        let operation =
            colour.slot.as_ref().map(|slot| OperationId::on(slot.number, Subject::Colour(selector)));
        Ok(ServiceStatus { view, sites, verdict, operation, releases: colour.releases })
    }

    /// Makes a service the active canary. The canary takes the image that the service runs.
    ///
    /// # Errors
    /// `operation_in_flight` while another selection is at work.
    pub async fn select(&self, request: &Request, selector: Selector) -> Result<Selected, ServiceError> {
        let view = self.ports.cluster.service(selector).await?;
        let mut warnings = Vec::new();
        if !view.is_ready() {
            warnings.push(format!(
                "`{selector}` is not ready: {} of {} pods available",
                view.available, view.desired
            ));
        }
        let accepted = self
            .admit(request, Action::Select, selector.as_str(), &Canonical::new(), || async {
                let fleet = self.ports.store.fleet().await?;
                if let Some(slot) = &fleet.slot {
                    let at_work = OperationId::on(slot.number, Subject::Fleet);
                    let same = slot.task == Task::Select(selector);
                    return match slot.status {
                        _ if same => Ok(Decision::answer(Accepted::Operation(at_work))),
                        Status::Parked => Err(ServiceError::OperationParked(at_work)),
                        _ => Err(ServiceError::OperationInFlight(at_work)),
                    };
                }
                let active = self.ports.cluster.canary().await?;
                if active.is_some_and(|canary| canary.selector == selector && canary.digest == view.digest) {
                    return Ok(Decision::answer(Accepted::Done));
                }
                let now = self.now();
                let slot =
                    self.registry.queued(self.number().await?, Task::Select(selector), &request.actor, now);
                let id = OperationId::on(slot.number, Subject::Fleet);
                let events = vec![queued_event(&id, Subject::Fleet, now)];
                let write = Write::Fleet(Box::new(Fleet { slot: Some(slot), ..fleet }));
                Ok(Decision {
                    batch: Batch { events, ..Batch::of(vec![write]) },
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
    pub async fn deploy(&self, request: &Request, deploy: DeployRequest) -> Result<Accepted, ServiceError> {
        self.admit(request, Action::Deploy, &deploy.digest.to_string(), &deploy.content(), || async move {
            let selector = match deploy.service {
                Some(selector) => selector,
                None => self.canary().await?,
            };
            let wanted = Image::deployed(selector, deploy.digest, deploy.promote);
            self.decide_deploy(request, &wanted, None).await
        })
        .await
    }

    /// Deploys the newest healthy digest other than the one that runs; see
    /// [`rollback_choice`].
    ///
    /// # Errors
    /// `no_healthy_digest`, and those of [`Services::deploy`].
    pub async fn rollback(
        &self,
        request: &Request,
        service: Option<Selector>,
    ) -> Result<Accepted, ServiceError> {
        let target = service.map_or("canary", Selector::as_str);
        self.admit(request, Action::RollBack, target, &Canonical::new(), || async move {
            let selector = match service {
                Some(selector) => selector,
                None => self.canary().await?,
            };
            let digest = self.rollback_target(selector).await?;
            let wanted = Image { rolls_back: true, ..Image::deployed(selector, digest, false) };
            self.decide_deploy(request, &wanted, None).await
        })
        .await
    }

    /// The digest that a rollback of a service would deploy now.
    ///
    /// # Errors
    /// `no_healthy_digest`.
    pub async fn rollback_target(&self, selector: Selector) -> Result<Digest, ServiceError> {
        let (own, view) = self.judged(selector).await?;
        let (other, _) = self.judged(selector.other()).await?;
        rollback_choice(&own, &other, view.digest).ok_or(ServiceError::NoHealthyDigest)
    }

    pub(super) async fn decide_deploy(
        &self,
        request: &Request,
        wanted: &Image,
        retry_of: Option<&OperationId>,
    ) -> Result<Decision, ServiceError> {
        let (id, writes) = self.deploy_writes(request, wanted, retry_of).await?;
        let events = vec![queued_event(&id, Subject::Colour(wanted.selector), self.now())];
        Ok(Decision { batch: Batch { events, ..Batch::of(writes) }, accepted: Accepted::Operation(id) })
    }

    /// The writes that put a deploy into a colour's slot.
    pub(super) async fn deploy_writes(
        &self,
        request: &Request,
        wanted: &Image,
        retry_of: Option<&OperationId>,
    ) -> Result<(OperationId, Vec<Write>), ServiceError> {
        let Image { selector, digest, promote, hooks, rolls_back } = *wanted;
        let mut colour = self.ports.store.colour(selector).await?;
        let now = self.now();
        let mut writes = Vec::new();
        if let Some(slot) = &colour.slot {
            writes.push(displace(Subject::Colour(selector), slot, now)?);
            let number = slot.number;
            colour.hold.release(number);
        }
        let fleet = self.ports.store.fleet().await?;
        if let Some(rollout) = fleet.rollout.filter(|rollout| colour.hold.moves.contains(rollout)) {
            return Err(ServiceError::RolloutInFlight(rollout));
        }
        if let Some(freeze) = fleet.frozen(now).filter(|_| promote) {
            return Err(ServiceError::Frozen(Box::new(freeze.clone())));
        }
        let task = Task::Deploy(Box::new(Deploy {
            selector,
            digest,
            promote,
            hooks,
            previous: None,
            rollout: None,
            rolls_back,
        }));
        let mut slot = self.registry.queued(self.number().await?, task, &request.actor, now);
        slot.retry_of = retry_of.cloned();
        let id = OperationId::on(slot.number, Subject::Colour(selector));
        colour.slot = Some(slot);
        writes.insert(0, Write::Colour(Box::new(colour)));
        Ok((id, writes))
    }

    /// Refuses a digest that is bad on either service, unless the caller insists on it.
    ///
    /// # Errors
    /// `bad_digest`.
    pub(super) async fn refuse_bad(&self, digest: Digest, force: Force) -> Result<(), ServiceError> {
        match self.why_bad(digest).await?.filter(|_| force == Force::No) {
            Some(reason) => Err(ServiceError::BadDigest { digest, reason }),
            None => Ok(()),
        }
    }

    /// Why a digest is bad, where it is on either service.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn why_bad(&self, digest: Digest) -> Result<Option<String>, ServiceError> {
        for selector in Selector::ALL {
            let colour = self.ports.store.colour(selector).await?;
            if let Some(release) = colour.condemned(&digest) {
                return Ok(Some(release.reason.clone().unwrap_or_else(|| "it was marked".to_owned())));
            }
        }
        Ok(None)
    }

    /// What was deployed to a service, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn history(&self, selector: Selector) -> Result<Vec<Release>, ServiceError> {
        Ok(self.judged(selector).await?.0.releases)
    }

    /// A colour with the verdict that time alone has brought, and how its service stands.
    async fn judged(&self, selector: Selector) -> Result<(Colour, ServiceView), ServiceError> {
        let view = self.ports.cluster.service(selector).await?;
        let mut colour = self.ports.store.colour(selector).await?;
        colour.ripen(view.is_ready() && view.digest == colour.running, self.now());
        Ok((colour, view))
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
    ) -> Result<Accepted, ServiceError> {
        let content = Canonical::new().field("verdict", verdict.as_str()).field("reason", reason);
        self.admit(request, Action::Mark, &digest.to_string(), &content, || async {
            let mut writes = Vec::new();
            for selector in Selector::ALL {
                let mut colour: Colour = self.ports.store.colour(selector).await?;
                if colour.releases.iter().any(|release| release.digest == digest) {
                    colour.judge(&digest, verdict, reason);
                    writes.push(Write::Colour(Box::new(colour)));
                }
            }
            if writes.is_empty() {
                return Err(ServiceError::NotFound { what: format!("a release of `{digest}`") });
            }
            Ok(Decision { batch: Batch::of(writes), accepted: Accepted::Done })
        })
        .await
    }
}

/// An image on its way to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) selector: Selector,
    pub(super) digest: Digest,
    /// Whether the service's sites are routed to it afterwards.
    pub(super) promote: bool,
    pub(super) hooks: Hooks,
    /// Whether what runs is taken back by it.
    pub(super) rolls_back: bool,
}

impl Image {
    pub(super) const fn deployed(selector: Selector, digest: Digest, promote: bool) -> Self {
        Self { selector, digest, promote, hooks: Hooks::Run, rolls_back: false }
    }
}

/// A parked deploy ends cancelled when another takes its place; any other is in the way.
fn displace(subject: Subject, slot: &Slot, now: Timestamp) -> Result<Write, ServiceError> {
    let at_work = Operation::live(subject, slot.clone());
    match (slot.status, slot.task.kind()) {
        (Status::Parked, Kind::Deploy) => {}
        (Status::Parked, _) => return Err(ServiceError::OperationParked(at_work.id)),
        (_, _) => return Err(ServiceError::OperationInFlight(at_work.id)),
    }
    let mut displaced = Operation { finished_at: Some(now), ..at_work };
    displaced.slot.status = slot.status.next(Event::Displace)?;
    Ok(Write::History(Box::new(displaced)))
}

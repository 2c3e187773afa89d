//! A site's record and the changes that operations and rollouts make to it.

use super::fence::{ClaimToken, Direction, Epoch, Fence};
use super::lifecycle::{Event, Illegal, Life, Phase, State};
use super::operation::{Member, Move, OperationInput, OperationState, Position, Status, TerminalStatus};
use super::{
    Actor, Color, Digest, Hostnames, ObjectPrefix, SiteId, SiteName, Theme, Timestamp, Uid, WorkerId,
};

/// A site's record.
///
/// The record contains the operation in progress, so that one conditional write changes both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The id that users choose. It can be reused after the site was terminated.
    pub id: SiteId,
    /// The uid that names all resources of the site. It never changes and is never reused.
    pub uid: Uid,
    /// The title of the site.
    pub name: SiteName,
    /// The theme that the site is created with.
    pub theme: Theme,
    /// The hostnames that the site serves.
    pub hostnames: Hostnames,
    /// The color of the service that the record assigns the site to.
    pub service: Color,
    /// The last confirmed route and the fence that it carried; `None` if the site has no route.
    pub route: Option<Routed>,
    /// The phase of the site's lifecycle when no operation is in progress.
    pub phase: Phase,
    /// Whether the site was ever active.
    pub activation: Activation,
    /// The operation in progress or parked.
    pub operation: Option<OperationState>,
    /// The highest claim token of a rollout that the site has accepted.
    pub claim_token: ClaimToken,
    /// The outcome of the last rollout that claimed the site.
    pub last_outcome: Option<LastOutcome>,
    /// When the site was created.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
    /// The version of the record, raised by every write.
    pub version: u64,
}

/// Whether a site was ever active. The database content of a site that was active is removed only by a terminate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Activation {
    /// The site was never active.
    Never,
    /// The site is or was active.
    Ever,
    /// The record predates this field. A site in a phase before activation was never active, because no transition
    /// leads back to such a phase.
    #[default]
    Unrecorded,
}

/// A route as it was last confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Routed {
    /// The color of the service that the route points to.
    pub service: Color,
    /// The fence that the route carries.
    pub fence: Fence,
}

/// The outcome of one direction of a rollout for a site. The record keeps it until the next rollout, so that a new
/// owner of the rollout learns the outcomes that the lost owner did not store in the member list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LastOutcome {
    /// The number of the rollout.
    pub rollout: u64,
    /// The direction of the rollout.
    pub direction: Direction,
    /// The outcome for the site.
    pub outcome: super::rollout::MemberOutcome,
    /// The digest that the target ran when the site was moved to it or probed on it.
    pub digest: Option<Digest>,
}

/// The change that a finished step makes to a site's record. It is written together with the step's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteChange {
    /// The route was confirmed.
    Routed(Routed),
    /// The route was removed.
    Unrouted,
    /// The site is assigned to this service.
    Serve(Color),
}

/// A rollout's claim on a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The id of the claimed site.
    pub id: SiteId,
    /// The uid of the claimed site. A site with the same id and another uid counts as gone.
    pub uid: Uid,
    /// The owner's right to claim sites.
    pub claim_token: ClaimToken,
    /// The purpose of the claim.
    pub intent: ClaimIntent,
    /// The index of the site in the rollout's member list.
    pub ordinal: u32,
    /// The number of the member's operation.
    pub number: u64,
    /// The worker that owns the rollout.
    pub owner: WorkerId,
    /// The actor that requested the rollout.
    pub requested_by: Actor,
    /// The current time, which the record stores as its last change.
    pub at: Timestamp,
}

/// The purpose of a rollout's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimIntent {
    /// Upgrade the site to this service.
    Upgrade(Color),
    /// Promote the site to this service.
    Promote(Color),
    /// Only take over what a lost owner has begun. If the lost owner has not begun, the claim keeps it from claiming
    /// the site later.
    Recover,
}

/// The result of a successful claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The site is claimed for the caller.
    Taken {
        /// The services that the move goes from and to.
        course: Move,
        /// The last confirmed route.
        route: Option<Routed>,
        /// The operation's epoch: the first epoch of the direction, or a higher one if a lost owner was replaced.
        epoch: Epoch,
        /// The version of the record after the claim.
        version: u64,
    },
    /// [`ClaimIntent::Recover`] found no operation of the member. The lost owner cannot claim the site any more.
    FencedOff,
}

/// Why a site rejects a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ClaimRefused {
    /// The site does not exist, has another uid, or is being terminated.
    #[error("the site no longer exists")]
    Gone,
    /// The site is not active.
    #[error("the site is not active")]
    NotActive,
    /// Another operation is in progress.
    #[error("another operation is in progress on the site")]
    Busy,
    /// The site has accepted a higher claim token, so the caller is no longer the owner of the rollout.
    #[error("another worker owns the rollout")]
    Fenced,
    /// The rollout has already stored an outcome for the site in this direction.
    #[error("the site already has an outcome in this rollout")]
    AlreadyResolved(super::rollout::MemberOutcome, Option<Digest>),
}

/// The release of a claimed site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseClaim {
    /// The id of the claimed site.
    pub id: SiteId,
    /// The claim token of the claim.
    pub claim_token: ClaimToken,
    /// The fence of the claim.
    pub fence: Fence,
    /// The outcome for the site; `None` if nothing was done and the member is still pending.
    pub outcome: Option<super::rollout::MemberOutcome>,
    /// The digest that the target ran when the site was moved to it or probed on it.
    pub digest: Option<Digest>,
    /// The service to record, if it changes.
    pub service: Option<Color>,
    /// The route to record, if one was confirmed.
    pub route: Option<Routed>,
    /// The current time, which the record stores as its last change.
    pub at: Timestamp,
}

impl Site {
    /// Returns the site's position in the lifecycle.
    pub fn life(&self) -> Life {
        Life::Present {
            phase: self.phase,
            work: self.operation.as_ref().map(|operation| operation.input.kind()),
        }
    }

    /// Returns the state that users see.
    pub fn state(&self) -> State {
        self.life().state().unwrap_or(State::Creating)
    }

    /// Returns the service that the last confirmed route points to.
    pub fn routed_service(&self) -> Option<Color> {
        self.route.map(|route| route.service)
    }

    /// Returns whether no visitor can have used the site: it was never active and has no route.
    pub fn is_unused(&self) -> bool {
        let inactive = match self.activation {
            Activation::Never => true,
            Activation::Ever => crate::bug!(ActiveDatabaseRenewed),
            Activation::Unrecorded => matches!(self.phase, Phase::New | Phase::Created),
        };
        inactive && self.phase != Phase::Active && self.route.is_none()
    }

    /// Returns whether the route points to another service than the record assigns.
    pub fn has_drifted(&self) -> bool {
        self.routed_service().is_some_and(|routed| routed != self.service)
    }

    /// Returns the prefix in the object store under which all files of the site are stored. It follows from the uid.
    pub const fn prefix(&self) -> ObjectPrefix {
        ObjectPrefix::of(self.uid)
    }

    /// Applies the change of a finished step.
    pub fn apply(&mut self, change: &SiteChange) {
        match change {
            SiteChange::Routed(route) => self.route = Some(*route),
            SiteChange::Unrouted => self.route = None,
            SiteChange::Serve(service) => self.service = *service,
        }
    }

    /// Stores an accepted operation in the record.
    ///
    /// # Errors
    /// Returns [`Illegal`] if the site's state does not allow the operation.
    pub fn begin(&mut self, operation: OperationState, now: Timestamp) -> Result<(), Illegal> {
        let parked = self.operation.as_ref().is_some_and(|operation| operation.status == Status::Parked);
        let kind = operation.input.kind();
        let event = if parked && kind == super::OperationKind::Terminate {
            Event::Displace
        } else {
            Event::Begin(kind)
        };
        self.life().next(event)?;
        self.operation = Some(operation);
        self.updated_at = now;
        Ok(())
    }

    /// Removes a finished operation from the record. Returns `None` if the operation removed the site.
    ///
    /// # Errors
    /// Returns [`Illegal`] if the state does not allow this end.
    pub fn end(mut self, end: TerminalStatus, now: Timestamp) -> Result<Option<Self>, Illegal> {
        match self.life().next(Event::End(end))? {
            Life::Absent => Ok(None),
            Life::Present { phase, .. } => {
                self.phase = phase;
                if phase == Phase::Active {
                    self.activation = Activation::Ever;
                }
                self.operation = None;
                self.updated_at = now;
                Ok(Some(self))
            }
        }
    }

    /// Claims the site for a rollout.
    ///
    /// # Errors
    /// See [`ClaimRefused`]. A rejected claim is not written.
    pub fn claim(&mut self, claim: &Claim) -> Result<Claimed, ClaimRefused> {
        let other = self.uid != claim.uid && !crate::bug!(NameNotUid);
        if other || self.state() == State::Terminating {
            return Err(ClaimRefused::Gone);
        }
        if claim.claim_token < self.claim_token && !crate::bug!(ClaimIgnoresGrant) {
            return Err(ClaimRefused::Fenced);
        }
        if let Some(last_outcome) = self.last_outcome
            && (last_outcome.rollout, last_outcome.direction)
                == (claim.claim_token.rollout, claim.claim_token.direction)
        {
            self.claim_token = claim.claim_token;
            return Err(ClaimRefused::AlreadyResolved(last_outcome.outcome, last_outcome.digest));
        }
        let epoch = match &self.operation {
            None => match claim.intent {
                ClaimIntent::Recover => {
                    self.claim_token = claim.claim_token;
                    return Ok(Claimed::FencedOff);
                }
                ClaimIntent::Upgrade(_) | ClaimIntent::Promote(_) if self.phase != Phase::Active => {
                    return Err(ClaimRefused::NotActive);
                }
                ClaimIntent::Upgrade(to) | ClaimIntent::Promote(to) => {
                    let routed = self.routed_service().unwrap_or(self.service);
                    let course = Move { from: self.service, to, routed };
                    let promote = matches!(claim.intent, ClaimIntent::Promote(_));
                    let input = if promote {
                        OperationInput::Promote(course)
                    } else {
                        OperationInput::Upgrade(course)
                    };
                    self.operation = Some(claim.operation(input));
                    claim.claim_token.direction.first_epoch()
                }
            },
            Some(operation) if operation.number == claim.number => operation.epoch.next(),
            // Fencing off a lost owner does not require a free site.
            Some(_) if claim.intent == ClaimIntent::Recover => {
                self.claim_token = claim.claim_token;
                return Ok(Claimed::FencedOff);
            }
            Some(_) => return Err(ClaimRefused::Busy),
        };
        self.claim_token = claim.claim_token;
        self.updated_at = claim.at;
        let Some(operation) = &mut self.operation else { return Err(ClaimRefused::Busy) };
        operation.epoch = epoch;
        operation.owner = Some(claim.owner.clone());
        operation.member = operation.member.map(|member| Member { term: claim.claim_token.term, ..member });
        let course = match operation.input {
            OperationInput::Upgrade(course) | OperationInput::Promote(course) => course,
            OperationInput::Create
            | OperationInput::Provision(_)
            | OperationInput::Terminate
            | OperationInput::Deploy(_)
            | OperationInput::Select(_) => {
                return Err(ClaimRefused::Busy);
            }
        };
        Ok(Claimed::Taken { course, route: self.route, epoch, version: self.version + 1 })
    }

    /// Releases the site from a rollout's claim.
    ///
    /// # Errors
    /// Returns [`ClaimRefused::Fenced`] if the claim is no longer in force. Nothing is written in that case.
    pub fn release_claim(&mut self, complete: &ReleaseClaim) -> Result<(), ClaimRefused> {
        let ours = self.operation.as_ref().is_some_and(|operation| operation.fence() == complete.fence);
        if (!ours || self.claim_token != complete.claim_token) && !crate::bug!(CompleteIgnoresFence) {
            return Err(ClaimRefused::Fenced);
        }
        self.operation = None;
        self.service = complete.service.unwrap_or(self.service);
        self.route = complete.route.or(self.route);
        let (claim_token, digest) = (complete.claim_token, complete.digest);
        let last_outcome = |outcome| LastOutcome {
            rollout: claim_token.rollout,
            direction: claim_token.direction,
            outcome,
            digest,
        };
        self.last_outcome = complete.outcome.map(last_outcome).or(self.last_outcome);
        self.updated_at = complete.at;
        Ok(())
    }
}

impl Claim {
    /// Creates the operation that the claim stores in a free site.
    pub(crate) fn operation(&self, input: OperationInput) -> OperationState {
        OperationState {
            number: self.number,
            input,
            pipeline: 1,
            epoch: Direction::Forward.first_epoch(),
            owner: Some(self.owner.clone()),
            status: Status::Running,
            position: Position::Forward(0),
            attempts: 1,
            job: 1,
            next_poll_at: None,
            waiting_since: None,
            trouble_since: None,
            reason: None,
            cancel: false,
            locked_color: None,
            member: Some(Member {
                rollout: self.claim_token.rollout,
                ordinal: self.ordinal,
                direction: self.claim_token.direction,
                term: self.claim_token.term,
            }),
            steps: Vec::new(),
            requested_by: self.requested_by.clone(),
            retry_of: None,
            created_at: self.at,
            started_at: Some(self.at),
        }
    }
}

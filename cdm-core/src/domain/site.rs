//! A site's record, and everything that may be written to it.

use super::fence::{ClaimToken, Direction, Fence};
use super::lifecycle::{Event, Illegal, Life, Phase, State};
use super::operation::{Member, Move, OperationInput, OperationState, Position, Status, TerminalStatus};
use super::{
    Actor, Color, Digest, Hostnames, ObjectPrefix, SiteId, SiteName, Theme, Timestamp, Uid, WorkerId,
};

/// A site.
///
/// The operation at work on it lives inside, so that a record and its operation move in one conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What people call it; free again once the site is gone.
    pub id: SiteId,
    /// What everything of it is named by: immutable, never reused.
    pub uid: Uid,
    /// The site's title.
    pub name: SiteName,
    /// Its theme.
    pub theme: Theme,
    /// Where it is served.
    pub hostnames: Hostnames,
    /// The service that the record assigns it to.
    pub service: Color,
    /// Where its route was last seen to point, and the fence that was confirmed there.
    pub route: Option<Routed>,
    /// Where it rests.
    pub phase: Phase,
    /// Whether it was ever active.
    pub activation: Activation,
    /// The operation at work.
    pub operation: Option<OperationState>,
    /// The highest grant of a rollout that it has seen.
    pub claim_token: ClaimToken,
    /// How the last rollout left it.
    pub last_outcome: Option<LastOutcome>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Raised by every write.
    pub version: u64,
}

/// Whether a site was ever active. What is in the database of one that was is never removed but by a terminate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Activation {
    /// It was not.
    Never,
    /// It is, or was.
    Ever,
    /// Records of before do not say. A site that rests as created was not, since no transition leads back there.
    #[default]
    Unrecorded,
}

/// A route as it was last confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Routed {
    /// The service it points to.
    pub service: Color,
    /// The fence it carries.
    pub fence: Fence,
}

/// How one leg of a rollout left a site. It stays in the record until the next rollout, so that an owner that takes
/// over learns what its predecessor had no time to write down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LastOutcome {
    /// The rollout.
    pub rollout: u64,
    /// Which way.
    pub direction: Direction,
    /// How it ended.
    pub outcome: super::rollout::MemberOutcome,
    /// On which digest, where it was moved to the target or asked there.
    pub digest: Option<Digest>,
}

/// What a finished step changes in a site's record. It is written together with the step's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteChange {
    /// The route was confirmed.
    Routed(Routed),
    /// The route is gone.
    Unrouted,
    /// The record's service.
    Serve(Color),
}

/// A rollout's claim on a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which site.
    pub id: SiteId,
    /// Which incarnation of it; another one is refused as gone.
    pub uid: Uid,
    /// The owner's right to claim.
    pub claim_token: ClaimToken,
    /// What is claimed.
    pub intent: ClaimIntent,
    /// Which member it is.
    pub ordinal: u32,
    /// The operation number of that member.
    pub number: u64,
    /// The worker.
    pub owner: WorkerId,
    /// The rollout's requester.
    pub requested_by: Actor,
    /// Now.
    pub at: Timestamp,
}

/// What a rollout claims a site for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimIntent {
    /// To upgrade it to the service.
    Upgrade(Color),
    /// To promote it to the service.
    Promote(Color),
    /// Only to take over what a lost owner has begun, and to keep that owner out where it has not.
    Recover,
}

/// What a claim found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The site is the caller's.
    Taken {
        /// From where to where.
        course: Move,
        /// Where the route was last confirmed.
        route: Option<Routed>,
        /// The operation's epoch: the leg's first, or more when a lost owner was taken over.
        epoch: u64,
        /// The version after the claim.
        version: u64,
    },
    /// [`ClaimIntent::Recover`] found nothing begun; the lost owner is kept out from now on.
    FencedOff,
}

/// Why a site refuses a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ClaimRefused {
    /// It does not exist, is another incarnation, or is being terminated.
    #[error("the site is gone")]
    Gone,
    /// It is not active.
    #[error("the site is not active")]
    NotActive,
    /// Another operation is at work.
    #[error("another operation is at work on the site")]
    Busy,
    /// A higher grant was seen: the caller is not the owner any more.
    #[error("another owner has the rollout")]
    Fenced,
    /// This leg has settled it already.
    #[error("the site was settled before")]
    AlreadyResolved(super::rollout::MemberOutcome, Option<Digest>),
}

/// How a claimed site is let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseClaim {
    /// Which site.
    pub id: SiteId,
    /// Whose claim.
    pub claim_token: ClaimToken,
    /// The claim's fence.
    pub fence: Fence,
    /// How it went; `None` when nothing was done and the site is still to come.
    pub outcome: Option<super::rollout::MemberOutcome>,
    /// The digest that the target ran, where the site was moved there or asked there.
    pub digest: Option<Digest>,
    /// The service to record, if it changes.
    pub service: Option<Color>,
    /// The route to record, if one was confirmed.
    pub route: Option<Routed>,
    /// Now.
    pub at: Timestamp,
}

impl Site {
    /// Its life at this moment.
    pub fn life(&self) -> Life {
        Life::Present {
            phase: self.phase,
            work: self.operation.as_ref().map(|operation| operation.input.kind()),
        }
    }

    /// What users see.
    pub fn state(&self) -> State {
        self.life().state().unwrap_or(State::Creating)
    }

    /// Where its route was last seen to point.
    pub fn routed_service(&self) -> Option<Color> {
        self.route.map(|route| route.service)
    }

    /// Whether nobody can have used it yet: it never was active, and never had a route.
    pub fn is_unused(&self) -> bool {
        let inactive = match self.activation {
            Activation::Never => true,
            Activation::Ever => crate::bug!(ActiveDatabaseRenewed),
            Activation::Unrecorded => matches!(self.phase, Phase::New | Phase::Created),
        };
        inactive && self.phase != Phase::Active && self.route.is_none()
    }

    /// Whether its route points to another service than its record says.
    pub fn has_drifted(&self) -> bool {
        self.routed_service().is_some_and(|routed| routed != self.service)
    }

    /// The prefix of its objects.
    pub const fn prefix(&self) -> ObjectPrefix {
        ObjectPrefix::of(self.uid)
    }

    /// Writes what a step changed.
    pub fn apply(&mut self, change: &SiteChange) {
        match change {
            SiteChange::Routed(route) => self.route = Some(*route),
            SiteChange::Unrouted => self.route = None,
            SiteChange::Serve(service) => self.service = *service,
        }
    }

    /// Puts an accepted operation in place.
    ///
    /// # Errors
    /// [`Illegal`] when the site's state does not take it.
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

    /// Takes a finished operation out; `None` when the site goes with it.
    ///
    /// # Errors
    /// [`Illegal`] when the state does not take that end.
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

    /// A rollout takes the site.
    ///
    /// # Errors
    /// See [`ClaimRefused`]; a refusal writes nothing.
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
            Some(operation) if operation.number == claim.number => operation.epoch + 1,
            // Keeping a lost owner out does not need the site to be free.
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

    /// A rollout lets the site go.
    ///
    /// # Errors
    /// [`ClaimRefused::Fenced`] when the claim is not in force any more; nothing is written then.
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
    /// The operation that the claim puts into a free site.
    pub(crate) fn operation(&self, input: OperationInput) -> OperationState {
        OperationState {
            number: self.number,
            input,
            pipeline: 1,
            epoch: 1,
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

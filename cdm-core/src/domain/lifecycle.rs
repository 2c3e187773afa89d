//! The lifecycle of a site, as one table of transitions.
//!
//! The record of a site has a *phase*. The *state* that the API shows is the phase together with the kind of the
//! operation on the site that has not ended. Every change uses [`Life::next`], in the manager, in the engine and in
//! rollouts: the table exists only there.

use std::fmt;

use super::operation::{OperationKind, TerminalStatus};

/// The phase of a site: its state without a pending operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The record exists. The credentials may not exist yet.
    New,
    /// The record and the credentials exist.
    Created,
    /// WordPress is installed, and the route exists.
    Active,
}

/// The state of a site, as the API shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A create has not ended; it can be parked.
    Creating,
    /// No operation is pending, and WordPress is not installed.
    Created,
    /// A provision has not ended; it can be parked.
    Provisioning,
    /// No operation is pending, and the site is served.
    Active,
    /// An upgrade has not ended; it can be parked.
    Upgrading,
    /// A promote has not ended; it can be parked.
    Promoting,
    /// A terminate has not ended; it can be parked.
    Terminating,
}

impl State {
    /// All states, in the order of the lifecycle.
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Created,
        Self::Provisioning,
        Self::Active,
        Self::Upgrading,
        Self::Promoting,
        Self::Terminating,
    ];

    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Upgrading => "upgrading",
            Self::Promoting => "promoting",
            Self::Terminating => "terminating",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The position of a site in its lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    /// The site has no record.
    Absent,
    /// The site has a record.
    Present {
        /// The phase in the record.
        phase: Phase,
        /// The kind of the operation that has not ended, if there is one.
        work: Option<OperationKind>,
    },
}

/// An event in the lifecycle of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// An operation is accepted.
    Begin(OperationKind),
    /// A terminate is accepted while another operation is parked. The parked operation ends as canceled.
    Displace,
    /// The operation ends with this status.
    End(TerminalStatus),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(kind) => write!(f, "begin {kind}"),
            Self::Displace => f.write_str("displace the parked operation"),
            Self::End(end) => write!(f, "end {end}"),
        }
    }
}

/// An event that a site cannot have in its present state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event `{event}` is not possible while the site is `{state}`")]
pub struct Illegal {
    /// The name of the state; `absent` without a record.
    pub state: &'static str,
    /// The name of the event.
    pub event: String,
}

impl Life {
    /// Returns the state that the API shows. Returns `None` without a record.
    pub const fn state(self) -> Option<State> {
        match self {
            Self::Absent => None,
            Self::Present { phase, work } => Some(match (phase, work) {
                (_, Some(OperationKind::Terminate)) => State::Terminating,
                (Phase::New, _) => State::Creating,
                (Phase::Created, None) => State::Created,
                (Phase::Created, Some(_)) => State::Provisioning,
                (Phase::Active, Some(OperationKind::Upgrade)) => State::Upgrading,
                (Phase::Active, Some(OperationKind::Promote)) => State::Promoting,
                (Phase::Active, _) => State::Active,
            }),
        }
    }

    /// Returns the position after `event`.
    ///
    /// # Errors
    /// [`Illegal`] for each pair of position and event that is not a transition.
    pub fn next(self, event: Event) -> Result<Self, Illegal> {
        use OperationKind::{Create, Promote, Provision, Terminate, Upgrade};
        use Phase::{Active, Created, New};
        use TerminalStatus::{Cancelled, Failed, Succeeded};
        let at = |phase, work| Ok(Self::Present { phase, work });
        match (self, event) {
            (Self::Absent, Event::Begin(Create)) => at(New, Some(Create)),
            (Self::Absent, _) => Err(self.illegal(event)),
            (Self::Present { phase, work }, event) => match (phase, work, event) {
                (New, Some(Create), Event::End(Succeeded)) => at(Created, None),
                (New, Some(Create), Event::End(Failed | Cancelled)) => Ok(Self::Absent),

                (Created, None, Event::Begin(Provision)) => at(Created, Some(Provision)),
                (Created, Some(Provision), Event::End(Succeeded)) => at(Active, None),
                (Created, Some(Provision), Event::End(Failed | Cancelled)) => at(Created, None),

                (Active, None, Event::Begin(kind @ (Upgrade | Promote))) => at(Active, Some(kind)),
                (Active, Some(Upgrade | Promote), Event::End(_)) => at(Active, None),

                (Created | Active, None, Event::Begin(Terminate)) => at(phase, Some(Terminate)),
                (_, Some(Create | Provision | Upgrade | Promote), Event::Displace) => {
                    at(phase, Some(Terminate))
                }
                (_, Some(Terminate), Event::End(Succeeded)) => Ok(Self::Absent),
                // A site in phase `New`, whose create was displaced, has no phase to return to.
                (Created | Active, Some(Terminate), Event::End(Cancelled)) => at(phase, None),

                _ => Err(self.illegal(event)),
            },
        }
    }

    fn illegal(self, event: Event) -> Illegal {
        Illegal { state: self.state().map_or("absent", State::as_str), event: event.to_string() }
    }
}

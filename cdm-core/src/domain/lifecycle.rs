//! A site's life, as one table.
//!
//! A site rests in a *phase*; while an operation works on it, what users see as its *state* is the two together.
//! Recovery, services and the engine all go through [`Life::next`]: there is no second place that knows what may
//! follow what.

use std::fmt;

use super::operation::{OperationKind, TerminalStatus};

/// Where a site rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Recorded; its credentials may not exist yet.
    New,
    /// Recorded, with its credentials stored.
    Created,
    /// Installed and routed.
    Active,
}

/// What users see of a site's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The create pipeline is at work.
    Creating,
    /// At rest, not installed.
    Created,
    /// The provision pipeline is at work.
    Provisioning,
    /// At rest, served.
    Active,
    /// The upgrade pipeline is at work.
    Upgrading,
    /// The promote pipeline is at work.
    Promoting,
    /// The terminate pipeline is at work.
    Terminating,
}

impl State {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Created,
        Self::Provisioning,
        Self::Active,
        Self::Upgrading,
        Self::Promoting,
        Self::Terminating,
    ];

    /// The word that users see.
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

/// A site's life at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    /// No record.
    Absent,
    /// Recorded, with the kind of operation at work on it, if any.
    Present {
        /// Where it rests.
        phase: Phase,
        /// What works on it.
        work: Option<OperationKind>,
    },
}

/// What can happen to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// An operation is accepted.
    Begin(OperationKind),
    /// A terminate is accepted while another operation is parked; that one ends cancelled.
    Displace,
    /// The operation at work rests.
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

/// A transition that the table does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a site that is {state} does not take the event `{event}`")]
pub struct Illegal {
    /// The state's word; `absent` without a record.
    pub state: &'static str,
    /// The event in words.
    pub event: String,
}

impl Life {
    /// A site that rests in `phase`.
    pub const fn resting(phase: Phase) -> Self {
        Self::Present { phase, work: None }
    }

    /// What users see; `None` without a record.
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

    /// What follows when `event` happens.
    ///
    /// # Errors
    /// [`Illegal`], naming both, for every pair that the table does not have.
    pub fn next(self, event: Event) -> Result<Self, Illegal> {
        use OperationKind::{Create, Promote, Provision, Terminate, Upgrade};
        use Phase::{Active, Created, New};
        use TerminalStatus::{Cancelled, Failed, Succeeded};
        let at = |phase, work| Ok(Self::Present { phase, work });
        match (self, event) {
            (Self::Absent, Event::Begin(Create)) => at(New, Some(Create)),
            (Self::Absent, _) => Err(self.refuse(event)),
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
                // A site whose creation was displaced has nowhere to go back to.
                (Created | Active, Some(Terminate), Event::End(Cancelled)) => at(phase, None),

                _ => Err(self.refuse(event)),
            },
        }
    }

    fn refuse(self, event: Event) -> Illegal {
        Illegal { state: self.state().map_or("absent", State::as_str), event: event.to_string() }
    }
}

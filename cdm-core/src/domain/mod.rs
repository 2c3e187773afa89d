//! What may be, and what follows what. Pure: no I/O, no clock, no chance, no logging.
//!
//! Names are parsed at the door ([`SiteId`], [`Hostname`], [`Digest`], …) and trusted inside. A [`Site`] carries the
//! [`Slot`] of the one operation that may be at work on it. [`lifecycle`], [`operation`] and [`rollout`] hold one
//! table each of what may follow what.

mod canonical;
mod digest;
mod hostname;
mod keys;
mod name;
mod selector;
mod time;
mod uid;

pub mod administrator;
pub mod audit;
pub mod colour;
pub mod fence;
pub mod freeze;
pub mod lifecycle;
pub mod operation;
pub mod reason;
pub mod rollout;
pub mod search;
pub mod site;
pub mod token;
pub mod user;
pub mod webhook;

pub use audit::AuditEntry;
pub use canonical::{Canonical, Fingerprint};
pub use colour::{Colour, ColourChange, Fleet, Hold, HoldMode, Release, Verdict};
pub use digest::{Digest, ImageError};
pub use fence::{Fence, Grant, Leg};
pub use freeze::Freeze;
pub use hostname::{Hostname, Hostnames};
pub use keys::{DatabaseName, JobName, ObjectPrefix, SecretKind, SecretName, Template, WorkerId};
pub use lifecycle::{Phase, State};
pub use name::{Actor, IdempotencyKey, NameError, SiteId, SiteName, Theme, UserName};
pub use operation::{End, Kind, Operation, OperationId, Slot, Status, Subject, Task};
pub use reason::{Code, Reason};
pub use rollout::{Rollout, RolloutKind, RolloutScope, RolloutStatus};
pub use selector::Selector;
pub use site::{Routed, Site, SiteChange};
pub use time::{Tick, Timestamp};
pub use token::{Role, Token, TokenHash};
pub use uid::Uid;
pub use user::{PasswordHash, RecoveryHash, SecondFactor, SecondProof, Session, User, Users};

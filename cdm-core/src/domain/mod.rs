//! The rules of the platform: which values are valid, and which state may follow which. Pure: no I/O, no clock, no
//! randomness, no logging.
//!
//! Names are parsed on input ([`SiteId`], [`Hostname`], [`Digest`], …) and trusted afterward. A [`Site`] contains the
//! [`OperationState`] of the single operation that may be in progress on it. [`lifecycle`], [`operation`] and
//! [`rollout`] each contain one table of the allowed transitions.

mod canonical;
mod color;
mod digest;
mod hostname;
mod name;
mod naming;
mod time;
mod uid;

pub mod administrator;
pub mod audit;
pub mod fence;
pub mod freeze;
pub mod lifecycle;
pub mod operation;
pub mod reason;
pub mod rollout;
pub mod search;
pub mod service;
pub mod site;
pub mod token;
pub mod user;
pub mod webhook;

pub use audit::AuditEntry;
pub use canonical::{Canonical, Fingerprint};
pub use color::Color;
pub use digest::{Digest, ImageError};
pub use fence::{ClaimToken, Direction, Epoch, Fence, Term};
pub use freeze::Freeze;
pub use hostname::{Hostname, Hostnames};
pub use lifecycle::{Phase, State};
pub use name::{Actor, IdempotencyKey, NameError, SiteId, SiteName, Theme, UserName};
pub use naming::{DatabaseName, JobName, ObjectPrefix, SecretKind, SecretName, Template, WorkerId};
pub use operation::{
    Operation, OperationId, OperationInput, OperationKind, OperationState, Status, Subject, TerminalStatus,
};
pub use reason::{Reason, ReasonCode};
pub use rollout::{Rollout, RolloutKind, RolloutScope, RolloutSpec, RolloutStatus};
pub use service::{Fleet, LockMode, Release, Service, ServiceChange, ServiceLock, Verdict};
pub use site::{Routed, Site, SiteChange};
pub use time::{MonotonicTime, Timestamp};
pub use token::{Role, Token, TokenHash};
pub use uid::Uid;
pub use user::{PasswordHash, RecoveryHash, SecondFactor, SecondProof, Session, User, Users};

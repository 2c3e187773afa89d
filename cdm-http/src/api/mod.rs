//! The JSON types of the API, one module per resource, shared by the server, the console and the `cdm` command.
//!
//! Every type implements `Serialize` and `Deserialize`. An enumeration has the variant `Other` for a value of a newer
//! version, so a client can read the responses of a newer server. Ids and times are types of their own. A field of a
//! request that the server validates keeps the text of the caller, so that the error can name the field and its rule.
//!
//! The conversions from and to domain types are here too. No module below this one uses another module of the crate.

mod fields;
mod id;
mod time;
mod wire_enum;

pub mod audit;
pub mod event;
pub mod freeze;
pub mod gate;
pub mod health;
pub mod list;
pub mod operation;
pub mod plan;
pub mod problem;
pub mod rollout;
pub mod services;
pub mod site;
pub mod token;
pub mod user;
pub mod webhook;

pub use fields::{Fields, InvalidFields};
pub use id::{
    ActorName, Digest, FreezeId, OperationId, RolloutId, ServiceName, SessionId, SiteId, SiteUid, SubjectId,
    TokenId, UserName, WebhookId,
};
pub use time::Time;

use wire_enum::wire_enum;

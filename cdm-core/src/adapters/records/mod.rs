//! Records as JSON and back, for every store that keeps them as documents.
//!
//! Each definition mirrors one type of the domain, so that the domain knows nothing of storage; the compiler sees to it
//! that a mirror has every field. A document begins with the number of its format. A document of another format, or one
//! that breaks a rule of the domain, is an error and never a guess.

#[cfg(feature = "embedded")]
mod answers;
mod operations;
mod rollouts;
mod sites;
mod text;
mod users;
mod webhooks;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_with::{DeserializeAs, SerializeAs, serde_as};

use crate::domain::{
    AuditEntry, Fleet, Operation, OperationState, Rollout, Service, Site, Token, rollout::RolloutPage,
    site::LastOutcome, user::Users, webhook::Webhooks,
};
use crate::ports::{FeedEvent, IdempotencyRecord, StoreError};

#[cfg(feature = "embedded")]
pub(crate) use answers::Answer;

/// The format of every document that this version writes.
const FORMAT: u32 = 1;

/// A type of the domain that is kept as a document.
pub(crate) trait Record: Sized {
    /// Its mirror.
    type Mirror: for<'de> DeserializeAs<'de, Self> + SerializeAs<Self>;
}

#[serde_as]
#[derive(Serialize)]
#[serde(bound = "T: Record")]
struct Written<'a, T: Record> {
    format: u32,
    #[serde_as(as = "&T::Mirror")]
    record: &'a T,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[serde_as]
#[derive(Deserialize)]
#[serde(bound = "T: Record")]
struct Read<T: Record> {
    format: u32,
    #[serde_as(as = "T::Mirror")]
    record: T,
}

/// The document of a record.
///
/// # Errors
/// None that a record of the domain can cause.
pub(crate) fn encode<T: Record>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(&Written { format: FORMAT, record }).map_err(|error| unreadable(&error))
}

/// The record of a document.
///
/// # Errors
/// [`StoreError::Denied`] for another format, and for what is no such record.
pub(crate) fn decode<T: Record>(document: &str) -> Result<T, StoreError> {
    let read = part::<Read<T>>(document);
    // A document of another format is refused for that, whatever else it is; the usual one is gone through once.
    let format = match &read {
        Ok(read) => read.format,
        Err(_) => part::<Format>(document)?.format,
    };
    if format != FORMAT {
        let message = format!("a record of format {format} cannot be read by this version; use a newer one");
        return Err(StoreError::Denied(message));
    }
    Ok(read?.record)
}

fn part<T: DeserializeOwned>(document: &str) -> Result<T, StoreError> {
    serde_json::from_str(document).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::Denied(format!("a record cannot be read: {error}"))
}

/// Has a definition stand in for a type wherever `serde_with` wants one: in options, lists and boxes too.
macro_rules! mirror {
    ($mirror:ident, $type:ty) => {
        impl serde_with::SerializeAs<$type> for $mirror {
            fn serialize_as<S: serde::Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                Self::serialize(value, to)
            }
        }

        impl<'de> serde_with::DeserializeAs<'de, $type> for $mirror {
            fn deserialize_as<D: serde::Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                Self::deserialize(from)
            }
        }
    };
}
use mirror;

macro_rules! records {
    ($($type:ty => $mirror:ty),* $(,)?) => {
        $(impl Record for $type {
            type Mirror = $mirror;
        })*
    };
}

records! {
    Site => sites::SiteDef,
    Service => sites::ServiceDef,
    Fleet => sites::FleetDef,
    Webhooks => webhooks::WebhooksDef,
    Users => users::UsersDef,
    Operation => operations::OperationDef,
    Rollout => rollouts::RolloutDef,
    RolloutPage => rollouts::RolloutPageDef,
    AuditEntry => operations::AuditEntryDef,
    FeedEvent => operations::FeedEventDef,
    IdempotencyRecord => operations::IdempotencyRecordDef,
    Token => operations::TokenDef,
    OperationState => operations::OperationStateDef,
    LastOutcome => sites::LastOutcomeDef,
}

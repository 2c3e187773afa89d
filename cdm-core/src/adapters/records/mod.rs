//! Records as JSON documents, for every store that keeps documents.
//!
//! Each definition mirrors one type of the domain, so that the domain does not depend on storage; the compiler checks
//! that a mirror has every field. A document begins with the number of its format. A document in another format, or one
//! that violates a rule of the domain, is an error and is never guessed.

#[cfg(feature = "embedded")]
mod claim_response;
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
pub(crate) use claim_response::ClaimResponse;

/// The format of every document that this version writes.
const FORMAT: u32 = 1;

/// A type of the domain that is stored as a document.
pub(crate) trait Record: Sized {
    /// The type that defines the JSON of the document.
    type Mirror: for<'de> DeserializeAs<'de, Self> + SerializeAs<Self>;
}

#[serde_as]
#[derive(Serialize)]
#[serde(bound = "T: Record")]
struct Encoded<'a, T: Record> {
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
struct Decoded<T: Record> {
    format: u32,
    #[serde_as(as = "T::Mirror")]
    record: T,
}

/// Encodes a record as a document.
///
/// # Errors
/// Never for a valid record of the domain.
pub(crate) fn encode<T: Record>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(&Encoded { format: FORMAT, record }).map_err(|error| invalid(&error))
}

/// Decodes a document.
///
/// # Errors
/// [`StoreError::Denied`] for a document in another format, or with invalid content.
pub(crate) fn decode<T: Record>(document: &str) -> Result<T, StoreError> {
    let read = parse::<Decoded<T>>(document);
    // A document in another format is rejected for its format, even if its content is invalid too. A valid document is
    // parsed only once.
    let format = match &read {
        Ok(read) => read.format,
        Err(_) => parse::<Format>(document)?.format,
    };
    if format != FORMAT {
        let message = format!(
            "a record has format {format}, which this version does not support; start a newer version"
        );
        return Err(StoreError::Denied(message));
    }
    Ok(read?.record)
}

fn parse<T: DeserializeOwned>(document: &str) -> Result<T, StoreError> {
    serde_json::from_str(document).map_err(|error| invalid(&error))
}

fn invalid(error: &serde_json::Error) -> StoreError {
    StoreError::Denied(format!("a record is invalid: {error}"))
}

/// Makes a mirror usable for its type in `serde_as` attributes, also inside options, lists and boxes.
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

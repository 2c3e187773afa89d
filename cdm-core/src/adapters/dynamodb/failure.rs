//! What DynamoDB's errors mean to a caller.

use std::error::Error;

use aws_sdk_dynamodb::Error as ManagerError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::item::Item;
use crate::adapters::aws::{AwsFailure, told};
use crate::ports::{ErrorKind, Outcome, PortError, StoreError, WriteError};

const PORT: &str = "store";

/// Why a request did not do what it was to do.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The condition of the one change was not met; what lies there, where the answer says it.
    Unmet(Option<Item>),
    /// A transaction was given up; for each change why, in their order.
    Cancelled(Vec<Unmet>),
    /// Another write is at the same item; nothing was done.
    Busy,
    /// The table does not do it, and nothing was done.
    Not(StoreError),
    /// Nobody knows what was done.
    Lost(StoreError),
}

/// What one change of a transaction met.
#[derive(Clone, Debug)]
pub(super) enum Unmet {
    /// Nothing in its way.
    Nothing,
    /// Its condition was not met; what lies there.
    Condition(Option<Item>),
}

impl Failure {
    /// That no answer came in time.
    pub(super) fn late(lost: bool) -> Self {
        let error = StoreError::Unavailable("the deadline has passed".to_owned());
        if lost { Self::Lost(error) } else { Self::Not(error) }
    }

    /// What a caller is told who has no conditions that could go unmet.
    pub(super) fn refused<T>(self) -> Outcome<T, WriteError> {
        match self {
            Self::Lost(error) => Outcome::Unknown(WriteError::Store(error)),
            failure => Outcome::NotApplied(WriteError::Store(failure.into_error())),
        }
    }

    /// The same of a read.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Not(error) | Self::Lost(error) => error,
            Self::Busy | Self::Unmet(_) | Self::Cancelled(_) => {
                StoreError::Unavailable("another write is at the same record".to_owned())
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Not(error)
    }
}

/// The store's error as that of a port.
pub(super) fn of_port(port: &'static str, error: &StoreError) -> PortError {
    let kind = match error {
        StoreError::Unavailable(_) => ErrorKind::Unavailable,
        StoreError::Full(_) => ErrorKind::Full,
        StoreError::Throttled => ErrorKind::Throttled(None),
        StoreError::Denied(_) => ErrorKind::Denied,
    };
    PortError::new(port, kind, error.to_string())
}

/// Reads an error of the client.
pub(super) fn failed<E>(error: SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
    ManagerError: From<SdkError<E, HttpResponse>>,
{
    let told = told(&error);
    match ManagerError::from(error) {
        ManagerError::ConditionalCheckFailedException(unmet) => Failure::Unmet(unmet.item),
        ManagerError::TransactionCanceledException(cancelled) => {
            let reasons = cancelled.cancellation_reasons.unwrap_or_default();
            let code = |reason: &aws_sdk_dynamodb::types::CancellationReason| {
                reason.code.clone().unwrap_or_default()
            };
            let codes: Vec<String> = reasons.iter().map(code).collect();
            of_transaction(&codes).unwrap_or_else(|| {
                let unmet = codes.iter().zip(reasons).map(|(code, reason)| match code.as_str() {
                    "ConditionalCheckFailed" => Unmet::Condition(reason.item),
                    _ => Unmet::Nothing,
                });
                Failure::Cancelled(unmet.collect())
            })
        }
        ManagerError::TransactionConflictException(_)
        | ManagerError::TransactionInProgressException(_)
        | ManagerError::ReplicatedWriteConflictException(_) => Failure::Busy,
        _ => of_rest(&told),
    }
}

/// Why a transaction was given up, where it was not for a condition.
fn of_transaction(codes: &[String]) -> Option<Failure> {
    let any = |wanted: &[&str]| codes.iter().any(|code| wanted.contains(&code.as_str()));
    if any(&["ConditionalCheckFailed"]) {
        return None;
    }
    if any(&["TransactionConflict"]) {
        return Some(Failure::Busy);
    }
    if any(&["ProvisionedThroughputExceeded", "ThrottlingError"]) {
        return Some(Failure::Not(StoreError::Throttled));
    }
    let code = codes.iter().find(|code| !code.is_empty() && *code != "None");
    let code = code.map_or("no reason given", String::as_str);
    Some(Failure::Not(StoreError::Denied(format!("DynamoDB gave a transaction up ({code})"))))
}

fn of_rest(told: &AwsFailure) -> Failure {
    let message = told.error(PORT).message;
    let error = match told.kind {
        ErrorKind::Throttled(_) => StoreError::Throttled,
        ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Full => StoreError::Unavailable(message),
        ErrorKind::NotFound => StoreError::Denied(
            "there is no such table, or it has not the indexes; `cdm-server --bootstrap` makes it".to_owned(),
        ),
        ErrorKind::Exists | ErrorKind::Foreign | ErrorKind::Gone | ErrorKind::Denied | ErrorKind::Invalid => {
            StoreError::Denied(message)
        }
    };
    if told.lost { Failure::Lost(error) } else { Failure::Not(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_says_what_it_was_given_up_for() {
        let of = |codes: &[&str]| of_transaction(&codes.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(of(&["None", "ConditionalCheckFailed", "TransactionConflict"]).is_none());
        assert!(matches!(of(&["None", "TransactionConflict"]), Some(Failure::Busy)));
        assert!(matches!(of(&["ThrottlingError", "None"]), Some(Failure::Not(StoreError::Throttled))));
        assert!(matches!(of(&["None", "ValidationError"]), Some(Failure::Not(StoreError::Denied(why)))
            if why.contains("ValidationError")));
    }
}

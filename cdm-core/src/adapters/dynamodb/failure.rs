//! The classification of DynamoDB's errors.

use std::error::Error;

use aws_sdk_dynamodb::Error as DynamoError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::item::Item;
use crate::adapters::aws::{AwsFailure, classify};
use crate::ports::{ErrorKind, Outcome, PortError, StoreError, WriteError};

const PORT: &str = "store";

/// Why a request failed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The condition of the single change failed; with the stored item, if the response has it.
    ConditionFailed(Option<Item>),
    /// The transaction was canceled; with the reason of each change, in order.
    Canceled(Vec<ChangeOutcome>),
    /// The item has a concurrent write; nothing was written.
    Conflict,
    /// The table rejected the request; nothing was written.
    NotApplied(StoreError),
    /// The outcome is unknown.
    Unknown(StoreError),
}

/// The result of one change in a canceled transaction.
#[derive(Clone, Debug)]
pub(super) enum ChangeOutcome {
    /// The change itself could have been written.
    Passed,
    /// Its condition failed; with the stored item, if there is one.
    ConditionFailed(Option<Item>),
}

impl Failure {
    /// Returns the failure of a request without a response before the deadline.
    pub(super) fn late(maybe_applied: bool) -> Self {
        let error = StoreError::Unavailable("the deadline has passed".to_owned());
        if maybe_applied { Self::Unknown(error) } else { Self::NotApplied(error) }
    }

    /// Returns the outcome for a caller that sets no condition.
    pub(super) fn into_outcome<T>(self) -> Outcome<T, WriteError> {
        match self {
            Self::Unknown(error) => Outcome::Unknown(WriteError::Store(error)),
            failure => Outcome::NotApplied(WriteError::Store(failure.into_error())),
        }
    }

    /// Returns the error for a caller that reads.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::NotApplied(error) | Self::Unknown(error) => error,
            Self::Conflict | Self::ConditionFailed(_) | Self::Canceled(_) => {
                StoreError::Unavailable("a concurrent write to the same record is in progress".to_owned())
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::NotApplied(error)
    }
}

/// Converts an error of the store to the error of a port.
pub(super) fn of_port(port: &'static str, error: &StoreError) -> PortError {
    let kind = match error {
        StoreError::Unavailable(_) => ErrorKind::Unavailable,
        StoreError::Full(_) => ErrorKind::Full,
        StoreError::Throttled => ErrorKind::Throttled(None),
        StoreError::Denied(_) => ErrorKind::Denied,
    };
    PortError::new(port, kind, error.to_string())
}

/// Classifies an error of the client.
pub(super) fn failed<E>(error: SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
    DynamoError: From<SdkError<E, HttpResponse>>,
{
    let failure = classify(&error);
    match DynamoError::from(error) {
        DynamoError::ConditionalCheckFailedException(unmet) => Failure::ConditionFailed(unmet.item),
        DynamoError::TransactionCanceledException(cancelled) => {
            let reasons = cancelled.cancellation_reasons.unwrap_or_default();
            let code = |reason: &aws_sdk_dynamodb::types::CancellationReason| {
                reason.code.clone().unwrap_or_default()
            };
            let codes: Vec<String> = reasons.iter().map(code).collect();
            of_transaction(&codes).unwrap_or_else(|| {
                let unmet = codes.iter().zip(reasons).map(|(code, reason)| match code.as_str() {
                    "ConditionalCheckFailed" => ChangeOutcome::ConditionFailed(reason.item),
                    _ => ChangeOutcome::Passed,
                });
                Failure::Canceled(unmet.collect())
            })
        }
        DynamoError::TransactionConflictException(_)
        | DynamoError::TransactionInProgressException(_)
        | DynamoError::ReplicatedWriteConflictException(_) => Failure::Conflict,
        _ => of_aws_failure(&failure),
    }
}

/// Returns why a transaction was canceled; `None` if a condition failed.
fn of_transaction(codes: &[String]) -> Option<Failure> {
    let any = |wanted: &[&str]| codes.iter().any(|code| wanted.contains(&code.as_str()));
    if any(&["ConditionalCheckFailed"]) {
        return None;
    }
    if any(&["TransactionConflict"]) {
        return Some(Failure::Conflict);
    }
    if any(&["ProvisionedThroughputExceeded", "ThrottlingError"]) {
        return Some(Failure::NotApplied(StoreError::Throttled));
    }
    let code = codes.iter().find(|code| !code.is_empty() && *code != "None");
    let code = code.map_or("no code", String::as_str);
    Some(Failure::NotApplied(StoreError::Denied(format!("DynamoDB canceled a transaction (`{code}`)"))))
}

fn of_aws_failure(failure: &AwsFailure) -> Failure {
    let message = failure.error(PORT).message;
    let error = match failure.kind {
        ErrorKind::Throttled(_) => StoreError::Throttled,
        ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Full => StoreError::Unavailable(message),
        ErrorKind::NotFound => StoreError::Denied(
            "the table or one of its indexes does not exist; create it with `cdm-server --bootstrap`"
                .to_owned(),
        ),
        ErrorKind::Exists | ErrorKind::Foreign | ErrorKind::Gone | ErrorKind::Denied | ErrorKind::Invalid => {
            StoreError::Denied(message)
        }
    };
    if failure.maybe_applied { Failure::Unknown(error) } else { Failure::NotApplied(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canceled_transaction_reports_its_cause() {
        let of = |codes: &[&str]| of_transaction(&codes.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(of(&["None", "ConditionalCheckFailed", "TransactionConflict"]).is_none());
        assert!(matches!(of(&["None", "TransactionConflict"]), Some(Failure::Conflict)));
        assert!(matches!(of(&["ThrottlingError", "None"]), Some(Failure::NotApplied(StoreError::Throttled))));
        assert!(
            matches!(of(&["None", "ValidationError"]), Some(Failure::NotApplied(StoreError::Denied(why)))
            if why.contains("ValidationError"))
        );
    }
}

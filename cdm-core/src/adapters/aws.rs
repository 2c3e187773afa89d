//! What the AWS adapters share: the HTTP client, credentials, timeouts, and the classification of errors.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use futures_util::future::{Either, select};
use futures_util::pin_mut;

use crate::domain::MonotonicTime;
use crate::ports::{Clock, ErrorKind, Outcome, PortError};

/// Timeout of one request, including its response; the deadline of a call may end the request earlier.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout of establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Which AWS account to use. A field that is `None` follows the environment and the profile, as in every AWS program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// The AWS region, such as `eu-central-1`. Default: `None`.
    pub region: Option<String>,
    /// The profile in the shared configuration files. Default: `None`.
    pub profile: Option<String>,
    /// One endpoint for every service, for a local stand-in of AWS. `None` (the default) uses the endpoints of AWS.
    pub endpoint: Option<String>,
}

/// A connection to an AWS account. Clones share the connections and the credentials.
#[derive(Clone)]
pub struct Aws {
    config: SdkConfig,
}

impl Aws {
    /// Loads credentials and region from the same places as the AWS command line: environment, profile, web identity,
    /// container, instance. Opens no connection, unless the profile assumes a role.
    ///
    /// The client retries nothing: the engine decides whether a request may be retried.
    pub async fn load(settings: &AwsSettings) -> Self {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(REQUEST_TIMEOUT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(endpoint) = &settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Self { config: loader.load().await }
    }

    /// Returns the SDK configuration, for the client of one service.
    pub(super) const fn config(&self) -> &SdkConfig {
        &self.config
    }
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws").field("region", &self.config.region()).finish_non_exhaustive()
    }
}

/// What the error of a request means to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AwsFailure {
    /// Whether the request may have taken effect, now or later.
    pub(super) maybe_applied: bool,
    /// How the caller should react.
    pub(super) kind: ErrorKind,
    /// The error code of the service, such as `ConditionalCheckFailedException`; empty if the response has none.
    pub(super) code: String,
}

impl AwsFailure {
    /// Returns the error of a port. The message has the error code of the service, but never its text, which may quote
    /// the request.
    pub(super) fn error(&self, port: &'static str) -> PortError {
        let code = &self.code;
        let message = match (self.kind, code.is_empty()) {
            (ErrorKind::Denied, true) => {
                "AWS credentials could not be loaded; check the environment, the profile and the role"
                    .to_owned()
            }
            (_, true) => "AWS did not respond".to_owned(),
            (ErrorKind::Denied, false) => format!("AWS denied the request (`{code}`)"),
            (ErrorKind::Throttled(_), false) => format!("AWS throttled the request (`{code}`)"),
            (ErrorKind::Unavailable, false) => format!("AWS failed to process the request (`{code}`)"),
            (_, false) => format!("AWS rejected the request (`{code}`)"),
        };
        PortError::new(port, self.kind, message)
    }

    /// Returns the outcome of a call that changes something.
    pub(super) fn outcome<T>(&self, port: &'static str) -> Outcome<T> {
        let error = self.error(port);
        if self.maybe_applied { Outcome::Unknown(error) } else { Outcome::NotApplied(error) }
    }

    const fn without_code(maybe_applied: bool, kind: ErrorKind) -> Self {
        Self { maybe_applied, kind, code: String::new() }
    }
}

/// Classifies an error. A rejection is certain; a missing response and a server error leave the outcome unknown.
pub(super) fn classify<E>(error: &SdkError<E, HttpResponse>) -> AwsFailure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => AwsFailure::without_code(false, ErrorKind::Invalid),
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(failure) if failure.is_user() => AwsFailure::without_code(false, ErrorKind::Invalid),
            Some(failure) if is_credentials_error(failure) => {
                AwsFailure::without_code(false, ErrorKind::Denied)
            }
            Some(_) | None => AwsFailure::without_code(true, ErrorKind::Unavailable),
        },
        SdkError::ServiceError(service) => {
            of_response(service.err().code().unwrap_or_default(), service.raw().status().as_u16())
        }
        // A timeout, a truncated response, and error kinds that later versions of the client may add.
        _ => AwsFailure::without_code(true, ErrorKind::Unavailable),
    }
}

/// Returns whether the request was never sent because no credentials could be loaded to sign it.
fn is_credentials_error(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("credentials") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn of_response(code: &str, status: u16) -> AwsFailure {
    let kind = match code {
        "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "SlowDown"
        | "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "LimitExceededException" => ErrorKind::Throttled(None),
        "AccessDenied"
        | "AccessDeniedException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => ErrorKind::Denied,
        // S3 reports with this code, and with status 400, that the request did not arrive in time.
        "RequestTimeout" => ErrorKind::Unavailable,
        _ => match status {
            404 => ErrorKind::NotFound,
            429 => ErrorKind::Throttled(None),
            401 | 403 => ErrorKind::Denied,
            // S3 may send status 200 and report the error in the body.
            ..300 | 500.. => ErrorKind::Unavailable,
            _ if code.ends_with("NotFoundException") => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        },
    };
    AwsFailure { maybe_applied: kind == ErrorKind::Unavailable, kind, code: code.to_owned() }
}

/// Returns the output of `work`, or `None` if `deadline` passes first. After `None`, the outcome of `work` is unknown.
pub(super) async fn before_deadline<T>(
    clock: &dyn Clock,
    deadline: MonotonicTime,
    work: impl Future<Output = T>,
) -> Option<T> {
    let late = clock.sleep_until(deadline);
    pin_mut!(work, late);
    match select(work, late).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), _)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_certain_and_a_server_error_is_not() {
        for (code, status, kind, maybe_applied) in [
            ("ConditionalCheckFailedException", 400, ErrorKind::Invalid, false),
            ("ResourceNotFoundException", 400, ErrorKind::NotFound, false),
            ("NoSuchBucket", 404, ErrorKind::NotFound, false),
            ("ThrottlingException", 400, ErrorKind::Throttled(None), false),
            ("SlowDown", 503, ErrorKind::Throttled(None), false),
            ("AccessDeniedException", 400, ErrorKind::Denied, false),
            ("InternalServerError", 500, ErrorKind::Unavailable, true),
            ("", 503, ErrorKind::Unavailable, true),
            ("InternalError", 200, ErrorKind::Unavailable, true),
            ("RequestTimeout", 400, ErrorKind::Unavailable, true),
        ] {
            let failure = of_response(code, status);
            assert_eq!((failure.kind, failure.maybe_applied), (kind, maybe_applied), "{code} {status}");
        }
    }
}

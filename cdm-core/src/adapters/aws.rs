//! What the AWS adapters share: one HTTP client, credentials, limits of time, and what an error says.

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

/// How long one request may take, answer and all; a call's deadline may end it earlier.
const REQUEST: Duration = Duration::from_secs(20);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);

/// Which account, by what every AWS program is told; nothing given: as the environment and the profile say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// The region.
    pub region: Option<String>,
    /// The profile of the shared configuration files.
    pub profile: Option<String>,
    /// One address for every service, where they are not AWS's own.
    pub endpoint: Option<String>,
}

/// An account to speak to; clones share its connections and credentials.
#[derive(Clone)]
pub struct Aws {
    config: SdkConfig,
}

impl Aws {
    /// Credentials and region are looked for where the AWS command line does: environment, profile, web identity,
    /// container, instance. Does not connect, unless a profile says that a role is to be assumed.
    ///
    /// Nothing is repeated by the client: whether a request may be, the engine decides.
    pub async fn load(settings: &AwsSettings) -> Self {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_timeout(REQUEST).build();
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

    /// For the client of one service.
    pub(super) const fn config(&self) -> &SdkConfig {
        &self.config
    }
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws").field("region", &self.config.region()).finish_non_exhaustive()
    }
}

/// What an error says of the request that met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AwsFailure {
    /// Whether the request may have taken effect, now or later.
    pub(super) lost: bool,
    /// What the caller can make of it.
    pub(super) kind: ErrorKind,
    /// The service's own word, such as `ConditionalCheckFailedException`; empty where it said none.
    pub(super) code: String,
}

impl AwsFailure {
    /// What is to be read of it: the service's word and never its sentence, which may quote what was sent.
    pub(super) fn error(&self, port: &'static str) -> PortError {
        let code = &self.code;
        let message = match (self.kind, code.is_empty()) {
            (ErrorKind::Denied, true) => "no AWS credentials are to be had".to_owned(),
            (_, true) => "AWS does not answer".to_owned(),
            (ErrorKind::Denied, false) => format!("AWS does not allow it ({code})"),
            (ErrorKind::Throttled(_), false) => format!("AWS asks for fewer calls ({code})"),
            (ErrorKind::Unavailable, false) => format!("AWS failed at it ({code})"),
            (_, false) => format!("AWS refuses it ({code})"),
        };
        PortError::new(port, self.kind, message)
    }

    /// What it is to a caller that changes something.
    pub(super) fn outcome<T>(&self, port: &'static str) -> Outcome<T> {
        let error = self.error(port);
        if self.lost { Outcome::Unknown(error) } else { Outcome::NotApplied(error) }
    }

    const fn silence(lost: bool, kind: ErrorKind) -> Self {
        Self { lost, kind, code: String::new() }
    }
}

/// Reads an error. An answer that refuses is certain; silence, and an answer that the service failed, are not.
pub(super) fn told<E>(error: &SdkError<E, HttpResponse>) -> AwsFailure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => AwsFailure::silence(false, ErrorKind::Invalid),
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(failure) if failure.is_user() => AwsFailure::silence(false, ErrorKind::Invalid),
            Some(failure) if is_of_credentials(failure) => AwsFailure::silence(false, ErrorKind::Denied),
            Some(_) | None => AwsFailure::silence(true, ErrorKind::Unavailable),
        },
        SdkError::ServiceError(service) => {
            of_answer(service.err().code().unwrap_or_default(), service.raw().status().as_u16())
        }
        // A time-out, an answer cut short, and whatever the client learns to say later.
        _ => AwsFailure::silence(true, ErrorKind::Unavailable),
    }
}

/// Whether a request was never sent because nobody could sign it.
fn is_of_credentials(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("credentials") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn of_answer(code: &str, status: u16) -> AwsFailure {
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
        // Says of S3 that the request did not come through in time, with a status that blames the request.
        "RequestTimeout" => ErrorKind::Unavailable,
        _ => match status {
            404 => ErrorKind::NotFound,
            429 => ErrorKind::Throttled(None),
            401 | 403 => ErrorKind::Denied,
            // S3 may say that all is well, and then that it is not.
            ..300 | 500.. => ErrorKind::Unavailable,
            _ if code.ends_with("NotFoundException") => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        },
    };
    AwsFailure { lost: kind == ErrorKind::Unavailable, kind, code: code.to_owned() }
}

/// What `work` comes to, if it does by `deadline`; else `None`, and nobody knows what becomes of it.
pub(super) async fn by<T>(
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
    fn a_refusal_is_certain_and_a_failure_is_not() {
        for (code, status, kind, lost) in [
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
            let told = of_answer(code, status);
            assert_eq!((told.kind, told.lost), (kind, lost), "{code} {status}");
        }
    }
}

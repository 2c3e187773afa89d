//! The marker object, written by a request that S3 itself rejects after the deadline.
//!
//! A request with signed headers is valid for 15 minutes. A presigned URL has an expiration time, after which S3
//! rejects the request, even if it was delayed on the way.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};

use super::{PORT, S3Objects, late};
use crate::adapters::aws::classify;
use crate::domain::MonotonicTime;
use crate::ports::{ErrorKind, Outcome, PortError};

impl S3Objects {
    pub(super) async fn put(&self, deadline: MonotonicTime, key: &str) -> Outcome<()> {
        // The expiration has whole seconds and is rounded down: the request must not take effect after the deadline.
        let remaining = deadline.since(self.clock.monotonic()).as_secs();
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(self.clock.wall().millis());
        if remaining == 0 {
            return Outcome::NotApplied(late());
        }
        let span = PresigningConfig::builder()
            .start_time(started)
            .expires_in(Duration::from_secs(remaining))
            .build();
        let put = || self.client.put_object().bucket(&*self.bucket).key(key).if_none_match("*");
        let Ok(span) = span else { return Outcome::NotApplied(late()) };
        let signed = match put().presigned(span).await {
            Ok(signed) => SignedAddress(signed),
            // Nothing was sent yet.
            Err(error) => return Outcome::NotApplied(classify(&error).error(PORT)),
        };
        match put().customize().interceptor(signed).send().await.map_err(|error| classify(&error)) {
            Ok(_) => Outcome::Applied(()),
            // The marker exists already.
            Err(failure) if failure.code == "PreconditionFailed" => Outcome::Applied(()),
            Err(failure) if failure.code == "ConditionalRequestConflict" => {
                let message = "another write of the marker is in progress";
                Outcome::NotApplied(PortError::new(PORT, ErrorKind::Conflict, message))
            }
            Err(failure) => failure.outcome(PORT),
        }
    }
}

/// Replaces the URL and the headers of a request by those of a presigned request.
struct SignedAddress(PresignedRequest);

impl Intercept for SignedAddress {
    fn name(&self) -> &'static str {
        "SignedAddress"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        request.set_uri(self.0.uri())?;
        let names: Vec<String> = request.headers().iter().map(|(name, _)| name.to_owned()).collect();
        for name in names.iter().filter(|name| *name != "content-length") {
            request.headers_mut().remove(name);
        }
        for (name, value) in self.0.headers() {
            request.headers_mut().try_insert(name.to_owned(), value.to_owned())?;
        }
        Ok(())
    }
}

impl fmt::Debug for SignedAddress {
    /// Omits the URL, which authorizes writing the marker.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedAddress").finish_non_exhaustive()
    }
}

//! The marker, written by a request that the store itself refuses once its time is over.
//!
//! A request that is signed in its headers is good for a quarter of an hour. One that is signed in its address says
//! itself until when it is good: whatever held it up, it is refused from then on.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};

use super::{PORT, S3Objects, late};
use crate::adapters::aws::told;
use crate::domain::MonotonicTime;
use crate::ports::{ErrorKind, Outcome, PortError};

impl S3Objects {
    pub(super) async fn put(&self, deadline: MonotonicTime, key: &str) -> Outcome<()> {
        // In whole seconds, and rounded down: a marker may be late, and must not be too late.
        let left = deadline.since(self.clock.monotonic()).as_secs();
        let begun = SystemTime::UNIX_EPOCH + Duration::from_millis(self.clock.wall().millis());
        if left == 0 {
            return Outcome::NotApplied(late());
        }
        let span =
            PresigningConfig::builder().start_time(begun).expires_in(Duration::from_secs(left)).build();
        let put = || self.client.put_object().bucket(&*self.bucket).key(key).if_none_match("*");
        let Ok(span) = span else { return Outcome::NotApplied(late()) };
        let signed = match put().presigned(span).await {
            Ok(signed) => SignedAddress(signed),
            // Nothing was sent, whatever went wrong.
            Err(error) => return Outcome::NotApplied(told(&error).error(PORT)),
        };
        match put().customize().interceptor(signed).send().await.map_err(|error| told(&error)) {
            Ok(_) => Outcome::Applied(()),
            // It is there already.
            Err(told) if told.code == "PreconditionFailed" => Outcome::Applied(()),
            Err(told) if told.code == "ConditionalRequestConflict" => {
                let message = "another write of the marker is under way";
                Outcome::NotApplied(PortError::new(PORT, ErrorKind::Conflict, message))
            }
            Err(told) => told.outcome(PORT),
        }
    }
}

/// Sends a request by the address that was signed for it, in place of its own with signed headers.
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
        let kept: Vec<String> = request.headers().iter().map(|(name, _)| name.to_owned()).collect();
        for name in kept.iter().filter(|name| *name != "content-length") {
            request.headers_mut().remove(name);
        }
        for (name, value) in self.0.headers() {
            request.headers_mut().try_insert(name.to_owned(), value.to_owned())?;
        }
        Ok(())
    }
}

impl fmt::Debug for SignedAddress {
    /// Without the address: whoever has it may write the marker.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedAddress").finish_non_exhaustive()
    }
}

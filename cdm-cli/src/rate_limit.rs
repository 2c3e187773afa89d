//! A transport that waits when the server limits requests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::MonotonicTime;
use cdm_core::ports::Clock;

use crate::transport::{EventStream, Request, Response, Transport, TransportError};

/// Minimum pause, and the pause for a response without `Retry-After`.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Repeats a request that was rejected with 429, after the time in `Retry-After`. Such a request was not executed, so
/// repeating it does nothing twice. If the pause would end after the command's deadline, the 429 is returned instead.
#[derive(Debug)]
pub(crate) struct RateLimitRetry {
    inner: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    deadline: MonotonicTime,
}

impl RateLimitRetry {
    /// Creates the transport; no pause ends later than `timeout` from now.
    pub(crate) fn new(inner: Arc<dyn Transport>, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        let deadline = clock.monotonic().after(timeout);
        Self { inner, clock, deadline }
    }

    /// Waits as long as a 429 response requests, and returns whether to repeat the request.
    async fn wait_for_limit(&self, response: &Response) -> bool {
        if response.status != 429 {
            return false;
        }
        let retry_after = response.header("retry-after").and_then(|text| text.trim().parse().ok());
        let pause = retry_after.map_or(MIN_PAUSE, Duration::from_secs).max(MIN_PAUSE);
        let retry_at = self.clock.monotonic().after(pause);
        if retry_at > self.deadline {
            return false;
        }
        self.clock.sleep_until(retry_at).await;
        true
    }
}

#[async_trait]
impl Transport for RateLimitRetry {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        loop {
            let response = self.inner.send(request.clone()).await?;
            if !self.wait_for_limit(&response).await {
                return Ok(response);
            }
        }
    }

    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<EventStream, TransportError> {
        loop {
            match self.inner.events(path, last_event_id).await? {
                EventStream::Rejected(response) if self.wait_for_limit(&response).await => {}
                other => return Ok(other),
            }
        }
    }
}

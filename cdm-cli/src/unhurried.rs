//! A way to the API that waits where the server asks for fewer requests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::MonotonicTime;
use cdm_core::ports::Clock;

use crate::transport::{Listening, Request, Response, Transport, TransportError};

/// The pause where the server names none.
const USUAL: Duration = Duration::from_secs(1);

/// Repeats what was refused with 429, once `Retry-After` has passed. Such a request was not carried out, so that a
/// repetition does nothing twice. A wait that would end after the command's time is not begun: the refusal is the answer.
#[derive(Debug)]
pub(crate) struct Unhurried {
    inner: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    until: MonotonicTime,
}

impl Unhurried {
    /// Waits in all for `timeout` at most, from now on.
    pub(crate) fn new(inner: Arc<dyn Transport>, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        let until = clock.monotonic().after(timeout);
        Self { inner, clock, until }
    }

    /// Whether the time that a refusal asks for has been waited out, and the request is to be repeated.
    async fn has_waited(&self, refusal: &Response) -> bool {
        if refusal.status != 429 {
            return false;
        }
        let asked = refusal.header("retry-after").and_then(|text| text.trim().parse().ok());
        let pause = asked.map_or(USUAL, Duration::from_secs).max(USUAL);
        let again = self.clock.monotonic().after(pause);
        if again > self.until {
            return false;
        }
        self.clock.sleep_until(again).await;
        true
    }
}

#[async_trait]
impl Transport for Unhurried {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        loop {
            let response = self.inner.send(request.clone()).await?;
            if !self.has_waited(&response).await {
                return Ok(response);
            }
        }
    }

    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<Listening, TransportError> {
        loop {
            match self.inner.events(path, last_event_id).await? {
                Listening::Refused(response) if self.has_waited(&response).await => {}
                other => return Ok(other),
            }
        }
    }
}

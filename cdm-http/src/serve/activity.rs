//! The activity of a connection: it waits for a request, receives a request, or handles requests.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use cdm_core::domain::MonotonicTime;
use cdm_core::ports::Clock;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests whose response is not complete.
    open: usize,
    /// Open requests whose body has not arrived completely.
    receiving: usize,
    /// The last change between no open request and at least one.
    since: MonotonicTime,
    /// Whether the connection has received a request.
    used: bool,
}

/// The phase of a connection, with the start of the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The TLS handshake or the header of the first request is not complete.
    Opening(MonotonicTime),
    /// All responses are complete; the client may send another request.
    Idle(MonotonicTime),
    /// The bodies of all open requests are incomplete.
    Receiving(MonotonicTime),
    /// At least one request is being handled.
    Working,
}

impl Activity {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let since = clock.monotonic();
        Arc::new(Self { clock, state: Mutex::new(State { open: 0, receiving: 0, since, used: false }) })
    }

    pub(super) fn phase(&self) -> Phase {
        let state = self.state();
        match (state.open, state.receiving) {
            (0, _) if !state.used => Phase::Opening(state.since),
            (0, _) => Phase::Idle(state.since),
            (open, receiving) if open == receiving => Phase::Receiving(state.since),
            _ => Phase::Working,
        }
    }

    /// Counts a request whose header has arrived as open until the returned guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.state();
        if state.open == 0 {
            state.since = self.clock.monotonic();
        }
        state.open += 1;
        state.used = true;
        OpenRequest(Arc::clone(self))
    }

    /// Wraps the body of a request, which counts as being received until it is complete or dropped.
    pub(super) fn receive(self: &Arc<Self>, body: Incoming) -> RequestBody {
        let receiving = (!body.is_end_stream()).then(|| {
            self.state().receiving += 1;
            BodyGuard(Arc::clone(self))
        });
        RequestBody { body, receiving }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request whose response is not complete.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        if state.open == 0 {
            state.since = self.0.clock.monotonic();
        }
    }
}

#[derive(Debug)]
struct BodyGuard(Arc<Activity>);

impl Drop for BodyGuard {
    fn drop(&mut self) {
        self.0.state().receiving -= 1;
    }
}

#[derive(Debug)]
pub(super) struct RequestBody {
    body: Incoming,
    receiving: Option<BodyGuard>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.receiving = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response, which keeps the request open.
#[derive(Debug)]
pub(super) struct ResponseBody {
    body: Body,
    _request: OpenRequest,
}

impl ResponseBody {
    pub(super) const fn new(body: Body, request: OpenRequest) -> Self {
        Self { body, _request: request }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

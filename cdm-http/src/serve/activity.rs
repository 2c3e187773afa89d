//! What a connection does: waits for a request, receives one, or has one answered.

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
    /// Requests whose answer is not complete.
    open: usize,
    /// Of these, those whose body has not arrived completely.
    receiving: usize,
    /// When it last changed between waiting and not waiting.
    since: MonotonicTime,
    /// Whether a request has come at all.
    used: bool,
}

/// What a connection does, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// No request has come yet: the TLS handshake or the first header is awaited.
    Opening(MonotonicTime),
    /// All requests were answered; another may come.
    Idle(MonotonicTime),
    /// Every request lacks a part of its body.
    Receiving(MonotonicTime),
    /// A request is being answered.
    Working,
}

impl Activity {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let since = clock.monotonic();
        Arc::new(Self { clock, state: Mutex::new(State { open: 0, receiving: 0, since, used: false }) })
    }

    pub(super) fn doing(&self) -> Doing {
        let state = self.state();
        match (state.open, state.receiving) {
            (0, _) if !state.used => Doing::Opening(state.since),
            (0, _) => Doing::Idle(state.since),
            (open, receiving) if open == receiving => Doing::Receiving(state.since),
            _ => Doing::Working,
        }
    }

    /// A request's header has arrived; the request is open until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Answering {
        let mut state = self.state();
        if state.open == 0 {
            state.since = self.clock.monotonic();
        }
        state.open += 1;
        state.used = true;
        Answering(Arc::clone(self))
    }

    /// The body of a request, which counts as being received until it is complete or dropped.
    pub(super) fn receive(self: &Arc<Self>, body: Incoming) -> Received {
        let receiving = (!body.is_end_stream()).then(|| {
            self.state().receiving += 1;
            Receiving(Arc::clone(self))
        });
        Received { body, receiving }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request whose answer is not complete.
#[derive(Debug)]
pub(super) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        if state.open == 0 {
            state.since = self.0.clock.monotonic();
        }
    }
}

#[derive(Debug)]
struct Receiving(Arc<Activity>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.state().receiving -= 1;
    }
}

/// The body of a request.
#[derive(Debug)]
pub(super) struct Received {
    body: Incoming,
    receiving: Option<Receiving>,
}

impl HttpBody for Received {
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

/// The body of an answer, which keeps the request open.
#[derive(Debug)]
pub(super) struct Sent {
    body: Body,
    _answering: Answering,
}

impl Sent {
    pub(super) const fn new(body: Body, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl HttpBody for Sent {
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

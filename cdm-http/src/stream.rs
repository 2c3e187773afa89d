//! Writes an event stream to its client. The stream ends when the client does not read for too long, when the server shuts
//! down, and when the subscriber is no longer authorized.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::header;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use cdm_core::domain::MonotonicTime;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::AppState;

/// The time without an event after which a stream sends a comment to show that it is alive.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often the authorization of the subscriber is checked, also while the stream waits for events or for the client.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(900);
/// How long the client may leave events unread.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The token or session for which a stream was opened.
pub(crate) trait Subscriber: Send + Sync {
    /// Returns whether the subscriber may still read the stream; `true` if the store does not respond.
    fn is_authorized(&self, server: &AppState) -> impl Future<Output = bool> + Send;

    /// Returns the events that end the stream if the subscriber is no longer authorized.
    fn final_events(&self) -> Vec<Event> {
        Vec::new()
    }
}

/// The error of a write to a stream that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// Ends a body at once, and drops the events that are not sent yet.
#[derive(Debug, Default)]
struct Abort {
    token: CancellationToken,
    final_events: OnceLock<Vec<Event>>,
}

pub(crate) struct EventWriter<'a, S> {
    server: &'a AppState,
    subscriber: S,
    sender: mpsc::Sender<Event>,
    abort: Arc<Abort>,
    checked: MonotonicTime,
    last_sent: MonotonicTime,
}

/// Returns the sender and the response of a stream, with a buffer of `capacity` events between them.
pub(crate) fn channel(capacity: usize) -> (StreamSender, Response) {
    let (sender, receiver) = mpsc::channel(capacity);
    let abort = Arc::new(Abort::default());
    (StreamSender { sender, abort: Arc::clone(&abort) }, body(receiver, abort))
}

/// The sending half of a stream.
pub(crate) struct StreamSender {
    sender: mpsc::Sender<Event>,
    abort: Arc<Abort>,
}

impl StreamSender {
    /// Returns the writer of the stream for a subscriber who was just authorized.
    pub(crate) fn writer<S: Subscriber>(self, server: &AppState, subscriber: S) -> EventWriter<'_, S> {
        let now = server.app.clock.monotonic();
        let Self { sender, abort } = self;
        EventWriter { server, subscriber, sender, abort, checked: now, last_sent: now }
    }
}

/// Returns a stream of these events.
pub(crate) fn complete(events: Vec<Event>) -> Response {
    response(stream::iter(events))
}

fn body(receiver: mpsc::Receiver<Event>, abort: Arc<Abort>) -> Response {
    let until_abort = stream::unfold((receiver, Arc::clone(&abort)), |(mut receiver, abort)| async {
        tokio::select! {
            biased;
            () = abort.token.cancelled() => None,
            event = receiver.recv() => Some((event?, (receiver, abort))),
        }
    });
    let last =
        stream::once(async move { stream::iter(abort.final_events.get().cloned().unwrap_or_default()) });
    response(until_abort.chain(last.flatten()))
}

fn response(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let headers = [(header::CACHE_CONTROL.as_str(), "no-store"), ("x-accel-buffering", "no")];
    (headers, Sse::new(events.map(Ok::<_, Infallible>))).into_response()
}

impl<S: Subscriber> EventWriter<'_, S> {
    /// Sends an event once the buffer has capacity for it.
    pub(crate) async fn send(&mut self, event: Event) -> Result<(), Closed> {
        let clock = &self.server.app.clock;
        let until = clock.monotonic().after(WRITE_TIMEOUT);
        loop {
            let next_check = until.min(self.checked.after(CHECK_INTERVAL));
            tokio::select! {
                biased;
                () = self.server.stopping.cancelled() => return Err(Closed),
                permit = self.sender.reserve() => {
                    permit.map_err(|_| Closed)?.send(event);
                    self.last_sent = clock.monotonic();
                    return Ok(());
                }
                () = clock.sleep_until(next_check) => {}
            }
            if clock.monotonic() >= until {
                self.abort.token.cancel();
                return Err(Closed);
            }
            self.check().await?;
        }
    }

    /// Checks whether the subscriber is still authorized, at most once per [`CHECK_INTERVAL`].
    pub(crate) async fn check(&mut self) -> Result<(), Closed> {
        let now = self.server.app.clock.monotonic();
        if now.since(self.checked) < CHECK_INTERVAL {
            return Ok(());
        }
        self.checked = now;
        if self.subscriber.is_authorized(self.server).await { Ok(()) } else { self.close_unauthorized() }
    }

    /// Ends the stream of a subscriber who is no longer authorized.
    pub(crate) fn close_unauthorized(&self) -> Result<(), Closed> {
        let _ = self.abort.final_events.set(self.subscriber.final_events());
        self.abort.token.cancel();
        Err(Closed)
    }

    /// Waits for `next`, and checks meanwhile whether the subscriber is still authorized.
    pub(crate) async fn wait(&mut self, next: impl Future<Output = ()>) -> Result<(), Closed> {
        let mut next = std::pin::pin!(next);
        loop {
            tokio::select! {
                () = self.sender.closed() => return Err(Closed),
                () = self.server.stopping.cancelled() => return Err(Closed),
                () = &mut next => return Ok(()),
                () = self.server.app.clock.sleep_until(self.checked.after(CHECK_INTERVAL)) => self.check().await?,
            }
        }
    }

    /// Sends a comment if the stream has not sent an event for [`KEEP_ALIVE`].
    pub(crate) async fn keep_alive(&mut self) -> Result<(), Closed> {
        if self.server.app.clock.monotonic().since(self.last_sent) < KEEP_ALIVE {
            return Ok(());
        }
        self.send(Event::default().comment("alive")).await
    }
}

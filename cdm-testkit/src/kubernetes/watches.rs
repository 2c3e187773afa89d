//! Watches: the changes since a version as a stream, which can end normally, break, or expire.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

use super::Shared;
use super::kinds::Kind;
use super::request::ApiRequest;
use super::selector::Selector;
use super::state::State;
use super::status_error::StatusError;
use super::store::Change;

/// Interval between bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Duration of a watch that requests none.
const MAX_DURATION: Duration = Duration::from_secs(1_800);

/// How often a test sent each signal to all watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    pub(super) drops: u64,
    pub(super) expirations: u64,
    pub(super) bookmarks: u64,
}

/// Whether a watch receives its version from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bookmarks {
    Wanted,
    Unwanted,
}

/// A watch before its first event.
#[derive(Debug)]
pub(super) struct WatchStart {
    kind: &'static Kind,
    namespace: Option<String>,
    selector: Selector,
    version: u64,
    first: VecDeque<Value>,
    deadline: Timestamp,
    bookmarks: Bookmarks,
    signals: Signals,
    now: Timestamp,
}

impl WatchStart {
    pub(super) fn of(request: &ApiRequest, state: &State) -> Result<Self, StatusError> {
        let selector =
            Selector::parse(request.kind, request.option("labelSelector"), request.option("fieldSelector"))?;
        let namespace = Some(request.namespace.clone()).filter(|namespace| !namespace.is_empty());
        let since = request.option("resourceVersion");
        let initial_events = request.option("sendInitialEvents") == "true";
        let mut first = VecDeque::new();
        let version = if since.is_empty() || since == "0" || initial_events {
            let existing = state.store.of(request.kind, namespace.as_deref());
            first.extend(
                existing
                    .filter(|(_, object)| selector.matches(object))
                    .map(|(_, object)| json!({"type": "ADDED", "object": object.as_ref()})),
            );
            state.store.version()
        } else {
            since.parse().map_err(|_| {
                StatusError::bad_request(format!("Invalid value: {since:?}: must be a version"))
            })?
        };
        if initial_events {
            let mut end = bookmark(request.kind, version);
            end["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            first.push_back(end);
        }
        let seconds =
            request.option("timeoutSeconds").parse().map(Duration::from_secs).unwrap_or(MAX_DURATION);
        let bookmarks = match request.option("allowWatchBookmarks") {
            "true" | "1" => Bookmarks::Wanted,
            _ => Bookmarks::Unwanted,
        };
        Ok(Self {
            kind: request.kind,
            namespace,
            selector,
            version,
            first,
            deadline: state.now.after(seconds),
            bookmarks,
            signals: state.signals,
            now: state.now,
        })
    }

    /// Returns the event stream of the watch.
    pub(super) fn follow(self, shared: &Arc<Shared>) -> Watch {
        let last_bookmark = self.now;
        let queue = self.first.iter().map(line).collect();
        let changed = shared.changed.subscribe();
        Watch { shared: Arc::clone(shared), changed, start: self, queue, last_bookmark, ended: false }
    }

    /// Returns the event of a change for this watch. An object may start or stop matching the selector.
    fn event(&self, change: &Change) -> Option<Value> {
        let (plural, namespace, _) = &change.key;
        if *plural != self.kind.plural || self.namespace.as_ref().is_some_and(|wanted| wanted != namespace) {
            return None;
        }
        let selected = |object: &&Arc<Value>| self.selector.matches(object);
        let before = change.before.as_ref().filter(selected);
        let after = change.after.as_ref().filter(selected);
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(json!({"type": "ADDED", "object": after.as_ref()})),
            (Some(_), Some(after)) => Some(json!({"type": "MODIFIED", "object": after.as_ref()})),
            (Some(before), None) => Some(json!({"type": "DELETED", "object": change.last(before)})),
        }
    }
}

fn bookmark(kind: &Kind, version: u64) -> Value {
    let metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    json!({"type": "BOOKMARK", "object": {
        "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata,
    }})
}

fn line(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}

#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    changed: Receiver<u64>,
    start: WatchStart,
    queue: VecDeque<Bytes>,
    last_bookmark: Timestamp,
    ended: bool,
}

impl Watch {
    /// Returns the next chunk of the response body, or `None` at its end.
    pub(super) async fn next(&mut self) -> Option<Result<Frame<Bytes>, io::Error>> {
        loop {
            if let Some(line) = self.queue.pop_front() {
                return Some(Ok(Frame::data(line)));
            }
            if self.ended {
                return None;
            }
            self.changed.borrow_and_update();
            if let Err(dropped) = self.queue_events() {
                self.ended = true;
                return Some(Err(dropped));
            }
            if self.queue.is_empty() && !self.ended && self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Queues the events that are due.
    fn queue_events(&mut self) -> Result<(), io::Error> {
        let shared = Arc::clone(&self.shared);
        let state = shared.lock();
        let before = std::mem::replace(&mut self.start.signals, state.signals);
        if before.drops != state.signals.drops {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the watch is dropped"));
        }
        if before.expirations != state.signals.expirations || self.start.version < state.store.compacted() {
            let message =
                format!("too old resource version: {} ({})", self.start.version, state.store.compacted());
            let expired = json!({"type": "ERROR", "object": StatusError::expired(message).status()});
            self.queue.push_back(line(&expired));
            self.ended = true;
            return Ok(());
        }
        for change in state.store.after(self.start.version) {
            self.queue.extend(self.start.event(change).as_ref().map(line));
        }
        self.start.version = state.store.version().max(self.start.version);
        let timed_out = state.now >= self.start.deadline;
        let bookmark_due = state.now.since(self.last_bookmark) >= BOOKMARK_INTERVAL
            || before.bookmarks != state.signals.bookmarks;
        if self.start.bookmarks == Bookmarks::Wanted && (timed_out || bookmark_due) {
            self.queue.push_back(line(&bookmark(self.start.kind, self.start.version)));
            self.last_bookmark = state.now;
        }
        self.ended = timed_out;
        Ok(())
    }
}

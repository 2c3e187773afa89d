//! Watches: what changed since a version, as a stream that may be told its end, dropped, or too old.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Timestamp;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

use super::Shared;
use super::ask::Ask;
use super::kinds::Kind;
use super::refusal::Refusal;
use super::selector::Selector;
use super::state::State;
use super::store::Change;

/// Between two bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// How long a watch lasts that says nothing about it.
const LONGEST: Duration = Duration::from_secs(1_800);

/// What tests do to watches: how often each was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    pub(super) drops: u64,
    pub(super) expirations: u64,
    pub(super) bookmarks: u64,
}

/// Whether a watch is told its version now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bookmarks {
    Wanted,
    Unwanted,
}

/// A watch that begins.
#[derive(Debug)]
pub(super) struct Start {
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

impl Start {
    pub(super) fn of(ask: &Ask, state: &State) -> Result<Self, Refusal> {
        let selector = Selector::parse(ask.kind, ask.option("labelSelector"), ask.option("fieldSelector"))?;
        let namespace = Some(ask.namespace.clone()).filter(|namespace| !namespace.is_empty());
        let since = ask.option("resourceVersion");
        let whole = ask.option("sendInitialEvents") == "true";
        let mut first = VecDeque::new();
        let version = if since.is_empty() || since == "0" || whole {
            let there = state.store.of(ask.kind, namespace.as_deref());
            first.extend(
                there
                    .filter(|(_, object)| selector.matches(object))
                    .map(|(_, object)| json!({"type": "ADDED", "object": object.as_ref()})),
            );
            state.store.version()
        } else {
            since
                .parse()
                .map_err(|_| Refusal::bad_request(format!("Invalid value: {since:?}: must be a version")))?
        };
        if whole {
            let mut end = bookmark(ask.kind, version);
            end["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            first.push_back(end);
        }
        let seconds = ask.option("timeoutSeconds").parse().map(Duration::from_secs).unwrap_or(LONGEST);
        let bookmarks = match ask.option("allowWatchBookmarks") {
            "true" | "1" => Bookmarks::Wanted,
            _ => Bookmarks::Unwanted,
        };
        Ok(Self {
            kind: ask.kind,
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

    /// The stream of the watch.
    pub(super) fn follow(self, shared: &Arc<Shared>) -> Watch {
        let told = self.now;
        let queue = self.first.iter().map(line).collect();
        let changed = shared.changed.subscribe();
        Watch { shared: Arc::clone(shared), changed, start: self, queue, told, ended: false }
    }

    /// What a change is to this watch: an object may enter or leave what is selected.
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

/// A watch under way.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    changed: Receiver<u64>,
    start: Start,
    queue: VecDeque<Bytes>,
    /// When a bookmark was told last.
    told: Timestamp,
    ended: bool,
}

impl Watch {
    /// The next piece of the answer's body; `None` at its end.
    pub(super) async fn next(&mut self) -> Option<Result<Frame<Bytes>, io::Error>> {
        loop {
            if let Some(line) = self.queue.pop_front() {
                return Some(Ok(Frame::data(line)));
            }
            if self.ended {
                return None;
            }
            self.changed.borrow_and_update();
            if let Err(dropped) = self.look() {
                self.ended = true;
                return Some(Err(dropped));
            }
            if self.queue.is_empty() && !self.ended && self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Takes down what there is to tell.
    fn look(&mut self) -> Result<(), io::Error> {
        let shared = Arc::clone(&self.shared);
        let state = shared.lock();
        let seen = std::mem::replace(&mut self.start.signals, state.signals);
        if seen.drops != state.signals.drops {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the watch is dropped"));
        }
        if seen.expirations != state.signals.expirations || self.start.version < state.store.compacted() {
            let message =
                format!("too old resource version: {} ({})", self.start.version, state.store.compacted());
            let expired = json!({"type": "ERROR", "object": Refusal::expired(message).status()});
            self.queue.push_back(line(&expired));
            self.ended = true;
            return Ok(());
        }
        for change in state.store.after(self.start.version) {
            self.queue.extend(self.start.event(change).as_ref().map(line));
        }
        self.start.version = state.store.version().max(self.start.version);
        let over = state.now >= self.start.deadline;
        let due = state.now.since(self.told) >= BOOKMARKS || seen.bookmarks != state.signals.bookmarks;
        if self.start.bookmarks == Bookmarks::Wanted && (over || due) {
            self.queue.push_back(line(&bookmark(self.start.kind, self.start.version)));
            self.told = state.now;
        }
        self.ended = over;
        Ok(())
    }
}

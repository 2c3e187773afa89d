//! The event feed as streams: one hub polls the store while at least one stream is open, and each stream reads the feed
//! from its own cursor.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cdm_core::manager::{Manager, ManagerError};
use cdm_core::ports::{Clock, FeedEvent};
use tokio::sync::watch;

/// How often the hub polls the end of the feed.
const POLL_INTERVAL: Duration = Duration::from_millis(150);
/// The maximum number of events of one read.
const PAGE: usize = 100;

/// A position in the feed: after the event with this number; 0 is the start of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventCursor(u64);

impl EventCursor {
    /// Parses the output of `Display`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let cursor = Self(text.parse().ok()?);
        (cursor.to_string() == text).then_some(cursor)
    }
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Polls the feed while there are readers, and wakes them when it has grown.
#[derive(Debug)]
pub(crate) struct Hub {
    manager: Arc<Manager>,
    clock: Arc<dyn Clock>,
    readers: AtomicUsize,
    polling: AtomicBool,
    tail: watch::Sender<Option<EventCursor>>,
}

impl Hub {
    pub(crate) fn new(manager: Arc<Manager>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (readers, polling) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { manager, clock, readers, polling, tail: watch::Sender::new(None) })
    }

    /// Returns a reader of the events after `cursor`, or after the current end of the feed.
    pub(crate) async fn reader(
        self: &Arc<Self>,
        cursor: Option<EventCursor>,
    ) -> Result<EventReader, ManagerError> {
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => self.end().await?,
        };
        self.readers.fetch_add(1, Ordering::SeqCst);
        let tail = self.tail.subscribe();
        if !self.polling.swap(true, Ordering::SeqCst) {
            tokio::spawn(Arc::clone(self).poll());
        }
        Ok(EventReader { hub: Arc::clone(self), tail, cursor, unread: true })
    }

    /// Returns the current end of the feed.
    async fn end(&self) -> Result<EventCursor, ManagerError> {
        Ok(EventCursor(self.manager.last_event().await?.unwrap_or(0)))
    }

    async fn poll(self: Arc<Self>) {
        loop {
            if let Ok(end) = self.end().await {
                self.tail.send_if_modified(|tail| tail.replace(end) != Some(end));
            }
            self.clock.sleep_until(self.clock.monotonic().after(POLL_INTERVAL)).await;
            if self.readers.load(Ordering::SeqCst) > 0 {
                continue;
            }
            self.polling.store(false, Ordering::SeqCst);
            // A reader may have been created between the check and the store, and not have started another poll.
            let has_readers = self.readers.load(Ordering::SeqCst) > 0;
            if !has_readers || self.polling.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}

/// Reads the feed for one stream.
#[derive(Debug)]
pub(crate) struct EventReader {
    hub: Arc<Hub>,
    tail: watch::Receiver<Option<EventCursor>>,
    cursor: EventCursor,
    unread: bool,
}

impl EventReader {
    /// Returns when there may be new events.
    pub(crate) async fn changed(&mut self) {
        if !std::mem::take(&mut self.unread) && self.tail.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns the next events, each with the cursor after it; an empty list at the end of the feed.
    pub(crate) async fn read(&mut self) -> Result<Vec<(EventCursor, FeedEvent)>, ManagerError> {
        let events = self.hub.manager.events(Some(self.cursor.0), PAGE).await?;
        let events: Vec<_> = events.into_iter().map(|(number, event)| (EventCursor(number), event)).collect();
        self.cursor = events.last().map_or(self.cursor, |(cursor, _)| *cursor);
        Ok(events)
    }

    /// Makes the next [`Self::changed`] return at once, as after a failed read.
    pub(crate) const fn recheck(&mut self) {
        self.unread = true;
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.hub.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

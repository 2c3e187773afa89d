//! The event feed as streams: one hub looks at the store while someone listens, and every stream reads on from its own
//! place.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cdm_core::ports::{Clock, FeedEvent};
use cdm_core::services::{ServiceError, Services};
use tokio::sync::watch;

/// How often the hub looks.
const LOOK: Duration = Duration::from_millis(150);
/// Events read at once.
const PAGE: usize = 100;

/// A place in the feed: after the cursor, and after so many events behind it. The store names the ends of pages only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    after: Option<u64>,
    skip: usize,
}

impl Place {
    /// Parses what `Display` prints.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (after, skip) = text.split_once('.').unwrap_or((text, "0"));
        let after = if after == "s" { None } else { Some(after.parse().ok()?) };
        let place = Self { after, skip: skip.parse().ok()? };
        (place.to_string() == text).then_some(place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Some(after) => write!(f, "{after}")?,
            None => f.write_str("s")?,
        }
        if self.skip > 0 { write!(f, ".{}", self.skip) } else { Ok(()) }
    }
}

/// Looks at the feed while someone listens.
#[derive(Debug)]
pub(crate) struct Hub {
    services: Arc<Services>,
    clock: Arc<dyn Clock>,
    listeners: AtomicUsize,
    looking: AtomicBool,
    tail: watch::Sender<Option<Place>>,
}

impl Hub {
    pub(crate) fn new(services: Arc<Services>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (listeners, looking) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { services, clock, listeners, looking, tail: watch::Sender::new(None) })
    }

    /// Listens from `place` on, or from the present end of the feed.
    pub(crate) async fn listen(self: &Arc<Self>, place: Option<Place>) -> Result<Listener, ServiceError> {
        let place = match place {
            Some(place) => place,
            None => self.end().await?,
        };
        self.listeners.fetch_add(1, Ordering::SeqCst);
        let tail = self.tail.subscribe();
        if !self.looking.swap(true, Ordering::SeqCst) {
            tokio::spawn(Arc::clone(self).look());
        }
        Ok(Listener { hub: Arc::clone(self), tail, place, fresh: true })
    }

    /// The present end of the feed; found page by page the first time.
    async fn end(&self) -> Result<Place, ServiceError> {
        let mut place = self.tail.borrow().unwrap_or_default();
        loop {
            let page = self.services.events(place.after, 1_000).await?;
            match page.next {
                Some(next) if !page.items.is_empty() => place.after = Some(next),
                _ => return Ok(place),
            }
        }
    }

    async fn look(self: Arc<Self>) {
        loop {
            if let Ok(end) = self.end().await {
                self.tail.send_if_modified(|tail| tail.replace(end) != Some(end));
            }
            self.clock.sleep_until(self.clock.monotonic().after(LOOK)).await;
            if self.listeners.load(Ordering::SeqCst) > 0 {
                continue;
            }
            self.looking.store(false, Ordering::SeqCst);
            // Someone may have come between the two looks, and trusted this one.
            let come = self.listeners.load(Ordering::SeqCst) > 0;
            if !come || self.looking.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}

/// One stream's place in the feed.
#[derive(Debug)]
pub(crate) struct Listener {
    hub: Arc<Hub>,
    tail: watch::Receiver<Option<Place>>,
    place: Place,
    fresh: bool,
}

impl Listener {
    /// Returns when there may be something new.
    pub(crate) async fn news(&mut self) {
        if !std::mem::take(&mut self.fresh) && self.tail.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The next events, each with the place after it; none at the end of the feed.
    pub(crate) async fn read(&mut self) -> Result<Vec<(Place, FeedEvent)>, ServiceError> {
        loop {
            let Place { after, skip } = self.place;
            let page = self.hub.services.events(after, PAGE).await?;
            let (count, Some(next)) = (page.items.len(), page.next) else { return Ok(Vec::new()) };
            if count == 0 {
                return Ok(Vec::new());
            }
            let end = Place { after: Some(next), skip: skip.saturating_sub(count) };
            if skip >= count {
                self.place = end;
                continue;
            }
            let place =
                |index: usize| if index + 1 == count { end } else { Place { after, skip: index + 1 } };
            let events = page.items.into_iter().enumerate().skip(skip);
            let events = events.map(|(index, event)| (place(index), event)).collect();
            self.place = end;
            return Ok(events);
        }
    }

    /// After an error: look again even without news.
    pub(crate) const fn again(&mut self) {
        self.fresh = true;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

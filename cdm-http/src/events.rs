//! The event feed as streams: one hub looks at the store while someone listens, and every stream reads on from its own
//! place.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cdm_core::manager::{Manager, ManagerError};
use cdm_core::ports::{Clock, FeedEvent};
use tokio::sync::watch;

/// How often the hub looks.
const LOOK: Duration = Duration::from_millis(150);
/// Events read at once.
const PAGE: usize = 100;

/// A place in the feed: after the event of that number; before all of them where it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    /// Parses what `Display` prints.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let place = Self(text.parse().ok()?);
        (place.to_string() == text).then_some(place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Looks at the feed while someone listens.
#[derive(Debug)]
pub(crate) struct Hub {
    manager: Arc<Manager>,
    clock: Arc<dyn Clock>,
    listeners: AtomicUsize,
    looking: AtomicBool,
    tail: watch::Sender<Option<Place>>,
}

impl Hub {
    pub(crate) fn new(manager: Arc<Manager>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (listeners, looking) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { manager, clock, listeners, looking, tail: watch::Sender::new(None) })
    }

    /// Listens from `place` on, or from the present end of the feed.
    pub(crate) async fn listen(self: &Arc<Self>, place: Option<Place>) -> Result<Listener, ManagerError> {
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

    /// The present end of the feed.
    async fn end(&self) -> Result<Place, ManagerError> {
        Ok(Place(self.manager.last_event().await?.unwrap_or(0)))
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
    pub(crate) async fn read(&mut self) -> Result<Vec<(Place, FeedEvent)>, ManagerError> {
        let events = self.hub.manager.events(Some(self.place.0), PAGE).await?;
        let events: Vec<_> = events.into_iter().map(|(number, event)| (Place(number), event)).collect();
        self.place = events.last().map_or(self.place, |(place, _)| *place);
        Ok(events)
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

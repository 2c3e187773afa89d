//! A simulated clock, which advances only when a test advances it: an hour costs nothing, and no test sleeps.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use cdm_core::domain::{MonotonicTime, Timestamp};
use cdm_core::ports::Clock;

/// Midnight of 1 January 2026, UTC.
const WALL: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// Far from zero, so that a test may subtract from the current time.
const MONOTONIC: MonotonicTime = MonotonicTime::from_millis(1_000_000);

/// A clock that a test advances. Clones share one clock.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    wall: Timestamp,
    monotonic: MonotonicTime,
    /// Keyed by wake-up time, then by arrival, so that the order of wake-ups is deterministic.
    sleepers: BTreeMap<(MonotonicTime, u64), Waker>,
    arrivals: u64,
}

impl SimClock {
    /// Creates a clock at 2026-01-01T00:00Z and at 1,000,000 ms of monotonic time.
    pub fn new() -> Self {
        let state = State { wall: WALL, monotonic: MONOTONIC, sleepers: BTreeMap::new(), arrivals: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Advances wall and monotonic time by `span` and wakes the sleepers whose time has passed, earliest first.
    pub fn advance(&self, span: Duration) {
        let mut state = self.lock();
        state.wall = state.wall.after(span);
        state.monotonic = state.monotonic.after(span);
        let now = state.monotonic;
        let mut woken = Vec::new();
        while let Some(entry) = state.sleepers.first_entry()
            && entry.key().0 <= now
        {
            woken.push(entry.remove());
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Advances wall and monotonic time until the monotonic time is `moment`. Does nothing if `moment` has
    /// passed.
    pub fn advance_to(&self, moment: MonotonicTime) {
        self.advance(moment.since(self.monotonic()));
    }

    /// Shifts the wall clock alone by `millis` milliseconds, forwards or back, as an NTP correction does.
    pub fn skew_wall(&self, millis: i64) {
        let mut state = self.lock();
        state.wall = Timestamp::from_millis(state.wall.millis().saturating_add_signed(millis));
    }

    /// Returns the earliest wake-up time of all sleepers, or `None` if there is no sleeper.
    pub fn next_sleeper(&self) -> Option<MonotonicTime> {
        self.lock().sleepers.first_key_value().map(|(&(until, _), _)| until)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SimClock {
    fn wall(&self) -> Timestamp {
        self.lock().wall
    }

    fn monotonic(&self) -> MonotonicTime {
        self.lock().monotonic
    }

    async fn sleep_until(&self, until: MonotonicTime) {
        Sleep { clock: self, until, ticket: None }.await;
    }
}

/// One sleep. Dropping the sleep removes its waker.
struct Sleep<'a> {
    clock: &'a SimClock,
    until: MonotonicTime,
    ticket: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut state = this.clock.lock();
        if state.monotonic >= this.until {
            return Poll::Ready(());
        }
        let ticket = *this.ticket.get_or_insert_with(|| {
            state.arrivals += 1;
            state.arrivals
        });
        state.sleepers.insert((this.until, ticket), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.clock.lock().sleepers.remove(&(self.until, ticket));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_sleeper_wakes_at_its_moment_and_not_before() {
        let clock = SimClock::new();
        let until = clock.monotonic().after(Duration::from_secs(5));
        let mut sleep = clock.sleep_until(until);
        assert!((&mut sleep).now_or_never().is_none());
        assert_eq!(clock.next_sleeper(), Some(until));
        clock.advance(Duration::from_secs(4));
        assert!((&mut sleep).now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.next_sleeper(), None);
        assert!(sleep.now_or_never().is_some());
    }

    #[test]
    fn an_abandoned_sleep_leaves_the_queue() {
        let clock = SimClock::new();
        let mut sleep = clock.sleep_until(clock.monotonic().after(Duration::from_secs(5)));
        assert!((&mut sleep).now_or_never().is_none());
        drop(sleep);
        assert_eq!(clock.next_sleeper(), None);
    }

    #[test]
    fn a_skew_moves_the_wall_alone() {
        let clock = SimClock::new();
        let (wall, monotonic) = (clock.wall(), clock.monotonic());
        clock.skew_wall(-1_500);
        assert_eq!(wall.since(clock.wall()), Duration::from_millis(1_500));
        assert_eq!(clock.monotonic(), monotonic);
    }
}

//! Simulated time, which moves only when a test moves it: so an hour costs nothing and no test sleeps.

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
/// Far from zero, so that a test may reach back without falling off the clock.
const MONOTONIC: MonotonicTime = MonotonicTime::from_millis(1_000_000);

/// A clock whose hands a test moves; clones are the same clock.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    wall: Timestamp,
    monotonic: MonotonicTime,
    /// By the moment they wait for, then by arrival, so that they wake in an order that is always the same.
    sleepers: BTreeMap<(MonotonicTime, u64), Waker>,
    arrivals: u64,
}

impl SimClock {
    /// A clock that stands at 2026-01-01T00:00Z and at 1,000,000 ms of monotonic time.
    pub fn new() -> Self {
        let state = State { wall: WALL, monotonic: MONOTONIC, sleepers: BTreeMap::new(), arrivals: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Moves both hands on and wakes the sleepers whose moment has come, earliest first.
    pub fn advance(&self, span: Duration) {
        let mut state = self.lock();
        state.wall = state.wall.after(span);
        state.monotonic = state.monotonic.after(span);
        let now = state.monotonic;
        let mut due = Vec::new();
        while let Some(entry) = state.sleepers.first_entry()
            && entry.key().0 <= now
        {
            due.push(entry.remove());
        }
        drop(state);
        due.into_iter().for_each(Waker::wake);
    }

    /// Moves both hands on until the monotonic one is at `moment`; does nothing when it is already past it.
    pub fn advance_to(&self, moment: MonotonicTime) {
        self.advance(moment.since(self.monotonic()));
    }

    /// Moves the wall clock alone by `millis` milliseconds, forwards or back, as a correction by NTP does.
    pub fn skew_wall(&self, millis: i64) {
        let mut state = self.lock();
        state.wall = Timestamp::from_millis(state.wall.millis().saturating_add_signed(millis));
    }

    /// The earliest moment that anyone sleeps until; `None` when nobody sleeps.
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
        Sleep { clock: self, until, place: None }.await;
    }
}

/// One sleep; leaves the queue when it is dropped, so that an abandoned one holds up nobody.
struct Sleep<'a> {
    clock: &'a SimClock,
    until: MonotonicTime,
    place: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut state = this.clock.lock();
        if state.monotonic >= this.until {
            return Poll::Ready(());
        }
        let place = *this.place.get_or_insert_with(|| {
            state.arrivals += 1;
            state.arrivals
        });
        state.sleepers.insert((this.until, place), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.clock.lock().sleepers.remove(&(self.until, place));
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

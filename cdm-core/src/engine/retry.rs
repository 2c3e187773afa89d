//! Retries inside one call of the core: growing pauses, and writes that are repeated under one write id.

use std::time::Duration;

use super::{Lost, Settings};
use crate::ports::{CallContext, Clock, Outcome, StoreError, WriteError};

/// Pauses that double up to a maximum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    longest: Duration,
}

impl Backoff {
    /// Starts with `first`; no pause exceeds `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { pause: first, longest }
    }

    /// Returns the pauses of a backend that does not answer: from [`Settings::pause`] to [`Settings::longest_pause`].
    pub(crate) const fn of(settings: &Settings) -> Self {
        Self::new(settings.pause, settings.longest_pause)
    }

    /// Returns the next pause. The pause after it is twice as long, up to the longest pause.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.longest);
        pause
    }

    /// Sleeps for the next pause.
    pub(crate) async fn wait(&mut self, clock: &dyn Clock) {
        self.wait_at_least(clock, None).await;
    }

    /// Sleeps for the next pause, or for `least` if that is longer.
    pub(crate) async fn wait_at_least(&mut self, clock: &dyn Clock, least: Option<Duration>) {
        let pause = self.next_pause().max(least.unwrap_or_default());
        clock.sleep_until(clock.monotonic().after(pause)).await;
    }
}

/// A write without a definite result, or with an error that is not retried.
#[derive(Debug)]
pub(crate) struct Unwritten {
    /// The error of the last attempt.
    pub(crate) error: WriteError,
    /// Whether the outcome of an earlier attempt is unknown: the write may still take effect.
    pub(crate) unknown: bool,
}

/// The pauses between the repetitions of a write.
#[derive(Clone, Copy)]
pub(crate) struct Pauses<'a> {
    /// The clock to sleep on.
    pub(crate) clock: &'a dyn Clock,
    pub(crate) backoff: Backoff,
    /// Whether the process stops: the write is then not repeated.
    pub(crate) stopping: Option<&'a (dyn Fn() -> bool + Sync)>,
    /// The number of attempts; `None`: as long as `call` allows.
    pub(crate) tries: Option<u32>,
}

/// Repeats a write under one write id until its result is definite.
///
/// The store recognizes the id, and does not apply a write twice. The write is repeated while `again` returns true for
/// its error.
///
/// # Errors
/// [`Lost`] when `call` returns it, or the process stops.
pub(crate) async fn retry_write<T, F>(
    mut pauses: Pauses<'_>,
    call: impl Fn() -> Result<CallContext, Lost>,
    again: impl Fn(&WriteError) -> bool,
    write: impl Fn(CallContext) -> F,
) -> Result<Result<T, Unwritten>, Lost>
where
    F: Future<Output = Outcome<T, WriteError>>,
{
    let mut context = call()?;
    let (mut unknown, mut attempt) = (false, 0);
    loop {
        attempt += 1;
        let (error, is_unknown) = match write(context).await {
            Outcome::Applied(value) => return Ok(Ok(value)),
            Outcome::NotApplied(error) => (error, false),
            Outcome::Unknown(error) => (error, true),
        };
        if !again(&error) {
            return Ok(Err(Unwritten { error, unknown }));
        }
        unknown |= is_unknown;
        if pauses.tries == Some(attempt) {
            return Ok(Err(Unwritten { error, unknown }));
        }
        if pauses.stopping.is_some_and(|stopping| stopping()) {
            return Err(Lost);
        }
        pauses.backoff.wait(pauses.clock).await;
        context = CallContext { write: context.write, ..call()? };
    }
}

/// Returns whether the store may accept the same write later without a change by a user.
pub(crate) const fn is_transient(error: &WriteError) -> bool {
    match error {
        WriteError::Store(StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Throttled) => true,
        WriteError::Store(StoreError::Denied(_))
        | WriteError::Conflict(_)
        | WriteError::HostnameTaken { .. }
        | WriteError::KeyUsed
        | WriteError::Claim(_) => false,
    }
}

//! Time and randomness, which decisions receive as inputs instead of reading them.

use std::fmt;

use async_trait::async_trait;
use secrecy::SecretString;

use super::WriteId;
use crate::domain::{MonotonicTime, Timestamp, Uid};

/// The clocks of the machine.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Returns the wall-clock time, which users see. It can jump.
    fn wall(&self) -> Timestamp;

    /// Returns the monotonic time, by which leases and deadlines are measured. It never goes back and continues while
    /// the process is suspended.
    fn monotonic(&self) -> MonotonicTime;

    /// Completes when `monotonic` has reached `until`.
    async fn sleep_until(&self, until: MonotonicTime);
}

/// A source of randomness.
pub trait Entropy: Send + Sync + fmt::Debug + 'static {
    /// Returns a new uid with the time `now`. A uid never repeats, on any machine.
    fn uid(&self, now: Timestamp) -> Uid;

    /// Returns a new password of at least 128 random bits, which consists of letters, digits, `_` and `-`.
    fn password(&self) -> SecretString;

    /// Returns a new write id, which never repeats during the lifetime of a record.
    fn write(&self) -> WriteId;

    /// Returns a random number from 0 (inclusive) to 1 (exclusive).
    fn jitter(&self) -> f64;
}

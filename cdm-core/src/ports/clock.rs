//! Time and chance, so that neither is hidden in a decision.

use std::fmt;

use async_trait::async_trait;
use secrecy::SecretString;

use super::WriteId;
use crate::domain::{MonotonicTime, Timestamp, Uid};

/// Time.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// What people read. May jump.
    fn wall(&self) -> Timestamp;

    /// What leases and deadlines are measured with. Never goes back, and goes on while the process is stopped.
    fn monotonic(&self) -> MonotonicTime;

    /// Returns when `monotonic` has reached `until`.
    async fn sleep_until(&self, until: MonotonicTime);
}

/// Chance.
pub trait Entropy: Send + Sync + fmt::Debug + 'static {
    /// A fresh uid whose time is `now`: never the same twice, on any machine.
    fn uid(&self, now: Timestamp) -> Uid;

    /// A fresh password of at least 128 bits, of letters, digits, `_` and `-` only.
    fn password(&self) -> SecretString;

    /// A fresh name for a write: never the same twice within a record's life.
    fn write(&self) -> WriteId;

    /// A number from 0 up to, not including, 1.
    fn jitter(&self) -> f64;
}

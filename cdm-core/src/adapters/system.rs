//! Time and chance of the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::domain::{MonotonicTime, Timestamp, Uid};
use crate::ports::{Clock, Entropy, WriteId};

/// The machine's clocks; clones share the moment that ticks are counted from.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose ticks count from now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
#[expect(clippy::disallowed_methods, reason = "this is the adapter that the rule sends everybody to")]
impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime::default().after(self.start.elapsed())
    }

    async fn sleep_until(&self, until: MonotonicTime) {
        tokio::time::sleep_until(self.start + Duration::from_millis(until.millis())).await;
    }
}

/// The machine's source of chance.
#[derive(Clone, Debug)]
pub struct OsIds {
    /// Write ids count up from a random number of 64 bits, so no two processes on one store share one.
    writes: Arc<AtomicU64>,
}

impl OsIds {
    /// The 64 characters that a password may be of; six random bits choose one.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

    /// A source.
    ///
    /// # Errors
    /// When the machine gives no random numbers; then there must be no secrets either.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { writes: Arc::new(AtomicU64::new(getrandom::u64()?)) })
    }
}

/// Random bytes. `OsIds::new` has seen that there are some.
#[expect(
    clippy::expect_used,
    reason = "a machine that stops giving random numbers must not go on making secrets"
)]
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the machine gave random numbers before");
    bytes
}

impl Entropy for OsIds {
    fn uid(&self, now: Timestamp) -> Uid {
        Uid::from_parts(now.millis(), u128::from_be_bytes(random()))
    }

    fn password(&self) -> SecretString {
        let letters = random::<32>().map(|byte| char::from(Self::ALPHABET[usize::from(byte & 63)]));
        SecretString::from(letters.iter().collect::<String>())
    }

    fn write(&self) -> WriteId {
        WriteId(self.writes.fetch_add(1, Ordering::Relaxed))
    }

    fn jitter(&self) -> f64 {
        (u64::from_be_bytes(random()) >> 11) as f64 / (1u64 << 53) as f64
    }
}

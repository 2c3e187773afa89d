//! The clock and the random numbers of the operating system.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::domain::{MonotonicTime, Timestamp, Uid};
use crate::ports::{Clock, Entropy, WriteId};

/// The clock of the operating system. Clones count monotonic time from the same start.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Creates a clock whose monotonic time starts now.
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
#[expect(clippy::disallowed_methods, reason = "this adapter is the only place that may call them")]
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

/// Random identifiers and passwords from the random number generator of the operating system.
#[derive(Clone, Debug)]
pub struct OsIds {
    /// The next write ID. The counter starts at a random number of 64 bits, so two processes on one store use different
    /// IDs.
    writes: Arc<AtomicU64>,
}

impl OsIds {
    /// The 64 characters of a password; six random bits choose each character.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

    /// Creates a source.
    ///
    /// # Errors
    /// When the operating system returns no random numbers. Secrets cannot be generated then.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { writes: Arc::new(AtomicU64::new(getrandom::u64()?)) })
    }
}

/// Returns random bytes. `OsIds::new` has checked that the operating system returns random numbers.
#[expect(
    clippy::expect_used,
    reason = "a process whose operating system stops returning random numbers must not create secrets"
)]
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system returned random numbers before");
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

//! The retry budget, which limits the load of retries on a backend that fails.

use std::collections::HashMap;
use std::time::Duration;

use super::Settings;

/// A token bucket per port. A retry takes one token, and a success returns a tenth of one. An empty bucket does not
/// reject a retry, but delays it by the longest pause.
#[derive(Debug, Default)]
pub struct RetryBudget {
    /// Tenths of tokens that were taken and not returned, by port.
    spent: HashMap<&'static str, u32>,
}

impl RetryBudget {
    /// The size of a bucket, in tenths of a token.
    const FULL: u32 = 1_000;

    /// Records a success of `port`.
    pub fn succeeded(&mut self, port: &'static str) {
        if let Some(spent) = self.spent.get_mut(port) {
            *spent = spent.saturating_sub(1);
        }
    }

    /// Takes a token for a retry of `port`, and returns the pause before attempt number `attempt`; 2 is the first retry.
    ///
    /// The pause grows exponentially. `jitter`, from 0 to 1, varies only a quarter of it, so that the number of calls
    /// in a wait has a fixed bound. The pause is never shorter than `requested`, the pause that the backend has
    /// requested.
    pub fn pause(
        &mut self,
        port: &'static str,
        attempt: u32,
        requested: Option<Duration>,
        jitter: f64,
        settings: &Settings,
    ) -> Duration {
        let spent = self.spent.entry(port).or_default();
        *spent = (*spent + 10).min(Self::FULL);
        let exponent = attempt.saturating_sub(2).min(16);
        let ceiling = if *spent == Self::FULL {
            settings.longest_pause
        } else {
            settings.pause.saturating_mul(3_u32.saturating_pow(exponent)).min(settings.longest_pause)
        };
        let ceiling = if crate::bug!(PauseDoesNotGrow) { settings.pause } else { ceiling };
        let jittered = ceiling.mul_f64(0.75 + 0.25 * jitter.clamp(0.0, 1.0));
        jittered.max(requested.unwrap_or_default())
    }
}

//! One budget for retries, so that a backend in trouble is not kept there by them.

use std::collections::HashMap;
use std::time::Duration;

use super::Settings;

/// A bucket of tokens per dependency. A retry takes one; a success brings back a tenth. An empty bucket does not
/// forbid a retry, it makes it wait the longest pause.
#[derive(Debug, Default)]
pub struct RetryBudget {
    spent: HashMap<&'static str, u32>,
}

impl RetryBudget {
    /// Tenths of a token that a full bucket has.
    const FULL: u32 = 1_000;

    /// A success of `port`.
    pub fn succeeded(&mut self, port: &'static str) {
        if let Some(spent) = self.spent.get_mut(port) {
            *spent = spent.saturating_sub(1);
        }
    }

    /// The pause before attempt number `attempt` (2 is the first retry) on `port`: an exponential with a quarter of it
    /// drawn, never shorter than what the backend asked for. Three quarters are fixed, so that the number of calls in a
    /// wait has a bound that chance does not move.
    pub fn pause(
        &mut self,
        port: &'static str,
        attempt: u32,
        asked: Option<Duration>,
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
        let drawn = ceiling.mul_f64(0.75 + 0.25 * jitter.clamp(0.0, 1.0));
        drawn.max(asked.unwrap_or_default())
    }
}

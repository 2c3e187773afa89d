//! How long steps wait for unavailable backends, and the pauses between retries.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sources::{ConfigError, Environment, Setting, keys};
use crate::engine::{Settings, StepTimeouts};
use crate::pipelines::{PipelineSettings, registry};

keys! {
    /// `[retry]`: timeouts in seconds, pauses in milliseconds.
    RawRetry in "retry." {
        pause_ms: u64 as "CDM_RETRY_PAUSE_MS",
        longest_pause_ms: u64 as "CDM_RETRY_LONGEST_PAUSE_MS",
        patience_s: u64 as "CDM_RETRY_PATIENCE_S",
        denied_patience_s: u64 as "CDM_RETRY_DENIED_PATIENCE_S",
    }
    plain {
        steps: BTreeMap<String, u64>,
    }
}

/// How long steps wait for unavailable backends, and the pauses between retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// The pause before the first retry, from 10 ms to 15 s; by default 200 ms. Later pauses are longer. A shorter pause
    /// resumes a step sooner, and sends more calls to a backend that has just failed. `CDM_RETRY_PAUSE_MS`,
    /// `retry.pause_ms`.
    pub pause: Duration,
    /// The longest pause, from the first pause to 15 s; by default 15 s. It bounds the time from the recovery of a backend
    /// to the next attempt. `CDM_RETRY_LONGEST_PAUSE_MS`, `retry.longest_pause_ms`.
    pub longest_pause: Duration,
    /// How long a step waits before its operation is parked: for an unavailable backend, at least one minute and by default
    /// one hour (`CDM_RETRY_PATIENCE_S`, `retry.patience_s`, and per step `retry.steps.<name>`); for a backend that denies
    /// access, at least 5 minutes and by default 5 minutes (`CDM_RETRY_DENIED_PATIENCE_S`, `retry.denied_patience_s`). A
    /// longer timeout survives longer outages, and reports them later.
    pub timeout: StepTimeouts,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let Settings { pause, longest_pause, .. } = Settings::default();
        Self { pause, longest_pause, timeout: StepTimeouts::default() }
    }
}

/// The upper bound of every pause, so that work resumes soon after a backend recovers.
const MAX_PAUSE_MS: u64 = 15_000;
/// The shortest timeout of a step.
const MIN_TIMEOUT_S: u64 = 60;
/// The longest timeout of a step: one week.
const MAX_TIMEOUT_S: u64 = 604_800;

impl RetryConfig {
    pub(super) fn resolve(environment: Environment<'_>, raw: &RawRetry) -> Result<Self, ConfigError> {
        let defaults = Self::default();
        let number = |setting: Setting, default: u64, rule: &str, min, max| {
            setting.parsed(&default.to_string(), rule, |number| (min..=max).contains(number))
        };
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let pause = number(
            raw.pause_ms(environment),
            millis(defaults.pause),
            "a number of milliseconds from 10 to 15000",
            10,
            MAX_PAUSE_MS,
        )?;
        let longest_pause = number(
            raw.longest_pause_ms(environment),
            millis(defaults.longest_pause).max(pause),
            "a number of milliseconds from `pause_ms` to 15000",
            pause,
            MAX_PAUSE_MS,
        )?;
        let seconds = "a number of seconds from 60 to 604800";
        let backend = number(
            raw.patience_s(environment),
            defaults.timeout.backend.as_secs(),
            seconds,
            MIN_TIMEOUT_S,
            MAX_TIMEOUT_S,
        )?;
        let denied = number(
            raw.denied_patience_s(environment),
            defaults.timeout.denied.as_secs(),
            "a number of seconds from 300 to 604800",
            StepTimeouts::MIN_DENIED.as_secs(),
            MAX_TIMEOUT_S,
        )?;
        Ok(Self {
            pause: Duration::from_millis(pause),
            longest_pause: Duration::from_millis(longest_pause),
            timeout: StepTimeouts {
                backend: Duration::from_secs(backend),
                denied: Duration::from_secs(denied),
                steps: steps(&raw.steps)?,
            },
        })
    }
}

/// Validates the names and the timeouts of steps that have their own timeout.
fn steps(timeouts: &BTreeMap<String, u64>) -> Result<BTreeMap<String, Duration>, ConfigError> {
    let known = registry(&PipelineSettings::default()).step_names();
    let validate = |(step, &seconds): (&String, &u64)| {
        let error = |message: String| ConfigError { key: format!("retry.steps.{step}"), message };
        if !known.contains(step.as_str()) {
            let names: Vec<&str> = known.iter().copied().collect();
            return Err(error(format!("is not a step; the steps are {}", names.join(", "))));
        }
        if !(MIN_TIMEOUT_S..=MAX_TIMEOUT_S).contains(&seconds) {
            return Err(error(format!("`{seconds}` is not a number of seconds from 60 to 604800")));
        }
        Ok((step.clone(), Duration::from_secs(seconds)))
    };
    timeouts.iter().map(validate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str, variables: &[(&str, &str)]) -> Result<RetryConfig, ConfigError> {
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        RetryConfig::resolve(&environment, &toml::from_str(file).expect("a file"))
    }

    #[test]
    fn a_step_may_have_its_own_timeout_and_the_others_have_the_common_one() {
        assert_eq!(resolve("", &[]), Ok(RetryConfig::default()));
        let file = "patience_s = 7200\n[steps]\nCreateDatabase = 600";
        let config = resolve(file, &[("CDM_RETRY_PAUSE_MS", "50")]).expect("a configuration");
        assert_eq!(config.timeout.of("CreateDatabase"), Duration::from_secs(600));
        assert_eq!(config.timeout.of("Ingress"), Duration::from_secs(7_200));
        assert_eq!(
            (config.pause, config.longest_pause),
            (Duration::from_millis(50), Duration::from_secs(15))
        );
    }

    #[test]
    fn a_value_out_of_range_is_rejected_with_its_key() {
        let key = |file: &str| resolve(file, &[]).unwrap_err().key;
        assert_eq!(key("longest_pause_ms = 15001"), "retry.longest_pause_ms");
        assert_eq!(key("pause_ms = 100\nlongest_pause_ms = 99"), "retry.longest_pause_ms");
        assert_eq!(key("denied_patience_s = 299"), "retry.denied_patience_s");
        assert_eq!(key("[steps]\nCreateDatabases = 600"), "retry.steps.CreateDatabases");
        assert_eq!(key("[steps]\nCreateDatabase = 1"), "retry.steps.CreateDatabase");
        let unknown = resolve("[steps]\nNone = 60", &[]).unwrap_err();
        assert!(unknown.message.contains("CreateDatabase"), "{unknown}");
    }
}

//! How long steps wait for backends that do not serve them, and how often these are asked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::config::{ConfigError, Environment};
use super::given::{parsed, pick};
use crate::engine::{Settings, StepTimeouts};
use crate::pipelines::{PipelineSettings, registry};

/// `[retry]`, as the file has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    pause_ms: Option<u64>,
    longest_pause_ms: Option<u64>,
    patience_s: Option<u64>,
    denied_patience_s: Option<u64>,
    steps: Option<BTreeMap<String, u64>>,
}

/// How long steps wait for backends that do not serve them, and how often these are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// The pause before the first retry, 10 ms to 15 s; each later one is longer. `CDM_RETRY_PAUSE_MS`, `retry.pause_ms`.
    pub pause: Duration,
    /// The longest pause, from the first one to 15 s. `CDM_RETRY_LONGEST_PAUSE_MS`, `retry.longest_pause_ms`.
    pub longest_pause: Duration,
    /// How long a step waits before its operation is parked: for a backend that is away, at least a minute
    /// (`CDM_RETRY_PATIENCE_S`, `retry.patience_s`, and by step `retry.steps.<name>`), and for one that denies, at least 5
    /// minutes (`CDM_RETRY_DENIED_PATIENCE_S`, `retry.denied_patience_s`).
    pub timeout: StepTimeouts,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let Settings { pause, longest_pause, .. } = Settings::default();
        Self { pause, longest_pause, timeout: StepTimeouts::default() }
    }
}

/// The longest pause that may be asked for, so that work goes on soon after a backend is back.
const MOST_PAUSE_MS: u64 = 15_000;
/// The shortest patience of a step.
const LEAST_PATIENCE_S: u64 = 60;
/// The longest, a week.
const MOST_PATIENCE_S: u64 = 604_800;

impl RetryConfig {
    pub(super) fn of(environment: Environment<'_>, raw: RawRetry) -> Result<Self, ConfigError> {
        let usual = Self::default();
        let number =
            |variable: &str, key: &str, of_file: Option<u64>, default: u64, rule: &str, least, most| {
                let given = pick(environment, variable, key, of_file.map(|number| number.to_string()));
                parsed(given, &default.to_string(), rule, |number| (least..=most).contains(number))
            };
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let pause = number(
            "CDM_RETRY_PAUSE_MS",
            "retry.pause_ms",
            raw.pause_ms,
            millis(usual.pause),
            "a number of milliseconds from 10 to 15000",
            10,
            MOST_PAUSE_MS,
        )?;
        let longest = number(
            "CDM_RETRY_LONGEST_PAUSE_MS",
            "retry.longest_pause_ms",
            raw.longest_pause_ms,
            millis(usual.longest_pause).max(pause),
            "a number of milliseconds from `pause_ms` to 15000",
            pause,
            MOST_PAUSE_MS,
        )?;
        let seconds = "a number of seconds from 60 to 604800";
        let backend = number(
            "CDM_RETRY_PATIENCE_S",
            "retry.patience_s",
            raw.patience_s,
            usual.timeout.backend.as_secs(),
            seconds,
            LEAST_PATIENCE_S,
            MOST_PATIENCE_S,
        )?;
        let denied = number(
            "CDM_RETRY_DENIED_PATIENCE_S",
            "retry.denied_patience_s",
            raw.denied_patience_s,
            usual.timeout.denied.as_secs(),
            "a number of seconds from 300 to 604800",
            StepTimeouts::LEAST_DENIED.as_secs(),
            MOST_PATIENCE_S,
        )?;
        Ok(Self {
            pause: Duration::from_millis(pause),
            longest_pause: Duration::from_millis(longest),
            timeout: StepTimeouts {
                backend: Duration::from_secs(backend),
                denied: Duration::from_secs(denied),
                steps: steps(raw.steps.unwrap_or_default())?,
            },
        })
    }
}

fn steps(given: BTreeMap<String, u64>) -> Result<BTreeMap<String, Duration>, ConfigError> {
    let known = registry(&PipelineSettings::default()).step_names();
    let of = |(step, seconds): (String, u64)| {
        let refuse = |message: String| ConfigError { key: format!("retry.steps.{step}"), message };
        if !known.contains(step.as_str()) {
            let names: Vec<&str> = known.iter().copied().collect();
            return Err(refuse(format!("is no step; the steps are {}", names.join(", "))));
        }
        if !(LEAST_PATIENCE_S..=MOST_PATIENCE_S).contains(&seconds) {
            return Err(refuse(format!("\"{seconds}\" is not a number of seconds from 60 to 604800")));
        }
        Ok((step, Duration::from_secs(seconds)))
    };
    given.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str, environment: &[(&str, &str)]) -> Result<RetryConfig, ConfigError> {
        let ask = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        RetryConfig::of(&ask, toml::from_str(file).expect("a file"))
    }

    #[test]
    fn a_step_has_its_own_patience_and_the_others_the_usual_one() {
        assert_eq!(of("", &[]), Ok(RetryConfig::default()));
        let given = of("patience_s = 7200\n[steps]\nCreateDatabase = 600", &[("CDM_RETRY_PAUSE_MS", "50")]);
        let given = given.expect("a configuration");
        assert_eq!(given.timeout.of("CreateDatabase"), Duration::from_secs(600));
        assert_eq!(given.timeout.of("Ingress"), Duration::from_secs(7_200));
        assert_eq!((given.pause, given.longest_pause), (Duration::from_millis(50), Duration::from_secs(15)));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let key = |file: &str| of(file, &[]).unwrap_err().key;
        assert_eq!(key("longest_pause_ms = 15001"), "retry.longest_pause_ms");
        assert_eq!(key("pause_ms = 100\nlongest_pause_ms = 99"), "retry.longest_pause_ms");
        assert_eq!(key("denied_patience_s = 299"), "retry.denied_patience_s");
        assert_eq!(key("[steps]\nCreateDatabases = 600"), "retry.steps.CreateDatabases");
        assert_eq!(key("[steps]\nCreateDatabase = 1"), "retry.steps.CreateDatabase");
        let unknown = of("[steps]\nNone = 60", &[]).unwrap_err();
        assert!(unknown.message.contains("CreateDatabase"), "{unknown}");
    }
}

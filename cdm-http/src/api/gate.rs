//! The health gate of a rollout in API requests and responses.

use std::time::Duration;

use cdm_core::domain::NameError;
use cdm_core::domain::rollout;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::non_null;

/// A health gate: the check that each site must pass before and after its move.
///
/// Before the move, the check is sent to the target service with the hostname of the site. After the move, the check is
/// repeated through the route until a response comes from the new service, or until `settle` has passed. Redirects are not
/// followed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gate {
    /// The path and query of the check.
    #[schema(min_length = 1, max_length = 500, pattern = "^/[!-\"$-~]*$")]
    pub path: String,
    /// The required HTTP status. Default: 200.
    #[schema(value_type = u16, required = false, minimum = 200, maximum = 599)]
    #[serde(default, deserialize_with = "non_null", skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A text that the body must contain.
    #[schema(min_length = 1, max_length = 500)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// The maximum ratio of the latency after the move to the latency before the move.
    #[schema(minimum = 1, maximum = 100)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency_ratio: Option<f64>,
    /// The maximum time until a moved route reaches the new service, in seconds. Default: 30.
    #[schema(value_type = u64, required = false, minimum = 0, maximum = 300)]
    #[serde(default, deserialize_with = "non_null", skip_serializing_if = "Option::is_none")]
    pub settle: Option<u64>,
}

impl Gate {
    /// Returns the required HTTP status.
    pub fn required_status(&self) -> u16 {
        self.status.unwrap_or(200)
    }

    fn settle(&self) -> Duration {
        self.settle.map_or(rollout::HealthGate::DEFAULT_SETTLE, Duration::from_secs)
    }

    /// Validates the gate.
    ///
    /// # Errors
    /// The first rule that the gate breaks.
    pub fn parse(&self) -> Result<rollout::HealthGate, NameError> {
        let mut gate = rollout::HealthGate::new(&self.path)?
            .with_status(self.required_status())?
            .with_settle(self.settle())?;
        if let Some(text) = &self.contains {
            gate = gate.with_text(text)?;
        }
        if let Some(ratio) = self.max_latency_ratio {
            gate = gate.with_latency(thousandths(ratio))?;
        }
        Ok(gate)
    }
}

/// Converts a ratio to thousandths; a ratio outside the allowed range stays outside of it, and is rejected later.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn thousandths(ratio: f64) -> u32 {
    (ratio * 1_000.0).clamp(0.0, 1_000_000.0).round() as u32
}

impl From<&rollout::HealthGate> for Gate {
    fn from(gate: &rollout::HealthGate) -> Self {
        Self {
            path: gate.path().to_owned(),
            status: Some(gate.status()),
            contains: gate.text().map(str::to_owned),
            max_latency_ratio: gate.latency().map(|thousandths| f64::from(thousandths) / 1_000.0),
            settle: Some(gate.settle().as_secs()),
        }
    }
}

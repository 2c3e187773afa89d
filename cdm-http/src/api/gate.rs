//! A rollout's health gate on the wire.

use std::time::Duration;

use cdm_core::domain::NameError;
use cdm_core::domain::rollout;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What each site has to answer before and after its move.
///
/// The target is asked first, with the site's hostname; after the route was moved, the check repeats through it until an
/// answer proves the new service or `settle` has passed. Redirects are not followed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gate {
    /// Path and query.
    #[schema(min_length = 1, max_length = 500, pattern = "^/[!-\"$-~]*$")]
    pub path: String,
    /// The status that has to come; 200 where it is left out.
    #[schema(minimum = 200, maximum = 599)]
    #[serde(default = "ok")]
    pub status: u16,
    /// A text that the body has to have.
    #[schema(min_length = 1, max_length = 500)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// How many times as long as before the move an answer may take after it.
    #[schema(minimum = 1, maximum = 100)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency_ratio: Option<f64>,
    /// How long a route may take to lead to the new service, in seconds; 30 where it is left out.
    #[schema(minimum = 0, maximum = 300)]
    #[serde(default = "settle")]
    pub settle: u64,
}

const fn ok() -> u16 {
    200
}

const fn settle() -> u64 {
    rollout::HealthGate::SETTLE.as_secs()
}

impl Gate {
    pub(crate) fn parse(&self) -> Result<rollout::HealthGate, NameError> {
        let mut gate = rollout::HealthGate::new(&self.path)?
            .with_status(self.status)?
            .with_settle(Duration::from_secs(self.settle))?;
        if let Some(text) = &self.contains {
            gate = gate.with_text(text)?;
        }
        if let Some(ratio) = self.max_latency_ratio {
            gate = gate.with_latency(thousandths(ratio))?;
        }
        Ok(gate)
    }
}

/// A ratio as the core keeps it; what is out of its range stays out of it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn thousandths(ratio: f64) -> u32 {
    (ratio * 1_000.0).clamp(0.0, 1_000_000.0).round() as u32
}

impl From<&rollout::HealthGate> for Gate {
    fn from(gate: &rollout::HealthGate) -> Self {
        Self {
            path: gate.path().to_owned(),
            status: gate.status(),
            contains: gate.text().map(str::to_owned),
            max_latency_ratio: gate.latency().map(|thousandths| f64::from(thousandths) / 1_000.0),
            settle: gate.settle().as_secs(),
        }
    }
}

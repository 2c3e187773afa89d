//! What a rollout is told.

use std::time::Duration;

use clap::Args;

/// `cdm services rollout`.
#[derive(Args, Clone, Debug)]
pub struct RolloutArgs {
    /// Digest to deploy first, if the canary does not run it
    #[arg(long, value_name = "DIGEST")]
    pub image: Option<String>,
    /// Move the sites' routes as well
    #[arg(long)]
    pub promote: bool,
    /// Which sites: those of the active canary, those of the other service, or all
    #[arg(long, default_value = "active", value_parser = ["active", "inactive", "all"])]
    pub scope: String,
    /// Exactly these sites
    #[arg(long, value_delimiter = ',', conflicts_with = "scope", value_name = "ID")]
    pub sites: Vec<String>,
    /// How far each wave goes: counts or percents, the last 100% [default: one wave]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub waves: Vec<String>,
    /// How many sites at once [default: 64]
    #[arg(long, value_name = "N")]
    pub max_concurrent: Option<u32>,
    /// How many sites of a wave may fail: a count or a percent [default: 0]
    #[arg(long, value_name = "N|P%")]
    pub failure_budget: Option<String>,
    /// Send the moved sites back when a wave is over its budget
    #[arg(long)]
    pub auto_rollback: bool,
    /// Seconds between one wave and the next, or a time such as 10m
    #[arg(long, value_parser = super::duration, value_name = "TIME")]
    pub bake: Option<Duration>,
    /// What each site has to answer.
    #[command(flatten)]
    pub gate: GateArgs,
}

/// The health gate of a rollout.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Health gate")]
pub struct GateArgs {
    /// Ask each site for this path before and after its move; one that does not answer as it should goes back
    #[arg(long, value_name = "PATH", requires = "promote")]
    pub gate_path: Option<String>,
    /// The status that has to come [default: 200]
    #[arg(long, value_name = "N", requires = "gate_path")]
    pub gate_status: Option<u16>,
    /// A text that the body has to have
    #[arg(long, value_name = "TEXT", requires = "gate_path")]
    pub gate_contains: Option<String>,
    /// How many times as long as before the move an answer may take after it
    #[arg(long, value_name = "RATIO", requires = "gate_path")]
    pub gate_max_latency_ratio: Option<f64>,
    /// How long a route may take to lead to the new service [default: 30s]
    #[arg(long, value_parser = super::duration, value_name = "TIME", requires = "gate_path")]
    pub gate_settle: Option<Duration>,
}

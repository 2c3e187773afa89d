//! Arguments of `cdm services rollout` and `cdm freeze`.

use std::time::Duration;

use clap::{Args, Subcommand};

/// `cdm services rollout`.
#[derive(Args, Clone, Debug)]
pub struct RolloutArgs {
    /// Digest to deploy first, if the canary does not run it
    #[arg(long, value_name = "DIGEST")]
    pub image: Option<String>,
    /// Also move the sites' routes to the service
    #[arg(long)]
    pub promote: bool,
    /// Sites to select: on the active canary, on the other service, or all [default: active]
    #[arg(long, value_parser = ["active", "inactive", "all"])]
    pub scope: Option<String>,
    /// Only these sites
    #[arg(long, value_delimiter = ',', conflicts_with = "scope", value_name = "ID")]
    pub sites: Vec<String>,
    /// Cumulative size of each wave: counts or percentages, the last one 100% [default: one wave]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub waves: Vec<String>,
    /// Maximum number of sites in progress at once [default: 64]
    #[arg(long, value_name = "N")]
    pub max_concurrent: Option<u32>,
    /// Number of sites of a wave that may fail: a count or a percentage [default: 0]
    #[arg(long, value_name = "N|P%")]
    pub failure_budget: Option<String>,
    /// Move the sites back when a wave exceeds its budget
    #[arg(long)]
    pub auto_rollback: bool,
    /// Bake time between one wave and the next, such as 10m
    #[arg(long, value_parser = super::duration, value_name = "TIME")]
    pub bake: Option<Duration>,
    /// Without `--gate-path`, sites are not probed.
    #[command(flatten)]
    pub gate: GateArgs,
    /// Show the plan, and change nothing
    #[arg(long, conflicts_with = "plan")]
    pub dry_run: bool,
    /// Run exactly the plan that a dry run printed with this hash
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
}

impl RolloutArgs {
    /// Returns whether the arguments say what to do, and to which sites. Without this check, a bare `cdm services
    /// rollout` would immediately start a rollout of a whole service.
    pub const fn selects_work(&self) -> bool {
        self.promote
            || self.scope.is_some()
            || !self.sites.is_empty()
            || self.image.is_some()
            || self.plan.is_some()
    }
}

/// The health gate of a rollout.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Health gate")]
pub struct GateArgs {
    /// Request this path from each site before and after its move; a site that fails the check moves back
    #[arg(long, value_name = "PATH", requires = "promote")]
    pub gate_path: Option<String>,
    /// Expected status [default: 200]
    #[arg(long, value_name = "N", requires = "gate_path")]
    pub gate_status: Option<u16>,
    /// Text that the body must contain
    #[arg(long, value_name = "TEXT", requires = "gate_path")]
    pub gate_contains: Option<String>,
    /// Maximum response time after the move, as a multiple of the time before it
    #[arg(long, value_name = "RATIO", requires = "gate_path")]
    pub gate_max_latency_ratio: Option<f64>,
    /// Maximum time for a route to reach the new service [default: 30s]
    #[arg(long, value_parser = super::duration, value_name = "TIME", requires = "gate_path")]
    pub gate_settle: Option<Duration>,
}

/// `cdm freeze …`.
#[derive(Clone, Debug, Subcommand)]
pub enum FreezeCommand {
    /// Stop moves: promotes, upgrades and rollouts; deploys and rollbacks continue
    #[command(after_help = "Examples:\n  cdm freeze create --reason 'the sale of the year' --for 48h\n  \
                            cdm freeze create --sites shop,blog --reason 'their launch'")]
    Create {
        /// Reason; shown when a move is rejected
        #[arg(long)]
        reason: String,
        /// Only these sites
        #[arg(long, value_delimiter = ',', value_name = "ID")]
        sites: Vec<String>,
        /// Duration, such as 48h, after which the freeze ends automatically
        #[arg(long = "for", value_parser = super::duration, value_name = "TIME")]
        lasts: Option<Duration>,
        /// Time, such as 2030-01-31T00:00:00Z, at which the freeze ends automatically
        #[arg(long, value_parser = super::platform::timestamp, conflicts_with = "lasts", value_name = "TIME")]
        until: Option<String>,
    },
    /// List the active freezes
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm freeze list")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: super::Paging,
    },
    /// Remove a freeze; a rollout that waits for it resumes
    #[command(visible_alias = "rm", after_help = "Example:\n  cdm freeze remove freeze-12")]
    Remove {
        /// Id of the freeze, such as freeze-12
        id: String,
    },
}

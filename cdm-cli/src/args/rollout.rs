//! What a rollout is told.

use std::time::Duration;

use clap::{Args, Subcommand};

/// `cdm services rollout`.
#[derive(Args, Clone, Debug)]
pub struct RolloutArgs {
    /// Digest to deploy first, if the canary does not run it
    #[arg(long, value_name = "DIGEST")]
    pub image: Option<String>,
    /// Move the sites' routes as well
    #[arg(long)]
    pub promote: bool,
    /// Which sites: those of the active canary, those of the other service, or all [default: active]
    #[arg(long, value_parser = ["active", "inactive", "all"])]
    pub scope: Option<String>,
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
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "plan")]
    pub dry_run: bool,
    /// Do exactly what a dry run has shown under this hash, or nothing
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
}

impl RolloutArgs {
    /// Whether it says what is to be done, and to which sites: without a word a rollout would begin at once, over a whole
    /// service.
    pub const fn says_what(&self) -> bool {
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

/// `cdm freeze …`.
#[derive(Clone, Debug, Subcommand)]
pub enum FreezeCommand {
    /// Stop moves: promotes, upgrades and rollouts; deploys and rollbacks go on
    #[command(after_help = "Examples:\n  cdm freeze create --reason 'the sale of the year' --for 48h\n  \
                            cdm freeze create --sites shop,blog --reason 'their launch'")]
    Create {
        /// Why: what whoever is stopped by it is told
        #[arg(long)]
        reason: String,
        /// These sites only
        #[arg(long, value_delimiter = ',', value_name = "ID")]
        sites: Vec<String>,
        /// After how long it ends by itself, such as 48h
        #[arg(long = "for", value_parser = super::duration, value_name = "TIME")]
        lasts: Option<Duration>,
        /// When it ends by itself: a time such as 2030-01-31T00:00:00Z
        #[arg(long, value_parser = super::platform::timestamp, conflicts_with = "lasts", value_name = "TIME")]
        until: Option<String>,
    },
    /// List the freezes that hold
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm freeze list")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: super::Paging,
    },
    /// End a freeze; a rollout that waits for it goes on
    #[command(visible_alias = "rm", after_help = "Example:\n  cdm freeze remove freeze-12")]
    Remove {
        /// The freeze's id
        id: String,
    },
}

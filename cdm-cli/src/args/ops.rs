//! Arguments of `cdm op` and `cdm rollout`.

use clap::Subcommand;

use super::Paging;

/// `cdm op …`.
#[derive(Clone, Debug, Subcommand)]
pub enum OpCommand {
    /// List operations, without those of rollouts unless asked for
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  cdm op list --status parked\n  cdm op list --site shop --all"
    )]
    List {
        /// Only those of this site
        #[arg(long)]
        site: Option<String>,
        /// Only those of this kind, such as provision
        #[arg(long)]
        kind: Option<String>,
        /// Only those in this status, such as parked
        #[arg(long)]
        status: Option<String>,
        /// Only those of this rollout
        #[arg(long)]
        rollout: Option<String>,
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an operation and its steps
    #[command(visible_alias = "show")]
    Get {
        /// The operation's id
        id: String,
    },
    /// Wait for an operation and tell what it does
    Watch {
        /// The operation's id
        id: String,
    },
    /// Print what a step wrote
    #[command(after_help = "Example:\n  cdm op log op-78-site-shop Install")]
    Log {
        /// The operation's id
        id: String,
        /// The step's name
        step: String,
    },
    /// Continue a parked operation, or do a failed or cancelled one again
    Retry {
        /// The operation's id
        id: String,
    },
    /// Cancel an operation
    Cancel {
        /// The operation's id
        id: String,
    },
}

/// `cdm rollout …`.
#[derive(Clone, Debug, Subcommand)]
pub enum RolloutCommand {
    /// List rollouts
    #[command(visible_alias = "ls")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a rollout and its waves
    #[command(visible_alias = "show")]
    Get {
        /// The rollout's id
        id: String,
    },
    /// Wait for a rollout and tell how far it is
    Watch {
        /// The rollout's id
        id: String,
    },
    /// Start no more sites until resumed
    Pause {
        /// The rollout's id
        id: String,
    },
    /// Go on with a paused or halted rollout
    Resume {
        /// The rollout's id
        id: String,
    },
    /// End a rollout; sites that were moved stay where they are
    Abort {
        /// The rollout's id
        id: String,
    },
    /// Begin again with the sites that failed
    Retry {
        /// The rollout's id
        id: String,
    },
}

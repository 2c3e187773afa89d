//! Arguments of `cdm op` and `cdm rollout`.

use cdm_http::api::operation::{OperationKind, OperationStatus};
use clap::Subcommand;
use clap::builder::PossibleValuesParser;

use super::Paging;

/// `cdm op …`.
#[derive(Clone, Debug, Subcommand)]
pub enum OpCommand {
    /// List operations; operations of rollouts are listed with --rollout or --site only
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  cdm op list --status parked\n  cdm op list --site shop --all"
    )]
    List {
        /// Only operations on this site
        #[arg(long)]
        site: Option<String>,
        /// Only operations of this kind
        #[arg(long, value_parser = PossibleValuesParser::new(OperationKind::ALL.iter().map(OperationKind::as_str)))]
        kind: Option<String>,
        /// Only operations in this status
        #[arg(long, value_parser = PossibleValuesParser::new(OperationStatus::ALL.iter().map(OperationStatus::as_str)))]
        status: Option<String>,
        /// Only operations of this rollout
        #[arg(long)]
        rollout: Option<String>,
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an operation and its steps
    #[command(
        visible_alias = "show",
        after_help = "Examples:\n  cdm op get op-78-site-shop\n  cdm op get op-78-site-shop -o json | jq -r .status"
    )]
    Get {
        /// Id of the operation, such as op-2-site-shop
        id: String,
    },
    /// Wait for an operation and print its progress
    #[command(after_help = "Example:\n  cdm op watch op-78-site-shop --timeout 1h")]
    Watch {
        /// Id of the operation, such as op-2-site-shop
        id: String,
    },
    /// Print the output of a step's job
    #[command(after_help = "Example:\n  cdm op log op-78-site-shop Install")]
    Log {
        /// Id of the operation, such as op-2-site-shop
        id: String,
        /// Name of the step, such as Install
        step: String,
    },
    /// Resume a parked operation, or repeat a failed or canceled one
    #[command(
        after_help = "Examples:\n  cdm op retry op-78-site-shop\n  cdm op retry op-80-service-blue --force"
    )]
    Retry {
        /// Id of the operation, such as op-2-site-shop
        id: String,
        /// Repeat a deploy even if its digest is bad
        #[arg(long)]
        force: bool,
    },
    /// Cancel an operation: it stops after its current step, and undoes its changes if it can
    #[command(after_help = "Example:\n  cdm op cancel op-78-site-shop")]
    Cancel {
        /// Id of the operation, such as op-2-site-shop
        id: String,
    },
}

/// `cdm rollout …`.
#[derive(Clone, Debug, Subcommand)]
pub enum RolloutCommand {
    /// List rollouts with their status and counts of sites
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm rollout list --limit 5")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a rollout and its waves
    #[command(
        visible_alias = "show",
        after_help = "Examples:\n  cdm rollout get rollout-3\n  cdm op list --rollout rollout-3 --status failed"
    )]
    Get {
        /// Id of the rollout, such as rollout-21
        id: String,
    },
    /// Wait for a rollout and print its progress; with `-o json`, one line per change
    #[command(
        after_help = "Examples:\n  cdm rollout watch rollout-3 --timeout 2h\n  cdm rollout watch rollout-3 -o json"
    )]
    Watch {
        /// Id of the rollout, such as rollout-21
        id: String,
    },
    /// Start no more sites until the rollout is resumed
    #[command(after_help = "Example:\n  cdm rollout pause rollout-3")]
    Pause {
        /// Id of the rollout, such as rollout-21
        id: String,
    },
    /// Resume a paused or halted rollout
    #[command(after_help = "Examples:\n  cdm rollout resume rollout-3\n  \
                            cdm rollout resume rollout-3 --accept-digest sha256:<64 hex digits>")]
    Resume {
        /// Id of the rollout, such as rollout-21
        id: String,
        /// Continue on this digest, which the service runs instead of the rollout's
        #[arg(long, value_name = "DIGEST")]
        accept_digest: Option<String>,
        /// Continue even if that digest is bad
        #[arg(long, requires = "accept_digest")]
        force: bool,
    },
    /// End a rollout; sites that were moved stay where they are
    #[command(after_help = "Example:\n  cdm rollout abort rollout-3")]
    Abort {
        /// Id of the rollout, such as rollout-21
        id: String,
    },
    /// Start a rollout of the sites that were not moved
    #[command(after_help = "Examples:\n  cdm rollout retry rollout-3\n  cdm rollout retry rollout-3 --force")]
    Retry {
        /// Id of the rollout, such as rollout-21
        id: String,
        /// Start it even if the rollout's digest is bad
        #[arg(long)]
        force: bool,
    },
}

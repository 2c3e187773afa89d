//! Arguments of `cdm site`.

use clap::{Args, Subcommand, ValueEnum};

use super::Paging;

/// The states of sites, as the API has them.
pub const STATES: [&str; 7] =
    ["creating", "created", "provisioning", "active", "upgrading", "promoting", "terminating"];

/// One of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceColor {
    /// The service `blue`.
    Blue,
    /// The service `green`.
    Green,
}

impl ServiceColor {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

/// `cdm site …`.
#[derive(Clone, Debug, Subcommand)]
pub enum SiteCommand {
    /// Create a site: its record, hostnames and credentials
    #[command(after_help = "Example:\n  cdm site create shop --theme storefront \\\n      \
                      --hostname shop.example.com --hostname www.shop.example.com --name 'The shop'")]
    Create(CreateArgs),
    /// List sites
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  cdm site list --service green\n  cdm site list --all -o json"
    )]
    List(SiteFilter),
    /// Show a site
    #[command(visible_alias = "show", after_help = "Example:\n  cdm site get shop")]
    Get {
        /// The site's id
        id: String,
    },
    /// Give a site its database, files, installation and route
    #[command(after_help = "Example:\n  cdm site provision shop")]
    Provision {
        /// The site's id
        id: String,
    },
    /// Set a site's service to the active canary and flush its caches; the route stays
    #[command(after_help = "Example:\n  cdm site upgrade shop")]
    Upgrade {
        /// The site's id
        id: String,
    },
    /// Point a site's route to the active canary
    #[command(after_help = "Example:\n  cdm site promote shop")]
    Promote {
        /// The site's id
        id: String,
    },
    /// Remove a site for good: route, database, files and credentials
    #[command(
        visible_alias = "terminate",
        after_help = "Asks for the site's id on a terminal; in a script --confirm says it.\n\n\
                      Examples:\n  cdm site delete shop\n  cdm site delete shop --confirm shop"
    )]
    Delete(DeleteArgs),
}

/// `cdm site create`.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// The site's id: lower-case letters, digits and single dashes, at most 32 characters
    pub id: String,
    /// Its theme
    #[arg(long)]
    pub theme: String,
    /// A hostname it answers to; repeat for more
    #[arg(long = "hostname", required = true, value_delimiter = ',', value_name = "HOST")]
    pub hostnames: Vec<String>,
    /// The hostname that the others redirect to [default: the first]
    #[arg(long = "canonical", value_name = "HOST")]
    pub canonical: Option<String>,
    /// Its title [default: the id]
    #[arg(long)]
    pub name: Option<String>,
    /// The service it belongs to [default: the active canary]
    #[arg(long, value_enum)]
    pub service: Option<ServiceColor>,
}

/// `cdm site list`.
#[derive(Args, Clone, Debug)]
pub struct SiteFilter {
    /// Only those of this service
    #[arg(long, value_enum)]
    pub service: Option<ServiceColor>,
    /// Only those in this state
    #[arg(long, value_parser = STATES)]
    pub state: Option<String>,
    /// Only those whose id, name or hostnames contain this
    #[arg(short = 's', long = "search", value_name = "TEXT")]
    pub search: Option<String>,
    /// Only those whose route points to another service than their record says
    #[arg(long)]
    pub drifted: bool,
    /// How much to list.
    #[command(flatten)]
    pub paging: Paging,
}

/// `cdm site delete`.
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {
    /// The site's id
    pub id: String,
    /// The site's id once more, where nobody can be asked
    #[arg(long, value_name = "ID")]
    pub confirm: Option<String>,
}

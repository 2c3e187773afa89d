//! Arguments of `cdm site`.

use cdm_http::api::ServiceName;
use cdm_http::api::site::SiteState;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

use super::Paging;

/// One of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceColor {
    /// One of the two services; the other is green.
    Blue,
    /// One of the two services; the other is blue.
    Green,
}

impl ServiceColor {
    /// Returns the name in the API.
    pub const fn name(self) -> ServiceName {
        match self {
            Self::Blue => ServiceName::Blue,
            Self::Green => ServiceName::Green,
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
    /// List sites with their state, service and hostname
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  cdm site list --service green\n  cdm site list --all -o json"
    )]
    List(SiteFilter),
    /// Show all fields of a site
    #[command(visible_alias = "show", after_help = "Example:\n  cdm site get shop")]
    Get {
        /// Id of the site, such as shop
        id: String,
    },
    /// Provision a site: database, files, installation and route
    #[command(after_help = "Example:\n  cdm site provision shop")]
    Provision {
        /// Id of the site, such as shop
        id: String,
    },
    /// Set a site's service to the active canary and flush its caches; the route stays
    #[command(after_help = "Example:\n  cdm site upgrade shop")]
    Upgrade {
        /// Id of the site, such as shop
        id: String,
    },
    /// Point a site's route to the active canary
    #[command(after_help = "Example:\n  cdm site promote shop")]
    Promote {
        /// Id of the site, such as shop
        id: String,
    },
    /// Delete a site permanently: route, database, files and credentials
    #[command(
        visible_alias = "terminate",
        after_help = "Prompts for the site's id on a terminal; a script passes it with --confirm.\n\n\
                      Examples:\n  cdm site delete shop\n  cdm site delete shop --confirm shop"
    )]
    Delete(DeleteArgs),
}

/// `cdm site create`.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// Id of the site: lower-case letters, digits and single dashes, at most 32 characters
    pub id: String,
    /// Theme of the site
    #[arg(long)]
    pub theme: String,
    /// A hostname of the site; repeat for more
    #[arg(long = "hostname", required = true, value_delimiter = ',', value_name = "HOST")]
    pub hostnames: Vec<String>,
    /// The hostname that the others redirect to [default: the first]
    #[arg(long = "canonical", value_name = "HOST")]
    pub canonical: Option<String>,
    /// Title of the site [default: the id]
    #[arg(long)]
    pub name: Option<String>,
    /// Service of the site [default: the active canary]
    #[arg(long, value_enum)]
    pub service: Option<ServiceColor>,
}

/// `cdm site list`.
#[derive(Args, Clone, Debug)]
pub struct SiteFilter {
    /// Only sites of this service
    #[arg(long, value_enum)]
    pub service: Option<ServiceColor>,
    /// Only sites in this state
    #[arg(long, value_parser = PossibleValuesParser::new(SiteState::ALL.iter().map(SiteState::as_str)))]
    pub state: Option<String>,
    /// Only sites whose id, name or hostnames contain this text
    #[arg(short = 's', long = "search", value_name = "TEXT")]
    pub search: Option<String>,
    /// Only sites whose route points to another service than their record
    #[arg(long)]
    pub drifted: bool,
    /// How much to list.
    #[command(flatten)]
    pub paging: Paging,
}

/// `cdm site delete`.
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {
    /// Id of the site, such as shop
    pub id: String,
    /// Id of the site again, to confirm without a prompt
    #[arg(long, value_name = "ID")]
    pub confirm: Option<String>,
}

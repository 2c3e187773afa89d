//! Arguments of `cdm services`, `cdm webhook`, `cdm token`, `cdm user`, `cdm local`, and of commands without
//! subcommands.

use std::path::PathBuf;

use cdm_http::api::services::MarkVerdict;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{Paging, ServiceColor};

/// `cdm services …`.
#[derive(Clone, Debug, Subcommand)]
pub enum ServicesCommand {
    /// Show both services and the active canary
    #[command(visible_alias = "get", after_help = "Example:\n  cdm services show")]
    Show,
    /// Make a service the active canary
    #[command(after_help = "Example:\n  cdm services select green")]
    Select {
        /// Service to make the active canary
        #[arg(value_enum)]
        service: ServiceColor,
    },
    /// Deploy an image to the active canary, or to the named service
    #[command(after_help = "Example:\n  cdm services deploy sha256:<64 hex digits> --promote")]
    Deploy {
        /// Digest of the image: 64 hex digits, optionally after sha256: or `REPOSITORY[:TAG]@sha256:`
        image: String,
        /// Also route the service's sites to it
        #[arg(long)]
        promote: bool,
        /// The service [default: the active canary]
        #[arg(long, value_enum)]
        service: Option<ServiceColor>,
    },
    /// Upgrade or promote many sites, in waves
    #[command(
        after_help = "Examples:\n  cdm services rollout --promote --scope inactive --waves 1,10%,100%\n  \
                      cdm services rollout --image sha256:<64 hex digits> --failure-budget 2% --auto-rollback\n  \
                      cdm services rollout --promote --scope inactive --waves 1,100% --bake 10m --gate-path /"
    )]
    Rollout(Box<super::RolloutArgs>),
    /// List the digests that ran on a service, newest first, with their verdicts
    #[command(after_help = "Example:\n  cdm services history green --limit 5")]
    History {
        /// Service whose history to list
        #[arg(value_enum)]
        service: ServiceColor,
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Mark a digest as healthy or bad, on both services
    #[command(
        after_help = "Example:\n  cdm services mark sha256:<64 hex digits> bad --reason 'loses uploads'"
    )]
    Mark {
        /// Digest to mark
        digest: String,
        /// Verdict to set
        #[arg(value_enum)]
        verdict: Verdict,
        /// Reason for the verdict
        #[arg(long)]
        reason: String,
    },
    /// Deploy the newest healthy digest other than the one that runs
    #[command(after_help = "Examples:\n  cdm services rollback\n  cdm services rollback --service blue")]
    Rollback {
        /// The service [default: the active canary]
        #[arg(long, value_enum)]
        service: Option<ServiceColor>,
    },
}

/// A verdict that a user sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// A rollback may select the digest.
    Healthy,
    /// A rollback never selects the digest.
    Bad,
    /// Removes the verdict.
    Unknown,
}

impl From<Verdict> for MarkVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Healthy => Self::Healthy,
            Verdict::Bad => Self::Bad,
            Verdict::Unknown => Self::Unknown,
        }
    }
}

/// `cdm webhook …`.
#[derive(Clone, Debug, Subcommand)]
pub enum WebhookCommand {
    /// Create a webhook for events from now on; its signing key is shown only once
    #[command(after_help = "Examples:\n  cdm webhook create https://hooks.example.com/cdm > webhook.key\n  \
                            cdm webhook create https://hooks.example.com/cdm --events rollout.halted,operation.parked")]
    Create {
        /// Receiver of the messages: https, and no internal address unless the server's configuration allows it
        url: String,
        /// Event types to send [default: an operation or rollout ended, or needs a person]
        #[arg(long, value_delimiter = ',', value_name = "EVENT")]
        events: Vec<String>,
    },
    /// List webhooks and their delivery states
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm webhook list")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Remove a webhook; no more events are sent to it
    #[command(visible_alias = "rm", after_help = "Example:\n  cdm webhook remove webhook-12")]
    Remove {
        /// Id of the webhook, such as webhook-12
        id: String,
    },
}

/// `cdm token …`.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token; it is shown only once
    #[command(
        after_help = "Examples:\n  cdm token create ci --role operator --expires-in 720h\n  cdm token create \
                            monitoring --role viewer --no-expiry"
    )]
    Create {
        /// Name of the token
        name: String,
        /// Role of the token
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// When the token expires: a time such as 2030-01-31T00:00:00Z
        #[arg(long, value_parser = timestamp, value_name = "TIME")]
        expires_at: Option<String>,
        /// After how long the token expires, such as 720h [default: 90 days]
        #[arg(long, value_parser = super::duration, conflicts_with = "expires_at", value_name = "TIME")]
        expires_in: Option<std::time::Duration>,
        /// Keep the token valid until it is revoked
        #[arg(long, conflicts_with_all = ["expires_at", "expires_in"])]
        no_expiry: bool,
    },
    /// List tokens, including revoked ones; their text is not shown
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm token list")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Revoke a token, effective immediately
    #[command(after_help = "Example:\n  cdm token revoke 01kb2m4x9q7r3t5v6w8y0z1a2b")]
    Revoke {
        /// Id of the token, which cdm token list shows
        id: String,
    },
}

/// `cdm user …`. A password is prompted for, or read from a file; it is never an argument.
#[derive(Clone, Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user of the console; prompts for the password
    #[command(after_help = "Examples:\n  cdm user create ada --role operator\n  \
                            cdm user create ada --role viewer --password-file ada.password")]
    Create {
        /// Name to sign in with; an email address in lower case is possible
        name: String,
        /// Role of the user
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordArgs,
        /// Create the user without a password, to sign in through an OpenID Connect provider
        #[arg(long, conflicts_with = "password_file")]
        no_password: bool,
    },
    /// List users, including removed ones
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm user list")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Set a user's password; all sessions of the user end
    #[command(alias = "passwd", after_help = "Example:\n  cdm user set-password ada")]
    SetPassword {
        /// Name of the user
        name: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Change a user's role
    #[command(after_help = "Example:\n  cdm user role ada admin")]
    Role {
        /// Name of the user
        name: String,
        /// Role that the user has from the next request
        #[arg(value_parser = ["viewer", "operator", "admin"])]
        role: String,
    },
    /// End all sessions of a user, who may sign in again
    #[command(after_help = "Example:\n  cdm user sign-out ada")]
    SignOut {
        /// Name of the user
        name: String,
    },
    /// Remove a user's second factor; all sessions end, and the user can set up a new one
    #[command(after_help = "Example:\n  cdm user reset-second-factor ada")]
    ResetSecondFactor {
        /// Name of the user
        name: String,
    },
    /// Unbind a user from the account at the OpenID Connect provider; all sessions end
    #[command(after_help = "Example:\n  cdm user unbind grace@example.com")]
    Unbind {
        /// Name of the user
        name: String,
    },
    /// Remove a user permanently; the name is never assigned again
    #[command(visible_alias = "rm", after_help = "Example:\n  cdm user remove ada")]
    Remove {
        /// Name of the user
        name: String,
    },
}

/// Where a password comes from.
#[derive(Args, Clone, Debug)]
pub struct PasswordArgs {
    /// File that contains the password, `-` for standard input [default: a prompt]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

pub(super) fn timestamp(text: &str) -> Result<String, String> {
    text.parse::<jiff::Timestamp>()
        .map(|at| at.to_string())
        .map_err(|_| format!("`{text}` is not a time such as 2030-01-31T00:00:00Z"))
}

/// `cdm audit`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  cdm audit --site shop\n  cdm audit --actor ci --since 2030-01-31T00:00:00Z -o json"
)]
pub struct AuditArgs {
    /// Only requests of this actor
    #[arg(long)]
    pub actor: Option<String>,
    /// Only requests that concern this site
    #[arg(long)]
    pub site: Option<String>,
    /// Only requests since this time, such as 2030-01-31T00:00:00Z
    #[arg(long, value_parser = timestamp, value_name = "TIME")]
    pub since: Option<String>,
    /// How much to list.
    #[command(flatten)]
    pub paging: Paging,
}

/// `cdm demo`.
#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = "Examples:\n  cdm demo\n  cdm demo --keep")]
pub struct DemoArgs {
    /// Keep the platform running afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

/// `cdm man`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  cdm man --dir ~/.local/share/man/man1 && man cdm-site-create")]
pub struct ManArgs {
    /// Directory to write to; it is created if it does not exist
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}

/// `cdm local …`.
#[derive(Clone, Debug, Subcommand)]
pub enum LocalCommand {
    /// Declare how an image behaves in the local cluster
    #[command(
        after_help = "Examples:\n  cdm local image sha256:<64 hex digits> --never-ready\n  \
                      cdm local image sha256:<64 hex digits> --healthy",
        group(ArgGroup::new("behavior").required(true).args(["never_ready", "failing", "no_themes", "healthy"]))
    )]
    Image {
        /// Digest of the image
        digest: String,
        /// Exactly one of the flags is required.
        #[command(flatten)]
        behavior: BehaviorArgs,
    },
}

/// Behaviors that an image can be declared to have, as flags.
#[derive(Args, Clone, Copy, Debug)]
pub struct BehaviorArgs {
    /// Pods of the image never become ready
    #[arg(long)]
    never_ready: bool,
    /// Pods of the image become ready and respond with status 500
    #[arg(long)]
    failing: bool,
    /// Pods of the image serve pages, but the image contains no theme: provisions park
    #[arg(long)]
    no_themes: bool,
    /// Pods of the image become ready and serve pages, as by default
    #[arg(long)]
    healthy: bool,
}

/// How an image of the local cluster behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageBehavior {
    /// The pods never become ready.
    NeverReady,
    /// The pods become ready and respond with status 500.
    Failing,
    /// The pods serve pages, but the image contains no theme.
    NoThemes,
    /// The pods serve pages, and the image has every theme.
    Healthy,
}

impl ImageBehavior {
    /// Returns the name, as in the flag.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverReady => "never-ready",
            Self::Failing => "failing",
            Self::NoThemes => "no-themes",
            Self::Healthy => "healthy",
        }
    }

    /// Returns a description for messages.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::NeverReady => "pods of this image never become ready",
            Self::Failing => "pods of this image become ready and respond with status 500",
            Self::NoThemes => "pods of this image work, but it contains no theme",
            Self::Healthy => "pods of this image work",
        }
    }
}

impl BehaviorArgs {
    /// Returns the behavior that the flags select.
    pub fn behavior(self) -> ImageBehavior {
        match (self.never_ready, self.failing, self.no_themes, self.healthy) {
            (true, _, _, _) => ImageBehavior::NeverReady,
            (_, true, _, _) => ImageBehavior::Failing,
            (_, _, true, _) => ImageBehavior::NoThemes,
            (_, _, _, true | false) => ImageBehavior::Healthy,
        }
    }
}

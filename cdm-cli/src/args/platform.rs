//! Arguments of `cdm services`, `cdm token`, `cdm user` and the commands without a noun.

use std::path::PathBuf;

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
        /// The service
        #[arg(value_enum)]
        service: ServiceColor,
    },
    /// Deploy an image to the active canary, or to the named service
    #[command(after_help = "Example:\n  cdm services deploy sha256:<64 hex digits> --promote")]
    Deploy {
        /// The image: 64 hex digits, with or without sha256: and `REPOSITORY[:TAG]@` before it
        image: String,
        /// Route the service's sites to it as well
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
    /// Images that ran on a service, newest first, with their verdicts
    #[command(after_help = "Example:\n  cdm services history green --limit 5")]
    History {
        /// The service
        #[arg(value_enum)]
        service: ServiceColor,
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Say that a digest is healthy or bad, on both services
    #[command(
        after_help = "Example:\n  cdm services mark sha256:<64 hex digits> bad --reason 'loses uploads'"
    )]
    Mark {
        /// The digest
        digest: String,
        /// What it is
        #[arg(value_enum)]
        verdict: Verdict,
        /// Why
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

/// What a person says of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// It may be rolled back to.
    Healthy,
    /// It may not.
    Bad,
    /// Nothing is said of it any more.
    Unknown,
}

impl Verdict {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }
}

/// `cdm webhook …`.
#[derive(Clone, Debug, Subcommand)]
pub enum WebhookCommand {
    /// Tell a receiver what happens from now on; the key of its signatures is shown this once
    #[command(after_help = "Examples:\n  cdm webhook create https://hooks.example.com/cdm > webhook.key\n  \
                            cdm webhook create https://hooks.example.com/cdm --events rollout.halted,operation.parked")]
    Create {
        /// Where its messages go: https, and no address inside but those of the server's configuration
        url: String,
        /// What it is told [default: what came to its end, or stands still until somebody asks]
        #[arg(long, value_delimiter = ',', value_name = "EVENT")]
        events: Vec<String>,
    },
    /// List webhooks, and how they stand
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm webhook list")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Tell a receiver nothing any more
    #[command(visible_alias = "rm", after_help = "Example:\n  cdm webhook remove webhook-12")]
    Remove {
        /// The webhook's id
        id: String,
    },
}

/// `cdm token …`.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is shown this once
    #[command(
        after_help = "Examples:\n  cdm token create ci --role operator --expires-in 720h\n  cdm token create \
                            monitoring --role viewer --no-expiry"
    )]
    Create {
        /// What it is called
        name: String,
        /// What it may do
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// When it ends: a time such as 2030-01-31T00:00:00Z
        #[arg(long, value_parser = timestamp, value_name = "TIME")]
        expires_at: Option<String>,
        /// After how long it ends, such as 720h; 90 days where nothing is said
        #[arg(long, value_parser = super::duration, conflicts_with = "expires_at", value_name = "TIME")]
        expires_in: Option<std::time::Duration>,
        /// It serves until it is revoked
        #[arg(long, conflicts_with_all = ["expires_at", "expires_in"])]
        no_expiry: bool,
    },
    /// List tokens, revoked ones too; their text is not shown
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm token list")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// End a token at once
    #[command(after_help = "Example:\n  cdm token revoke 01kb2m4x9q7r3t5v6w8y0z1a2b")]
    Revoke {
        /// The token's id
        id: String,
    },
}

/// `cdm user …`. A password is asked for, or read from a file; it is never an argument.
#[derive(Clone, Debug, Subcommand)]
pub enum UserCommand {
    /// Let a person sign in to the console; their password is asked for
    #[command(after_help = "Examples:\n  cdm user create ada --role operator\n  \
                            cdm user create ada --role viewer --password-file ada.password")]
    Create {
        /// What they sign in as; an e-mail address in lower case will do
        name: String,
        /// What they may do
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordArgs,
        /// They have none: a provider of OpenID Connect vouches for them
        #[arg(long, conflicts_with = "password_file")]
        no_password: bool,
    },
    /// List the people who may sign in, or ever might
    #[command(visible_alias = "ls", after_help = "Example:\n  cdm user list")]
    List {
        /// How much to list.
        #[command(flatten)]
        paging: Paging,
    },
    /// Give a person another password; they are signed out everywhere
    #[command(after_help = "Example:\n  cdm user passwd ada")]
    Passwd {
        /// Who
        name: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Give a person another role
    #[command(after_help = "Example:\n  cdm user role ada admin")]
    Role {
        /// Who
        name: String,
        /// What they may do
        #[arg(value_parser = ["viewer", "operator", "admin"])]
        role: String,
    },
    /// Sign a person out everywhere; they may sign in again
    #[command(after_help = "Example:\n  cdm user sign-out ada")]
    SignOut {
        /// Who
        name: String,
    },
    /// Take a person's second factor away; they are signed out everywhere, and set up another one
    #[command(after_help = "Example:\n  cdm user reset-second-factor ada")]
    ResetSecondFactor {
        /// Who
        name: String,
    },
    /// Unbind a person from their account at the provider of OpenID Connect; they are signed out everywhere
    #[command(after_help = "Example:\n  cdm user unbind grace@example.com")]
    Unbind {
        /// Who
        name: String,
    },
    /// Sign a person out for good; their name is never given again
    #[command(visible_alias = "rm", after_help = "Example:\n  cdm user remove ada")]
    Remove {
        /// Who
        name: String,
    },
}

/// Where a password comes from.
#[derive(Args, Clone, Debug)]
pub struct PasswordArgs {
    /// File that holds the password, `-` for standard input [default: it is asked for]
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
    /// Only what this actor asked for
    #[arg(long)]
    pub actor: Option<String>,
    /// Only what concerns this site
    #[arg(long)]
    pub site: Option<String>,
    /// Only since this time, such as 2030-01-31T00:00:00Z
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
    /// Go on serving afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

/// `cdm man`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  cdm man --dir ~/.local/share/man/man1 && man cdm-site-create")]
pub struct ManArgs {
    /// The directory to write into; it is made if need be
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
        group(ArgGroup::new("behaviour").required(true).args(["never_ready", "failing", "no_themes", "healthy"]))
    )]
    Image {
        /// Digest of the image
        digest: String,
        /// How it behaves.
        #[command(flatten)]
        behaviour: BehaviourArgs,
    },
}

/// The ways an image may be declared to behave, as flags.
#[derive(Args, Clone, Copy, Debug)]
pub struct BehaviourArgs {
    /// Its pods never get ready
    #[arg(long)]
    never_ready: bool,
    /// Its pods get ready and answer 500
    #[arg(long)]
    failing: bool,
    /// It works, but no theme is in it: provisions park
    #[arg(long)]
    no_themes: bool,
    /// It works
    #[arg(long)]
    healthy: bool,
}

/// How an image of the local cluster behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageBehaviour {
    /// Its pods never get ready.
    NeverReady,
    /// Its pods get ready and answer 500.
    Failing,
    /// It works, but no theme is in it.
    NoThemes,
    /// It works.
    Healthy,
}

impl ImageBehaviour {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverReady => "never-ready",
            Self::Failing => "failing",
            Self::NoThemes => "no-themes",
            Self::Healthy => "healthy",
        }
    }

    /// What it means, for people.
    pub const fn told(self) -> &'static str {
        match self {
            Self::NeverReady => "pods of this image never get ready",
            Self::Failing => "pods of this image get ready and answer 500",
            Self::NoThemes => "pods of this image work, and no theme is in it",
            Self::Healthy => "pods of this image work",
        }
    }
}

impl BehaviourArgs {
    /// The one that was named.
    pub fn behaviour(self) -> ImageBehaviour {
        match (self.never_ready, self.failing, self.no_themes, self.healthy) {
            (true, _, _, _) => ImageBehaviour::NeverReady,
            (_, true, _, _) => ImageBehaviour::Failing,
            (_, _, true, _) => ImageBehaviour::NoThemes,
            (_, _, _, true | false) => ImageBehaviour::Healthy,
        }
    }
}

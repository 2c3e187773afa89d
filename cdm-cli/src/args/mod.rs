//! The command line as types: commands, options, and the text of `--help`.

mod ops;
mod platform;
mod rollout;
mod site;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{FalseyValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use ops::{OpCommand, RolloutCommand};
pub use platform::Verdict;
pub use platform::{
    AuditArgs, BehaviorArgs, DemoArgs, ImageBehavior, LocalCommand, ManArgs, PasswordArgs, ServicesCommand,
    TokenCommand, UserCommand, WebhookCommand,
};
pub use rollout::{FreezeCommand, GateArgs, RolloutArgs};
pub use site::{CreateArgs, DeleteArgs, ServiceColor, SiteCommand, SiteFilter};

const EXAMPLES: &str = "\
Examples:
  cdm site create shop --theme storefront --hostname shop.example.com --name 'The shop'
  cdm site provision shop
  cdm services deploy sha256:<64 hex digits>
  cdm services rollout --promote --scope inactive --waves 1,10%,100%
  cdm op list --status parked
  cdm site list -o json | jq -r '.items[].id'
  cdm demo

Exit codes:
  0 done    1 failed, canceled or parked    2 usage    3 not allowed    4 not found
  5 conflict    6 the wait timed out    7 partly done    8 server unreachable, or it limits requests
  129 hangup, 130 Ctrl-C, 143 SIGTERM: the operation continues

No server yet? `cdm demo` runs a whole platform in one process; `cdm --local` needs no server.";

/// Manages WordPress sites on two shared services.
#[derive(Clone, Debug, Parser)]
#[command(name = "cdm", version, after_help = EXAMPLES, propagate_version = true, max_term_width = 100, disable_help_flag = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// Print help
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort, help_heading = "Global options")]
    pub help: Option<bool>,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Parses a path that may be empty, as in a variable without a value; [`Global::without_empty`] treats it as unset.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Global {
    /// Treats empty variables and options as unset.
    #[must_use]
    pub fn without_empty(mut self) -> Self {
        for path in [&mut self.data_dir, &mut self.config, &mut self.cacert] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                *path = None;
            }
        }
        if self.server.is_empty() {
            DEFAULT_SERVER.clone_into(&mut self.server);
        }
        self
    }
}

/// Address of a server with the default configuration.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Address of the server
    #[arg(
        long,
        global = true,
        env = "CDM_SERVER",
        default_value = DEFAULT_SERVER,
        value_name = "URL"
    )]
    pub server: String,
    /// File that contains the token (or set CDM_TOKEN or CDM_TOKEN_FILE)
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Send the token without TLS to a server on another machine
    #[arg(long, global = true, env = "CDM_ALLOW_PLAINTEXT", value_parser = FalseyValueParser::new())]
    pub allow_plaintext: bool,
    /// PEM file with certificate authorities to trust in addition to those of the system
    #[arg(long, global = true, env = "CDM_CACERT", value_name = "FILE", value_parser = path())]
    pub cacert: Option<PathBuf>,
    /// Run operations in this process on the store itself, without a server
    #[arg(long, global = true)]
    pub local: bool,
    /// Directory of the embedded store, with --local
    #[arg(long, global = true, env = "CDM_DATA_DIR", value_name = "DIR", value_parser = path())]
    pub data_dir: Option<PathBuf>,
    /// Configuration file, with --local
    #[arg(long, global = true, env = "CDM_CONFIG", value_name = "FILE", value_parser = path())]
    pub config: Option<PathBuf>,
    /// How to print results: for people, or for programs
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Do not wait for the operation or rollout: print its id
    #[arg(long, global = true)]
    pub no_wait: bool,
    /// Maximum time to wait, also for a server that restarts or limits requests, such as 90s, 10m or 1h30m
    #[arg(long, global = true, default_value = "10m", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Print only results, errors and hints
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Idempotency key: a repeated request with the same key is not executed again
    #[arg(long, global = true, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// When to color the output (NO_COLOR is respected)
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// The server's response as JSON.
    Json,
    /// The server's response as YAML.
    Yaml,
}

/// When to color the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Colors on a terminal only.
    Auto,
    /// Colors in files and pipes too.
    Always,
    /// No colors.
    Never,
}

/// A command with its arguments.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Create, move and delete sites
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm site create shop --theme storefront --hostname shop.example.com\n  \
                      cdm site provision shop\n  cdm site list --service green"
    )]
    Site(SiteCommand),
    /// Manage the two services, their images and verdicts
    #[command(
        subcommand,
        visible_alias = "service",
        after_help = "Examples:\n  cdm services show\n  cdm services select green\n  \
                      cdm services deploy sha256:<64 hex digits>\n  cdm services rollback"
    )]
    Services(ServicesCommand),
    /// List and control rollouts; `cdm services rollout` starts one
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm rollout list\n  cdm rollout watch rollout-3\n  cdm rollout pause rollout-3"
    )]
    Rollout(RolloutCommand),
    /// List, watch, retry and cancel operations
    #[command(
        subcommand,
        visible_alias = "operation",
        after_help = "Examples:\n  cdm op list --status parked\n  cdm op watch op-78-site-shop\n  \
                      cdm op retry op-78-site-shop"
    )]
    Op(OpCommand),
    /// Stop moves for a time, of all sites or of some
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm freeze create --reason 'the sale of the year' --for 48h\n  cdm freeze list"
    )]
    Freeze(FreezeCommand),
    /// Manage webhooks, which send events to other systems
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm webhook create https://hooks.example.com/cdm > webhook.key\n  \
                      cdm webhook list"
    )]
    Webhook(WebhookCommand),
    /// Manage the tokens that authenticate API requests
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm token create ci --role operator --expires-in 720h > ci.token\n  \
                      cdm --token-file ci.token site list\n  cdm token list"
    )]
    Token(TokenCommand),
    /// Manage the users who sign in to the console
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm user create ada --role operator\n  cdm user set-password ada\n  cdm user list"
    )]
    User(UserCommand),
    /// Show the audit log: which requests were made, and by which actor
    Audit(AuditArgs),
    /// Print events as they occur, until Ctrl-C; with -o json, one object per line
    #[command(after_help = "Examples:\n  cdm events\n  cdm events -o json | jq -r .what")]
    Events,
    /// Check the server, each backend and the token
    #[command(after_help = "Examples:\n  cdm doctor\n  cdm --local doctor")]
    Doctor,
    /// Run the lifecycle of sites and a rollout with a broken image, all in this process
    Demo(DemoArgs),
    /// Print the completion script for a shell
    #[command(
        after_help = "Examples:\n  cdm completion bash > ~/.local/share/bash-completion/completions/cdm\n  \
                      cdm completion zsh > ~/.zfunc/_cdm\n  \
                      cdm completion fish > ~/.config/fish/completions/cdm.fish\n  \
                      cdm completion powershell >> $PROFILE"
    )]
    Completion {
        /// Shell that runs the script
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages, one for each command
    Man(ManArgs),
    /// Declare images in the local cluster of an embedded store
    #[command(subcommand, after_help = "Example:\n  cdm local image sha256:<64 hex digits> --failing")]
    Local(LocalCommand),
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash, with the package `bash-completion`.
    Bash,
    /// Zsh, with the script in a directory of `fpath`.
    Zsh,
    /// Fish, with the script in `~/.config/fish/completions`.
    Fish,
    /// PowerShell, with the script in `$PROFILE`.
    #[value(name = "powershell")]
    PowerShell,
}

/// How much of a list to read.
#[derive(Args, Clone, Copy, Debug)]
pub struct Paging {
    /// Maximum number of items to list
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub limit: u64,
    /// List all items, without a limit
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
}

/// Parses a duration such as `90s`, `10m`, `1h30m`, `3d` or `1w`; a day has 24 hours.
///
/// # Errors
/// When the text is not a duration, or has no unit: a bare number could mean seconds or days.
pub fn duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{text}` has no unit: write {text}s, {text}m, {text}h, {text}d or {text}w"));
    }
    let none = || format!("`{text}` is not a duration such as 90s, 15m, 2h, 3d or 1w");
    let span: jiff::Span = text.parse().map_err(|_| none())?;
    let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| none())?;
    Duration::try_from(span).map_err(|_| format!("`{text}` is negative"))
}

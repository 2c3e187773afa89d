//! The command line as types: what may be typed, and what `--help` says of it.

mod ops;
mod platform;
mod rollout;
mod site;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{FalseyValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use ops::{KINDS, OpCommand, RolloutCommand, STATUSES};
pub use platform::Verdict;
pub use platform::{
    AuditArgs, BehaviourArgs, DemoArgs, ImageBehaviour, LocalCommand, ManArgs, PasswordArgs, ServicesCommand,
    TokenCommand, UserCommand, WebhookCommand,
};
pub use rollout::{FreezeCommand, GateArgs, RolloutArgs};
pub use site::{CreateArgs, DeleteArgs, STATES, ServiceColor, SiteCommand, SiteFilter};

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
  0 done    1 the work failed, was cancelled or is parked    2 usage    3 not allowed    4 not found
  5 conflict    6 the wait timed out    7 partly done    8 server unreachable, or it limits requests
  129 hangup, 130 Ctrl-C, 143 SIGTERM: the work goes on

Nothing running yet? `cdm demo` needs no server; `cdm --local` works on a store of its own.";

/// Manages many sites on two shared services.
#[derive(Clone, Debug, Parser)]
#[command(name = "cdm", version, after_help = EXAMPLES, propagate_version = true, max_term_width = 100, disable_help_flag = true)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub global: Global,
    /// Print help
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort, help_heading = "Options of every command")]
    pub help: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A path that may be empty, as that of a variable without a value is; [`Global::without_empty`] takes it for none.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Global {
    /// The same, where an empty variable or option counts as none.
    #[must_use]
    pub fn without_empty(mut self) -> Self {
        for path in [&mut self.data_dir, &mut self.config, &mut self.cacert] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                *path = None;
            }
        }
        if self.server.is_empty() {
            USUAL_SERVER.clone_into(&mut self.server);
        }
        self
    }
}

/// Where a server listens that was told nothing else.
const USUAL_SERVER: &str = "http://127.0.0.1:8080";

/// Options that every command has.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Address of the server
    #[arg(
        long,
        global = true,
        env = "CDM_SERVER",
        default_value = USUAL_SERVER,
        value_name = "URL"
    )]
    pub server: String,
    /// File that holds the token (or set CDM_TOKEN or CDM_TOKEN_FILE)
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Send the token in plaintext to a server on another machine
    #[arg(long, global = true, env = "CDM_ALLOW_PLAINTEXT", value_parser = FalseyValueParser::new())]
    pub allow_plaintext: bool,
    /// File with further certificate authorities, in PEM, that may vouch for the server
    #[arg(long, global = true, env = "CDM_CACERT", value_name = "FILE", value_parser = path())]
    pub cacert: Option<PathBuf>,
    /// Do the work in this process on the store itself, without a server
    #[arg(long, global = true)]
    pub local: bool,
    /// Directory of the embedded store, with --local
    #[arg(long, global = true, env = "CDM_DATA_DIR", value_name = "DIR", value_parser = path())]
    pub data_dir: Option<PathBuf>,
    /// Configuration file, with --local
    #[arg(long, global = true, env = "CDM_CONFIG", value_name = "FILE", value_parser = path())]
    pub config: Option<PathBuf>,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Do not wait for the work: print its id
    #[arg(long, global = true)]
    pub no_wait: bool,
    /// How long to wait for the work, and for a server that is restarted or limits requests, such as 90s, 10m or 1h30m
    #[arg(long, global = true, default_value = "10m", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Key under which the server knows a repetition of this request
    #[arg(long, global = true, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// When to colour (NO_COLOR is honoured)
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// What the server said, as JSON.
    Json,
    /// What the server said, as YAML.
    Yaml,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Create, move and delete sites
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm site create shop --theme storefront --hostname shop.example.com\n  \
                      cdm site provision shop\n  cdm site list --service green"
    )]
    Site(SiteCommand),
    /// The two services, their images and verdicts
    #[command(
        subcommand,
        visible_alias = "service",
        after_help = "Examples:\n  cdm services show\n  cdm services select green\n  \
                      cdm services deploy sha256:<64 hex digits>\n  cdm services rollback"
    )]
    Services(ServicesCommand),
    /// Moves of many sites; `cdm services rollout` starts one
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm rollout list\n  cdm rollout watch rollout-3\n  cdm rollout pause rollout-3"
    )]
    Rollout(RolloutCommand),
    /// Operations: what is being done, and what came of it
    #[command(
        subcommand,
        visible_alias = "operation",
        after_help = "Examples:\n  cdm op list --status parked\n  cdm op watch op-78-site-shop\n  \
                      cdm op retry op-78-site-shop"
    )]
    Op(OpCommand),
    /// Times in which nobody is moved, or some are not
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm freeze create --reason 'the sale of the year' --for 48h\n  cdm freeze list"
    )]
    Freeze(FreezeCommand),
    /// Receivers that are told what happens
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm webhook create https://hooks.example.com/cdm > webhook.key\n  \
                      cdm webhook list"
    )]
    Webhook(WebhookCommand),
    /// Tokens that may call the API
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm token create ci --role operator --expires-in 720h > ci.token\n  \
                      cdm --token-file ci.token site list\n  cdm token list"
    )]
    Token(TokenCommand),
    /// People who sign in to the console
    #[command(
        subcommand,
        after_help = "Examples:\n  cdm user create ada --role operator\n  cdm user passwd ada\n  cdm user list"
    )]
    User(UserCommand),
    /// Who asked for what
    Audit(AuditArgs),
    /// What happens, as it happens, until Ctrl-C; with -o json an object a line
    #[command(after_help = "Examples:\n  cdm events\n  cdm events -o json | jq -r .what")]
    Events,
    /// Whether the server and each backend answer, and the token works
    #[command(after_help = "Examples:\n  cdm doctor\n  cdm --local doctor")]
    Doctor,
    /// Play a site's life and a rollout that meets a broken image, all in this process
    Demo(DemoArgs),
    /// Print the completion script of a shell
    #[command(
        after_help = "Examples:\n  cdm completion bash > ~/.local/share/bash-completion/completions/cdm\n  \
                      cdm completion zsh > ~/.zfunc/_cdm\n  \
                      cdm completion fish > ~/.config/fish/completions/cdm.fish\n  \
                      cdm completion powershell >> $PROFILE"
    )]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages, one for each command
    Man(ManArgs),
    /// The local cluster of an embedded store
    #[command(subcommand, after_help = "Example:\n  cdm local image sha256:<64 hex digits> --failing")]
    Local(LocalCommand),
}

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
    /// PowerShell.
    #[value(name = "powershell")]
    PowerShell,
}

/// How much of a list to read.
#[derive(Args, Clone, Copy, Debug)]
pub struct Paging {
    /// How many to list at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub limit: u64,
    /// List all, however many
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
}

/// Reads a span of time such as `90s`, `10m`, `1h30m`, `3d` or `1w`; a day is 24 hours.
///
/// # Errors
/// When the text is not a span of time, or has no unit: a bare number may mean seconds or days.
pub fn duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{text}` has no unit: write {text}s, {text}m, {text}h, {text}d or {text}w"));
    }
    let none = || format!("`{text}` is not a span of time such as 90s, 15m, 2h, 3d or 1w");
    let span: jiff::Span = text.parse().map_err(|_| none())?;
    let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| none())?;
    Duration::try_from(span).map_err(|_| format!("`{text}` is negative"))
}

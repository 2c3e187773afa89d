//! What surrounds a command: clock, streams, Ctrl-C, prompts, and the variables that hold the token.

use std::fmt;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cdm_core::adapters::SystemClock;
use cdm_core::ports::Clock;
use cdm_core::wiring::{EndSignal, end_signal};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use secrecy::SecretString;

use crate::args::Color;
use crate::error::CliError;
use crate::invocation::Invocation;
use crate::transport::Transport;

/// Resolves when Ctrl-C is pressed, or when another signal asks the process to end.
pub type Interrupt = Shared<BoxFuture<'static, EndSignal>>;

/// Everything that a command needs from its surroundings; tests replace each part.
pub struct Io {
    /// Clock for ages, pauses and timeouts.
    pub clock: Arc<dyn Clock>,
    /// Standard output, for results.
    pub out: Box<dyn Write + Send>,
    /// Standard error, for progress, notes, hints and errors.
    pub err: Box<dyn Write + Send>,
    /// Maximum width of tables in characters; `None` (output is not a terminal) means unlimited.
    pub width: Option<usize>,
    /// What standard error is connected to.
    pub screen: Screen,
    /// Whether messages are colored.
    pub paint: Paint,
    /// How confirmations and passwords are requested.
    pub prompter: Prompter,
    /// Resolves on Ctrl-C or another signal that ends the process.
    pub interrupt: Interrupt,
    /// The token, if the environment contains or names one.
    pub token: TokenSource,
    /// How this command line reached the platform; the prefix of suggested commands.
    pub invocation: Invocation,
    /// Transport that replaces the one selected by the arguments; `None` outside of tests.
    pub transport: Option<Arc<dyn Transport>>,
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("width", &self.width).field("screen", &self.screen).finish_non_exhaustive()
    }
}

/// What standard error is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// A terminal: progress may be animated.
    Terminal,
    /// A file or pipe: progress is printed as lines.
    Plain,
}

/// Whether messages are colored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Messages contain the escape sequences of ANSI colors.
    Colored,
    /// Messages contain no escape sequences.
    Plain,
}

/// Reads a line without echoing it.
pub type ReadHidden = Box<dyn FnMut() -> std::io::Result<String> + Send>;

/// How confirmations and passwords are requested.
pub enum Prompter {
    /// Standard input and standard error are a terminal.
    Interactive {
        /// Reads lines that are echoed.
        input: Box<dyn BufRead + Send>,
        /// Reads a line without echoing it.
        read_hidden: ReadHidden,
    },
    /// There is no terminal, so prompts are not possible.
    NonInteractive,
}

impl fmt::Debug for Prompter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interactive { .. } => "Interactive",
            Self::NonInteractive => "NonInteractive",
        })
    }
}

/// Where the token comes from.
#[derive(Clone, Debug, Default)]
pub struct TokenSource {
    /// The token itself (`CDM_TOKEN`); takes precedence over `file`.
    pub token: Option<SecretString>,
    /// A file that contains the token (`CDM_TOKEN_FILE`).
    pub file: Option<PathBuf>,
}

impl TokenSource {
    /// Returns the token: from `file` if given, else from the environment. `None` if no token is configured.
    ///
    /// # Errors
    /// When the file cannot be read or is empty.
    pub fn read(&self, file: Option<&Path>) -> Result<Option<SecretString>, CliError> {
        let path = match (file, &self.token, &self.file) {
            (Some(path), _, _) => path,
            (None, Some(token), _) => return Ok(Some(token.clone())),
            (None, None, Some(path)) => path,
            (None, None, None) => return Ok(None),
        };
        let text = std::fs::read_to_string(path).map_err(|source| CliError::Io {
            what: format!("reading the token from `{}`", path.display()),
            source,
        })?;
        match text.trim() {
            "" => Err(CliError::Usage(format!("the token file `{}` is empty", path.display()))),
            token => Ok(Some(SecretString::from(token))),
        }
    }
}

impl Io {
    /// Returns the surroundings of this process.
    pub fn from_process(color: Color) -> Self {
        let choice = match color {
            Color::Auto => anstream::AutoStream::choice(&std::io::stderr()),
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        let terminal = std::io::stdout().is_terminal();
        Self {
            clock: Arc::new(SystemClock::new()),
            out: Box::new(anstream::AutoStream::new(std::io::stdout(), choice)),
            err: Box::new(anstream::AutoStream::new(std::io::stderr(), choice)),
            width: terminal
                .then(|| terminal_size::terminal_size_of(std::io::stdout()))
                .flatten()
                .map(|(width, _)| usize::from(width.0)),
            screen: if std::io::stderr().is_terminal() { Screen::Terminal } else { Screen::Plain },
            paint: match choice {
                anstream::ColorChoice::Never => Paint::Plain,
                anstream::ColorChoice::Auto
                | anstream::ColorChoice::Always
                | anstream::ColorChoice::AlwaysAnsi => Paint::Colored,
            },
            prompter: if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
                Prompter::Interactive {
                    input: Box::new(std::io::BufReader::new(std::io::stdin())),
                    read_hidden: Box::new(|| console::Term::stderr().read_secure_line()),
                }
            } else {
                Prompter::NonInteractive
            },
            interrupt: interrupt(),
            token: token_from_env(),
            invocation: Invocation::default(),
            transport: None,
        }
    }
}

fn interrupt() -> Interrupt {
    match end_signal() {
        Ok(signal) => signal.boxed().shared(),
        // Without a handler, the signal ends the process by its default action.
        Err(_) => futures_util::future::pending().boxed().shared(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only place that reads the environment; a token must not be an argument"
)]
fn token_from_env() -> TokenSource {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    TokenSource {
        token: set("CDM_TOKEN").map(|token| SecretString::from(token.to_string_lossy().trim().to_owned())),
        file: set("CDM_TOKEN_FILE").map(PathBuf::from),
    }
}

/// Returns the directory that `PATH` lacks for a shell to find this program as `cdm`; `None` if `PATH` finds it
/// already.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place of the command line that reads the environment"
)]
pub(crate) fn path_to_add() -> Option<String> {
    crate::invocation::directory(std::env::current_exe().ok().as_deref(), std::env::var_os("PATH").as_deref())
}

/// Returns a variable of this process's environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place of the command line that reads the environment"
)]
pub(crate) fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

//! What surrounds a command: clocks, streams, Ctrl-C, a person, and the environment that holds the token.

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
use crate::transport::Transport;
use crate::way::Way;

/// Ends when the person presses Ctrl-C, or another signal asks the process to end.
pub type Interrupt = Shared<BoxFuture<'static, EndSignal>>;

/// What surrounds a command; each part can be somebody else's in a test.
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where results go.
    pub out: Box<dyn Write + Send>,
    /// Where everything else goes.
    pub err: Box<dyn Write + Send>,
    /// How wide the results may be; as wide as they like without one.
    pub width: Option<usize>,
    /// What standard error is.
    pub screen: Screen,
    /// Whether messages are coloured.
    pub paint: Paint,
    /// Who may be asked.
    pub person: Person,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// The token, if the environment holds or names one.
    pub token: TokenSource,
    /// How the person got here.
    pub way: Way,
    /// A way to the API that takes the place of what the arguments name.
    pub transport: Option<Arc<dyn Transport>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("width", &self.width)
            .field("screen", &self.screen)
            .finish_non_exhaustive()
    }
}

/// What messages are written on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// A terminal: progress may be animated.
    Terminal,
    /// A file or pipe: progress is lines.
    Plain,
}

/// Whether messages are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// They are.
    Coloured,
    /// They are not.
    Plain,
}

/// Reads a line that is not shown.
pub type Unseen = Box<dyn FnMut() -> std::io::Result<String> + Send>;

/// Who may be asked.
pub enum Person {
    /// Somebody who types.
    Present {
        /// What they type.
        typed: Box<dyn BufRead + Send>,
        /// Reads a line that is not shown while they type it.
        unseen: Unseen,
    },
    /// Nobody.
    Absent,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present { .. } => "Present",
            Self::Absent => "Absent",
        })
    }
}

/// Where a token comes from.
#[derive(Clone, Debug, Default)]
pub struct TokenSource {
    /// The token itself.
    pub token: Option<SecretString>,
    /// A file that holds it.
    pub file: Option<PathBuf>,
}

impl TokenSource {
    /// The token: from `file` if one is named, else from the environment.
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
            "" => Err(CliError::Usage(format!("`{}` holds no token", path.display()))),
            token => Ok(Some(SecretString::from(token))),
        }
    }
}

impl World {
    /// This process's own.
    pub fn of_process(color: Color) -> Self {
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
                | anstream::ColorChoice::AlwaysAnsi => Paint::Coloured,
            },
            person: if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
                Person::Present {
                    typed: Box::new(std::io::BufReader::new(std::io::stdin())),
                    unseen: Box::new(|| console::Term::stderr().read_secure_line()),
                }
            } else {
                Person::Absent
            },
            interrupt: interrupt(),
            token: token_of_environment(),
            way: Way::default(),
            transport: None,
        }
    }
}

fn interrupt() -> Interrupt {
    match end_signal() {
        Ok(signal) => signal.boxed().shared(),
        // Without a handler the signal ends the process by itself.
        Err(_) => futures_util::future::pending().boxed().shared(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment; a token may not be an argument"
)]
fn token_of_environment() -> TokenSource {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    TokenSource {
        token: set("CDM_TOKEN").map(|token| SecretString::from(token.to_string_lossy().trim().to_owned())),
        file: set("CDM_TOKEN_FILE").map(PathBuf::from),
    }
}

/// The directory that a shell has to search to find this program as `cdm`; none where it does already.
#[expect(clippy::disallowed_methods, reason = "the one place of the command line that reads the environment")]
pub(crate) fn unsearched() -> Option<String> {
    crate::way::directory(std::env::current_exe().ok().as_deref(), std::env::var_os("PATH").as_deref())
}

/// A variable of this process's environment.
#[expect(clippy::disallowed_methods, reason = "the one place of the command line that reads the environment")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

//! A server in this process, a directory of its own, and the real program run against it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cdm_core::wiring::{Config, Process};
use cdm_http::{App, HttpSettings};
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The real program.
pub(crate) const CDM: &str = env!("CARGO_BIN_EXE_cdm");

const GRACE: Duration = Duration::from_secs(10);

/// A server and what is needed to ask it.
pub(crate) struct Place {
    runtime: Runtime,
    process: Arc<Process>,
    shutdown: CancellationToken,
    pub(crate) server: String,
    pub(crate) token: String,
    directory: TempDir,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The exit code, or all that was said.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }
}

/// The program with nothing of this process's environment but the way to other programs.
pub(crate) fn cdm(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(CDM);
    command.args(words);
    alone(&mut command, home);
    command
}

#[expect(clippy::disallowed_methods, reason = "where other programs are, such as kill and sh")]
fn search() -> Option<std::ffi::OsString> {
    std::env::var_os("PATH")
}

/// Takes the environment away, but for `PATH`, and gives an empty home.
pub(crate) fn alone(command: &mut Command, home: &Path) {
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    if let Some(path) = search() {
        command.env("PATH", path);
    }
}

/// Runs a command to its end.
pub(crate) fn ran(command: &mut Command) -> Ran {
    Ran::of(command.output().expect("it starts"))
}

/// A local cluster in which nothing takes long, but for an image that never gets ready.
pub(crate) const QUICK: &str = "[local]\npod_start_ms = 50\njob_ms = 20\nprogress_deadline_ms = 120000\n";

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(QUICK)
    }

    /// A server with this configuration file.
    pub(crate) fn with(file: &str) -> Self {
        let directory = TempDir::with_prefix("cdm-real-").expect("a directory");
        let path = directory.path().join("cdm.toml");
        std::fs::write(&path, file).expect("a file");
        let data = directory.path().join("data").display().to_string();
        let settings = |name: &str| match name {
            "CDM_LISTEN" | "CDM_ROUTER_LISTEN" => Some("127.0.0.1:0".to_owned()),
            "CDM_DATA_DIR" => Some(data.clone()),
            _ => None,
        };
        let config = Config::load(Some(&path), &settings).expect("a configuration");
        let runtime = Runtime::new().expect("a runtime");
        let shutdown = CancellationToken::new();
        let (process, server, token) = runtime.block_on(async {
            let process = Arc::new(Process::open(&config).await.expect("a platform"));
            let token = process.access().first_admin().await.expect("tokens").expect("the first one");
            let listener = TcpListener::bind(config.listen).await.expect("a port");
            let server = format!("http://{}", listener.local_addr().expect("an address"));
            process.work();
            let app = App::of(&process, HttpSettings::default());
            tokio::spawn(cdm_http::serve(listener, app, shutdown.clone(), GRACE));
            (process, server, token.expose_secret().to_owned())
        });
        Self { runtime, process, shutdown, server, token, directory }
    }

    /// Waits for a future here.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Where nothing is but what this test has put there.
    pub(crate) fn home(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// The program with the server and the administrator's token in its environment.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = cdm(self.home(), words);
        command.env("CDM_SERVER", &self.server).env("CDM_TOKEN", &self.token);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        ran(&mut self.command(words))
    }

    /// What the API says of a path, read by the program's own `-o json`.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let mut all = words.to_vec();
        all.extend(["-o", "json"]);
        self.run(&all).ends(0).json()
    }

    /// A site that is served.
    pub(crate) fn site(&self, id: &str) {
        self.created(id);
        self.run(&["site", "provision", id]).ends(0);
    }

    /// A site that is recorded only.
    pub(crate) fn created(&self, id: &str) {
        let host = format!("{id}.example.com");
        self.run(&["site", "create", id, "--theme", "plain", "--hostname", &host]).ends(0);
    }

    /// Declares that an image never gets ready.
    pub(crate) fn never_ready(&self, image: &str) {
        let data = self.data().display().to_string();
        self.run(&["local", "image", image, "--never-ready", "--data-dir", &data]).ends(0);
    }

    /// Runs a suggested command in a shell, in the environment that the person has.
    pub(crate) fn pasted(&self, line: &str) -> Ran {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]);
        alone(&mut shell, self.home());
        ran(shell.env("CDM_SERVER", &self.server).env("CDM_TOKEN", &self.token))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.process.stop(GRACE));
    }
}

/// An image's digest, of one letter.
pub(crate) fn image(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// A command that is at work, with what it says line by line.
pub(crate) struct Running {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
    said: String,
}

impl Running {
    /// Starts it and reads its standard error, or its standard output.
    pub(crate) fn start(command: &mut Command, from: Stream) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let pipe: Box<dyn Read> = match from {
            Stream::Out => Box::new(child.stdout.take().expect("a pipe")),
            Stream::Err => Box::new(child.stderr.take().expect("a pipe")),
        };
        let lines = Box::new(BufReader::new(pipe).lines().map(|line| line.expect("text")));
        Self { child, lines, said: String::new() }
    }

    /// Reads until a line has this in it.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> String {
        for line in self.lines.by_ref() {
            self.said += &format!("{line}\n");
            if line.contains(text) {
                return line;
            }
        }
        panic!("it never said `{text}`, but: {}", self.said);
    }

    /// Sends it SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.send("-INT");
    }

    /// Sends it a signal.
    pub(crate) fn send(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// Its exit code, and all that it said on the stream that was read.
    pub(crate) fn end(mut self) -> (i32, String) {
        for line in self.lines.by_ref() {
            self.said += &format!("{line}\n");
        }
        let code = self.child.wait().expect("it ends").code().expect("it ended by itself");
        (code, std::mem::take(&mut self.said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless a test has failed.
        let _ = self.child.kill();
    }
}

/// What is read of a running command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Out,
    Err,
}

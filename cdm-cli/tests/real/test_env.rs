//! A server in this process with its own directory, and the real program run against it.

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

/// A running server with what is needed to call it.
pub(crate) struct TestEnv {
    runtime: Runtime,
    process: Arc<Process>,
    shutdown: CancellationToken,
    pub(crate) server: String,
    pub(crate) token: String,
    directory: TempDir,
}

/// Result of a command.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("an exit code"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code; prints all output on a mismatch.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }
}

/// The program, with an environment of `HOME` and `PATH` only.
pub(crate) fn cdm(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(CDM);
    command.args(words);
    isolate(&mut command, home);
    command
}

#[expect(clippy::disallowed_methods, reason = "the directories of other programs, such as kill and sh")]
fn path_variable() -> Option<std::ffi::OsString> {
    std::env::var_os("PATH")
}

/// Clears the environment except for `PATH`, and sets the home directory.
pub(crate) fn isolate(command: &mut Command, home: &Path) {
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    if let Some(path) = path_variable() {
        command.env("PATH", path);
    }
}

/// Runs a command to its end.
pub(crate) fn execute(command: &mut Command) -> Outcome {
    Outcome::of(command.output().expect("the program starts"))
}

/// A local cluster that is fast, except for an image that never becomes ready.
pub(crate) const QUICK: &str = "[local]\npod_start_ms = 50\njob_ms = 20\nprogress_deadline_ms = 120000\n";

impl TestEnv {
    pub(crate) fn new() -> Self {
        Self::with(QUICK)
    }

    /// Starts a server with this configuration file.
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

    /// Runs a future on the server's runtime.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// A directory for the files of this test only.
    pub(crate) fn home(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// The program, with the address of the server and the administrator's token in its environment.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = cdm(self.home(), words);
        command.env("CDM_SERVER", &self.server).env("CDM_TOKEN", &self.token);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Outcome {
        execute(&mut self.command(words))
    }

    /// Runs a command with `-o json` and parses its output.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let mut all = words.to_vec();
        all.extend(["-o", "json"]);
        self.run(&all).ends(0).json()
    }

    /// Creates and provisions a site.
    pub(crate) fn site(&self, id: &str) {
        self.create(id);
        self.run(&["site", "provision", id]).ends(0);
    }

    /// Creates a site, and does not provision it.
    pub(crate) fn create(&self, id: &str) {
        let host = format!("{id}.example.com");
        self.run(&["site", "create", id, "--theme", "plain", "--hostname", &host]).ends(0);
    }

    /// Declares that an image never becomes ready.
    pub(crate) fn never_ready(&self, image: &str) {
        let data = self.data().display().to_string();
        self.run(&["local", "image", image, "--never-ready", "--data-dir", &data]).ends(0);
    }

    /// Runs a suggested command in a shell, in the user's environment.
    pub(crate) fn paste(&self, line: &str) -> Outcome {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]);
        isolate(&mut shell, self.home());
        execute(shell.env("CDM_SERVER", &self.server).env("CDM_TOKEN", &self.token))
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.process.stop(GRACE));
    }
}

/// A digest that repeats one letter.
pub(crate) fn image(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// A running command, with its output line by line.
pub(crate) struct Running {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
    output: String,
}

impl Running {
    /// Starts a command, and reads its standard error or its standard output.
    pub(crate) fn start(command: &mut Command, from: Stream) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let pipe: Box<dyn Read> = match from {
            Stream::Out => Box::new(child.stdout.take().expect("a pipe")),
            Stream::Err => Box::new(child.stderr.take().expect("a pipe")),
        };
        let lines = Box::new(BufReader::new(pipe).lines().map(|line| line.expect("text")));
        Self { child, lines, output: String::new() }
    }

    /// Reads until a line contains the text, and returns the line.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> String {
        for line in self.lines.by_ref() {
            self.output += &format!("{line}\n");
            if line.contains(text) {
                return line;
            }
        }
        panic!("`{text}` was not printed, but: {}", self.output);
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.send("-INT");
    }

    /// Sends a signal.
    pub(crate) fn send(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// Waits for the end, and returns the exit code and all output of the stream that is read.
    pub(crate) fn end(mut self) -> (i32, String) {
        for line in self.lines.by_ref() {
            self.output += &format!("{line}\n");
        }
        let code = self.child.wait().expect("the program ends").code().expect("an exit code");
        (code, std::mem::take(&mut self.output))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The command has already ended, unless a test failed.
        let _ = self.child.kill();
    }
}

/// The stream that is read of a running command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Out,
    Err,
}

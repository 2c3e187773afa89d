//! The `cdm` command line over the REST API. It parses arguments, sends requests to a server or to the same routes in
//! this process, and prints tables, JSON or YAML. [`run()`] executes one command; its streams, clock and transport
//! come from an [`Io`], which tests replace.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap fails the test"))]

mod age;
pub mod args;
pub mod client;
mod commands;
pub mod demo;
pub mod error;
pub mod exit;
pub mod hints;
pub mod invocation;
pub mod io;
pub mod local;
pub mod manual;
pub mod printer;
mod progress;
mod rate_limit;
pub mod remote;
mod rollout_progress;
pub mod sse;
mod text;
pub mod transport;
mod view;
pub mod wait;
pub mod work;

use std::ffi::OsString;
use std::sync::Arc;

use cdm_core::wiring::Process;
use clap::{CommandFactory, FromArgMatches};
use futures_util::future::{Either, LocalBoxFuture, select};

pub use args::Cli;
pub use error::CliError;
pub use exit::Exit;
pub use io::Io;
pub use view::{Column, ColumnPriority, NamedService, Row, Shown, headings};

use args::{Command, LocalCommand};
use client::Client;
use commands::{Session, Waiting};
use invocation::{Invocation, Sent};
use io::Prompter;
use local::LocalOptions;
use printer::{Printer, Verbosity};
use rate_limit::RateLimitRetry;
use transport::Transport;
use wait::Wait;

/// Parses the arguments, runs the command on the streams and environment of this process, and returns the exit code.
pub async fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = Cli::command().try_get_matches_from(&args);
    let parsed = matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version output also arrive here as errors. If printing fails, there is nowhere to report it.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage.code() } else { Exit::Done.code() };
        }
    };
    let mut io = Io::from_process(cli.global.color);
    if let Some(program) = args.first() {
        io.invocation = Invocation::from_args(program, &matches);
    }
    run(cli, io).await.code()
}

/// Runs a parsed command and returns how it ended. Errors and hints go to the error stream of `io`.
pub fn run(cli: Cli, io: Io) -> LocalBoxFuture<'static, Exit> {
    // Boxed: compiled once, in this crate, and not again in the program and each test.
    Box::pin(execute(cli, io))
}

async fn execute(cli: Cli, io: Io) -> Exit {
    let Io { clock, out, err, width, screen, paint, prompter, interrupt, token, transport, invocation } = io;
    let global = cli.global.without_empty();
    let printer = Printer {
        out,
        err,
        format: global.output,
        verbosity: if global.quiet { Verbosity::Quiet } else { Verbosity::Normal },
        width,
        screen,
        paint,
        clock: Arc::clone(&clock),
        invocation,
    };
    let options = LocalOptions { config: global.config.clone(), data_dir: global.data_dir.clone() };
    let mut terminal = Terminal { printer, prompter };
    let done = match cli.command {
        Command::Completion { shell } => commands::completion(shell, &mut terminal.printer),
        Command::Man(args) => commands::manual(&args.dir, &mut terminal.printer),
        Command::Demo(args) => demo::run(args, &mut terminal.printer, interrupt.clone()).await,
        Command::Local(LocalCommand::Image { digest, behavior }) => {
            commands::declare_image(&options, &digest, behavior.behavior(), &mut terminal.printer).await
        }
        command => {
            let opened = match transport {
                Some(transport) => Ok((transport, None)),
                None => open(&global, &options, &token, &mut terminal.printer.invocation).await,
            };
            match opened {
                Ok((transport, process)) => {
                    let (timeout, emit) = (global.timeout, wait::EmitMode::AtEnd);
                    let transport = RateLimitRetry::new(transport, Arc::clone(&clock), timeout);
                    let client = Client { transport: &transport, key: global.idempotency_key.as_deref() };
                    let wait = Wait { client, clock, timeout, interrupt: interrupt.clone(), emit };
                    let waiting = if global.no_wait { Waiting::No } else { Waiting::Yes };
                    let mut session =
                        Session { wait, waiting, printer: terminal.printer, prompter: terminal.prompter };
                    let done = {
                        let work = std::pin::pin!(commands::dispatch(command, &mut session));
                        // The command is polled first: the error of an interrupted wait has more details than this
                        // one.
                        match select(work, interrupt).await {
                            Either::Left((done, _)) => done,
                            Either::Right((by, _)) => Err(CliError::Interrupted { by, subject: None }),
                        }
                    };
                    terminal = Terminal { printer: session.printer, prompter: session.prompter };
                    if let Some(process) = process {
                        if matches!(done, Err(CliError::Interrupted { .. })) {
                            terminal.printer.note("releasing the work in progress at its next step boundary");
                        }
                        process.stop(local::GRACE).await;
                    }
                    done
                }
                Err(error) => Err(error),
            }
        }
    };
    match done {
        Ok(exit) => exit,
        Err(error) => {
            terminal.printer.error(&error);
            Exit::from(&error)
        }
    }
}

/// What is still needed after the connection to the API is closed.
struct Terminal {
    printer: Printer,
    prompter: Prompter,
}

async fn open(
    global: &args::Global,
    options: &LocalOptions,
    token: &io::TokenSource,
    invocation: &mut Invocation,
) -> Result<(Arc<dyn Transport>, Option<Arc<Process>>), CliError> {
    if global.local {
        let (local, process) = local::open(options).await?;
        return Ok((Arc::new(local), Some(process)));
    }
    let token = token.read(global.token_file.as_deref())?;
    invocation.token = if token.is_some() { Sent::Yes } else { Sent::No };
    let plaintext = match global.allow_plaintext {
        true => remote::Plaintext::Allowed,
        false => remote::Plaintext::Refused,
    };
    let options = remote::RemoteOptions { plaintext, cacert: global.cacert.clone() };
    Ok((Arc::new(remote::Remote::new(&global.server, token.as_ref(), &options)?), None))
}

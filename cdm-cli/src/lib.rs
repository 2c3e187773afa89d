//! The command line over the REST API: arguments in, requests to a server or to the same routes in this process, tables
//! or JSON out. `run` is the whole of it; what surrounds a command is a [`World`], so that tests can be somebody else's.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")
)]

mod age;
pub mod args;
pub mod client;
mod commands;
pub mod demo;
pub mod error;
pub mod exit;
pub mod hints;
pub mod local;
pub mod manual;
pub mod printer;
mod progress;
pub mod remote;
pub mod sse;
pub mod transport;
mod unhurried;
mod view;
pub mod wait;
mod watching;
pub mod way;
pub mod world;

use std::ffi::OsString;
use std::sync::Arc;

use cdm_core::wiring::Process;
use clap::{CommandFactory, FromArgMatches};
use futures_util::future::{Either, select};

pub use args::Cli;
pub use error::CliError;
pub use exit::Exit;
pub use view::Shape;
pub use world::World;

use args::{Command, LocalCommand};
use client::Client;
use commands::{Session, Waiting};
use local::LocalOptions;
use printer::{Printer, Talk};
use transport::Transport;
use unhurried::Unhurried;
use wait::Wait;
use way::{Sent, Way};
use world::Person;

/// Reads the arguments, does what they say in this process's own surroundings, and gives the exit code.
pub async fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = Cli::command().try_get_matches_from(&args);
    let parsed = matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and the version come this way too. There is nowhere to say that they could not be printed.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage.code() } else { Exit::Done.code() };
        }
    };
    let mut world = World::of_process(cli.global.color);
    if let Some(program) = args.first() {
        world.way = Way::typed(program, &matches);
    }
    run(cli, world).await.code()
}

/// Does what the arguments say, and says how it ended.
pub async fn run(cli: Cli, world: World) -> Exit {
    let World { clock, out, err, width, screen, paint, person, interrupt, token, transport, way } = world;
    let global = cli.global.without_empty();
    let printer = Printer {
        out,
        err,
        format: global.output,
        talk: if global.quiet { Talk::Quiet } else { Talk::Normal },
        width,
        screen,
        paint,
        clock: Arc::clone(&clock),
        way,
    };
    let options = LocalOptions { config: global.config.clone(), data_dir: global.data_dir.clone() };
    let mut desk = Desk { printer, person };
    let done = match cli.command {
        Command::Completion { shell } => commands::completion(shell, &mut desk.printer),
        Command::Man(args) => commands::manual(&args.dir, &mut desk.printer),
        Command::Demo(args) => demo::run(args, &mut desk.printer, interrupt.clone()).await,
        Command::Local(LocalCommand::Image { digest, behaviour }) => {
            commands::declare_image(&options, &digest, behaviour.behaviour(), &mut desk.printer).await
        }
        command => {
            let opened = match transport {
                Some(transport) => Ok((transport, None)),
                None => open(&global, &options, &token, &mut desk.printer.way).await,
            };
            match opened {
                Ok((transport, process)) => {
                    let (timeout, told) = (global.timeout, wait::Told::InTheEnd);
                    let transport = Unhurried::new(transport, Arc::clone(&clock), timeout);
                    let client = Client { transport: &transport, key: global.idempotency_key.as_deref() };
                    let wait = Wait { client, clock, timeout, interrupt: interrupt.clone(), told };
                    let waiting = if global.no_wait { Waiting::No } else { Waiting::Yes };
                    let mut session = Session { wait, waiting, printer: desk.printer, person: desk.person };
                    let done = {
                        let work = std::pin::pin!(commands::dispatch(command, &mut session));
                        // The command is polled first: a wait that is interrupted has more to say than this.
                        match select(work, interrupt).await {
                            Either::Left((done, _)) => done,
                            Either::Right((by, _)) => Err(CliError::Interrupted { by, subject: None }),
                        }
                    };
                    desk = Desk { printer: session.printer, person: session.person };
                    if let Some(process) = process {
                        if matches!(done, Err(CliError::Interrupted { .. })) {
                            desk.printer.note("giving the work back at its next step boundary");
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
            desk.printer.error(&error);
            Exit::from(&error)
        }
    }
}

/// What outlives the way to the API.
struct Desk {
    printer: Printer,
    person: Person,
}

async fn open(
    global: &args::Global,
    options: &LocalOptions,
    token: &world::TokenSource,
    way: &mut Way,
) -> Result<(Arc<dyn Transport>, Option<Arc<Process>>), CliError> {
    if global.local {
        let (local, process) = local::open(options).await?;
        return Ok((Arc::new(local), Some(process)));
    }
    let token = token.read(global.token_file.as_deref())?;
    way.token = if token.is_some() { Sent::Yes } else { Sent::No };
    let plaintext = match global.allow_plaintext {
        true => remote::Plaintext::Allowed,
        false => remote::Plaintext::Refused,
    };
    let options = remote::RemoteOptions { plaintext, cacert: global.cacert.clone() };
    Ok((Arc::new(remote::Remote::new(&global.server, token.as_ref(), &options)?), None))
}

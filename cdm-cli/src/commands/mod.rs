//! The commands: which requests they send, and what they print of the responses.

mod offline;
mod ops;
mod platform;
mod rollout;
mod services;
mod site;
mod user;
mod webhook;

use cdm_http::api::operation::Operation;
use cdm_http::api::rollout::Rollout;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use offline::{completion, declare_image, manual};

use crate::args::Command;
use crate::client::{Client, Received, body};
use crate::error::{CliError, Subject};
use crate::exit::Exit;
use crate::hints;
use crate::invocation::Target;
use crate::io::Prompter;
use crate::printer::Printer;
use crate::transport::Method;
use crate::view::Shown;
use crate::wait::{EmitMode, Wait};
use crate::work::{Goal, State, Work};

/// What a command needs to use the API.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) wait: Wait<'a>,
    pub(crate) waiting: Waiting,
    pub(crate) printer: Printer,
    pub(crate) prompter: Prompter,
}

/// Whether the command waits for accepted work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Yes,
    No,
}

/// Runs a command that uses the API.
pub(crate) async fn dispatch(command: Command, session: &mut Session<'_>) -> Result<Exit, CliError> {
    match command {
        Command::Site(command) => site::run(command, session).await,
        Command::Services(command) => services::run(command, session).await,
        Command::Rollout(command) => ops::rollout(command, session).await,
        Command::Op(command) => ops::operation(command, session).await,
        Command::Freeze(command) => rollout::freeze(command, session).await,
        Command::Webhook(command) => webhook::run(command, session).await,
        Command::Token(command) => platform::token(command, session).await,
        Command::User(command) => user::run(command, session).await,
        Command::Audit(args) => platform::audit(args, session).await,
        Command::Events => platform::events(session).await,
        Command::Doctor => platform::doctor(session).await,
        Command::Demo(_) | Command::Completion { .. } | Command::Man(_) | Command::Local(_) => {
            Err(CliError::Failed("this command does not use the API".into()))
        }
    }
}

impl<'a> Session<'a> {
    fn client(&self) -> Client<'a> {
        self.wait.client
    }

    /// Reads one object and prints it.
    async fn show<T: Shown + DeserializeOwned>(&mut self, path: &str) -> Result<Exit, CliError> {
        let item: Received<T> = self.client().get(path).await?;
        self.printer.value(&item)?;
        Ok(Exit::Done)
    }

    /// Sends a request without a body that starts work, and waits for the work.
    async fn submit<W: Work>(&mut self, method: Method, path: &str, goal: Goal) -> Result<Exit, CliError> {
        let work = self.client().change(method, path, None).await?.parse::<W>()?;
        self.wait_or_print_id(work, goal).await
    }

    /// Sends a request with a body that starts work, and waits until the work succeeds.
    async fn submit_with<W: Work>(
        &mut self,
        method: Method,
        path: &str,
        request: &impl Serialize,
    ) -> Result<Exit, CliError> {
        let work = self.client().change(method, path, Some(body(request)?)).await?.parse::<W>()?;
        self.wait_or_print_id(work, Goal::Success).await
    }

    /// Waits for accepted work and prints its result; with `--no-wait`, prints its id.
    async fn wait_or_print_id<W: Work>(&mut self, work: Received<W>, goal: Goal) -> Result<Exit, CliError> {
        if self.waiting == Waiting::No {
            let subject = work.value.subject();
            self.printer.started(&subject, &work.json)?;
            if self.printer.invocation.target() == Target::InProcess {
                let watch = subject.watch_command(&self.printer.invocation);
                self.printer.note(&format!("the next process on this store runs it, for example: {watch}"));
            }
            return Ok(Exit::Done);
        }
        self.watch(work, goal).await
    }

    /// Waits for work, and prints its result.
    async fn watch<W: Work>(&mut self, first: Received<W>, goal: Goal) -> Result<Exit, CliError> {
        let subject = first.value.subject();
        let work = self.wait.until_settled(&subject, first, goal, &mut self.printer).await?;
        if self.wait.emit == EmitMode::AtEnd {
            self.printer.value(&work)?;
        }
        let exit = Exit::from(work.value.state().ending(goal));
        if exit != Exit::Done
            && let Some(hint) = hints::for_stopped_work(&work.value, &self.printer.invocation)
        {
            self.printer.hint(&hint);
        }
        if exit == Exit::Done
            && let State::Operation(Operation { rollout: Some(rollout), .. }) = work.value.state()
        {
            let rollout = Subject::rollout(rollout.as_str());
            // A deploy to a service without sites names a rollout that was not needed, and does not exist.
            if let Ok(found) = self.client().get::<Rollout>(&rollout.path()).await {
                let what = match found.value.promote {
                    true => "a rollout routes the service's sites to it",
                    false => "a rollout flushes the caches of the service's sites",
                };
                self.printer.note(&format!("{what}: {}", rollout.watch_command(&self.printer.invocation)));
            }
        }
        Ok(exit)
    }
}

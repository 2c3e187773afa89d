//! The commands: which requests they send, and what they print of the responses.

mod offline;
mod ops;
mod platform;
mod rollout;
mod services;
mod site;
mod user;
mod webhook;

use serde_json::Value;

pub(crate) use offline::{completion, declare_image, manual};

use crate::args::Command;
use crate::client::{ApiResponse, Client};
use crate::error::{CliError, Subject};
use crate::exit::Exit;
use crate::hints;
use crate::invocation::Target;
use crate::io::Prompter;
use crate::printer::Printer;
use crate::transport::Method;
use crate::view::Shape;
use crate::wait::{EmitMode, Goal, Wait, ending};

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
    async fn show(&mut self, shape: Shape, path: &str) -> Result<Exit, CliError> {
        let value = self.client().get(path).await?;
        self.printer.value(shape, &value)?;
        Ok(Exit::Done)
    }

    /// Sends a request that starts work, and waits for the work.
    async fn submit(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
        goal: Goal,
    ) -> Result<Exit, CliError> {
        let response = self.client().change(method, path, body).await?;
        self.wait_or_print_id(response, goal).await
    }

    /// Waits for accepted work and prints its result; with `--no-wait`, prints its id.
    async fn wait_or_print_id(&mut self, response: ApiResponse, goal: Goal) -> Result<Exit, CliError> {
        let subject = subject(&response.value)?;
        if self.waiting == Waiting::No {
            self.printer.started(&subject, &response.value)?;
            if self.printer.invocation.target() == Target::InProcess {
                let watch = subject.watch_command(&self.printer.invocation);
                self.printer.note(&format!("the next process on this store runs it, for example: {watch}"));
            }
            return Ok(Exit::Done);
        }
        self.watch(subject, response.value, goal).await
    }

    /// Waits for work, and prints its result.
    async fn watch(&mut self, subject: Subject, first: Value, goal: Goal) -> Result<Exit, CliError> {
        let value = self.wait.until_settled(&subject, first, goal, &mut self.printer).await?;
        let shape = match subject.kind {
            crate::error::SubjectKind::Operation => Shape::Operation,
            crate::error::SubjectKind::Rollout => Shape::Rollout,
        };
        if self.wait.emit == EmitMode::AtEnd {
            self.printer.value(shape, &value)?;
        }
        let exit = Exit::from(ending(subject.kind, &value, goal));
        if exit != Exit::Done
            && let Some(hint) = hints::for_stopped_work(&subject, &value, &self.printer.invocation)
        {
            self.printer.hint(&hint);
        }
        if let (Exit::Done, Some(rollout)) = (exit, value.get("rollout").and_then(Value::as_str))
            && subject.kind == crate::error::SubjectKind::Operation
        {
            let rollout = Subject::rollout(rollout);
            // A deploy to a service without sites names a rollout that was not needed, and does not exist.
            if let Ok(found) = self.client().get(&rollout.path()).await {
                let what = match found.get("promote").and_then(Value::as_bool) {
                    Some(true) => "a rollout routes the service's sites to it",
                    Some(false) | None => "a rollout flushes the caches of the service's sites",
                };
                self.printer.note(&format!("{what}: {}", rollout.watch_command(&self.printer.invocation)));
            }
        }
        Ok(exit)
    }
}

/// Returns the subject of an accepted request: rollouts have waves, operations have steps and a kind.
fn subject(value: &Value) -> Result<Subject, CliError> {
    let id = value.get("id").and_then(Value::as_str);
    let id = id.ok_or_else(|| CliError::InvalidResponse("the accepted work has no id".into()))?;
    Ok(match value.get("waves") {
        Some(_) => Subject::rollout(id),
        None => Subject::operation(id),
    })
}

//! What each command asks of the API, and what it prints of the answer.

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
use crate::client::{Answer, Client};
use crate::error::{CliError, Subject};
use crate::exit::Exit;
use crate::hints;
use crate::printer::Printer;
use crate::transport::Method;
use crate::view::Shape;
use crate::wait::{Goal, Told, Wait, ending};
use crate::way::Place;
use crate::world::Person;

/// What a command that asks the API has at hand.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) wait: Wait<'a>,
    pub(crate) waiting: Waiting,
    pub(crate) printer: Printer,
    pub(crate) person: Person,
}

/// Whether accepted work is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Yes,
    No,
}

/// Does what the command says.
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
            Err(CliError::Failed("this command asks no server".into()))
        }
    }
}

impl<'a> Session<'a> {
    fn client(&self) -> Client<'a> {
        self.wait.client
    }

    /// Reads one thing and prints it.
    async fn show(&mut self, shape: Shape, path: &str) -> Result<Exit, CliError> {
        let value = self.client().get(path).await?;
        self.printer.value(shape, &value)?;
        Ok(Exit::Done)
    }

    /// Asks for work, and sees it through.
    async fn work(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
        goal: Goal,
    ) -> Result<Exit, CliError> {
        let answer = self.client().change(method, path, body).await?;
        self.see_through(answer, goal).await
    }

    /// Waits for accepted work unless told not to, and prints what became of it.
    async fn see_through(&mut self, answer: Answer, goal: Goal) -> Result<Exit, CliError> {
        let subject = subject(&answer.value)?;
        if self.waiting == Waiting::No {
            self.printer.begun(&subject, &answer.value)?;
            if self.printer.way.place() == Place::Here {
                let watch = subject.come_back(&self.printer.way);
                self.printer.note(&format!("it waits for the next process on this store, such as: {watch}"));
            }
            return Ok(Exit::Done);
        }
        self.watch(subject, answer.value, goal).await
    }

    /// Waits, and prints what became of it.
    async fn watch(&mut self, subject: Subject, first: Value, goal: Goal) -> Result<Exit, CliError> {
        let value = self.wait.until_rest(&subject, first, goal, &mut self.printer).await?;
        let shape = match subject.kind {
            crate::error::SubjectKind::Operation => Shape::Operation,
            crate::error::SubjectKind::Rollout => Shape::Rollout,
        };
        if self.wait.told == Told::InTheEnd {
            self.printer.value(shape, &value)?;
        }
        let exit = Exit::from(ending(subject.kind, &value, goal));
        if exit != Exit::Done
            && let Some(hint) = hints::for_rest(&subject, &value, &self.printer.way)
        {
            self.printer.hint(&hint);
        }
        if let (Exit::Done, Some(rollout)) = (exit, value.get("rollout").and_then(Value::as_str))
            && subject.kind == crate::error::SubjectKind::Operation
        {
            let rollout = Subject::rollout(rollout);
            // A deploy to a service without sites has drawn a number for a rollout that it did not need.
            if let Ok(found) = self.client().get(&rollout.path()).await {
                let what = match found.get("promote").and_then(Value::as_bool) {
                    Some(true) => "the service's sites are routed to it by a rollout",
                    Some(false) | None => "the caches of the service's sites are flushed by a rollout",
                };
                self.printer.note(&format!("{what}: {}", rollout.come_back(&self.printer.way)));
            }
        }
        Ok(exit)
    }
}

/// What an accepted request began: rollouts have waves, operations have steps and a kind.
fn subject(value: &Value) -> Result<Subject, CliError> {
    let id = value.get("id").and_then(Value::as_str);
    let id = id.ok_or_else(|| CliError::Answer("accepted work without an id".into()))?;
    Ok(match value.get("waves") {
        Some(_) => Subject::rollout(id),
        None => Subject::operation(id),
    })
}

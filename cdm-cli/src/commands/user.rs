//! `cdm user …`.

use std::io::Read;

use cdm_http::api::token::Role;
use cdm_http::api::user::{Absent, ChangeUser, CreateUser, User};
use secrecy::{ExposeSecret, SecretString};

use super::Session;
use crate::args::{PasswordArgs, UserCommand};
use crate::client::body;
use crate::error::CliError;
use crate::exit::Exit;
use crate::io::Prompter;
use crate::transport::{Method, segment};

pub(super) async fn run(command: UserCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let path = |name: &str| format!("/users/{}", segment(name));
    let change = |name: &str, request: &ChangeUser, message| {
        Ok::<_, CliError>((Method::Put, path(name), Some(body(request)?), message))
    };
    let (method, target, body, message) = match command {
        UserCommand::List { paging } => {
            let (items, more) = session.client().short_list::<User>("/users", paging).await?;
            session.printer.list(&items, more)?;
            return Ok(Exit::Done);
        }
        UserCommand::Create { name, role, password, no_password } => {
            let password = if no_password { None } else { Some(read(&password, session)?) };
            let message = format!("user `{name}` can sign in");
            let request = CreateUser { name, role: Role::from(role.as_str()), password };
            (Method::Post, "/users".to_owned(), Some(body(&request)?), message)
        }
        UserCommand::SetPassword { name, password } => {
            let message = format!("the password of `{name}` is set; all sessions have ended");
            change(
                &name,
                &ChangeUser { password: Some(read(&password, session)?), ..ChangeUser::default() },
                message,
            )?
        }
        UserCommand::Role { name, role } => {
            let message = format!("`{name}` has the role `{role}` from the next request");
            let role = Some(Role::from(role.as_str()));
            change(&name, &ChangeUser { role, ..ChangeUser::default() }, message)?
        }
        UserCommand::SignOut { name } => {
            let message = format!("all sessions of `{name}` have ended");
            (Method::Delete, format!("{}/sessions", path(&name)), None, message)
        }
        UserCommand::ResetSecondFactor { name } => {
            let message = format!("the second factor of `{name}` is removed; all sessions have ended");
            change(
                &name,
                &ChangeUser { second_factor: Some(Absent::None), ..ChangeUser::default() },
                message,
            )?
        }
        UserCommand::Unbind { name } => {
            let message =
                format!("`{name}` is unbound from the account at the provider; all sessions have ended");
            change(&name, &ChangeUser { identity: Some(Absent::None), ..ChangeUser::default() }, message)?
        }
        UserCommand::Remove { name } => {
            let message = format!("user `{name}` is removed; the name is never assigned again");
            (Method::Delete, path(&name), None, message)
        }
    };
    let response = session.client().change(method, &target, body).await?;
    session.printer.value(&response.parse::<User>()?)?;
    session.printer.note(&message);
    Ok(Exit::Done)
}

/// Reads the password from the file, or prompts for it twice without echoing it.
fn read(args: &PasswordArgs, session: &mut Session<'_>) -> Result<SecretString, CliError> {
    let failed = |what: &str, source| CliError::Io { what: what.to_owned(), source };
    match (&args.password_file, &mut session.prompter) {
        (Some(path), _) => {
            let mut text = String::new();
            let read = if path.as_os_str() == "-" {
                std::io::stdin().read_to_string(&mut text).map(drop)
            } else {
                std::fs::read_to_string(path).map(|whole| text = whole)
            };
            read.map_err(|source| {
                failed(&format!("reading the password from `{}`", path.display()), source)
            })?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Ok(SecretString::from(line.strip_suffix('\r').unwrap_or(line)))
        }
        (None, Prompter::NonInteractive) => Err(CliError::Usage(
            "cannot prompt for the password without a terminal; use --password-file FILE, or - for standard \
             input"
                .into(),
        )),
        (None, Prompter::Interactive { read_hidden, .. }) => {
            let mut prompt_for = |prompt: &str| {
                session.printer.prompt(prompt);
                let line = read_hidden().map_err(|source| failed("reading the password", source));
                line.map(SecretString::from)
            };
            let (first, again) = (prompt_for("Password:")?, prompt_for("Repeat the password:")?);
            if first.expose_secret() != again.expose_secret() {
                return Err(CliError::Usage("the passwords differ; nothing was changed".into()));
            }
            Ok(first)
        }
    }
}

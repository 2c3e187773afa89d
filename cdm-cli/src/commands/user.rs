//! `cdm user …`.

use std::io::Read;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::Session;
use crate::args::{PasswordArgs, UserCommand};
use crate::error::CliError;
use crate::exit::Exit;
use crate::io::Prompter;
use crate::transport::{Method, segment};
use crate::view::Shape;

pub(super) async fn run(command: UserCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let path = |name: &str| format!("/users/{}", segment(name));
    let (method, path, body, message) = match command {
        UserCommand::List { paging } => {
            let (items, more) = session.client().short_list("/users", paging).await?;
            session.printer.list(Shape::User, &items, more)?;
            return Ok(Exit::Done);
        }
        UserCommand::Create { name, role, password, no_password } => {
            let mut body = json!({ "name": name, "role": role });
            if !no_password {
                body["password"] = read(&password, session)?.expose_secret().into();
            }
            (Method::Post, "/users".to_owned(), Some(body), format!("user `{name}` can sign in"))
        }
        UserCommand::SetPassword { name, password } => {
            let body = json!({ "password": read(&password, session)?.expose_secret() });
            (
                Method::Put,
                path(&name),
                Some(body),
                format!("the password of `{name}` is set; all sessions have ended"),
            )
        }
        UserCommand::Role { name, role } => {
            let message = format!("`{name}` has the role `{role}` from the next request");
            (Method::Put, path(&name), Some(json!({ "role": role })), message)
        }
        UserCommand::SignOut { name } => {
            let message = format!("all sessions of `{name}` have ended");
            (Method::Delete, format!("{}/sessions", path(&name)), None, message)
        }
        UserCommand::ResetSecondFactor { name } => {
            let message = format!("the second factor of `{name}` is removed; all sessions have ended");
            (Method::Put, path(&name), Some(json!({ "secondFactor": "none" })), message)
        }
        UserCommand::Unbind { name } => {
            let message =
                format!("`{name}` is unbound from the account at the provider; all sessions have ended");
            (Method::Put, path(&name), Some(json!({ "identity": "none" })), message)
        }
        UserCommand::Remove { name } => {
            let message = format!("user `{name}` is removed; the name is never assigned again");
            (Method::Delete, path(&name), None, message)
        }
    };
    let response = session.client().change(method, &path, body).await?;
    session.printer.value(Shape::User, &response.value)?;
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

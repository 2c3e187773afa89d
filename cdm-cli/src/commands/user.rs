//! `cdm user …`.

use std::io::Read;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::Session;
use crate::args::{PasswordArgs, UserCommand};
use crate::error::CliError;
use crate::exit::Exit;
use crate::transport::{Method, segment};
use crate::view::Shape;
use crate::world::Person;

pub(super) async fn run(command: UserCommand, session: &mut Session<'_>) -> Result<Exit, CliError> {
    let path = |name: &str| format!("/users/{}", segment(name));
    let (method, path, body, told) = match command {
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
            (Method::Post, "/users".to_owned(), Some(body), format!("`{name}` may sign in"))
        }
        UserCommand::Passwd { name, password } => {
            let body = json!({ "password": read(&password, session)?.expose_secret() });
            (
                Method::Put,
                path(&name),
                Some(body),
                format!("`{name}` has another password, and is signed out"),
            )
        }
        UserCommand::Role { name, role } => {
            let told = format!("`{name}` is {role} from the next request on");
            (Method::Put, path(&name), Some(json!({ "role": role })), told)
        }
        UserCommand::SignOut { name } => {
            let told = format!("`{name}` is signed out everywhere");
            (Method::Delete, format!("{}/sessions", path(&name)), None, told)
        }
        UserCommand::ResetSecondFactor { name } => {
            let told = format!("`{name}` has no second factor any more, and is signed out everywhere");
            (Method::Put, path(&name), Some(json!({ "secondFactor": "none" })), told)
        }
        UserCommand::Unbind { name } => {
            let told =
                format!("`{name}` is bound to no account of the provider, and is signed out everywhere");
            (Method::Put, path(&name), Some(json!({ "identity": "none" })), told)
        }
        UserCommand::Remove { name } => {
            let told = format!("`{name}` may not sign in any more; the name is not given again");
            (Method::Delete, path(&name), None, told)
        }
    };
    let answer = session.client().change(method, &path, body).await?;
    session.printer.value(Shape::User, &answer.value)?;
    session.printer.note(&told);
    Ok(Exit::Done)
}

/// The password: from the file, or asked for twice without being shown.
fn read(args: &PasswordArgs, session: &mut Session<'_>) -> Result<SecretString, CliError> {
    let failed = |what: &str, source| CliError::Io { what: what.to_owned(), source };
    match (&args.password_file, &mut session.person) {
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
        (None, Person::Absent) => Err(CliError::Usage(
            "there is nobody to ask for the password; name a --password-file, or -".into(),
        )),
        (None, Person::Present { unseen, .. }) => {
            let mut ask = |prompt: &str| {
                session.printer.prompt(prompt);
                let line = unseen().map_err(|source| failed("reading the password", source));
                line.map(SecretString::from)
            };
            let (first, again) = (ask("Password:")?, ask("The same again:")?);
            if first.expose_secret() != again.expose_secret() {
                return Err(CliError::Usage("the two are not the same; nothing was changed".into()));
            }
            Ok(first)
        }
    }
}

//! The link that makes the console's first user.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use cdm_core::domain::{Role, UserName};
use cdm_core::manager::{NewUser, Proven};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::form::Form;
use super::page::{Section, View, page, rendered};
use super::shape;
use super::sign_in::{by_password, nobody, opened};
use crate::app::{Server, Shared};
use crate::client::Client;
use crate::error::Refusal;
use crate::password;

#[derive(Template)]
#[template(path = "setup.html")]
struct Setup<'a> {
    code: &'a str,
    name: &'a str,
    problem: Option<&'a str>,
}

/// Whether the link is the one that was printed, it is followed in time and on this machine, and nobody may sign in yet.
/// Wrong codes are counted, whoever sends them.
async fn is_setup(server: &Server, client: Client, code: &str) -> Result<(), Refusal> {
    let hash = |text: &str| Sha256::digest(text.as_bytes());
    let none = server.app.manager.users().await?.present().next().is_none();
    by_password(server)?;
    let link = server.app.settings.setup.as_ref();
    let link = link.filter(|link| none && server.app.clock.monotonic() < link.until);
    if let Some(link) = link.filter(|_| client.is_on_this_machine()) {
        let attempt = server.limits.setup().map_err(Refusal::too_many)?;
        if hash(link.code.expose_secret()) == hash(code) {
            attempt.forgive();
            return Ok(());
        }
    }
    let detail = "this link was used already, has expired, is from an earlier start of the server, or was opened on \
                  another machine or through a proxy; if you have an account, sign in, else start the server again \
                  for another link";
    Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", detail))
}

/// Asks for the first user.
pub(crate) async fn ask(
    State(server): State<Shared>,
    client: Client,
    Path(code): Path<String>,
) -> Result<Response, Refusal> {
    is_setup(&server, client, &code).await?;
    let head = rendered(&Setup { code: &code, name: "", problem: None })?;
    page(StatusCode::OK, None, &View::still("The first user", Section::None, head))
}

/// Makes the first user, an administrator, and signs them in.
pub(crate) async fn make(
    State(server): State<Shared>,
    Path(code): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    is_setup(&server, form.client, &code).await?;
    let (name, password) = (form.text("name"), form.secret("password"));
    let problem = match UserName::parse(name) {
        Err(broken) => Some(broken.rule()),
        Ok(_) if password::judge(&password, name).is_err() => password::judge(&password, name).err(),
        Ok(_) if form.secret("again").expose_secret() != password.expose_secret() => {
            Some("the two passwords are not the same")
        }
        Ok(_) => None,
    };
    if let Some(problem) = problem {
        let head = rendered(&Setup { code: &code, name, problem: Some(problem) })?;
        let view = View::still("The first user", Section::None, head);
        return page(StatusCode::UNPROCESSABLE_ENTITY, None, &view);
    }
    let new = NewUser {
        name: UserName::parse(name).map_err(|_| Refusal::internal())?,
        role: Role::Admin,
        password: server.passwords.hash(form.stranger(), password).await?,
    };
    let request = form.request_of(nobody()?, Role::Viewer);
    let user = server.app.manager.create_first_user(&request, &new).await?;
    let proven = Proven::Password(user.password.clone());
    opened(&server, &form, (&user, proven), "/console/services").await
}

//! The setup link, which creates the first user of the console.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use cdm_core::domain::{Role, UserName};
use cdm_core::manager::{NewUser, Proven};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::form::Form;
use super::format;
use super::open_session::{anonymous_actor, open_session, require_passwords};
use super::page::{Section, View, page, render};
use crate::app::{AppState, SharedState};
use crate::client::Client;
use crate::error::ApiError;
use crate::password;

#[derive(Template)]
#[template(path = "setup.html")]
struct Setup<'a> {
    code: &'a str,
    name: &'a str,
    problem: Option<&'a str>,
}

/// Accepts the printed link within its time limit, from this machine, while there are no users. All wrong codes are
/// counted together.
///
/// # Errors
/// `not_found` if the link is not accepted, `passwords_off` if the server does not accept passwords, and `rate_limited`
/// after too many wrong codes.
async fn check_link(server: &AppState, client: Client, code: &str) -> Result<(), ApiError> {
    let hash = |text: &str| Sha256::digest(text.as_bytes());
    let has_no_users = server.app.manager.users().await?.present().next().is_none();
    require_passwords(server)?;
    let link = server.app.settings.setup.as_ref();
    let link = link.filter(|link| has_no_users && server.app.clock.monotonic() < link.until);
    if let Some(link) = link.filter(|_| client.is_on_this_machine()) {
        let attempt = server.limits.setup().map_err(ApiError::too_many)?;
        if hash(link.code.expose_secret()) == hash(code) {
            attempt.refund();
            return Ok(());
        }
    }
    let detail = "this link was already used, has expired, is from an earlier start of the server, or was opened on \
                  another machine or through a proxy; sign in if you have an account, or restart the server for a new \
                  link";
    Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", detail))
}

/// Shows the form of the first user.
pub(crate) async fn show(
    State(server): State<SharedState>,
    client: Client,
    Path(code): Path<String>,
) -> Result<Response, ApiError> {
    check_link(&server, client, &code).await?;
    let head = render(&Setup { code: &code, name: "", problem: None })?;
    page(StatusCode::OK, None, &View::fixed("The first user", Section::None, head))
}

/// Creates the first user, an administrator, and opens a session.
pub(crate) async fn create(
    State(server): State<SharedState>,
    Path(code): Path<String>,
    form: Form,
) -> Result<Response, ApiError> {
    check_link(&server, form.client, &code).await?;
    let (name, password) = (form.text("name"), form.secret("password"));
    let problem = match UserName::parse(name) {
        Err(invalid) => Some(invalid.rule()),
        Ok(_) if password::check_strength(&password, name).is_err() => {
            password::check_strength(&password, name).err()
        }
        Ok(_) if form.secret("again").expose_secret() != password.expose_secret() => {
            Some("the two passwords are different")
        }
        Ok(_) => None,
    };
    if let Some(problem) = problem {
        let head = render(&Setup { code: &code, name, problem: Some(problem) })?;
        let view = View::fixed("The first user", Section::None, head);
        return page(StatusCode::UNPROCESSABLE_ENTITY, None, &view);
    }
    let new = NewUser {
        name: UserName::parse(name).map_err(|_| ApiError::internal())?,
        role: Role::Admin,
        password: server.passwords.hash(form.anonymous_requester(), password).await?,
    };
    let request = form.request_as(anonymous_actor()?, Role::Viewer);
    let user = server.app.manager.create_first_user(&request, &new).await?;
    let proven = Proven::Password(user.password.clone());
    open_session(&server, &form, (&user, proven), "/console/services").await
}

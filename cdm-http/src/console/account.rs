//! One's own account: where one is signed in, and what one signs in with.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::Uid;
use cdm_core::manager::{Proven, UserChange};
use cdm_core::wiring::SecondFactorRule;
use secrecy::ExposeSecret;

use super::form::Form;
use super::guard::{Visit, Visitor};
use super::page::{Section, View, page, rendered};
use super::shape::{self, Now};
use super::sign_in::{by_password, opened};
use crate::api::time;
use crate::api::user::Session;
use crate::app::{Server, Shared};
use crate::error::Refusal;
use crate::hashing::Requester;
use crate::input::Named;
use crate::password;

#[derive(Template)]
#[template(path = "account.html")]
struct Account<'a> {
    visitor: &'a Visitor,
    sessions: Vec<Session>,
    here: String,
    /// Whether they sign in by a password here.
    password: bool,
    /// Since when they have a second factor, and how many recovery codes are left.
    second: Option<(String, usize)>,
    /// Whether they may set one up.
    enroll: bool,
    problem: Option<&'a str>,
    now: Now,
}

async fn account_page(
    server: &Server,
    visitor: &Visitor,
    status: StatusCode,
    problem: Option<&str>,
) -> Result<Response, Refusal> {
    let (users, now) = (server.app.manager.users().await?, server.app.clock.wall());
    let theirs = users.sessions.iter().filter(|one| one.user == visitor.name && one.lasts(now));
    let sessions = theirs.rev().map(Session::from).collect();
    let here = visitor.session.to_string();
    let user = users.of(&visitor.name);
    let password =
        server.app.settings.passwords && user.is_some_and(|user| user.password != password::none());
    let second = user.filter(|_| password).and_then(|user| user.second.as_ref());
    let second = second.map(|second| (time(second.at), second.recovery.len()));
    let enroll = password && server.app.settings.second_factor != SecondFactorRule::Off;
    let head =
        rendered(&Account { visitor, sessions, here, password, second, enroll, problem, now: Now(now) })?;
    page(status, Some(visitor), &View::still("Your account", Section::None, head))
}

/// Shows where one is signed in.
pub(crate) async fn show(State(server): State<Shared>, visit: Visit) -> Result<Response, Refusal> {
    account_page(&server, &visit.visitor, StatusCode::OK, None).await
}

/// Whether whoever sits there is still the one who signed in: by the present password. Someone without a password, for
/// whom a provider vouches, has nothing to prove here.
pub(super) async fn is_still(server: &Server, visitor: &Visitor, form: &Form) -> Result<bool, Refusal> {
    let attempt = server.limits.session(visitor.session).map_err(Refusal::too_many)?;
    let users = server.app.manager.users().await?;
    let known = users.of(&visitor.name).map(|user| &user.password);
    if known == Some(&password::none()) || !server.app.settings.passwords {
        attempt.forgive();
        return Ok(true);
    }
    let requester = Requester::Known(visitor.session.to_string());
    let proves = server.passwords.proves(requester, form.secret("old"), known).await;
    if !matches!(proves, Ok(false)) {
        attempt.forgive();
    }
    proves
}

pub(super) const NOT_PRESENT: &str = "that is not your present password";

/// The page, with what was wrong.
pub(super) async fn refused(server: &Server, visitor: &Visitor, problem: &str) -> Result<Response, Refusal> {
    account_page(server, visitor, StatusCode::UNPROCESSABLE_ENTITY, Some(problem)).await
}

/// Ends one of one's own sessions.
pub(crate) async fn end_session(
    State(server): State<Shared>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let id = Uid::named(&id)?;
    if !is_still(&server, &visitor, &form).await? {
        return refused(&server, &visitor, NOT_PRESENT).await;
    }
    server.app.manager.close_session(&request, &visitor.name, Some(id)).await?;
    Ok(Redirect::to("/console/account").into_response())
}

/// Gives oneself another password. All sessions end with the old one, and this browser gets a new one.
pub(crate) async fn change_password(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    by_password(&server)?;
    let password = form.secret("password");
    let users = server.app.manager.users().await?;
    let known = users.of(&visitor.name).is_some_and(|user| user.password != password::none());
    let problem = if !known {
        Some("you have no password here; a provider of OpenID Connect vouches for you")
    } else if !is_still(&server, &visitor, &form).await? {
        Some(NOT_PRESENT)
    } else if let Err(problem) = password::judge(&password, visitor.name.as_str()) {
        Some(problem)
    } else if form.secret("again").expose_secret() != password.expose_secret() {
        Some("the two new passwords are not the same")
    } else {
        None
    };
    if let Some(problem) = problem {
        return refused(&server, &visitor, problem).await;
    }
    let requester = Requester::Known(visitor.session.to_string());
    let hash = server.passwords.hash(requester, password).await?;
    let change = UserChange { password: Some(hash), ..UserChange::default() };
    let user = server.app.manager.change_user(&request, &visitor.name, &change).await?;
    let proven = Proven::Renewed(user.password.clone());
    opened(&server, &form, (&user, proven), "/console/account").await
}

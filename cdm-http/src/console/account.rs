//! The account page: the user's sessions, password and second factor.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::Uid;
use cdm_core::manager::{Proven, UserChange};
use cdm_core::wiring::SecondFactorRule;
use secrecy::ExposeSecret;

use super::form::Form;
use super::format::{self, Now};
use super::open_session::{open_session, require_passwords};
use super::page::{Section, View, page, render};
use super::session::{CurrentUser, PageRequest};
use crate::api::user::Session;
use crate::api::{SessionId, Time};
use crate::app::{AppState, SharedState};
use crate::error::ApiError;
use crate::extract::PathSegment;
use crate::hashing::Requester;
use crate::password;

#[derive(Template)]
#[template(path = "account.html")]
struct Account<'a> {
    current_user: &'a CurrentUser,
    /// The user's sessions, newest first.
    sessions: Vec<Session>,
    /// The id of the session that shows the page.
    current_session: SessionId,
    /// Whether the user has a password and the server accepts passwords.
    password: bool,
    /// When the second factor was set up, and the number of unused recovery codes; `None` without a second factor.
    second_factor: Option<(Time, usize)>,
    /// Whether the user may set up a second factor.
    can_enroll: bool,
    problem: Option<&'a str>,
    now: Now,
}

async fn account_page(
    server: &AppState,
    current_user: &CurrentUser,
    status: StatusCode,
    problem: Option<&str>,
) -> Result<Response, ApiError> {
    let (users, now) = (server.app.manager.users().await?, server.app.clock.wall());
    let own = users.sessions.iter().filter(|session| session.user == current_user.name && session.lasts(now));
    let sessions = own.rev().map(Session::from).collect();
    let current_session = SessionId::from(&current_user.session);
    let user = users.of(&current_user.name);
    let password =
        server.app.settings.passwords && user.is_some_and(|user| user.password != password::unusable());
    let second_factor = user.filter(|_| password).and_then(|user| user.second.as_ref());
    let second_factor = second_factor.map(|second| (Time(second.at), second.recovery.len()));
    let can_enroll = password && server.app.settings.second_factor != SecondFactorRule::Off;
    let head = render(&Account {
        current_user,
        sessions,
        current_session,
        password,
        second_factor,
        can_enroll,
        problem,
        now: Now(now),
    })?;
    page(status, Some(current_user), &View::fixed("Your account", Section::None, head))
}

/// Shows the account page.
pub(crate) async fn show(
    State(server): State<SharedState>,
    request: PageRequest,
) -> Result<Response, ApiError> {
    account_page(&server, &request.current_user, StatusCode::OK, None).await
}

/// Returns whether the form contains the user's current password. Returns `true` for a user without a password, who
/// signs in through an OpenID Connect provider.
pub(super) async fn is_reauthenticated(
    server: &AppState,
    current_user: &CurrentUser,
    form: &Form,
) -> Result<bool, ApiError> {
    let attempt = server.limits.session(current_user.session).map_err(ApiError::too_many)?;
    let users = server.app.manager.users().await?;
    let stored = users.of(&current_user.name).map(|user| &user.password);
    if stored == Some(&password::unusable()) || !server.app.settings.passwords {
        attempt.refund();
        return Ok(true);
    }
    let requester = Requester::Known(current_user.session.to_string());
    let is_correct = server.passwords.verify(requester, form.secret("old"), stored).await;
    if !matches!(is_correct, Ok(false)) {
        attempt.refund();
    }
    is_correct
}

pub(super) const WRONG_CURRENT_PASSWORD: &str = "the current password is wrong";

/// Shows the account page with an error.
pub(super) async fn account_error(
    server: &AppState,
    current_user: &CurrentUser,
    problem: &str,
) -> Result<Response, ApiError> {
    account_page(server, current_user, StatusCode::UNPROCESSABLE_ENTITY, Some(problem)).await
}

/// Ends one of the user's sessions.
pub(crate) async fn end_session(
    State(server): State<SharedState>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    let id = Uid::from_segment(&id)?;
    if !is_reauthenticated(&server, &current_user, &form).await? {
        return account_error(&server, &current_user, WRONG_CURRENT_PASSWORD).await;
    }
    server.app.manager.close_session(&request, &current_user.name, Some(id)).await?;
    Ok(Redirect::to("/console/account").into_response())
}

/// Changes the user's password. This ends all of the user's sessions, and opens a new session in this browser.
pub(crate) async fn change_password(
    State(server): State<SharedState>,
    form: Form,
) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    require_passwords(&server)?;
    let password = form.secret("password");
    let users = server.app.manager.users().await?;
    let has_password = users.of(&current_user.name).is_some_and(|user| user.password != password::unusable());
    let problem = if !has_password {
        Some("you have no password on this server; you sign in through the OpenID Connect provider")
    } else if !is_reauthenticated(&server, &current_user, &form).await? {
        Some(WRONG_CURRENT_PASSWORD)
    } else if let Err(problem) = password::check_strength(&password, current_user.name.as_str()) {
        Some(problem)
    } else if form.secret("again").expose_secret() != password.expose_secret() {
        Some("the two new passwords are different")
    } else {
        None
    };
    if let Some(problem) = problem {
        return account_error(&server, &current_user, problem).await;
    }
    let requester = Requester::Known(current_user.session.to_string());
    let hash = server.passwords.hash(requester, password).await?;
    let change = UserChange { password: Some(hash), ..UserChange::default() };
    let user = server.app.manager.change_user(&request, &current_user.name, &change).await?;
    let proven = Proven::Renewed(user.password.clone());
    open_session(&server, &form, (&user, proven), "/console/account").await
}

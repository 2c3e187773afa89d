//! The second factor: setup and removal on the account page, and the code after the password.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::user::{SecondFactor, SecondProof, User};
use cdm_core::domain::{PasswordHash, Role, UserName};
use cdm_core::manager::{ManagerError, Proven};
use cdm_core::wiring::SecondFactorRule;

use super::account::{WRONG_CURRENT_PASSWORD, is_reauthenticated};
use super::form::Form;
use super::open_session::{anonymous_actor, open_session, require_passwords, safe_next};
use super::page::{Section, View, page, render};
use super::session::{CurrentUser, ENROLL, PageRequest, SIGN_IN};
use super::{device, format};
use crate::app::{AppState, SharedState};
use crate::error::ApiError;
use crate::password;
use crate::second_factor::{self, Purpose, Sealer};

/// How long a user may take for the setup, and for the code after the password.
const ENROLL_TIMEOUT: Duration = Duration::from_mins(30);
const CODE_TIMEOUT: Duration = Duration::from_mins(5);

#[derive(Template)]
#[template(path = "enroll.html")]
struct Enroll<'a> {
    current_user: &'a CurrentUser,
    sealed: &'a str,
    typed: String,
    uri: String,
    qr_code: String,
    problem: Option<&'a str>,
    /// Whether no other page is shown before the setup.
    required: bool,
}

#[derive(Template)]
#[template(path = "recovery.html")]
struct Recovery {
    codes: Vec<String>,
}

#[derive(Template)]
#[template(path = "code.html")]
struct Code<'a> {
    name: &'a str,
    ticket: &'a str,
    next: &'a str,
    problem: Option<&'a str>,
}

async fn sealer(server: &AppState) -> Result<Sealer, ApiError> {
    Ok(Sealer::new(&server.app.manager.sealing_key().await?))
}

/// Returns an error unless this server lets users set up a second factor.
fn require_enabled(server: &AppState) -> Result<(), ApiError> {
    let enabled = server.app.settings.second_factor != SecondFactorRule::Off && server.app.settings.passwords;
    if enabled { Ok(()) } else { Err(ApiError::not_found("the page")) }
}

fn enroll_page(
    current_user: &CurrentUser,
    shared: &second_factor::SharedSecret,
    (sealed, problem): (&str, Option<&str>),
) -> Result<Response, ApiError> {
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let head = render(&Enroll {
        current_user,
        sealed,
        typed: shared.typed(),
        uri: shared.uri().ok_or_else(ApiError::internal)?,
        qr_code: shared.qr_svg().ok_or_else(ApiError::internal)?,
        problem,
        required: current_user.must_enroll,
    })?;
    page(status, Some(current_user), &View::fixed("Second factor", Section::None, head))
}

/// Shows the setup page with a new secret, which takes effect when the user confirms it with a code.
pub(crate) async fn show(
    State(server): State<SharedState>,
    request: PageRequest,
) -> Result<Response, ApiError> {
    require_enabled(&server)?;
    let name = &request.current_user.name;
    let manager = &server.app.manager;
    let users = manager.users().await?;
    if users.of(name).is_none_or(|user| user.second.is_some() || user.password == password::unusable()) {
        return Ok(Redirect::to("/console/account").into_response());
    }
    let fresh = || manager.fresh_secret("");
    let shared = second_factor::SharedSecret::fresh(name, &fresh()).ok_or_else(ApiError::internal)?;
    let until = server.app.clock.wall().after(ENROLL_TIMEOUT);
    let sealed = sealer(&server).await?.seal_until((Purpose::Pending, name), (&shared.text, until), &fresh());
    let sealed = sealed.ok_or_else(ApiError::internal)?;
    enroll_page(&request.current_user, &shared, (&sealed, None))
}

/// Sets up the second factor: the code proves that the app has the secret, and the password authenticates the user.
pub(crate) async fn enroll(State(server): State<SharedState>, form: Form) -> Result<Response, ApiError> {
    require_enabled(&server)?;
    let (current_user, request) = form.authenticated_request()?;
    let (sealer, now, name) = (sealer(&server).await?, server.app.clock.wall(), &current_user.name);
    let sealed = form.text("sealed");
    let shared = sealer.unseal_in_time((Purpose::Pending, name), sealed, now);
    let Some(shared) = shared.and_then(|text| second_factor::SharedSecret::of(name, &text)) else {
        return Ok(Redirect::to(ENROLL).into_response());
    };
    let step = shared.step(form.text("code"), now);
    let problem = match step {
        _ if !is_reauthenticated(&server, &current_user, &form).await? => Some(WRONG_CURRENT_PASSWORD),
        None => Some("the code is not the one that the app shows now"),
        Some(_) => None,
    };
    let (None, Some(step)) = (problem, step) else {
        return enroll_page(&current_user, &shared, (sealed, problem));
    };
    let fresh = || server.app.manager.fresh_secret("");
    let codes = second_factor::recovery_codes(fresh);
    let kept = sealer.seal((Purpose::Kept, name), &shared.text, &fresh()).ok_or_else(ApiError::internal)?;
    let recovery = codes.iter().filter_map(|code| second_factor::recovery_hash(code)).collect();
    let second = SecondFactor { sealed: kept, at: now, step, recovery };
    server.app.manager.change_second_factor(&request, name, current_user.session, Some(&second)).await?;
    let head = render(&Recovery { codes })?;
    page(StatusCode::OK, Some(&current_user.enrolled()), &View::fixed("Recovery codes", Section::None, head))
}

/// Removes the second factor of the signed-in user, after a new check of the password.
pub(crate) async fn remove(State(server): State<SharedState>, form: Form) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    if !is_reauthenticated(&server, &current_user, &form).await? {
        return super::account::account_error(&server, &current_user, WRONG_CURRENT_PASSWORD).await;
    }
    server.app.manager.change_second_factor(&request, &current_user.name, current_user.session, None).await?;
    Ok(Redirect::to("/console/account").into_response())
}

/// Shows the page that requests a code after a correct password.
pub(crate) async fn code_form(server: &AppState, user: &User, next: &str) -> Result<Response, ApiError> {
    let until = server.app.clock.wall().after(CODE_TIMEOUT);
    let fresh = server.app.manager.fresh_secret("");
    let ticket = (Purpose::Password, &user.name);
    let ticket = sealer(server).await?.seal_until(ticket, (user.password.as_str(), until), &fresh);
    let ticket = ticket.ok_or_else(ApiError::internal)?;
    code_page(StatusCode::OK, (user.name.as_str(), &ticket, next), None)
}

fn code_page(
    status: StatusCode,
    (name, ticket, next): (&str, &str, &str),
    problem: Option<&str>,
) -> Result<Response, ApiError> {
    let head = render(&Code { name, ticket, next, problem })?;
    page(status, None, &View::fixed("Sign in", Section::None, head))
}

/// Returns the proof of a recovery code or of a correct code of the app; `None` if the code is wrong.
fn second_proof(
    sealer: &Sealer,
    user: &User,
    form: &Form,
    now: cdm_core::domain::Timestamp,
) -> Option<SecondProof> {
    let second = user.second.as_ref()?;
    let code = form.text("code");
    if let Some(hash) = second_factor::recovery_hash(code) {
        return Some(SecondProof::Recovery(hash));
    }
    let shared = sealer.unseal((Purpose::Kept, &user.name), &second.sealed)?;
    second_factor::SharedSecret::of(&user.name, &shared)?.step(code, now).map(SecondProof::Code)
}

/// Opens a session after a correct password and a correct code.
pub(crate) async fn sign_in(State(server): State<SharedState>, form: Form) -> Result<Response, ApiError> {
    require_passwords(&server)?;
    let (next, name, ticket) = (safe_next(form.text("next")), form.text("name"), form.text("ticket"));
    let restart = || Redirect::to(SIGN_IN).into_response();
    let Ok(named) = UserName::parse(name) else { return Ok(restart()) };
    let (sealer, now) = (sealer(&server).await?, server.app.clock.wall());
    let Some(hash) = sealer.unseal_in_time((Purpose::Password, &named), ticket, now) else {
        return Ok(restart());
    };
    let hash = PasswordHash::new(hash);
    let users = server.app.manager.users().await?;
    let Some(user) = users.of(&named).filter(|user| user.password == hash && user.second.is_some()) else {
        return Ok(restart());
    };
    // The client has proved that it knows the password. Known devices of the user are counted separately.
    let device = device::known_device(&form.headers, form.client, user, now);
    let attempt = match server.limits.code(device.as_deref().unwrap_or_default(), &named) {
        Ok(attempt) => attempt,
        Err((refused, after)) => {
            if server.limits.should_audit(&refused) {
                let anonymous = form.request_as(anonymous_actor()?, Role::Viewer);
                server.app.manager.refuse_attempt(&anonymous, cdm_core::manager::Action::SignIn, name).await;
            }
            let seconds = after.as_secs() + 1;
            let problem = format!("too many wrong codes; try again in {seconds} s");
            let status = StatusCode::TOO_MANY_REQUESTS;
            let mut response = code_page(status, (name, ticket, next), Some(&problem))?;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            return Ok(response);
        }
    };
    let Some(proof) = second_proof(&sealer, user, &form, now) else {
        let anonymous = form.request_as(anonymous_actor()?, Role::Viewer);
        server.app.manager.refuse_session(&anonymous, name).await;
        return code_page(StatusCode::UNPROCESSABLE_ENTITY, (name, ticket, next), Some(WRONG_CODE));
    };
    // The write that opens the session rejects a code that was used before.
    match open_session(&server, &form, (user, Proven::Both(hash, proof)), next).await {
        Ok(response) => {
            attempt.refund();
            Ok(response)
        }
        Err(error) if error.problem.code == ManagerError::Invalid(String::new()).code() => {
            code_page(StatusCode::UNPROCESSABLE_ENTITY, (name, ticket, next), Some(WRONG_CODE))
        }
        Err(error) => Err(error),
    }
}

const WRONG_CODE: &str = "the code is wrong or was already used; wait for the next code";

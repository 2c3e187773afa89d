//! Sign-in with a password, and sign-out.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::{Role, UserName};
use cdm_core::manager::{self, Proven};

use super::form::Form;
use super::open_session::{NextQuery, anonymous_actor, open_session, require_passwords, safe_next};
use super::page::{Section, View, page, render};
use super::session::{SIGN_IN, cookie, is_loopback};
use super::{Filter, device, format, second_factor, with_query};
use crate::app::{AppState, SharedState};
use crate::error::ApiError;
use crate::hashing::Requester;
use crate::limits::ExceededLimit;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    next: &'a str,
    name: &'a str,
    problem: Option<&'a str>,
    /// Whether there are no users.
    has_no_users: bool,
    /// Whether the browser keeps the session cookie: over TLS, or on a loopback address.
    secure: bool,
    /// The URL that starts a sign-in through the OpenID Connect provider; `None` without a provider.
    provider: Option<String>,
    /// Whether the server accepts passwords.
    passwords: bool,
}

/// Shows the sign-in page.
pub(crate) async fn show(
    State(server): State<SharedState>,
    headers: HeaderMap,
    Filter(next): Filter<NextQuery>,
) -> Result<Response, ApiError> {
    let next = next.next.unwrap_or_default();
    sign_in_page(&server, &headers, StatusCode::OK, (safe_next(&next), "", None)).await
}

async fn sign_in_page(
    server: &AppState,
    headers: &HeaderMap,
    status: StatusCode,
    (next, name, problem): (&str, &str, Option<&str>),
) -> Result<Response, ApiError> {
    let has_no_users = server.app.manager.users().await?.present().next().is_none();
    // Browsers send `Sec-Fetch-Site` over TLS and to loopback addresses only.
    let begin_url = || with_query("/console/oidc/begin", &[("next", Some(next))]);
    let provider = server.app.settings.oidc.as_ref().map(|_| begin_url());
    let secure = is_loopback(headers) || headers.contains_key("sec-fetch-site");
    let passwords = server.app.settings.passwords;
    let head = render(&SignInPage { next, name, problem, has_no_users, secure, provider, passwords })?;
    page(status, None, &View::fixed("Sign in", Section::None, head))
}

/// Opens a session for a user name with the correct password, or requests the second factor. The session has a new
/// cookie, so a cookie that was planted in the browser has no effect.
///
/// The attempt is counted before the password is compared, so an attempt over the limit costs the server no hashing. A
/// successful attempt is uncounted.
pub(crate) async fn sign_in(State(server): State<SharedState>, form: Form) -> Result<Response, ApiError> {
    require_passwords(&server)?;
    let (next, name) = (safe_next(form.text("next")).to_owned(), form.text("name").to_owned());
    let named = UserName::parse(&name).ok();
    let users = server.app.manager.users().await?;
    let user = named.as_ref().and_then(|name| users.of(name));
    let device =
        user.and_then(|user| device::known_device(&form.headers, form.client, user, server.app.clock.wall()));
    let attempt = match &device {
        Some(device) => server.limits.device(device),
        None => server.limits.unknown_device(form.client.address, named.as_ref()),
    };
    let attempt = match attempt {
        Ok(attempt) => attempt,
        Err((refused, after)) => return too_many_attempts(&server, &form, (refused, after), &next).await,
    };
    let requester = device.map_or_else(|| form.anonymous_requester(), Requester::Known);
    let stored = user.map(|user| &user.password);
    let is_correct = match server.passwords.verify(requester, form.secret("password"), stored).await {
        Ok(is_correct) => is_correct,
        Err(busy) => {
            attempt.refund();
            return Err(busy);
        }
    };
    if is_correct && let Some(user) = user {
        attempt.refund();
        if user.second.is_some() {
            return second_factor::code_form(&server, user, &next).await;
        }
        let proven = Proven::Password(user.password.clone());
        return open_session(&server, &form, (user, proven), &next).await;
    }
    let anonymous = form.request_as(anonymous_actor()?, Role::Viewer);
    let target = named.as_ref().map_or("(no user name)", UserName::as_str);
    let problem = server.app.manager.refuse_session(&anonymous, target).await.to_string();
    sign_in_page(&server, &form.headers, StatusCode::UNPROCESSABLE_ENTITY, (&next, &name, Some(&problem)))
        .await
}

/// Rejects an attempt over a limit. Each limit writes one audit entry per minute.
async fn too_many_attempts(
    server: &AppState,
    form: &Form,
    (refused, after): (ExceededLimit, Duration),
    next: &str,
) -> Result<Response, ApiError> {
    let name = form.text("name");
    if server.limits.should_audit(&refused) {
        let target = UserName::parse(name);
        let target = target.as_ref().map_or("(no user name)", UserName::as_str);
        let anonymous = form.request_as(anonymous_actor()?, Role::Viewer);
        server.app.manager.refuse_attempt(&anonymous, manager::Action::SignIn, target).await;
    }
    let seconds = after.as_secs() + 1;
    let problem = match &refused {
        ExceededLimit::Address(_) => return Err(ApiError::too_many(after)),
        ExceededLimit::Name(name) | ExceededLimit::Code(name) => {
            format!("too many failed attempts to sign in as `{name}`; try again in {seconds} s")
        }
        ExceededLimit::Device(_) => {
            format!(
                "too many failed attempts from this browser to sign in as `{name}`; try again in {seconds} s"
            )
        }
    };
    let (headers, status) = (&form.headers, StatusCode::TOO_MANY_REQUESTS);
    let mut response = sign_in_page(server, headers, status, (next, name, Some(&problem))).await?;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Ok(response)
}

/// Ends the session in the store, and removes its cookie.
pub(crate) async fn sign_out(State(server): State<SharedState>, form: Form) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    server.app.manager.close_session(&request, &current_user.name, Some(current_user.session)).await?;
    Ok((cookie(&form.headers, form.client, None), Redirect::to(SIGN_IN)).into_response())
}

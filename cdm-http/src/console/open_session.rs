//! What every way to sign in uses: the page to show afterwards, and the new session.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::Actor;
use cdm_core::domain::user::User;
use cdm_core::manager::{self, Proven, SignIn};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::device;
use super::form::Form;
use super::session::{SIGN_IN, cookie, session_of};
use crate::app::AppState;
use crate::error::ApiError;

/// Returns the actor of audit entries of clients that have not authenticated.
pub(crate) fn anonymous_actor() -> Result<Actor, ApiError> {
    Actor::parse("console").map_err(|_| ApiError::internal())
}

/// The query of the sign-in page: the page to show after the sign-in.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct NextQuery {
    pub(crate) next: Option<String>,
}

/// Returns `next` if it is a page of the console, otherwise the services page. A link from another site cannot redirect
/// elsewhere.
pub(crate) fn safe_next(next: &str) -> &str {
    let is_valid = next.starts_with("/console/") && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_valid && !next.starts_with(SIGN_IN) { next } else { "/console/services" }
}

/// Returns an error if users sign in through an OpenID Connect provider only.
pub(crate) fn require_passwords(server: &AppState) -> Result<(), ApiError> {
    let detail = "this server does not accept passwords; sign in with your organization";
    let error = || ApiError::new(StatusCode::FORBIDDEN, "passwords_off", detail);
    if server.app.settings.passwords { Ok(()) } else { Err(error()) }
}

/// Opens a session and ends the browser's former session. Redirects to `next`, with the cookies of the session and of
/// the device.
pub(crate) async fn open_session(
    server: &AppState,
    form: &Form,
    (user, proven): (&User, Proven),
    next: &str,
) -> Result<Response, ApiError> {
    // An idempotency key of the form belongs to the request before this one.
    let request = manager::Request { key: None, ..form.request_as(user.name.actor(), user.role) };
    let from = form.client.address.map(|address| address.to_string());
    let former = session_of(&form.headers, form.client);
    let sign_in = SignIn { name: user.name.clone(), proven, from, former };
    let (_, text) = server.app.manager.open_session(&request, &sign_in).await?;
    let now = server.app.clock.wall();
    let device = device::known_device(&form.headers, form.client, user, now)
        .unwrap_or_else(|| server.app.manager.fresh_secret("").expose_secret().to_owned());
    let device = device::cookie(&form.headers, form.client, (user, &device), now);
    Ok((cookie(&form.headers, form.client, Some(&text)), device, Redirect::to(next)).into_response())
}

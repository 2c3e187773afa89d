//! Signing in and out.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::user::User;
use cdm_core::domain::{Actor, Role, UserName};
use cdm_core::manager::{self, Proven, SignIn};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::form::Form;
use super::guard::{SIGN_IN, cookie, is_loopback, session_of};
use super::page::{Section, View, page, rendered};
use super::{Filter, address, device, second_factor, shape};
use crate::app::{Server, Shared};
use crate::error::Refusal;
use crate::hashing::Requester;
use crate::limits::Refused;

/// Who the audit names where nobody has proven who they are.
pub(crate) fn nobody() -> Result<Actor, Refusal> {
    Actor::parse("console").map_err(|_| Refusal::internal())
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    next: &'a str,
    name: &'a str,
    problem: Option<&'a str>,
    /// Whether nobody may sign in yet.
    first: bool,
    /// Whether the browser may keep the cookie here.
    secure: bool,
    /// The other way to prove who one is, where there is one.
    provider: Option<String>,
    /// Whether passwords serve here.
    passwords: bool,
}

/// Where to go after signing in.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Next {
    pub(crate) next: Option<String>,
}

/// Somewhere within the console, whoever made the link.
pub(crate) fn within(next: &str) -> &str {
    let fit = next.starts_with("/console/") && next.bytes().all(|byte| byte.is_ascii_graphic());
    if fit && !next.starts_with(SIGN_IN) { next } else { "/console/services" }
}

/// Asks who it is.
pub(crate) async fn ask(
    State(server): State<Shared>,
    headers: HeaderMap,
    Filter(next): Filter<Next>,
) -> Result<Response, Refusal> {
    let next = next.next.unwrap_or_default();
    asked(&server, &headers, StatusCode::OK, (within(&next), "", None)).await
}

async fn asked(
    server: &Server,
    headers: &HeaderMap,
    status: StatusCode,
    (next, name, problem): (&str, &str, Option<&str>),
) -> Result<Response, Refusal> {
    let first = server.app.manager.users().await?.present().next().is_none();
    // Browsers say where a request comes from over TLS, and on loopback addresses.
    let next_of = || address("/console/oidc/begin", &[("next", Some(next))]);
    let provider = server.app.settings.oidc.as_ref().map(|_| next_of());
    let secure = is_loopback(headers) || headers.contains_key("sec-fetch-site");
    let passwords = server.app.settings.passwords;
    let head = rendered(&SignInPage { next, name, problem, first, secure, provider, passwords })?;
    page(status, None, &View::still("Sign in", Section::None, head))
}

/// Opens a session for whoever knows the password, under a fresh cookie: one from before, whoever set it, counts no more.
///
/// The attempt is counted before the password is compared, so that guessing costs the server nothing once it is one too
/// many; what succeeds is taken out of the count again.
pub(crate) async fn sign_in(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    by_password(&server)?;
    let (next, name) = (within(form.text("next")).to_owned(), form.text("name").to_owned());
    let named = UserName::parse(&name).ok();
    let users = server.app.manager.users().await?;
    let user = named.as_ref().and_then(|name| users.of(name));
    let device =
        user.and_then(|user| device::known(&form.headers, form.client, user, server.app.clock.wall()));
    let attempt = match &device {
        Some(device) => server.limits.device(device),
        None => server.limits.stranger(form.client.address, named.as_ref()),
    };
    let attempt = match attempt {
        Ok(attempt) => attempt,
        Err((refused, after)) => return too_often(&server, &form, (refused, after), &next).await,
    };
    let requester = device.map_or_else(|| form.stranger(), Requester::Known);
    let known = user.map(|user| &user.password);
    let proves = match server.passwords.proves(requester, form.secret("password"), known).await {
        Ok(proves) => proves,
        Err(busy) => {
            attempt.forgive();
            return Err(busy);
        }
    };
    if proves && let Some(user) = user {
        attempt.forgive();
        if user.second.is_some() {
            return second_factor::ask_code(&server, user, &next).await;
        }
        let proven = Proven::Password(user.password.clone());
        return opened(&server, &form, (user, proven), &next).await;
    }
    let nobody = form.request_of(nobody()?, Role::Viewer);
    let told = named.as_ref().map_or("(no user name)", UserName::as_str);
    let refused = server.app.manager.refuse_session(&nobody, told).await.to_string();
    asked(&server, &form.headers, StatusCode::UNPROCESSABLE_ENTITY, (&next, &name, Some(&refused))).await
}

/// Refuses where people sign in by a provider alone.
pub(crate) fn by_password(server: &Server) -> Result<(), Refusal> {
    let told = "passwords are switched off on this server; sign in with your organisation";
    let refused = || Refusal::new(StatusCode::FORBIDDEN, "passwords_off", told);
    if server.app.settings.passwords { Ok(()) } else { Err(refused()) }
}

/// Says that there were too many attempts; the first of a minute has an entry in the audit.
async fn too_often(
    server: &Server,
    form: &Form,
    (refused, after): (Refused, Duration),
    next: &str,
) -> Result<Response, Refusal> {
    let name = form.text("name");
    if server.limits.is_news(&refused) {
        let target = UserName::parse(name);
        let target = target.as_ref().map_or("(no user name)", UserName::as_str);
        let nobody = form.request_of(nobody()?, Role::Viewer);
        server.app.manager.refuse_attempt(&nobody, manager::Action::SignIn, target).await;
    }
    let seconds = after.as_secs() + 1;
    let told = match &refused {
        Refused::Address(_) => return Err(Refusal::too_many(after)),
        Refused::Name(name) | Refused::Code(name) => {
            format!("somebody tried too often to sign in as `{name}`; try again in {seconds} s")
        }
        Refused::Device(_) => {
            format!("this browser tried too often to sign in as `{name}`; try again in {seconds} s")
        }
    };
    let (headers, status) = (&form.headers, StatusCode::TOO_MANY_REQUESTS);
    let mut response = asked(server, headers, status, (next, name, Some(&told))).await?;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Ok(response)
}

/// Opens a session, and ends the one that this browser had.
pub(crate) async fn opened(
    server: &Server,
    form: &Form,
    (user, proven): (&User, Proven),
    next: &str,
) -> Result<Response, Refusal> {
    // The form's key, where it has one, is of what it did before.
    let request = manager::Request { key: None, ..form.request_of(user.name.actor(), user.role) };
    let from = form.client.address.map(|address| address.to_string());
    let former = session_of(&form.headers, form.client);
    let sign_in = SignIn { name: user.name.clone(), proven, from, former };
    let (_, text) = server.app.manager.open_session(&request, &sign_in).await?;
    let now = server.app.clock.wall();
    let device = device::known(&form.headers, form.client, user, now)
        .unwrap_or_else(|| server.app.manager.fresh_secret("").expose_secret().to_owned());
    let device = device::cookie(&form.headers, form.client, (user, &device), now);
    Ok((cookie(&form.headers, form.client, Some(&text)), device, Redirect::to(next)).into_response())
}

/// Ends the session, here and in the store.
pub(crate) async fn sign_out(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    server.app.manager.close_session(&request, &visitor.name, Some(visitor.session)).await?;
    Ok((cookie(&form.headers, form.client, None), Redirect::to(SIGN_IN)).into_response())
}

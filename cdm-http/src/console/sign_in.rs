//! Signing in and out, the first user, and where one is signed in.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::user::User;
use cdm_core::domain::{Actor, Role, Uid, UserName};
use cdm_core::services::{self, NewUser, UserChange};
use secrecy::ExposeSecret;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::form::Form;
use super::guard::{SIGN_IN, Visit, Visitor, cookie, is_loopback};
use super::page::{Section, View, page, rendered};
use super::shape::{self, Now};
use super::{Filter, address};
use crate::api::user::Session;
use crate::app::{Server, Shared};
use crate::client::Client;
use crate::error::Refusal;
use crate::input::Named;
use crate::password;

/// Who the audit names where nobody has proven who they are.
pub(crate) fn nobody() -> Result<Actor, Refusal> {
    Actor::parse("console").map_err(|_| Refusal::internal())
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    next: &'a str,
    name: &'a str,
    problem: Option<&'a str>,
    /// Whether nobody may sign in yet.
    first: bool,
    /// Whether the browser may keep the cookie here.
    secure: bool,
    /// The other way to prove who one is, where there is one.
    provider: Option<String>,
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
    let first = server.app.services.users().await?.present().next().is_none();
    // Browsers say where a request comes from over TLS, and on loopback addresses.
    let next_of = || address("/console/oidc/begin", &[("next", Some(next))]);
    let provider = server.app.settings.oidc.as_ref().map(|_| next_of());
    let secure = is_loopback(headers) || headers.contains_key("sec-fetch-site");
    let head = rendered(&SignIn { next, name, problem, first, secure, provider })?;
    page(status, None, &View::still("Sign in", Section::None, head))
}

/// Opens a session for whoever knows the password, under a fresh cookie: one from before, whoever set it, counts no more.
pub(crate) async fn sign_in(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (next, name) = (within(form.text("next")).to_owned(), form.text("name").to_owned());
    let address = form.client.address;
    let named = UserName::parse(&name).ok();
    let late = match &named {
        Some(named) => server.limits.attempt(named).err(),
        None => None,
    };
    if let Some(after) = late {
        let seconds = after.as_secs() + 1;
        let told = format!("somebody tried too often to sign in as `{name}`; try again in {seconds} s");
        let (headers, told) = (&form.headers, Some(told.as_str()));
        return asked(&server, headers, StatusCode::TOO_MANY_REQUESTS, (&next, &name, told)).await;
    }
    let users = server.app.services.users().await?;
    let user = named.as_ref().and_then(|name| users.of(name));
    let known = user.map(|user| &user.password);
    if password::proves(form.secret("password"), known).await
        && let Some(user) = user
    {
        return opened(&server, &form, user, &next).await;
    }
    if let Err(after) = server.limits.failure(address) {
        return Err(Refusal::too_many(after));
    }
    let nobody = form.request_of(nobody()?);
    let told = named.as_ref().map_or("(no user name)", UserName::as_str);
    let refused = server.app.services.refuse_session(&nobody, told).await.to_string();
    asked(&server, &form.headers, StatusCode::UNPROCESSABLE_ENTITY, (&next, &name, Some(&refused))).await
}

pub(crate) async fn opened(
    server: &Server,
    form: &Form,
    user: &User,
    next: &str,
) -> Result<Response, Refusal> {
    // The form's key, where it has one, is of what it did before.
    let request = services::Request { key: None, ..form.request_of(user.name.actor()) };
    let from = form.client.address.map(|address| address.to_string());
    let (_, text) = server.app.services.open_session(&request, &user.name, &user.password, from).await?;
    Ok((cookie(&form.headers, form.client, Some(&text)), Redirect::to(next)).into_response())
}

/// Ends the session, here and in the store.
pub(crate) async fn sign_out(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks(Role::Viewer)?;
    server.app.services.close_session(&request, &visitor.name, Some(visitor.session)).await?;
    Ok((cookie(&form.headers, form.client, None), Redirect::to(SIGN_IN)).into_response())
}

#[derive(Template)]
#[template(path = "setup.html")]
struct Setup<'a> {
    code: &'a str,
    name: &'a str,
    problem: Option<&'a str>,
}

/// Whether the link is the one that was printed, it is followed on this machine, and nobody may sign in yet.
async fn is_setup(server: &Server, client: Client, code: &str) -> Result<(), Refusal> {
    let hash = |text: &str| Sha256::digest(text.as_bytes());
    let setup = server.app.settings.setup.as_ref().map(|setup| hash(setup.expose_secret()));
    let none = server.app.services.users().await?.present().next().is_none();
    if client.is_on_this_machine() && setup == Some(hash(code)) && none {
        return Ok(());
    }
    let detail = "this link was used already, is from an earlier start of the server, or was opened on another \
                  machine or through a proxy; if you have an account, sign in";
    Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", detail))
}

/// Asks for the first user.
pub(crate) async fn ask_first(
    State(server): State<Shared>,
    client: Client,
    Path(code): Path<String>,
) -> Result<Response, Refusal> {
    is_setup(&server, client, &code).await?;
    let head = rendered(&Setup { code: &code, name: "", problem: None })?;
    page(StatusCode::OK, None, &View::still("The first user", Section::None, head))
}

/// Makes the first user, an administrator, and signs them in.
pub(crate) async fn first(
    State(server): State<Shared>,
    Path(code): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    is_setup(&server, form.client, &code).await?;
    let (name, password) = (form.text("name"), form.secret("password"));
    let problem = match UserName::parse(name) {
        Err(broken) => Some(broken.rule()),
        Ok(_) if !password::fits(&password) => Some(password::RULE),
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
        password: password::hash(password).await?,
    };
    let request = form.request_of(nobody()?);
    let user = server.app.services.create_first_user(&request, &new).await?;
    opened(&server, &form, &user, "/console/services").await
}

#[derive(Template)]
#[template(path = "account.html")]
struct Account<'a> {
    visitor: &'a Visitor,
    sessions: Vec<Session>,
    here: String,
    problem: Option<&'a str>,
    now: Now,
}

async fn account_page(
    server: &Server,
    visitor: &Visitor,
    status: StatusCode,
    problem: Option<&str>,
) -> Result<Response, Refusal> {
    let (users, now) = (server.app.services.users().await?, server.app.clock.wall());
    let theirs = users.sessions.iter().filter(|one| one.user == visitor.name && one.until > now);
    let sessions = theirs.rev().map(Session::from).collect();
    let here = visitor.session.to_string();
    let head = rendered(&Account { visitor, sessions, here, problem, now: Now(now) })?;
    page(status, Some(visitor), &View::still("Your account", Section::None, head))
}

/// Shows where one is signed in.
pub(crate) async fn account(State(server): State<Shared>, visit: Visit) -> Result<Response, Refusal> {
    account_page(&server, &visit.visitor, StatusCode::OK, None).await
}

/// Ends one of one's own sessions.
pub(crate) async fn end_session(
    State(server): State<Shared>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks(Role::Viewer)?;
    let id = Uid::named(&id)?;
    server.app.services.close_session(&request, &visitor.name, Some(id)).await?;
    Ok(Redirect::to("/console/account").into_response())
}

/// Gives oneself another password. All sessions end with the old one, and this browser gets a new one.
pub(crate) async fn change_password(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks(Role::Viewer)?;
    if let Err(after) = server.limits.attempt(&visitor.name) {
        return Err(Refusal::too_many(after));
    }
    let users = server.app.services.users().await?;
    let known = users.of(&visitor.name).map(|user| &user.password);
    let password = form.secret("password");
    let problem = if !password::proves(form.secret("old"), known).await {
        Some("that is not your present password")
    } else if !password::fits(&password) {
        Some(password::RULE)
    } else if form.secret("again").expose_secret() != password.expose_secret() {
        Some("the two new passwords are not the same")
    } else {
        None
    };
    if problem.is_some() {
        return account_page(&server, &visitor, StatusCode::UNPROCESSABLE_ENTITY, problem).await;
    }
    let change = UserChange { role: None, password: Some(password::hash(password).await?) };
    let user = server.app.services.change_user(&request, &visitor.name, &change).await?;
    opened(&server, &form, &user, "/console/account").await
}

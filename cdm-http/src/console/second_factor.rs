//! The second factor: set up and taken away on one's account, and asked for after the password.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::user::{SecondFactor, SecondProof, User};
use cdm_core::domain::{PasswordHash, Role, UserName};
use cdm_core::manager::{ManagerError, Proven};
use cdm_core::wiring::SecondFactorRule;

use super::account::{NOT_PRESENT, is_still};
use super::form::Form;
use super::guard::{SIGN_IN, Visit, Visitor};
use super::page::{Section, View, page, rendered};
use super::sign_in::{by_password, nobody, opened, within};
use super::{device, shape};
use crate::app::{Server, Shared};
use crate::error::Refusal;
use crate::password;
use crate::second_factor::{self, Purpose, Sealer};

/// Where it is set up.
pub(crate) const ENROLL: &str = "/console/account/second-factor";
/// How long somebody may take for that, and for a code after the password.
const ENROLLING: Duration = Duration::from_mins(30);
const CODE: Duration = Duration::from_mins(5);

#[derive(Template)]
#[template(path = "enroll.html")]
struct Enroll<'a> {
    visitor: &'a Visitor,
    sealed: &'a str,
    typed: String,
    uri: String,
    picture: String,
    problem: Option<&'a str>,
    /// Whether there is nothing else to see before.
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

async fn sealer(server: &Server) -> Result<Sealer, Refusal> {
    Ok(Sealer::new(&server.app.manager.sealing_key().await?))
}

/// Whether people may set one up here.
fn allowed(server: &Server) -> Result<(), Refusal> {
    let allowed = server.app.settings.second_factor != SecondFactorRule::Off && server.app.settings.passwords;
    if allowed { Ok(()) } else { Err(Refusal::not_found("the page")) }
}

fn enroll_page(
    visitor: &Visitor,
    shared: &second_factor::Shared,
    (sealed, problem): (&str, Option<&str>),
) -> Result<Response, Refusal> {
    let status = if problem.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let head = rendered(&Enroll {
        visitor,
        sealed,
        typed: shared.typed(),
        uri: shared.uri().ok_or_else(Refusal::internal)?,
        picture: shared.picture().ok_or_else(Refusal::internal)?,
        problem,
        required: visitor.must_enroll,
    })?;
    page(status, Some(visitor), &View::still("Second factor", Section::None, head))
}

/// Shows a fresh secret, which serves once it is confirmed.
pub(crate) async fn ask(State(server): State<Shared>, visit: Visit) -> Result<Response, Refusal> {
    allowed(&server)?;
    let name = &visit.visitor.name;
    let services = &server.app.manager;
    let users = services.users().await?;
    if users.of(name).is_none_or(|user| user.second.is_some() || user.password == password::none()) {
        return Ok(Redirect::to("/console/account").into_response());
    }
    let fresh = || services.fresh_secret("");
    let shared = second_factor::Shared::fresh(name, &fresh()).ok_or_else(Refusal::internal)?;
    let until = server.app.clock.wall().after(ENROLLING);
    let sealed = sealer(&server).await?.seal_until((Purpose::Pending, name), (&shared.text, until), &fresh());
    let sealed = sealed.ok_or_else(Refusal::internal)?;
    enroll_page(&visit.visitor, &shared, (&sealed, None))
}

/// Sets it up: the app's code shows that both share the secret, the password that the right person sits there.
pub(crate) async fn enroll(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    allowed(&server)?;
    let (visitor, request) = form.asks()?;
    let (sealer, now, name) = (sealer(&server).await?, server.app.clock.wall(), &visitor.name);
    let sealed = form.text("sealed");
    let shared = sealer.unseal_in_time((Purpose::Pending, name), sealed, now);
    let Some(shared) = shared.and_then(|text| second_factor::Shared::of(name, &text)) else {
        return Ok(Redirect::to(ENROLL).into_response());
    };
    let step = shared.step(form.text("code"), now);
    let problem = match step {
        _ if !is_still(&server, &visitor, &form).await? => Some(NOT_PRESENT),
        None => Some("that is not the code that the app shows now"),
        Some(_) => None,
    };
    let (None, Some(step)) = (problem, step) else {
        return enroll_page(&visitor, &shared, (sealed, problem));
    };
    let fresh = || server.app.manager.fresh_secret("");
    let codes = second_factor::recovery_codes(fresh);
    let kept = sealer.seal((Purpose::Kept, name), &shared.text, &fresh()).ok_or_else(Refusal::internal)?;
    let recovery = codes.iter().filter_map(|code| second_factor::recovery_hash(code)).collect();
    let second = SecondFactor { sealed: kept, at: now, step, recovery };
    server.app.manager.change_second_factor(&request, name, visitor.session, Some(&second)).await?;
    let head = rendered(&Recovery { codes })?;
    page(StatusCode::OK, Some(&visitor.enrolled()), &View::still("Recovery codes", Section::None, head))
}

/// Takes it away.
pub(crate) async fn remove(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    if !is_still(&server, &visitor, &form).await? {
        return super::account::refused(&server, &visitor, NOT_PRESENT).await;
    }
    server.app.manager.change_second_factor(&request, &visitor.name, visitor.session, None).await?;
    Ok(Redirect::to("/console/account").into_response())
}

/// Asks somebody whose password was right for a code.
pub(crate) async fn ask_code(server: &Server, user: &User, next: &str) -> Result<Response, Refusal> {
    let until = server.app.clock.wall().after(CODE);
    let fresh = server.app.manager.fresh_secret("");
    let ticket = (Purpose::Password, &user.name);
    let ticket = sealer(server).await?.seal_until(ticket, (user.password.as_str(), until), &fresh);
    let ticket = ticket.ok_or_else(Refusal::internal)?;
    code_page(StatusCode::OK, (user.name.as_str(), &ticket, next), None)
}

fn code_page(
    status: StatusCode,
    (name, ticket, next): (&str, &str, &str),
    problem: Option<&str>,
) -> Result<Response, Refusal> {
    let head = rendered(&Code { name, ticket, next, problem })?;
    page(status, None, &View::still("Sign in", Section::None, head))
}

/// The person, and the proof, where the code is right.
fn proven(
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
    second_factor::Shared::of(&user.name, &shared)?.step(code, now).map(SecondProof::Code)
}

/// Opens a session for somebody whose password was right a moment ago, and whose code is.
pub(crate) async fn sign_in(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    by_password(&server)?;
    let (next, name, ticket) = (within(form.text("next")), form.text("name"), form.text("ticket"));
    let again = || Redirect::to(SIGN_IN).into_response();
    let Ok(named) = UserName::parse(name) else { return Ok(again()) };
    let (sealer, now) = (sealer(&server).await?, server.app.clock.wall());
    let Some(hash) = sealer.unseal_in_time((Purpose::Password, &named), ticket, now) else {
        return Ok(again());
    };
    let hash = PasswordHash::new(hash);
    let users = server.app.manager.users().await?;
    let Some(user) = users.of(&named).filter(|user| user.password == hash && user.second.is_some()) else {
        return Ok(again());
    };
    // Only those who know the password come here. A device of the owner's is counted apart from what others try.
    let device = device::known(&form.headers, form.client, user, now);
    let attempt = match server.limits.code(device.as_deref().unwrap_or_default(), &named) {
        Ok(attempt) => attempt,
        Err((refused, after)) => {
            if server.limits.is_news(&refused) {
                let nobody = form.request_of(nobody()?, Role::Viewer);
                server.app.manager.refuse_attempt(&nobody, cdm_core::manager::Action::SignIn, name).await;
            }
            let seconds = after.as_secs() + 1;
            let told = format!("too many wrong codes; try again in {seconds} s");
            let status = StatusCode::TOO_MANY_REQUESTS;
            let mut response = code_page(status, (name, ticket, next), Some(&told))?;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            return Ok(response);
        }
    };
    let Some(proof) = proven(&sealer, user, &form, now) else {
        let nobody = form.request_of(nobody()?, Role::Viewer);
        server.app.manager.refuse_session(&nobody, name).await;
        return code_page(StatusCode::UNPROCESSABLE_ENTITY, (name, ticket, next), Some(WRONG));
    };
    // Whether it was used before is seen with the write.
    match opened(&server, &form, (user, Proven::Both(hash, proof)), next).await {
        Ok(response) => {
            attempt.forgive();
            Ok(response)
        }
        Err(refusal) if refusal.problem.code == ManagerError::Invalid(String::new()).code() => {
            code_page(StatusCode::UNPROCESSABLE_ENTITY, (name, ticket, next), Some(WRONG))
        }
        Err(refusal) => Err(refusal),
    }
}

const WRONG: &str = "the code is wrong, or was used already; wait for the next one";

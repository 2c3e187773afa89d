//! Who asks. Whether they may is [`crate::permissions`]' and the services' to say.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::token::{Role, Token};
use cdm_core::domain::{Actor, IdempotencyKey};
use cdm_core::manager::{self, ManagerError};
use secrecy::SecretString;

use crate::app::{Server, Shared};
use crate::client::Client;
use crate::error::Refusal;
use crate::permissions;
use crate::request::{AccessLog, RequestId};

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    actor: Actor,
    role: Role,
    /// To be looked at again by what goes on for long; `None` for a caller in this process, and for one who has signed in.
    pass: Option<Pass>,
}

/// A token as it came, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    token: SecretString,
    client: Client,
}

impl Caller {
    /// A caller without a token: one in this process, or one who has signed in.
    pub(crate) const fn new(actor: Actor, role: Role) -> Self {
        Self { actor, role, pass: None }
    }
}

impl Pass {
    /// The token, if it serves now.
    pub(crate) async fn look(&self, server: &Server) -> Result<Option<Token>, ManagerError> {
        let token = server.app.access.identify(&self.token).await?;
        Ok(token.filter(|token| self.serves_here(token)))
    }

    fn serves_here(&self, token: &Token) -> bool {
        self.client.is_on_this_machine() || !token.loopback_only
    }
}

/// What of a request says who asks for what; its body is left where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    pub(crate) fn of(request: &'a Request) -> Self {
        Self {
            method: request.method(),
            path: request.uri().path(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// Lets requests with a token in, as often as it may ask.
pub(crate) async fn authenticate(State(server): State<Shared>, mut request: Request, next: Next) -> Response {
    match admit(&server, Head::of(&request)).await {
        Ok(caller) => {
            AccessLog::name(request.extensions(), &caller.actor);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn admit(server: &Server, head: Head<'_>) -> Result<Caller, Refusal> {
    let client = Client::found(head.extensions);
    let pass = bearer(head.headers).map(|token| Pass { token, client });
    let token = match &pass {
        Some(pass) => server.app.access.recognize(&pass.token).await?,
        None => None,
    };
    if let (Some(token), Some(pass)) = (&token, &pass)
        && server.app.access.serves(token)
        && pass.serves_here(token)
    {
        server.limits.request(&token.name).map_err(Refusal::too_many)?;
        return Ok(Caller { actor: token.name.clone(), role: token.role, pass: Some(pass.clone()) });
    }
    // Of a token that serves no more, or not from here, it is known whose it is.
    let actor = token.map_or_else(Actor::anonymous, |token| token.name);
    AccessLog::name(head.extensions, &actor);
    server.limits.failure(client.address).map_err(Refusal::too_many)?;
    let refused = of(head.extensions, actor, Role::Viewer);
    permissions::unauthorized(server, &refused, head).await;
    Err(Refusal::unauthorized())
}

/// The token of an `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| SecretString::from(token))
}

/// A request of somebody, with the id and the address that the HTTP request has.
fn of(extensions: &Extensions, actor: Actor, role: Role) -> manager::Request {
    let id = extensions.get::<RequestId>().map(|id| id.0.clone());
    manager::Request { id, address: Client::found(extensions).address, ..manager::Request::by(actor, role) }
}

/// A request of the caller, without a key.
pub(crate) fn asked(extensions: &Extensions) -> Result<manager::Request, Refusal> {
    let caller = extensions.get::<Caller>().ok_or_else(Refusal::unauthorized)?;
    Ok(of(extensions, caller.actor.clone(), caller.role))
}

fn key(value: &HeaderValue) -> Result<IdempotencyKey, Refusal> {
    let text = value.to_str().unwrap_or("\u{fffd}");
    IdempotencyKey::parse(text).map_err(|broken| Refusal::field("Idempotency-Key", broken.rule()))
}

/// A request of the caller, under its key where it has one.
#[derive(Debug)]
pub(crate) struct Asked(pub(crate) manager::Request);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let request = asked(&parts.extensions)?;
        let given = parts.headers.get("idempotency-key").filter(|_| !parts.method.is_safe());
        Ok(Self(manager::Request { key: given.map(key).transpose()?, ..request }))
    }
}

/// Anyone with a token; with what streams need to know of them.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) actor: Actor,
    /// The token; `None` for a caller in this process.
    pub(crate) pass: Option<Pass>,
    pub(crate) address: Option<IpAddr>,
}

impl<S: Send + Sync> FromRequestParts<S> for Viewer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Caller>().ok_or_else(Refusal::unauthorized)?;
        let address = Client::found(&parts.extensions).address;
        Ok(Self { actor: caller.actor.clone(), pass: caller.pass.clone(), address })
    }
}

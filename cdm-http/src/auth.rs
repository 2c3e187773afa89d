//! Who asks, and whether they may.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::token::{Role, Token};
use cdm_core::domain::{Actor, IdempotencyKey};
use cdm_core::services::{self, ServiceError};
use secrecy::SecretString;

use crate::app::{Server, Shared};
use crate::client::Client;
use crate::error::Refusal;
use crate::request::RequestId;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    actor: Actor,
    role: Role,
    /// To be looked at again by what goes on for long; `None` for a caller in this process.
    pub(crate) pass: Option<Pass>,
}

/// A token as it came, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    token: SecretString,
    client: Client,
}

impl Caller {
    /// A caller in this process, who may do everything.
    pub(crate) const fn local(actor: Actor) -> Self {
        Self { actor, role: Role::Admin, pass: None }
    }

    /// Refuses a caller whose role is not enough.
    pub(crate) fn may(&self, needed: Role) -> Result<(), Refusal> {
        if self.role < needed { Err(Refusal::forbidden(needed, self.role)) } else { Ok(()) }
    }
}

impl Pass {
    /// The token, if it serves now.
    pub(crate) async fn look(&self, server: &Server) -> Result<Option<Token>, ServiceError> {
        let token = server.app.access.identify(&self.token).await?;
        Ok(token.filter(|token| self.client.is_on_this_machine() || !token.loopback_only))
    }
}

/// Lets requests with a token in, as often as it may ask.
pub(crate) async fn authenticate(State(server): State<Shared>, mut request: Request, next: Next) -> Response {
    let client = Client::found(request.extensions());
    match admit(&server, request.headers(), client).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn admit(server: &Server, headers: &HeaderMap, client: Client) -> Result<Caller, Refusal> {
    let pass = bearer(headers).map(|token| Pass { token, client });
    let token = match &pass {
        Some(pass) => pass.look(server).await?,
        None => None,
    };
    let Some(token) = token else {
        let failure = server.limits.failure(client.address);
        return Err(failure.map_or_else(Refusal::too_many, |()| Refusal::unauthorized()));
    };
    server.limits.request(&token.name).map_err(Refusal::too_many)?;
    Ok(Caller { actor: token.name, role: token.role, pass })
}

/// The token of an `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| SecretString::from(token))
}

/// A request of someone who has the role.
fn asked(parts: &mut Parts, needed: Role) -> Result<(services::Request, Option<Pass>), Refusal> {
    let caller = parts.extensions.get::<Caller>().ok_or_else(Refusal::unauthorized)?;
    caller.may(needed)?;
    let id = parts.extensions.get::<RequestId>().map(|id| id.0.clone());
    let key =
        parts.headers.get("idempotency-key").filter(|_| !parts.method.is_safe()).map(key).transpose()?;
    Ok((services::Request { actor: caller.actor.clone(), id, key }, caller.pass.clone()))
}

fn key(value: &HeaderValue) -> Result<IdempotencyKey, Refusal> {
    let text = value.to_str().unwrap_or("\u{fffd}");
    IdempotencyKey::parse(text).map_err(|broken| Refusal::field("Idempotency-Key", broken.rule()))
}

/// Anyone with a token; with what streams need to know of them.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) actor: Actor,
    /// The token; `None` for a caller in this process.
    pub(crate) pass: Option<Pass>,
    pub(crate) address: Option<IpAddr>,
}

/// Someone who may operate.
#[derive(Debug)]
pub(crate) struct Operator(pub(crate) services::Request);

/// Someone who may do everything.
#[derive(Debug)]
pub(crate) struct Admin(pub(crate) services::Request);

impl<S: Send + Sync> FromRequestParts<S> for Viewer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let (request, pass) = asked(parts, Role::Viewer)?;
        let address = Client::found(&parts.extensions).address;
        Ok(Self { actor: request.actor, pass, address })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self(asked(parts, Role::Operator)?.0))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self(asked(parts, Role::Admin)?.0))
    }
}

//! Authentication identifies the caller of a request, and authorization checks the role of the route. The manager checks
//! the permissions too.

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

use crate::app::{AppState, SharedState};
use crate::client::Client;
use crate::error::ApiError;
use crate::permissions::{ROUTES, Route, matches_path, printable};
use crate::request_id::{AccessLog, RequestId};

/// The authenticated caller of a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    actor: Actor,
    role: Role,
    /// The token of the request, which long-running streams validate again. `None` for a caller in this process and for a
    /// signed-in user.
    presented: Option<PresentedToken>,
}

/// A token as the client sent it, with the client.
#[derive(Clone, Debug)]
pub(crate) struct PresentedToken {
    token: SecretString,
    client: Client,
}

impl Caller {
    /// Returns a caller without a token: a caller in this process, or a signed-in user.
    pub(crate) const fn new(actor: Actor, role: Role) -> Self {
        Self { actor, role, presented: None }
    }
}

impl PresentedToken {
    /// Returns the token's record; `None` if the token is unknown, revoked, expired or not valid for this client.
    pub(crate) async fn validate(&self, server: &AppState) -> Result<Option<Token>, ManagerError> {
        let token = server.app.access.identify(&self.token).await?;
        Ok(token.filter(|token| self.is_valid_here(token)))
    }

    fn is_valid_here(&self, token: &Token) -> bool {
        self.client.is_on_this_machine() || !token.loopback_only
    }
}

/// The parts of a request that authentication and authorization read: everything except the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    pub(crate) fn of(request: &'a Request) -> Self {
        Self {
            method: request.method(),
            path: request.uri().path(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// Rejects requests without a valid token, and requests above the rate limit of their token.
pub(crate) async fn authenticate(
    State(server): State<SharedState>,
    mut request: Request,
    next: Next,
) -> Response {
    match identify_caller(&server, RequestHead::of(&request)).await {
        Ok(caller) => {
            AccessLog::set_actor(request.extensions(), &caller.actor);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn identify_caller(server: &AppState, head: RequestHead<'_>) -> Result<Caller, ApiError> {
    let client = Client::from_extensions(head.extensions);
    let presented = bearer(head.headers).map(|token| PresentedToken { token, client });
    let token = match &presented {
        Some(presented) => server.app.access.recognize(&presented.token).await?,
        None => None,
    };
    if let (Some(token), Some(presented)) = (&token, &presented)
        && server.app.access.serves(token)
        && presented.is_valid_here(token)
    {
        server.limits.request(&token.name).map_err(ApiError::too_many)?;
        return Ok(Caller {
            actor: token.name.clone(),
            role: token.role,
            presented: Some(presented.clone()),
        });
    }
    // The audit log names the owner of a token that is revoked, expired or not valid for this client.
    let actor = token.map_or_else(Actor::anonymous, |token| token.name);
    AccessLog::set_actor(head.extensions, &actor);
    server.limits.failure(client.address).map_err(ApiError::too_many)?;
    let rejected = manager_request(head.extensions, actor, Role::Viewer);
    record_unauthorized(server, &rejected, head).await;
    Err(ApiError::unauthorized())
}

/// Records in the audit log a request without a token or with an invalid token.
async fn record_unauthorized(server: &AppState, request: &manager::Request, head: RequestHead<'_>) {
    let Some(route) = Route::of(head.method.as_str(), head.path) else { return };
    let Some(action) = route.action else { return };
    server.app.manager.refused(request, action, &printable(route.target(head.path)), "unauthorized").await;
}

/// Rejects requests whose caller (in this process, with a token or with a session) does not have the role of the route.
pub(crate) async fn authorize(State(server): State<SharedState>, request: Request, next: Next) -> Response {
    match check_permission(&server, RequestHead::of(&request)).await {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn check_permission(server: &AppState, head: RequestHead<'_>) -> Result<(), ApiError> {
    // The router rejects a method that a route does not support.
    let Some(route) = Route::of(head.method.as_str(), head.path) else {
        if ROUTES.iter().any(|route| matches_path(route.path, head.path)) {
            return Ok(());
        }
        tracing::error!(path = head.path, "a route is not in the table of routes");
        return Err(ApiError::internal());
    };
    let Some(action) = route.action else { return Ok(()) };
    let request = caller_request(head.extensions)?;
    let target = printable(route.target(head.path));
    Ok(server.app.manager.authorize(&request, action, &target).await?)
}

/// Returns the token of an `Authorization: Bearer …` header.
fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| SecretString::from(token))
}

/// Returns a request to the manager as `actor`, with the id and the client address of the HTTP request.
fn manager_request(extensions: &Extensions, actor: Actor, role: Role) -> manager::Request {
    let id = extensions.get::<RequestId>().map(|id| id.0.clone());
    manager::Request {
        id,
        address: Client::from_extensions(extensions).address,
        ..manager::Request::by(actor, role)
    }
}

/// Returns a request to the manager as the caller, without an idempotency key.
pub(crate) fn caller_request(extensions: &Extensions) -> Result<manager::Request, ApiError> {
    let caller = extensions.get::<Caller>().ok_or_else(ApiError::unauthorized)?;
    Ok(manager_request(extensions, caller.actor.clone(), caller.role))
}

fn key(value: &HeaderValue) -> Result<IdempotencyKey, ApiError> {
    let text = value.to_str().unwrap_or("\u{fffd}");
    IdempotencyKey::parse(text).map_err(|broken| ApiError::field("Idempotency-Key", broken.rule()))
}

/// Extracts a request to the manager as the caller, with the `Idempotency-Key` of a writing request.
#[derive(Debug)]
pub(crate) struct CallerRequest(pub(crate) manager::Request);

impl<S: Send + Sync> FromRequestParts<S> for CallerRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let request = caller_request(&parts.extensions)?;
        let header = parts.headers.get("idempotency-key").filter(|_| !parts.method.is_safe());
        Ok(Self(manager::Request { key: header.map(key).transpose()?, ..request }))
    }
}

/// Extracts the caller of an event stream.
#[derive(Debug)]
pub(crate) struct StreamCaller {
    pub(crate) actor: Actor,
    /// The token of the request; `None` for a caller in this process.
    pub(crate) presented: Option<PresentedToken>,
    pub(crate) address: Option<IpAddr>,
}

impl<S: Send + Sync> FromRequestParts<S> for StreamCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().ok_or_else(ApiError::unauthorized)?;
        let address = Client::from_extensions(&parts.extensions).address;
        Ok(Self { actor: caller.actor.clone(), presented: caller.presented.clone(), address })
    }
}

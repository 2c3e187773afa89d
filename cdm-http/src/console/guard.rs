//! Sessions and cross-site request protection.
//!
//! The session cookie is `__Host-cdm`, which browsers keep over TLS only and send to this host only. On a loopback
//! address without TLS, the cookie is the plain `cdm`. A request that changes state must come from the same origin,
//! according to the browser's headers, and must contain the CSRF token of its session, which only pages of that session
//! have.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use cdm_core::domain::{Role, Session, Uid, UserName};
use cdm_core::manager::{Action, ManagerError};
use cdm_core::wiring::SecondFactorRule;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::second_factor::ENROLL;
use super::{page, with_query};
use crate::app::{AppState, SharedState};
use crate::auth::Caller;
use crate::client::Client;
use crate::error::ApiError;
use crate::middleware::AccessLog;
use crate::password;

/// The path of the sign-in page.
pub(crate) const SIGN_IN: &str = "/console/sign-in";

/// The user of the request's session.
#[derive(Clone, Debug)]
pub(crate) struct CurrentUser {
    pub(crate) name: UserName,
    pub(crate) role: Role,
    /// The id of the session.
    pub(crate) session: Uid,
    stored_session: Session,
    /// The CSRF token, which every form of this session contains.
    pub(crate) csrf: String,
    /// Whether the user must set up a second factor before any other page is shown.
    pub(crate) must_enroll: bool,
    /// The secret of the session, from the cookie.
    secret: SecretString,
}

impl CurrentUser {
    async fn of(server: &AppState, secret: SecretString) -> Result<Option<Self>, ManagerError> {
        let found = server.app.manager.session(&secret).await?;
        let settings = &server.app.settings;
        let required = settings.passwords && settings.second_factor == SecondFactorRule::Required;
        Ok(found.map(|(user, session)| Self {
            must_enroll: required && user.second.is_none() && user.password != password::unusable(),
            name: user.name,
            role: user.role,
            session: session.id,
            stored_session: session,
            csrf: csrf(&secret),
            secret,
        }))
    }

    /// Returns the same user after the setup of a second factor.
    pub(crate) fn enrolled(&self) -> Self {
        Self { must_enroll: false, ..self.clone() }
    }

    /// Reads the session and the user again; returns `None` if the session has ended.
    pub(crate) async fn reload(&self, server: &AppState) -> Result<Option<Self>, ManagerError> {
        Self::of(server, self.secret.clone()).await
    }

    /// Returns whether the user's role permits the action.
    pub(crate) fn can(&self, action: Action) -> bool {
        self.role >= action.role()
    }
}

/// Returns the CSRF token of a session, which can be computed from the cookie's secret only.
fn csrf(secret: &SecretString) -> String {
    let hash = Sha256::new().chain_update("csrf\0").chain_update(secret.expose_secret()).finalize();
    hex::encode(&hash[..16])
}

/// Authenticates the session of a request, and redirects a request without a session to the sign-in page.
pub(crate) async fn authenticate(
    State(server): State<SharedState>,
    mut request: Request,
    next: Next,
) -> Response {
    let current_user = match session_of(request.headers(), Client::from_extensions(request.extensions())) {
        Some(secret) => CurrentUser::of(&server, secret).await,
        None => Ok(None),
    };
    match current_user {
        Ok(Some(current_user)) => {
            if let Err(after) = server.limits.request(&current_user.name.actor()) {
                return ApiError::too_many(after).into_response();
            }
            // A stream reconnects without user activity, so a stream does not extend the session. A store that does not
            // respond must not fail the request; the next request writes the time of use.
            if ResponseMode::of(request.headers()) != ResponseMode::Stream {
                let _ = server.app.manager.touch_session(&current_user.stored_session).await;
            }
            if current_user.must_enroll && !is_allowed_before_enrollment(request.uri().path()) {
                return match ResponseMode::of(request.headers()) {
                    ResponseMode::Stream => page::signed_out_stream(),
                    ResponseMode::Fragment => page::client_redirect(ENROLL),
                    ResponseMode::Page => Redirect::to(ENROLL).into_response(),
                };
            }
            let actor = current_user.name.actor();
            AccessLog::set_actor(request.extensions(), &actor);
            request.extensions_mut().insert(Caller::new(actor, current_user.role));
            request.extensions_mut().insert(Arc::new(current_user));
            next.run(request).await
        }
        Ok(None) if ResponseMode::of(request.headers()) == ResponseMode::Stream => page::signed_out_stream(),
        Ok(None) => {
            let to = back_to(request.method(), request.uri());
            if ResponseMode::of(request.headers()) == ResponseMode::Fragment {
                page::client_redirect(&to)
            } else {
                Redirect::to(&to).into_response()
            }
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// Returns whether a user who must set up a second factor may request the path: only the setup and the sign-out.
fn is_allowed_before_enrollment(path: &str) -> bool {
    path == ENROLL || path == "/console/sign-out"
}

/// Returns the session secret from the browser's cookie.
pub(crate) fn session_of(headers: &HeaderMap, client: Client) -> Option<SecretString> {
    let jar = CookieJar::from_headers(headers);
    jar.get(cookie_name(headers, client)).map(|cookie| SecretString::from(cookie.value()))
}

/// Returns the URL of the sign-in page that redirects to the requested page after the sign-in.
fn back_to(method: &Method, uri: &Uri) -> String {
    let requested = uri.path_and_query().map_or("", |requested| requested.as_str());
    if *method != Method::GET || requested.is_empty() {
        return SIGN_IN.to_owned();
    }
    with_query(SIGN_IN, &[("next", Some(requested))])
}

/// Rejects a request with an unsafe method that does not come from a page of this server.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    if request.method().is_safe() || is_same_origin(request.headers()) {
        return next.run(request).await;
    }
    let detail = "the form was sent by another site, or by a browser that does not send its origin; nothing was changed";
    ApiError::new(StatusCode::FORBIDDEN, "cross_site", detail).into_response()
}

/// Returns whether the request has the same origin, by `Sec-Fetch-Site`, or by `Origin` and `Host` if the browser does
/// not send `Sec-Fetch-Site`.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let host = text(header::HOST);
    let from = text(header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    from.is_some() && from == host
}

/// Returns the name of the session cookie for this host and transport.
fn cookie_name(headers: &HeaderMap, client: Client) -> &'static str {
    if is_plain(headers, client) { "cdm" } else { "__Host-cdm" }
}

/// Returns whether the request uses plain cookies: on a loopback address, unless the request came over TLS. For any
/// other host, the session cookie is never sent in plaintext.
pub(crate) fn is_plain(headers: &HeaderMap, client: Client) -> bool {
    is_loopback(headers) && !client.has_tls()
}

/// Returns whether the `Host` of the request is a loopback address, which does not need TLS.
pub(crate) fn is_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns the cookie of a session; without a secret, the cookie that removes the session cookie.
pub(crate) fn cookie(headers: &HeaderMap, client: Client, secret: Option<&SecretString>) -> CookieJar {
    let value = secret.map_or(String::new(), |secret| secret.expose_secret().to_owned());
    let mut cookie = Cookie::build((cookie_name(headers, client), value))
        .path("/")
        .http_only(true)
        .secure(!is_plain(headers, client))
        .same_site(SameSite::Lax)
        .build();
    if secret.is_none() {
        cookie.make_removal();
    }
    CookieJar::new().add(cookie)
}

/// The kind of response that a request accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseMode {
    /// A complete page.
    Page,
    /// The changing part of a page, once.
    Fragment,
    /// The changing part of a page, after each change.
    Stream,
}

impl ResponseMode {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        if accepts.is_some_and(|accept| accept.contains("text/event-stream")) {
            Self::Stream
        } else if headers.contains_key("hx-request") {
            Self::Fragment
        } else {
            Self::Page
        }
    }
}

/// A request for a page by an authenticated user.
#[derive(Clone, Debug)]
pub(crate) struct PageRequest {
    pub(crate) current_user: Arc<CurrentUser>,
    pub(crate) mode: ResponseMode,
    /// The URI of the page.
    pub(crate) uri: String,
    /// The address of the client.
    pub(crate) address: Option<IpAddr>,
}

impl<S: Send + Sync> FromRequestParts<S> for PageRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let current_user = parts.extensions.get::<Arc<CurrentUser>>().ok_or_else(ApiError::unauthorized)?;
        let mode = ResponseMode::of(&parts.headers);
        let address = Client::from_extensions(&parts.extensions).address;
        Ok(Self { current_user: Arc::clone(current_user), mode, uri: parts.uri.to_string(), address })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::client::Transport;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_pages_of_this_host_are_same_origin() {
        let host = ("host", "cdm.example.com");
        for (list, same) in [
            (&[host, ("sec-fetch-site", "same-origin")][..], true),
            (&[host, ("sec-fetch-site", "same-site")], false),
            (&[host, ("sec-fetch-site", "cross-site"), ("origin", "https://cdm.example.com")], false),
            (&[host, ("sec-fetch-site", "none")], false),
            (&[host, ("origin", "https://cdm.example.com")], true),
            (&[host, ("origin", "https://cdm.example.com.evil.example")], false),
            (&[host, ("origin", "null")], false),
            (&[host], false),
            (&[], false),
        ] {
            assert_eq!(is_same_origin(&headers(list)), same, "{list:?}");
        }
    }

    #[test]
    fn the_plain_cookie_is_for_loopback_only() {
        for (host, loopback) in [
            ("127.0.0.1:8080", true),
            ("localhost", true),
            ("[::1]:8080", true),
            ("cdm.example.com", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:80", false),
            ("10.0.0.1:8080", false),
            ("", false),
        ] {
            let headers: HeaderMap =
                [(header::HOST, HeaderValue::from_str(host).expect("a value"))].into_iter().collect();
            assert_eq!(is_loopback(&headers), loopback, "{host}");
            let secret = SecretString::from("secret");
            let jar = cookie(&headers, Client::IN_PROCESS, Some(&secret));
            let text = jar.iter().next().expect("a cookie").to_string();
            assert!(text.contains("HttpOnly; SameSite=Lax") && text.contains("Path=/"), "{text}");
            assert_eq!(text.starts_with("__Host-cdm=") && text.contains("Secure"), !loopback, "{text}");
            let client = Client { transport: Transport::Tls, ..Client::IN_PROCESS };
            let text = cookie(&headers, client, Some(&secret)).iter().next().expect("a cookie").to_string();
            assert!(text.starts_with("__Host-cdm=") && text.contains("Secure"), "over TLS: {text}");
        }
    }
}

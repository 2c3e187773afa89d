//! The session of a request: the current user, the session cookie, and the kind of response.
//!
//! The session cookie is `__Host-cdm`, which browsers keep over TLS only and send to this host only. On a loopback
//! address without TLS, the cookie is the plain `cdm`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use cdm_core::domain::{Role, Session, Uid, UserName};
use cdm_core::manager::{Action, ManagerError};
use cdm_core::wiring::SecondFactorRule;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::app::AppState;
use crate::client::Client;
use crate::error::ApiError;
use crate::password;

/// The path of the sign-in page.
pub(crate) const SIGN_IN: &str = "/console/sign-in";
/// The path of the setup of a second factor.
pub(crate) const ENROLL: &str = "/console/account/second-factor";

/// The user of the request's session.
#[derive(Clone, Debug)]
pub(crate) struct CurrentUser {
    pub(crate) name: UserName,
    pub(crate) role: Role,
    /// The id of the session.
    pub(crate) session: Uid,
    pub(super) stored_session: Session,
    /// The CSRF token, which every form of this session contains.
    pub(crate) csrf: String,
    /// Whether the user must set up a second factor before any other page is shown.
    pub(crate) must_enroll: bool,
    /// The secret of the session, from the cookie.
    secret: SecretString,
}

impl CurrentUser {
    pub(super) async fn of(server: &AppState, secret: SecretString) -> Result<Option<Self>, ManagerError> {
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

/// Returns the session secret from the browser's cookie.
pub(crate) fn session_of(headers: &HeaderMap, client: Client) -> Option<SecretString> {
    let jar = CookieJar::from_headers(headers);
    jar.get(cookie_name(headers, client)).map(|cookie| SecretString::from(cookie.value()))
}

/// Returns the name of the session cookie for this host and transport.
fn cookie_name(headers: &HeaderMap, client: Client) -> &'static str {
    if is_plain(headers, client) { "cdm" } else { "__Host-cdm" }
}

/// Returns whether the request uses plain cookies: on a loopback address, unless the request came over TLS. For any
/// other host, the session cookie is never sent in plaintext.
pub(super) fn is_plain(headers: &HeaderMap, client: Client) -> bool {
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
    /// The whole HTML document.
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

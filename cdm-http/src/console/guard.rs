//! Who looks at the console, and that what they ask comes from a page of it.
//!
//! The cookie is `__Host-cdm`, which browsers keep over TLS only and for this host alone. On a loopback address without
//! TLS it is a plain one. Whatever changes something has to come from this origin, by the browser's own word,
//! and to bring the token of its session, which only pages of that session have.

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
use super::{address, page};
use crate::app::{Server, Shared};
use crate::auth::Caller;
use crate::client::Client;
use crate::error::Refusal;
use crate::password;
use crate::request::AccessLog;

/// Where people sign in.
pub(crate) const SIGN_IN: &str = "/console/sign-in";

/// Someone who is signed in.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) name: UserName,
    pub(crate) role: Role,
    /// Which of their sessions this is.
    pub(crate) session: Uid,
    opened: Session,
    /// What every form of this session has.
    pub(crate) csrf: String,
    /// Whether they have to set up a second factor before they see anything.
    pub(crate) must_enroll: bool,
    text: SecretString,
}

impl Visitor {
    async fn of(server: &Server, text: SecretString) -> Result<Option<Self>, ManagerError> {
        let found = server.app.manager.session(&text).await?;
        let settings = &server.app.settings;
        let required = settings.passwords && settings.second_factor == SecondFactorRule::Required;
        Ok(found.map(|(user, session)| Self {
            must_enroll: required && user.second.is_none() && user.password != password::none(),
            name: user.name,
            role: user.role,
            session: session.id,
            opened: session,
            csrf: csrf(&text),
            text,
        }))
    }

    /// The same, who has just set up a second factor.
    pub(crate) fn enrolled(&self) -> Self {
        Self { must_enroll: false, ..self.clone() }
    }

    /// The same as they are now; `None` when they are signed out.
    pub(crate) async fn again(&self, server: &Server) -> Result<Option<Self>, ManagerError> {
        Self::of(server, self.text.clone()).await
    }

    /// Whether they may ask for that.
    pub(crate) fn can(&self, action: Action) -> bool {
        self.role >= action.role()
    }
}

/// The token of a session: anyone who has the cookie can work it out, nobody else.
fn csrf(text: &SecretString) -> String {
    let hash = Sha256::new().chain_update("csrf\0").chain_update(text.expose_secret()).finalize();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Lets people in who have a session, and sends others to sign in.
pub(crate) async fn signed_in(State(server): State<Shared>, mut request: Request, next: Next) -> Response {
    let visitor = match session_of(request.headers(), Client::found(request.extensions())) {
        Some(text) => Visitor::of(&server, text).await,
        None => Ok(None),
    };
    match visitor {
        Ok(Some(visitor)) => {
            if let Err(after) = server.limits.request(&visitor.name.actor()) {
                return Refusal::too_many(after).into_response();
            }
            // A stream connects again by itself, whether somebody sits there or not. That the store does not answer now
            // ends no request; the next one tries again.
            if Wish::of(request.headers()) != Wish::Stream {
                let _ = server.app.manager.touch_session(&visitor.opened).await;
            }
            if visitor.must_enroll && !is_open_to_all(request.uri().path()) {
                return match Wish::of(request.headers()) {
                    Wish::Stream => page::signed_out(),
                    Wish::Part => page::led(ENROLL),
                    Wish::Page => Redirect::to(ENROLL).into_response(),
                };
            }
            let actor = visitor.name.actor();
            AccessLog::name(request.extensions(), &actor);
            request.extensions_mut().insert(Caller::new(actor, visitor.role));
            request.extensions_mut().insert(Arc::new(visitor));
            next.run(request).await
        }
        Ok(None) if Wish::of(request.headers()) == Wish::Stream => page::signed_out(),
        Ok(None) => {
            let to = back_to(request.method(), request.uri());
            if Wish::of(request.headers()) == Wish::Part {
                page::led(&to)
            } else {
                Redirect::to(&to).into_response()
            }
        }
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// What those may ask who still have to set up a second factor: just that, and to leave.
fn is_open_to_all(path: &str) -> bool {
    path == ENROLL || path == "/console/sign-out"
}

/// The text of the session that the browser has.
pub(crate) fn session_of(headers: &HeaderMap, client: Client) -> Option<SecretString> {
    let jar = CookieJar::from_headers(headers);
    jar.get(cookie_name(headers, client)).map(|cookie| SecretString::from(cookie.value()))
}

/// The sign-in page that leads back to where someone wanted to go.
fn back_to(method: &Method, uri: &Uri) -> String {
    let wanted = uri.path_and_query().map_or("", |wanted| wanted.as_str());
    if *method != Method::GET || wanted.is_empty() {
        return SIGN_IN.to_owned();
    }
    address(SIGN_IN, &[("next", Some(wanted))])
}

/// Refuses what would change something and does not come from a page of this server.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    if request.method().is_safe() || is_same_origin(request.headers()) {
        return next.run(request).await;
    }
    let detail =
        "this was sent by another site, or by a browser that does not say which; nothing was changed";
    Refusal::new(StatusCode::FORBIDDEN, "cross_site", detail).into_response()
}

/// By the browser's word: what it says of the site, or else where the request comes from.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let host = text(header::HOST);
    let from = text(header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    from.is_some() && from == host
}

/// What the cookie is called where this host is reached so.
fn cookie_name(headers: &HeaderMap, client: Client) -> &'static str {
    if is_plain(headers, client) { "cdm" } else { "__Host-cdm" }
}

/// Whether cookies work without TLS here: on a loopback address, unless the request came over TLS. Anywhere else the
/// session's cookie is never sent in plaintext.
pub(crate) fn is_plain(headers: &HeaderMap, client: Client) -> bool {
    is_loopback(headers) && !client.has_tls()
}

/// Whether the browser reached this server by a loopback address, where there need not be TLS.
pub(crate) fn is_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The cookie of a session; of none, the one that takes it away.
pub(crate) fn cookie(headers: &HeaderMap, client: Client, text: Option<&SecretString>) -> CookieJar {
    let value = text.map_or(String::new(), |text| text.expose_secret().to_owned());
    let mut cookie = Cookie::build((cookie_name(headers, client), value))
        .path("/")
        .http_only(true)
        .secure(!is_plain(headers, client))
        .same_site(SameSite::Lax)
        .build();
    if text.is_none() {
        cookie.make_removal();
    }
    CookieJar::new().add(cookie)
}

/// What was asked for: a page, the part of it that changes, or that part again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Page,
    Part,
    Stream,
}

impl Wish {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        if accepts.is_some_and(|accept| accept.contains("text/event-stream")) {
            Self::Stream
        } else if headers.contains_key("hx-request") {
            Self::Part
        } else {
            Self::Page
        }
    }
}

/// Someone who looks at a page.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) visitor: Arc<Visitor>,
    pub(crate) wish: Wish,
    /// Where.
    pub(crate) here: String,
    /// From which address.
    pub(crate) from: Option<IpAddr>,
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let visitor = parts.extensions.get::<Arc<Visitor>>().ok_or_else(Refusal::unauthorized)?;
        let wish = Wish::of(&parts.headers);
        let from = Client::found(&parts.extensions).address;
        Ok(Self { visitor: Arc::clone(visitor), wish, here: parts.uri.to_string(), from })
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
    fn the_plain_cookie_is_for_loopback_alone() {
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
            let text = SecretString::from("secret");
            let jar = cookie(&headers, Client::INSIDE, Some(&text));
            let said = jar.iter().next().expect("a cookie").to_string();
            assert!(said.contains("HttpOnly; SameSite=Lax") && said.contains("Path=/"), "{said}");
            assert_eq!(said.starts_with("__Host-cdm=") && said.contains("Secure"), !loopback, "{said}");
            let client = Client { transport: Transport::Tls, ..Client::INSIDE };
            let said = cookie(&headers, client, Some(&text)).iter().next().expect("a cookie").to_string();
            assert!(said.starts_with("__Host-cdm=") && said.contains("Secure"), "over TLS: {said}");
        }
    }
}

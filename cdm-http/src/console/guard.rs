//! Authentication of sessions, and cross-site request protection.
//!
//! A request that changes state must come from the same origin, according to the browser's headers, and must contain the
//! CSRF token of its session, which only pages of that session have.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use super::session::{CurrentUser, ENROLL, ResponseMode, SIGN_IN, session_of};
use super::{page, with_query};
use crate::app::SharedState;
use crate::auth::Caller;
use crate::client::Client;
use crate::error::ApiError;
use crate::request_id::AccessLog;

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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

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
}

//! The console: web pages that show the fleet and operate it, over the same [`cdm_core::manager::Manager`] as the REST
//! API.
//!
//! The server renders complete pages. The part of a page that changes is sent again over one stream per page. Every
//! control is a link or a form, so the console works without scripts.

mod account;
mod assets;
mod audit;
mod chart;
mod confirm;
mod controls;
mod device;
mod form;
mod format;
mod guard;
#[cfg(feature = "oidc")]
mod oidc;
mod open_session;
mod operations;
mod page;
mod rollouts;
mod second_factor;
mod services;
mod session;
mod setup;
mod sign_in;
mod sites;
mod start;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{Redirect, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::SharedState;
use crate::auth::authorize;
use crate::error::ApiError;
use crate::request_id::RequestId;
pub(crate) use session::is_loopback;
use session::{CurrentUser, ResponseMode};

/// The Content-Security-Policy of every page: a page loads and runs the server's own files only.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) fn routes(server: &SharedState) -> Router<SharedState> {
    let signed_in = Router::new()
        .route("/console", get(async || Redirect::to("/console/services")))
        .route("/console/services", get(services::show))
        .route(
            "/console/services/{selector}/select",
            get(services::actions::confirm_select).post(services::actions::select),
        )
        .route(
            "/console/services/{selector}/deploy",
            get(services::actions::deploy_form).post(services::actions::deploy),
        )
        .route(
            "/console/services/{selector}/rollback",
            get(services::actions::confirm_rollback).post(services::actions::roll_back),
        )
        .route(
            "/console/services/{selector}/mark/{digest}",
            get(services::actions::mark_form).post(services::actions::mark),
        )
        .route("/console/sites", get(sites::list))
        .route("/console/sites/create", get(sites::create::show).post(sites::create::create))
        .route("/console/sites/{id}", get(sites::show))
        .route("/console/sites/{id}/{action}", get(sites::actions::confirm).post(sites::actions::submit))
        .route("/console/rollouts", get(rollouts::list))
        .route("/console/rollouts/start", get(start::show).post(start::start))
        .route("/console/rollouts/{id}", get(rollouts::show))
        .route("/console/rollouts/{id}/{action}", get(rollouts::confirm).post(rollouts::submit))
        .route("/console/operations", get(operations::list))
        .route("/console/operations/{id}", get(operations::show))
        .route("/console/operations/{id}/steps/{step}", get(operations::log))
        .route("/console/operations/{id}/{action}", get(operations::confirm).post(operations::submit))
        .route("/console/audit", get(audit::list))
        .route("/console/account", get(account::show))
        .route("/console/account/second-factor", get(second_factor::show).post(second_factor::enroll))
        .route("/console/account/second-factor/remove", post(second_factor::remove))
        .route("/console/account/password", post(account::change_password))
        .route("/console/account/sessions/{id}/end", post(account::end_session))
        .route("/console/sign-out", post(sign_in::sign_out))
        .route("/console/{*rest}", get(async || ApiError::not_found("the page")))
        .route_layer(from_fn_with_state(SharedState::clone(server), authorize))
        .route_layer(from_fn(error_pages))
        .route_layer(from_fn_with_state(SharedState::clone(server), guard::authenticate));
    let public = Router::new();
    #[cfg(feature = "oidc")]
    let public = public
        .route("/console/oidc/begin", get(oidc::begin))
        .route("/console/oidc/callback", get(oidc::callback));
    let public = public
        .route("/", get(async || Redirect::to("/console/services")))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/console/sign-in/code", post(second_factor::sign_in))
        .route("/console/setup/{code}", get(setup::show).post(setup::create));
    let pages =
        public.merge(signed_in).route_layer(from_fn(guard::same_origin)).route_layer(from_fn(error_pages));
    pages.route_layer(from_fn(security_headers)).route("/console/assets/{path}", get(assets::show))
}

/// Adds the security headers to every page.
async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    set_security_headers(response.headers_mut());
    response
}

fn set_security_headers(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Returns whether `path` is the path of a page of the console.
pub(crate) fn is_page(path: &str) -> bool {
    path == "/console" || path.starts_with("/console/")
}

/// Renders an error that occurred outside the handlers of the console, such as a timeout, as a page.
pub(crate) fn error_page(error: &ApiError, request_id: &str) -> Option<Response> {
    let mut page = page::error_page(None, error, request_id)?;
    set_security_headers(page.headers_mut());
    Some(page)
}

/// Renders the error of a handler as a page, or redirects a request for a fragment to the page.
async fn error_pages(request: Request, next: Next) -> Response {
    let current_user = request.extensions().get::<Arc<CurrentUser>>().cloned();
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let (mode, uri) = (ResponseMode::of(request.headers()), request.uri().to_string());
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    match mode {
        ResponseMode::Stream => return page::retry_later(),
        // The full page shows the error.
        ResponseMode::Fragment => return page::client_redirect(&uri),
        ResponseMode::Page => {}
    }
    match page::error_page(current_user.as_deref(), &error, &id) {
        Some(mut page) => {
            if let Some(after) = response.headers_mut().remove(header::RETRY_AFTER) {
                page.headers_mut().insert(header::RETRY_AFTER, after);
            }
            page
        }
        None => {
            response.extensions_mut().insert(error);
            response
        }
    }
}

/// The query of a URL as a `T`. An empty parameter counts as absent, because browsers send the empty fields of a form.
#[derive(Debug)]
pub(crate) struct Filter<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Filter<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut map = Map::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if !value.trim().is_empty() {
                map.insert(name.into_owned(), Value::String(value.trim().to_owned()));
            }
        }
        let filter = serde_json::from_value(Value::Object(map));
        filter.map(Self).map_err(|_| {
            ApiError::field("query", "the URL has a query parameter that this page does not accept")
        })
    }
}

/// Returns `path` with a query of the pairs that have a value.
pub(crate) fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The links from one page of a list to others, with the same filter.
#[derive(Clone, Debug)]
pub(crate) struct Pager {
    /// The URL of the first page; `None` on the first page.
    pub(crate) first: Option<String>,
    /// The URL of the next page; `None` on the last page.
    pub(crate) next: Option<String>,
    pub(crate) is_filtered: bool,
}

impl Pager {
    /// Returns the links of the list at `path` with `filter` and `limit` items per page. `cursor` is the start of this
    /// page, `next` the start of the next one.
    pub(crate) fn new(
        path: &str,
        filter: &[(&str, Option<&str>)],
        limit: Option<&str>,
        (cursor, next): (Option<&str>, Option<&str>),
    ) -> Self {
        let filter = [filter, &[("limit", limit)]].concat();
        let is_filtered = filter.iter().any(|(name, value)| *name != "limit" && value.is_some());
        let url = |cursor| with_query(path, &[filter.as_slice(), &[("cursor", cursor)]].concat());
        Self { first: cursor.map(|_| url(None)), next: next.map(|next| url(Some(next))), is_filtered }
    }
}

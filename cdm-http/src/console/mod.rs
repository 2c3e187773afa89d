//! The console: pages where people see the fleet and move it, over the same services as the REST API.
//!
//! Pages are made here and sent whole; what changes by itself comes again over one stream of a page. Every control is a
//! link or a form, so that all of it works without scripts.

mod account;
mod assets;
mod audit;
mod confirm;
mod device;
mod form;
mod guard;
mod offers;
#[cfg(feature = "oidc")]
mod oidc;
mod operations;
mod page;
mod picture;
mod rollouts;
mod second_factor;
mod services;
mod setup;
mod shape;
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

use crate::app::Shared;
use crate::error::Refusal;
use crate::permissions::authorize;
use crate::request::RequestId;
pub(crate) use guard::is_loopback;
use guard::{Visitor, Wish};
#[cfg(feature = "oidc")]
pub(crate) use oidc::Provider;

/// What a page may load, run and send: its own files and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The routes of the console.
pub(crate) fn routes(server: &Shared) -> Router<Shared> {
    let inside = Router::new()
        .route("/console", get(async || Redirect::to("/console/services")))
        .route("/console/services", get(services::show))
        .route(
            "/console/services/{selector}/select",
            get(services::deeds::ask_select).post(services::deeds::select),
        )
        .route(
            "/console/services/{selector}/deploy",
            get(services::deeds::ask_deploy).post(services::deeds::deploy),
        )
        .route(
            "/console/services/{selector}/rollback",
            get(services::deeds::ask_rollback).post(services::deeds::roll_back),
        )
        .route(
            "/console/services/{selector}/mark/{digest}",
            get(services::deeds::ask_mark).post(services::deeds::mark),
        )
        .route("/console/sites", get(sites::list))
        .route("/console/sites/create", get(sites::create::ask).post(sites::create::create))
        .route("/console/sites/{id}", get(sites::show))
        .route("/console/sites/{id}/{action}", get(sites::deeds::ask).post(sites::deeds::act))
        .route("/console/rollouts", get(rollouts::list))
        .route("/console/rollouts/start", get(start::ask).post(start::start))
        .route("/console/rollouts/{id}", get(rollouts::show))
        .route("/console/rollouts/{id}/{action}", get(rollouts::ask).post(rollouts::act))
        .route("/console/operations", get(operations::list))
        .route("/console/operations/{id}", get(operations::show))
        .route("/console/operations/{id}/steps/{step}", get(operations::log))
        .route("/console/operations/{id}/{action}", get(operations::ask).post(operations::act))
        .route("/console/audit", get(audit::list))
        .route("/console/account", get(account::show))
        .route("/console/account/second-factor", get(second_factor::ask).post(second_factor::enroll))
        .route("/console/account/second-factor/remove", post(second_factor::remove))
        .route("/console/account/password", post(account::change_password))
        .route("/console/account/sessions/{id}/end", post(account::end_session))
        .route("/console/sign-out", post(sign_in::sign_out))
        .route("/console/{*rest}", get(async || Refusal::not_found("the page")))
        .route_layer(from_fn_with_state(Shared::clone(server), authorize))
        .route_layer(from_fn(explained))
        .route_layer(from_fn_with_state(Shared::clone(server), guard::signed_in));
    let outside = Router::new();
    #[cfg(feature = "oidc")]
    let outside = outside
        .route("/console/oidc/begin", get(oidc::begin))
        .route("/console/oidc/callback", get(oidc::end));
    let outside = outside
        .route("/", get(async || Redirect::to("/console/services")))
        .route("/console/sign-in", get(sign_in::ask).post(sign_in::sign_in))
        .route("/console/sign-in/code", post(second_factor::sign_in))
        .route("/console/setup/{code}", get(setup::ask).post(setup::make));
    let pages =
        outside.merge(inside).route_layer(from_fn(guard::same_origin)).route_layer(from_fn(explained));
    pages.route_layer(from_fn(sealed)).route("/console/assets/{place}", get(assets::file))
}

/// What browsers are told of every page.
async fn sealed(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    seal(response.headers_mut());
    response
}

fn seal(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Whether that is the address of a page.
pub(crate) fn is_page(path: &str) -> bool {
    path == "/console" || path.starts_with("/console/")
}

/// A refusal that no handler of a page made, such as one of a request that took too long.
pub(crate) fn refusal(refusal: &Refusal, request_id: &str) -> Option<Response> {
    let mut page = page::refused(None, refusal, request_id)?;
    seal(page.headers_mut());
    Some(page)
}

/// Puts a refusal as a page, in the words of its kind.
async fn explained(request: Request, next: Next) -> Response {
    let visitor = request.extensions().get::<Arc<Visitor>>().cloned();
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let (wish, here) = (Wish::of(request.headers()), request.uri().to_string());
    let mut response = next.run(request).await;
    let Some(refusal) = response.extensions_mut().remove::<Refusal>() else { return response };
    match wish {
        Wish::Stream => return page::later(),
        // The whole page says it.
        Wish::Part => return page::led(&here),
        Wish::Page => {}
    }
    match page::refused(visitor.as_deref(), &refusal, &id) {
        Some(mut page) => {
            if let Some(after) = response.headers_mut().remove(header::RETRY_AFTER) {
                page.headers_mut().insert(header::RETRY_AFTER, after);
            }
            page
        }
        None => {
            response.extensions_mut().insert(refusal);
            response
        }
    }
}

/// The filter of a list, from the query: forms send fields that nobody filled in, which count as absent.
#[derive(Debug)]
pub(crate) struct Filter<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Filter<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut map = Map::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if !value.trim().is_empty() {
                map.insert(name.into_owned(), Value::String(value.trim().to_owned()));
            }
        }
        let filter = serde_json::from_value(Value::Object(map));
        filter
            .map(Self)
            .map_err(|_| Refusal::field("query", "the address has a part that this page does not know"))
    }
}

/// An address with what of its query there is.
pub(crate) fn address(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The way from a part of a list to others, under the same filter.
#[derive(Clone, Debug)]
pub(crate) struct Pager {
    pub(crate) first: Option<String>,
    pub(crate) next: Option<String>,
    pub(crate) is_filtered: bool,
}

impl Pager {
    /// Of the list at `path`, filtered by `filter`, `limit` at once: here from `cursor` on, and next from `next` on.
    pub(crate) fn new(
        path: &str,
        filter: &[(&str, &Option<String>)],
        limit: Option<&str>,
        (cursor, next): (Option<&str>, Option<&str>),
    ) -> Self {
        let filter = filter.iter().map(|(name, value)| (*name, value.as_deref()));
        let filter: Vec<_> = filter.chain([("limit", limit)]).collect();
        let is_filtered = filter.iter().any(|(name, value)| *name != "limit" && value.is_some());
        let part = |cursor| address(path, &[filter.as_slice(), &[("cursor", cursor)]].concat());
        Self { first: cursor.map(|_| part(None)), next: next.map(|next| part(Some(next))), is_filtered }
    }
}

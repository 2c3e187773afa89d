//! The server below a path of its public address (`public_url`), such as `/cdm`.
//!
//! Requests may come with that path, or without it where a proxy has stripped it. What leads back to the server has it:
//! the links of pages, the addresses of redirects, the paths of cookies. The routes themselves know nothing of it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tower::Layer;

use crate::error::Refusal;

/// How an address of the console begins.
const CONSOLE: &str = "/console";
/// The attributes of pages that lead somewhere; the last word of each name is enough (`formaction`, `hx-sse:connect`).
/// What is sent back in a field (`value`) is an address of the routes, and stays one.
const LINKS: [&str; 5] = ["href=\"", "action=\"", "src=\"", "hx-get=\"", "connect=\""];
/// Headers whose value is an address on this server.
const ADDRESSES: [HeaderName; 3] =
    [header::LOCATION, HeaderName::from_static("hx-redirect"), HeaderName::from_static("hx-push-url")];
/// What the cookies' names begin with: `__Host-` demands the path `/`, under which two platforms on one host would
/// overwrite each other's.
const HOST: &str = "__Host-cdm";
const SECURE: &str = "__Secure-cdm";

/// The routes below `root`, which begins with `/` and does not end with it; empty: the routes as they are.
pub(crate) fn below(root: &str, routes: Router) -> Router {
    if root.is_empty() {
        return routes;
    }
    let layer = from_fn_with_state(Arc::<str>::from(root), lead);
    Router::new().fallback_service(layer.layer(routes))
}

async fn lead(State(root): State<Arc<str>>, mut request: Request, next: Next) -> Response {
    if let Some(uri) = stripped(request.uri(), &root) {
        *request.uri_mut() = uri;
    }
    replace(request.headers_mut(), &header::COOKIE, |text| Some(text.replace(SECURE, HOST)));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for name in ADDRESSES {
        replace(headers, &name, |text| text.starts_with('/').then(|| format!("{root}{text}")));
    }
    replace(headers, &header::SET_COOKIE, |text| {
        Some(text.replacen(HOST, SECURE, 1).replace("Path=/", &format!("Path={root}")))
    });
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next() {
        Some("text/html") => page(response, &root).await,
        Some("text/event-stream") => {
            // Each event of a page is a frame of its own.
            response.map(|body| {
                Body::new(body.map_frame(move |frame| frame.map_data(|data| linked(data, &root))))
            })
        }
        Some(_) | None => response,
    }
}

async fn page(response: Response, root: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    // A page is whole in memory already.
    let Ok(data) = to_bytes(body, usize::MAX).await else { return Refusal::internal().into_response() };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(linked(data, root)))
}

/// The text with its links below `root`. What people wrote has no bare quotation mark in a page, so no text of theirs is
/// taken for a link.
fn linked(data: Bytes, root: &str) -> Bytes {
    let Ok(text) = std::str::from_utf8(&data) else { return data };
    if !text.contains(CONSOLE) {
        return data;
    }
    let below = LINKS.iter().fold(text.to_owned(), |text, link| {
        text.replace(&format!("{link}{CONSOLE}"), &format!("{link}{root}{CONSOLE}"))
    });
    Bytes::from(below)
}

/// The address without `root`; `None` where it does not have it.
fn stripped(uri: &Uri, root: &str) -> Option<Uri> {
    let rest = uri.path().strip_prefix(root)?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let path = if rest.is_empty() { "/" } else { rest };
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// Changes the values of a header, those that `change` answers for.
fn replace(headers: &mut HeaderMap, name: &HeaderName, change: impl Fn(&str) -> Option<String>) {
    let changed = |value: &HeaderValue| {
        let text = value.to_str().ok().and_then(&change);
        text.and_then(|text| HeaderValue::from_str(&text).ok()).unwrap_or_else(|| value.clone())
    };
    let values: Vec<HeaderValue> = headers.get_all(name).iter().map(changed).collect();
    if !values.is_empty() {
        headers.remove(name);
        for value in values {
            headers.append(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::{AppendHeaders, Html, Redirect};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    fn routes() -> Router {
        let page = |request: Request| async move {
            let cookie = request.headers().get(header::COOKIE).cloned();
            let cookie =
                cookie.as_ref().and_then(|cookie| cookie.to_str().ok()).unwrap_or_default().to_owned();
            let set = AppendHeaders([
                (header::SET_COOKIE, "__Host-cdm=a; Path=/; Secure"),
                (header::SET_COOKIE, "cdm-device=b; Path=/"),
            ]);
            (set, Html(format!("<a href=\"/console/sites\">{}?{cookie}</a>", request.uri())))
        };
        Router::new()
            .route("/console/sites", get(page))
            .route("/console", get(|| async { Redirect::to("/console/services?a=b") }))
            .route("/out", get(|| async { Redirect::to("https://id.example.com/") }))
            .route("/sites", get(|| async { axum::Json("=\"/console") }))
    }

    async fn ask(root: &str, uri: &str) -> (u16, HeaderMap, String) {
        let request = Request::builder().uri(uri).header(header::COOKIE, "__Secure-cdm=a; cdm-device=b");
        let request = request.body(Body::empty()).expect("a request");
        let response = below(root, routes()).oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let text = to_bytes(body, usize::MAX).await.expect("a body");
        (parts.status.as_u16(), parts.headers, String::from_utf8(text.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_path_is_stripped_here_or_by_a_proxy() {
        for uri in ["/cdm/console/sites?q=a", "/console/sites?q=a"] {
            let (status, headers, text) = ask("/cdm", uri).await;
            let told = "/console/sites?q=a?__Host-cdm=a; cdm-device=b";
            assert_eq!((status, text), (200, format!("<a href=\"/cdm/console/sites\">{told}</a>")), "{uri}");
            let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
            assert_eq!(cookies, ["__Secure-cdm=a; Path=/cdm; Secure", "cdm-device=b; Path=/cdm"]);
        }
        assert_eq!(ask("/cdm", "/cdmx/console/sites").await.0, 404);
        assert_eq!(ask("/a/b", "/a/b/console/sites").await.0, 200);
        assert_eq!(ask("", "/cdm/console/sites").await.0, 404);
    }

    #[tokio::test]
    async fn redirects_lead_below_the_path_and_others_away() {
        let location = async |uri| ask("/cdm", uri).await.1[header::LOCATION].clone();
        assert_eq!(location("/cdm/console").await, "/cdm/console/services?a=b");
        assert_eq!(location("/cdm/out").await, "https://id.example.com/");
        assert_eq!(ask("/cdm", "/cdm/sites").await.2, "\"=\\\"/console\"", "data is left alone");
    }

    #[tokio::test]
    async fn events_lead_below_the_path_too() {
        let stream = || async {
            (
                [(header::CONTENT_TYPE, "text/event-stream")],
                "data: <a hx-get=\"/console/sites\"><input value=\"/console\">\n\n",
            )
        };
        let routes = below("/cdm", Router::new().route("/console/events", get(stream)));
        let request = Request::builder().uri("/cdm/console/events").body(Body::empty()).expect("a request");
        let body = routes.oneshot(request).await.expect("an answer").into_body();
        let text = to_bytes(body, usize::MAX).await.expect("a body");
        assert_eq!(&text[..], b"data: <a hx-get=\"/cdm/console/sites\"><input value=\"/console\">\n\n");
    }
}

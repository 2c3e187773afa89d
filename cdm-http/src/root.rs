//! Serving below the path of the public URL (`public_url`), such as `/cdm`.
//!
//! A request may contain the path, or not if a proxy has removed it. Responses always contain it: in the links of pages,
//! the targets of redirects and the paths of cookies. The routes do not depend on the path.

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

use crate::error::ApiError;

/// The path prefix of the console.
const CONSOLE: &str = "/console";
/// The attributes of pages that contain links; the end of the name is enough (`formaction`, `hx-sse:connect`).
/// A path in a form field (`value`) is sent back to the routes, and is therefore not rewritten.
const LINKS: [&str; 5] = ["href=\"", "action=\"", "src=\"", "hx-get=\"", "connect=\""];
/// Response headers whose value is a URL of this server.
const LINK_HEADERS: [HeaderName; 3] =
    [header::LOCATION, HeaderName::from_static("hx-redirect"), HeaderName::from_static("hx-push-url")];
/// The prefix of cookie names. `__Host-` requires the path `/`, so two platforms on one host would overwrite each other's
/// cookies; below a path, `__Secure-` replaces it.
const HOST: &str = "__Host-cdm";
const SECURE: &str = "__Secure-cdm";

/// Returns the routes below `root`, which starts with `/` and does not end with `/`. If `root` is empty, returns the
/// routes unchanged.
pub(crate) fn under_root(root: &str, routes: Router) -> Router {
    if root.is_empty() {
        return routes;
    }
    let layer = from_fn_with_state(Arc::<str>::from(root), rewrite);
    Router::new().fallback_service(layer.layer(routes))
}

async fn rewrite(State(root): State<Arc<str>>, mut request: Request, next: Next) -> Response {
    if let Some(uri) = strip_root(request.uri(), &root) {
        *request.uri_mut() = uri;
    }
    replace(request.headers_mut(), &header::COOKIE, |text| Some(text.replace(SECURE, HOST)));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for name in LINK_HEADERS {
        replace(headers, &name, |text| text.starts_with('/').then(|| format!("{root}{text}")));
    }
    replace(headers, &header::SET_COOKIE, |text| {
        Some(text.replacen(HOST, SECURE, 1).replace("Path=/", &format!("Path={root}")))
    });
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next() {
        Some("text/html") => page(response, &root).await,
        Some("text/event-stream") => {
            // Each event of a page is one frame, so no link is split.
            response.map(|body| {
                Body::new(body.map_frame(move |frame| frame.map_data(|data| with_root(data, &root))))
            })
        }
        Some(_) | None => response,
    }
}

async fn page(response: Response, root: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    // The whole page is in memory already.
    let Ok(data) = to_bytes(body, usize::MAX).await else { return ApiError::internal().into_response() };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(with_root(data, root)))
}

/// Returns the text with `root` in its links. Text of users is escaped and contains no bare quotation mark, so it never
/// matches a link attribute.
fn with_root(data: Bytes, root: &str) -> Bytes {
    let Ok(text) = std::str::from_utf8(&data) else { return data };
    if !text.contains(CONSOLE) {
        return data;
    }
    let rewritten = LINKS.iter().fold(text.to_owned(), |text, link| {
        text.replace(&format!("{link}{CONSOLE}"), &format!("{link}{root}{CONSOLE}"))
    });
    Bytes::from(rewritten)
}

/// Returns the URI without `root`; `None` if its path does not start with `root`.
fn strip_root(uri: &Uri, root: &str) -> Option<Uri> {
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

/// Replaces each value of a header for which `change` returns a new value.
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

    async fn get_page(root: &str, uri: &str) -> (u16, HeaderMap, String) {
        let request = Request::builder().uri(uri).header(header::COOKIE, "__Secure-cdm=a; cdm-device=b");
        let request = request.body(Body::empty()).expect("a request");
        let response = under_root(root, routes()).oneshot(request).await.expect("a response");
        let (parts, body) = response.into_parts();
        let text = to_bytes(body, usize::MAX).await.expect("a body");
        (parts.status.as_u16(), parts.headers, String::from_utf8(text.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_request_may_contain_the_root_path_or_not() {
        for uri in ["/cdm/console/sites?q=a", "/console/sites?q=a"] {
            let (status, headers, text) = get_page("/cdm", uri).await;
            let echo = "/console/sites?q=a?__Host-cdm=a; cdm-device=b";
            assert_eq!((status, text), (200, format!("<a href=\"/cdm/console/sites\">{echo}</a>")), "{uri}");
            let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
            assert_eq!(cookies, ["__Secure-cdm=a; Path=/cdm; Secure", "cdm-device=b; Path=/cdm"]);
        }
        assert_eq!(get_page("/cdm", "/cdmx/console/sites").await.0, 404);
        assert_eq!(get_page("/a/b", "/a/b/console/sites").await.0, 200);
        assert_eq!(get_page("", "/cdm/console/sites").await.0, 404);
    }

    #[tokio::test]
    async fn redirects_contain_the_root_path() {
        let location = async |uri| get_page("/cdm", uri).await.1[header::LOCATION].clone();
        assert_eq!(location("/cdm/console").await, "/cdm/console/services?a=b");
        assert_eq!(location("/cdm/out").await, "https://id.example.com/");
        assert_eq!(get_page("/cdm", "/cdm/sites").await.2, "\"=\\\"/console\"", "JSON is not rewritten");
    }

    #[tokio::test]
    async fn links_in_events_contain_the_root_path() {
        let stream = || async {
            (
                [(header::CONTENT_TYPE, "text/event-stream")],
                "data: <a hx-get=\"/console/sites\"><input value=\"/console\">\n\n",
            )
        };
        let routes = under_root("/cdm", Router::new().route("/console/events", get(stream)));
        let request = Request::builder().uri("/cdm/console/events").body(Body::empty()).expect("a request");
        let body = routes.oneshot(request).await.expect("a response").into_body();
        let text = to_bytes(body, usize::MAX).await.expect("a body");
        assert_eq!(&text[..], b"data: <a hx-get=\"/cdm/console/sites\"><input value=\"/console\">\n\n");
    }
}

//! The host of a request: exactly one.
//!
//! A request of HTTP/1.1 without exactly one valid `Host` is rejected with 400 (RFC 9112, 3.2). If the request target
//! contains a host, it replaces the `Host` header, so all later readers of the header see the same host.

use axum::extract::{ConnectInfo, Request};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::client::Peer;
use crate::error::ApiError;

/// Rejects requests without a host or with several hosts.
pub(crate) async fn require_one_host(mut request: Request, next: Next) -> Response {
    // A request from this process has no connection and no host.
    if request.extensions().get::<ConnectInfo<Peer>>().is_none() {
        return next.run(request).await;
    }
    match host(&request) {
        Ok(host) => {
            if let Some(host) = host {
                request.headers_mut().insert(HOST, host);
            }
            next.run(request).await
        }
        Err(detail) => ApiError::new(StatusCode::BAD_REQUEST, "invalid_host", detail).into_response(),
    }
}

/// Returns the host of a request; `None` for a request of HTTP/1.0 without a host.
fn host(request: &Request) -> Result<Option<HeaderValue>, &'static str> {
    let mut headers = request.headers().get_all(HOST).iter();
    let (header, further) = (headers.next(), headers.next());
    if further.is_some() {
        return Err("the request has more than one `Host` header");
    }
    let valid = |authority: &Authority| !authority.host().is_empty() && !authority.as_str().contains('@');
    let header = match header.map(|value| value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()))
    {
        None => None,
        Some(Some(authority)) if valid(&authority) => Some(authority),
        Some(_) => return Err("the `Host` header is not a host with an optional port"),
    };
    let target = request.uri().authority();
    if target.is_some_and(|target| !valid(target)) {
        return Err("the request's target does not name a valid host");
    }
    match (target, header) {
        (Some(target), Some(header)) if request.version() >= Version::HTTP_2 && *target != header => {
            Err("`:authority` and `Host` name different hosts")
        }
        // The target takes precedence over the header (RFC 9112, 3.2.2).
        (Some(host), _) => Ok(HeaderValue::from_str(host.as_str()).ok()),
        (None, Some(header)) => Ok(HeaderValue::from_str(header.as_str()).ok()),
        (None, None) if request.version() < Version::HTTP_11 => Ok(None),
        (None, None) => Err("the request has no `Host` header"),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn a_request_has_exactly_one_host() {
        let (v10, v11, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (version, target, hosts, expected) in [
            (v11, "/sites", &["cdm.example.com:8080"][..], Some(Some("cdm.example.com:8080"))),
            (v11, "/sites", &["[::1]:8080"], Some(Some("[::1]:8080"))),
            (v11, "/sites", &["a.example", "a.example"], None),
            (v11, "/sites", &[], None),
            (v11, "/sites", &[""], None),
            (v11, "/sites", &["user@a.example"], None),
            (v11, "/sites", &["a.example/b"], None),
            (v11, "/sites", &["a b"], None),
            (v11, "http://a.example/sites", &["b.example"], Some(Some("a.example"))),
            (v11, "http://user@a.example/sites", &["a.example"], None),
            (v10, "/sites", &[], Some(None)),
            (v10, "/sites", &["a.example", "b.example"], None),
            (v2, "https://a.example/sites", &[], Some(Some("a.example"))),
            (v2, "https://a.example/sites", &["A.example"], Some(Some("a.example"))),
            (v2, "https://a.example/sites", &["b.example"], None),
            (v2, "/sites", &[], None),
        ] {
            let mut request = Request::builder().version(version).uri(target);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let found = host(&request.body(Body::empty()).expect("a request")).ok();
            let found = found.as_ref().map(|host| host.as_ref().map(|host| host.to_str().expect("text")));
            assert_eq!(found, expected, "{version:?} {target} {hosts:?}");
        }
    }
}

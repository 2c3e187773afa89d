//! A pod's response to a request for a site: the page of the tenant that has the hostname.

use std::fmt::Display;
use std::sync::Arc;

use askama::filters::{Html, escape};
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use hyper::{Request, StatusCode};

use super::host::HostContext;
use super::http::{self, HttpResponse};
use super::tenants::Options;
use crate::domain::{Color, Digest, Hostname, Site, Uid};
use crate::ports::PortError;

pub(super) const SERVICE: HeaderName = HeaderName::from_static("x-cdm-service");
const SITE: HeaderName = HeaderName::from_static("x-cdm-site");
const DIGEST: HeaderName = HeaderName::from_static("x-cdm-digest");

/// Responds as the image `digest` in the service `service` does.
pub(super) async fn respond<B>(
    context: &HostContext,
    service: Color,
    digest: Digest,
    request: &Request<B>,
) -> HttpResponse {
    let status_code = context.cluster.images().of(digest).answers;
    let mut response = if status_code == 200 {
        tenant(context, service, digest, request).await
    } else {
        let status = StatusCode::from_u16(status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        http::text(status, format!("There has been a critical error on this website. ({digest})"))
    };
    let headers = response.headers_mut();
    headers.insert(SERVICE, HeaderValue::from_static(service.as_str()));
    if let Ok(digest) = HeaderValue::from_str(&digest.to_string()) {
        headers.insert(DIGEST, digest);
    }
    response
}

async fn tenant<B>(
    context: &HostContext,
    service: Color,
    digest: Digest,
    request: &Request<B>,
) -> HttpResponse {
    let Some((host, port)) = http::host(request) else {
        return http::text(StatusCode::BAD_REQUEST, "the request has no host".to_owned());
    };
    let site = match find(context, &host).await {
        Ok(Some(site)) => site,
        Ok(None) => return http::text(StatusCode::NOT_FOUND, format!("no tenant has the host `{host}`")),
        Err(message) => return http::text(StatusCode::SERVICE_UNAVAILABLE, message),
    };
    let mut response = if site.hostnames.canonical().as_str() == host {
        match options(context, service, site.uid).await {
            Ok(Some(options)) => http::html(StatusCode::OK, page(&site, &options, service, digest)),
            Ok(None) => http::text(StatusCode::SERVICE_UNAVAILABLE, "not installed".to_owned()),
            Err(error) => {
                let message = format!("Error establishing a database connection: {}", error.message);
                http::text(StatusCode::SERVICE_UNAVAILABLE, message)
            }
        }
    } else {
        canonical(&context.cluster.settings.site_scheme, &site, port, request)
    };
    if let Ok(id) = HeaderValue::from_str(site.id.as_str()) {
        response.headers_mut().insert(SITE, id);
    }
    response
}

async fn find(context: &HostContext, host: &str) -> Result<Option<Site>, String> {
    let Ok(host) = Hostname::parse(host) else { return Ok(None) };
    let repository = &context.tenants.repository;
    let Some(id) = repository.hostname(&host).await.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    repository.site(&id).await.map_err(|error| error.to_string())
}

async fn options(context: &HostContext, service: Color, uid: Uid) -> Result<Option<Arc<Options>>, PortError> {
    let cache = context.cache(service);
    let flush_count = match cache.get(uid) {
        Ok(options) => return Ok(Some(options)),
        Err(flush_count) => flush_count,
    };
    let Some(options) = context.tenants.options(uid).await? else { return Ok(None) };
    let options = Arc::new(options);
    cache.insert(uid, flush_count, &options);
    Ok(Some(options))
}

/// Redirects the client to the site's canonical hostname, on the port of its request.
fn canonical<B>(scheme: &str, site: &Site, port: Option<u16>, request: &Request<B>) -> HttpResponse {
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let to = format!("{scheme}://{}{port}{path}", site.hostnames.canonical());
    let mut response = http::text(StatusCode::MOVED_PERMANENTLY, format!("moved to {to}"));
    if let Ok(to) = HeaderValue::from_str(&to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

fn page(site: &Site, options: &Options, service: Color, digest: Digest) -> String {
    let title = escaped(&options.title);
    let rows = [
        ("site", site.id.as_str()),
        ("address", &options.siteurl),
        ("theme", &options.theme),
        ("service", service.as_str()),
        ("image", &digest.to_string()),
    ]
    .map(|(name, value)| format!("    <dt>{name}</dt><dd>{}</dd>\n", escaped(value)))
    .concat();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n  <meta charset=\"utf-8\">\n  <title>{title}</title>\n\
         </head>\n<body class=\"{service}\">\n  <h1>{title}</h1>\n  <dl>\n{rows}  </dl>\n</body>\n</html>\n"
    )
}

/// Escapes text for HTML.
fn escaped(text: &str) -> impl Display {
    let Ok(escaped) = escape(text, Html);
    escaped
}

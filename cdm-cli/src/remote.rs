//! The API of a server, over HTTP or HTTPS.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::StreamExt;
use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::error::CliError;
use crate::sse;
use crate::transport::{
    EventStream, Method, Request, Response, Transport, TransportError, TransportErrorKind, target,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server responds within a minute, even when a request asks it to wait for an operation.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(90);

/// Options of the connection to a server.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// Whether a token may be sent without TLS to another machine; default: refused.
    pub plaintext: Plaintext,
    /// PEM file with certificate authorities to trust in addition to those of the system. Default: `None`.
    pub cacert: Option<PathBuf>,
}

/// Whether a token may be sent without TLS to another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// The command fails before it connects.
    #[default]
    Refused,
    /// Allowed by the user, with `--allow-plaintext`.
    Allowed,
}

/// A transport to one server.
pub struct Remote {
    client: reqwest::Client,
    base: String,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Remote {
    /// Creates a transport to the server at `address`; its requests carry `token`, if given.
    ///
    /// Proxies of the environment are used for HTTPS only, where they cannot read the requests.
    ///
    /// # Errors
    /// When the address is not an HTTP(S) URL, the token contains invalid characters, or the token would be sent to
    /// another machine without TLS and `options` do not allow that.
    pub fn new(
        address: &str,
        token: Option<&SecretString>,
        options: &RemoteOptions,
    ) -> Result<Self, CliError> {
        let bad = |why: String| CliError::Usage(format!("`{address}` is not a valid server address: {why}"));
        if !address.starts_with("http://") && !address.starts_with("https://") {
            return Err(bad("it must begin with http:// or https://".into()));
        }
        let url = Url::parse(address).map_err(|error| bad(error.to_string()))?;
        if url.username() != "" || url.password().is_some() {
            return Err(CliError::Usage(
                "a server address must not contain a user name or password; set CDM_TOKEN".into(),
            ));
        }
        let (plaintext, local) = (url.scheme() == "http", is_local(&url));
        if token.is_some() && plaintext && !local && options.plaintext == Plaintext::Refused {
            let message =
                format!("the token was not sent: without TLS, it could be read on its way to `{url}`");
            return Err(CliError::Plaintext(message));
        }
        let authorization = match token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                    .map_err(|_| CliError::Usage("the token contains invalid characters".into()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        install_crypto();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cdm/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT);
        if local || plaintext {
            // A proxy would connect to its own loopback address, and could read what is not encrypted.
            builder = builder.no_proxy();
        }
        if let Some(path) = &options.cacert {
            builder = builder.tls_certs_merge(read_certificates(path)?);
        }
        let client = builder
            .build()
            .map_err(|error| CliError::Failed(format!("cannot create the HTTP client: {error}")))?;
        Ok(Self { client, base: url.as_str().trim_end_matches('/').to_owned(), authorization })
    }

    fn builder(&self, method: Method, target: &str) -> reqwest::RequestBuilder {
        let method = match method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let builder = self.client.request(method, format!("{}{target}", self.base));
        match &self.authorization {
            Some(value) => builder.header(AUTHORIZATION, value.clone()),
            None => builder,
        }
    }

    fn error(&self, error: reqwest::Error) -> TransportError {
        let (kind, message) = classify(&error);
        TransportError { server: self.base.clone(), kind, source: Box::new(Cause(message)) }
    }

    async fn read_response(&self, response: reqwest::Response) -> Result<Response, TransportError> {
        let status = response.status().as_u16();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers =
            response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        let body = response.bytes().await.map_err(|error| self.error(error))?.to_vec();
        Ok(Response { status, headers, body })
    }
}

#[async_trait]
impl Transport for Remote {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let mut builder =
            self.builder(request.method, &target(&request.path, &request.query)).timeout(RESPONSE_TIMEOUT);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        let response = builder.send().await.map_err(|error| self.error(error))?;
        self.read_response(response).await
    }

    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<EventStream, TransportError> {
        let mut builder = self.builder(Method::Get, path).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            builder = builder.header("last-event-id", id);
        }
        let response = builder.send().await.map_err(|error| self.error(error))?;
        if !response.status().is_success() {
            return Ok(EventStream::Rejected(self.read_response(response).await?));
        }
        Ok(EventStream::Open(sse::events(response.bytes_stream().boxed(), self.base.clone())))
    }
}

/// The innermost cause, without the address, which the surrounding message already contains.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

/// Returns the kind of an error, and its innermost message.
fn classify(error: &reqwest::Error) -> (TransportErrorKind, String) {
    let mut cause: &dyn Error = error;
    loop {
        // An I/O error wraps another error, and returns that error's cause as its own source.
        if let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            cause = inner;
            continue;
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return (classify_tls(tls), tls.to_string());
        }
        match cause.source() {
            Some(next) => cause = next,
            None => {
                let message = cause.to_string();
                // A TLS server responds to plaintext with an alert, which is not a valid HTTP version.
                let not_http = message.contains("invalid HTTP version");
                return (
                    if not_http { TransportErrorKind::NotHttp } else { TransportErrorKind::Unreachable },
                    message,
                );
            }
        }
    }
}

fn classify_tls(error: &rustls::Error) -> TransportErrorKind {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            UnknownIssuer => TransportErrorKind::UntrustedIssuer,
            NotValidForName | NotValidForNameContext { .. } => TransportErrorKind::WrongName,
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
                TransportErrorKind::Expired
            }
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => TransportErrorKind::CaCertificate,
            other if format!("{other:?}").contains("UnknownIssuer") => TransportErrorKind::UntrustedIssuer,
            _ => TransportErrorKind::Tls,
        },
        rustls::Error::InvalidMessage(_) => TransportErrorKind::NoTls,
        _ => TransportErrorKind::Tls,
    }
}

/// Returns whether the host of a URL is a loopback address.
fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn read_certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, CliError> {
    let what = format!("reading the certificate authorities from `{}`", path.display());
    let pem = std::fs::read(path).map_err(|source| CliError::Io { what, source })?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(CliError::Usage(format!("`{}` contains no PEM certificate", path.display()))),
    }
}

/// Installs the TLS provider, unless another part of the process has already installed the same one.
pub(crate) fn install_crypto() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

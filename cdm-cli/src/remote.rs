//! The API over the network.

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
use crate::transport::{Listening, Method, Request, Response, Transport, TransportError, Trouble, target};

const CONNECT: Duration = Duration::from_secs(10);
/// The server answers within a minute, also when it is asked to wait.
const ANSWER: Duration = Duration::from_secs(90);

/// How the server is reached.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// Whether a token may be sent without TLS to another machine.
    pub plaintext: Plaintext,
    /// Further authorities that may vouch for the server: a file in PEM.
    pub cacert: Option<PathBuf>,
}

/// Whether a token may be sent without TLS to another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// It may not.
    #[default]
    Refused,
    /// The person has asked for it.
    Allowed,
}

/// A server somewhere.
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
    /// The server at `address`, asked with `token`.
    ///
    /// Proxies of the environment are used for TLS alone, which they cannot read.
    ///
    /// # Errors
    /// When the address is no URL of HTTP, the token cannot be sent, or must not be: without TLS it is sent to this
    /// machine only, unless `options` allow more.
    pub fn new(
        address: &str,
        token: Option<&SecretString>,
        options: &RemoteOptions,
    ) -> Result<Self, CliError> {
        let bad = |why: String| CliError::Usage(format!("`{address}` is no address of a server: {why}"));
        if !address.starts_with("http://") && !address.starts_with("https://") {
            return Err(bad("it begins with http:// or https://".into()));
        }
        let url = Url::parse(address).map_err(|error| bad(error.to_string()))?;
        if url.username() != "" || url.password().is_some() {
            return Err(CliError::Usage("the address of a server holds no password; set CDM_TOKEN".into()));
        }
        let (plaintext, local) = (url.scheme() == "http", is_local(&url));
        if token.is_some() && plaintext && !local && options.plaintext == Plaintext::Refused {
            let message =
                format!("the token was not sent: without TLS it could be read on the way to `{url}`");
            return Err(CliError::Plaintext(message));
        }
        let authorization = match token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                    .map_err(|_| CliError::Usage("the token holds characters that no token holds".into()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        install_crypto();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cdm/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT);
        if local || plaintext {
            // A proxy has its own loopback, and reads what is not encrypted.
            builder = builder.no_proxy();
        }
        if let Some(path) = &options.cacert {
            builder = builder.tls_certs_merge(authorities(path)?);
        }
        let client = builder.build().map_err(|error| CliError::Failed(format!("no HTTP client: {error}")))?;
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
        let (trouble, told) = explained(&error);
        TransportError { server: self.base.clone(), trouble, source: Box::new(Told(told)) }
    }

    async fn whole(&self, response: reqwest::Response) -> Result<Response, TransportError> {
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
            self.builder(request.method, &target(&request.path, &request.query)).timeout(ANSWER);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        let response = builder.send().await.map_err(|error| self.error(error))?;
        self.whole(response).await
    }

    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<Listening, TransportError> {
        let mut builder = self.builder(Method::Get, path).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            builder = builder.header("last-event-id", id);
        }
        let response = builder.send().await.map_err(|error| self.error(error))?;
        if !response.status().is_success() {
            return Ok(Listening::Refused(self.whole(response).await?));
        }
        Ok(Listening::Open(sse::events(response.bytes_stream().boxed(), self.base.clone())))
    }
}

/// What happened, without the address that the message around it names.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

/// What kind of trouble an error is, and its innermost words.
fn explained(error: &reqwest::Error) -> (Trouble, String) {
    let mut cause: &dyn Error = error;
    loop {
        // An error of I/O stands for the error inside it, and names that one's cause as its own.
        if let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            cause = inner;
            continue;
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return (of_tls(tls), tls.to_string());
        }
        match cause.source() {
            Some(next) => cause = next,
            None => {
                let told = cause.to_string();
                // A server that speaks TLS answers plaintext with an alert, which is no version of HTTP.
                let no_http = told.contains("invalid HTTP version");
                return (if no_http { Trouble::NoHttp } else { Trouble::Away }, told);
            }
        }
    }
}

fn of_tls(error: &rustls::Error) -> Trouble {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            UnknownIssuer => Trouble::Untrusted,
            NotValidForName | NotValidForNameContext { .. } => Trouble::OtherName,
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => Trouble::OutOfDate,
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => Trouble::Authority,
            other if format!("{other:?}").contains("UnknownIssuer") => Trouble::Untrusted,
            _ => Trouble::Tls,
        },
        rustls::Error::InvalidMessage(_) => Trouble::Plaintext,
        _ => Trouble::Tls,
    }
}

/// Whether an address is one of this machine's own.
fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, CliError> {
    let what = format!("reading the certificate authorities from `{}`", path.display());
    let pem = std::fs::read(path).map_err(|source| CliError::Io { what, source })?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(CliError::Usage(format!("`{}` has no certificate in PEM", path.display()))),
    }
}

/// Another part of the process may have been first; then it has chosen the same.
pub(crate) fn install_crypto() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

//! Single HTTP requests to addresses that were resolved, and possibly checked, before: for health checks and webhooks.
//!
//! The host name is used for the `Host` header and the TLS handshake; the connection goes to the given address only. No
//! redirect is followed, no proxy is used, no connection is reused, and only the requested part of a response's body is
//! read.

pub mod probe;
pub mod webhook;

use std::error::Error;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;
use std::{fmt, io, iter};

use futures_util::future::{Either, select};
use futures_util::pin_mut;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Response, Url, redirect, retry};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tower::util::MapResponseLayer;

use crate::domain::MonotonicTime;
use crate::ports::Clock;

/// Maximum size of a response's headers, in bytes.
const MAX_HEAD: usize = 32 << 10;

/// Sends requests over HTTP/1.1. Clones share the trusted certificates.
#[derive(Clone)]
pub struct Outbound {
    clock: Arc<dyn Clock>,
    /// Created for the first TLS connection, because reading the system's certificates takes a while.
    tls: Arc<LazyLock<ClientConfig, Box<dyn FnOnce() -> ClientConfig + Send>>>,
}

/// One request, with the address that it is sent to and the host name that it is addressed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundRequest {
    /// The address to connect to.
    pub to: SocketAddr,
    /// Whether to use TLS. The certificate must be for `name`.
    pub tls: bool,
    /// The host name of the request, without a port.
    pub name: String,
    /// The port in the `Host` header; `None` for the default port of the scheme.
    pub port: Option<u16>,
    /// The HTTP method, such as `GET`.
    pub method: Method,
    /// Path and query, starting with `/`.
    pub target: String,
    /// Headers other than `Host`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

/// The status and the headers of a response, and as much of the body as the request asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundResponse {
    /// The HTTP status code.
    pub status: u16,
    /// All headers of the response.
    pub headers: HeaderMap,
    /// The start of the body.
    pub body: Vec<u8>,
    /// Whether the body has more bytes.
    pub truncated: bool,
    /// The time from the established connection to the head of the response.
    pub took: Duration,
}

/// Why there is no response. The messages contain no names and no addresses, so they may be shown to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum OutboundError {
    /// The host name has no address.
    #[error("the host name has no address")]
    NoAddress,
    /// The request cannot be encoded as HTTP; nothing was sent.
    #[error("the request is not valid HTTP")]
    InvalidRequest,
    /// The connection was refused or failed; nothing was sent.
    #[error("the connection failed")]
    Unreachable,
    /// The server has no trusted certificate for the host name, or does not support TLS; nothing was sent.
    #[error("the certificate is not accepted")]
    Tls,
    /// The timeout passed before the connection was established; nothing was sent.
    #[error("the connection timed out")]
    ConnectTimeout,
    /// The timeout passed after the request was sent.
    #[error("the response timed out")]
    TimedOut,
    /// The connection ended without a complete response, or the response is not HTTP.
    #[error("the response is incomplete or not valid HTTP")]
    Broken,
}

impl Outbound {
    /// Creates a client that trusts the system's certificates, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tls: Arc::new(LazyLock::new(Box::new(|| tls_config(system_roots())))) }
    }

    /// Creates a client that trusts only certificates signed by these roots, in DER format.
    pub fn trusting(clock: Arc<dyn Clock>, roots: &[Vec<u8>]) -> Self {
        let roots = roots_from(roots);
        Self { clock, tls: Arc::new(LazyLock::new(Box::new(|| tls_config(roots)))) }
    }

    /// Resolves the addresses of a host name.
    ///
    /// # Errors
    /// [`OutboundError::NoAddress`] when the name has no address, [`OutboundError::ConnectTimeout`] after the timeout.
    pub async fn resolve(
        &self,
        name: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Vec<SocketAddr>, OutboundError> {
        let lookup_result = self.within(timeout, tokio::net::lookup_host((name, port))).await;
        let addresses: Vec<_> = lookup_result
            .ok_or(OutboundError::ConnectTimeout)?
            .map_err(|_| OutboundError::NoAddress)?
            .collect();
        if addresses.is_empty() { Err(OutboundError::NoAddress) } else { Ok(addresses) }
    }

    /// Sends a request, and reads the response with at most `max_body` bytes of its body, within `timeout`. With
    /// `max_body` 0, the head of the response is enough.
    ///
    /// # Errors
    /// Every [`OutboundError`].
    pub async fn send(
        &self,
        request: OutboundRequest,
        max_body: usize,
        timeout: Duration,
    ) -> Result<OutboundResponse, OutboundError> {
        let connected = Arc::new(OnceLock::new());
        let client = self.client(&request, &connected)?;
        let exchange = self.exchange(client, encode(request)?, max_body, &connected);
        match self.within(timeout, exchange).await {
            Some(result) => result,
            None if connected.get().is_some() => Err(OutboundError::TimedOut),
            None => Err(OutboundError::ConnectTimeout),
        }
    }

    /// Creates the client of one request, which can connect to one address only. It sets `connected` to the time at which
    /// the connection is established, including TLS.
    fn client(
        &self,
        request: &OutboundRequest,
        connected: &Arc<OnceLock<MonotonicTime>>,
    ) -> Result<Client, OutboundError> {
        // Plaintext requests do not need the system's certificates.
        let tls = if request.tls { (**self.tls).clone() } else { tls_config(RootCertStore::empty()) };
        let (clock, connected) = (Arc::clone(&self.clock), Arc::clone(connected));
        let record_time = MapResponseLayer::new(move |connection| {
            connected.get_or_init(|| clock.monotonic());
            connection
        });
        Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(PinnedResolver(request.to))
            .connector_layer(record_time)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(0)
            // A feature of another crate in the build must not change what is sent, or what the body limit counts.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build()
            .map_err(|_| OutboundError::InvalidRequest)
    }

    async fn exchange(
        &self,
        client: Client,
        request: Request,
        max_body: usize,
        connected: &OnceLock<MonotonicTime>,
    ) -> Result<OutboundResponse, OutboundError> {
        let response = client.execute(request).await.map_err(|error| classify(&error))?;
        let now = self.clock.monotonic();
        let took = now.since(*connected.get().unwrap_or(&now));
        read(response, max_body, took).await
    }

    /// Returns the output of `work`; `None` after the timeout.
    async fn within<T>(&self, timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
        let up = self.clock.sleep_until(self.clock.monotonic().after(timeout));
        pin_mut!(work, up);
        match select(work, up).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

/// Resolves every name to one address, so that a client connects to no other.
struct PinnedResolver(SocketAddr);

impl Resolve for PinnedResolver {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(iter::once(self.0));
        Box::pin(ready(Ok(addresses)))
    }
}

/// Returns the certificates of the system. Certificates that cannot be parsed are skipped.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Returns the given certificates, in DER format.
fn roots_from(roots: &[Vec<u8>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().map(|der| CertificateDer::from(der.clone())));
    store
}

/// TLS 1.2 or newer and HTTP/1.1, on ring.
fn tls_config(roots: RootCertStore) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let Ok(builder) = builder.with_protocol_versions(&[&TLS13, &TLS12]) else {
        unreachable!("ring has the suites of both versions");
    };
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn encode(request: OutboundRequest) -> Result<Request, OutboundError> {
    let OutboundRequest { to, tls, name, port, method, target, headers, body } = request;
    let scheme = if tls { "https" } else { "http" };
    // A client connects to an IP address in a URL without its resolver, and to the port in a URL before the resolver's.
    let ip = name.parse::<IpAddr>().ok();
    let authority = match ip {
        Some(ip) if ip == to.ip() => to.to_string(),
        Some(_) => return Err(OutboundError::InvalidRequest),
        None => name.clone(),
    };
    let url = Url::parse(&format!("{scheme}://{authority}{target}"));
    let url = url.map_err(|_| OutboundError::InvalidRequest)?;
    let is_host = ip.is_some() || url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(&name));
    let has_name = !tls || ServerName::try_from(name.as_str()).is_ok();
    if !is_host || !has_name || !target.starts_with('/') {
        return Err(OutboundError::InvalidRequest);
    }
    let literal = if name.contains(':') { format!("[{name}]") } else { name };
    let host = match port {
        Some(port) => format!("{literal}:{port}"),
        None => literal,
    };
    let host = HeaderValue::try_from(host).map_err(|_| OutboundError::InvalidRequest)?;
    let mut encoded = Request::new(method, url);
    encoded.headers_mut().insert(HOST, host);
    encoded.headers_mut().extend(headers);
    if !body.is_empty() {
        *encoded.body_mut() = Some(body.into());
    }
    Ok(encoded)
}

fn classify(error: &reqwest::Error) -> OutboundError {
    if error.is_builder() {
        OutboundError::InvalidRequest
    } else if !error.is_connect() {
        OutboundError::Broken
    } else if is_handshake_error(error) {
        OutboundError::Tls
    } else {
        OutboundError::Unreachable
    }
}

/// Returns whether a connect error is an error of the TLS handshake. The connector wraps such an error in an I/O error of
/// the kind `Other`, and reports an I/O error of a TCP connection as it is.
fn is_handshake_error(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::Other)
}

async fn read(
    mut response: Response,
    max_body: usize,
    took: Duration,
) -> Result<OutboundResponse, OutboundError> {
    let headers = std::mem::take(response.headers_mut());
    let head: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if head > MAX_HEAD {
        return Err(OutboundError::Broken);
    }
    let (mut body, mut truncated) = (Vec::new(), max_body == 0);
    while !truncated && let Some(data) = response.chunk().await.map_err(|_| OutboundError::Broken)? {
        let remaining = max_body - body.len();
        truncated = data.len() > remaining;
        body.extend_from_slice(&data[..data.len().min(remaining)]);
    }
    Ok(OutboundResponse { status: response.status().as_u16(), headers, body, truncated, took })
}

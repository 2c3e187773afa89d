//! Single HTTP requests to addresses that were resolved, and possibly checked, before: for health checks and webhooks.
//!
//! The host name is used for the `Host` header and the TLS handshake; the connection goes to the given address only. No
//! redirect is followed, no proxy is used, no connection is reused, and only the requested part of a response's body is
//! read.

pub mod probe;
pub mod webhook;

mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::pin_mut;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ports::Clock;

/// Maximum size of a response's head, in bytes.
const MAX_HEAD: usize = 32 << 10;

/// Sends requests over HTTP/1.1. Clones share the trusted certificates.
#[derive(Clone)]
pub struct Outbound {
    clock: Arc<dyn Clock>,
    /// Created for the first TLS connection, because reading the system's certificates takes a while.
    tls: Arc<LazyLock<TlsConnector, Box<dyn FnOnce() -> TlsConnector + Send>>>,
}

/// A request.
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
    /// The HTTP method.
    pub method: Method,
    /// Path and query, starting with `/`.
    pub target: String,
    /// Headers other than `Host`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty for none.
    pub body: Bytes,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundResponse {
    /// The HTTP status code.
    pub status: u16,
    /// All headers of the response.
    pub headers: HeaderMap,
    /// The start of the body.
    pub body: Bytes,
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
        Self { clock, tls: Arc::new(LazyLock::new(Box::new(|| tls::connector(tls::system_roots())))) }
    }

    /// Creates a client that trusts only certificates signed by these roots, in DER format.
    pub fn trusting(clock: Arc<dyn Clock>, roots: &[Vec<u8>]) -> Self {
        let roots = tls::roots_from(roots);
        Self { clock, tls: Arc::new(LazyLock::new(Box::new(|| tls::connector(roots)))) }
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
        let started = self.clock.monotonic();
        let encoded = encode(&request)?;
        let connected = self.within(timeout, TcpStream::connect(request.to)).await;
        let stream =
            connected.ok_or(OutboundError::ConnectTimeout)?.map_err(|_| OutboundError::Unreachable)?;
        // Requests are small, so waiting for more bytes would only delay them.
        drop(stream.set_nodelay(true));
        let remaining = || timeout.saturating_sub(self.clock.monotonic().since(started));
        if request.tls {
            let name = tls::name(&request.name).ok_or(OutboundError::InvalidRequest)?;
            let handshake = self.within(remaining(), self.tls.connect(name, stream)).await;
            let stream = handshake.ok_or(OutboundError::ConnectTimeout)?.map_err(|_| OutboundError::Tls)?;
            self.exchange(stream, encoded, max_body, remaining()).await
        } else {
            self.exchange(stream, encoded, max_body, remaining()).await
        }
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        max_body: usize,
        timeout: Duration,
    ) -> Result<OutboundResponse, OutboundError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let started = self.clock.monotonic();
        let exchange = async {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MAX_HEAD);
            let (mut sender, connection) =
                builder.handshake(TokioIo::new(stream)).await.map_err(|_| OutboundError::Broken)?;
            let receiving = async {
                let response = sender.send_request(request).await.map_err(|_| OutboundError::Broken)?;
                let took = self.clock.monotonic().since(started);
                read(response, max_body, took).await
            };
            pin_mut!(receiving, connection);
            match select(receiving, connection).await {
                Either::Left((result, _)) => result,
                // The connection has ended, and the bytes that it has received can be read.
                Either::Right((_, receiving)) => receiving.await,
            }
        };
        self.within(timeout, exchange).await.ok_or(OutboundError::TimedOut)?
    }

    /// The output of `work`; `None` after the timeout.
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

fn encode(request: &OutboundRequest) -> Result<Request<Full<Bytes>>, OutboundError> {
    let literal =
        if request.name.contains(':') { format!("[{}]", request.name) } else { request.name.clone() };
    let host = match request.port {
        Some(port) => format!("{literal}:{port}"),
        None => literal,
    };
    if !request.target.starts_with('/') {
        return Err(OutboundError::InvalidRequest);
    }
    let mut builder =
        Request::builder().method(request.method.clone()).uri(request.target.as_str()).header(HOST, host);
    if let Some(headers) = builder.headers_mut() {
        headers.extend(request.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    builder.body(Full::new(request.body.clone())).map_err(|_| OutboundError::InvalidRequest)
}

async fn read(
    response: Response<Incoming>,
    max_body: usize,
    took: Duration,
) -> Result<OutboundResponse, OutboundError> {
    let (parts, mut body) = response.into_parts();
    let (mut body_start, mut truncated) = (Vec::new(), max_body == 0);
    while !truncated && let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| OutboundError::Broken)?.into_data() else { continue };
        let remaining = max_body - body_start.len();
        truncated = data.len() > remaining;
        body_start.extend_from_slice(&data[..data.len().min(remaining)]);
    }
    Ok(OutboundResponse {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body_start.into(),
        truncated,
        took,
    })
}

//! One HTTP request to an address that was looked up, and maybe judged, before: for health checks.
//!
//! The name goes into `Host` and into the TLS handshake, the bytes go to the address and nowhere else. No redirect is
//! followed, no proxy is used, no connection is kept, and of an answer's body only so much is read as was asked for.

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

/// Most bytes of an answer's head.
const MOST_HEAD: usize = 32 << 10;

/// Asks over HTTP/1.1; clones share the certificates that are trusted.
#[derive(Clone)]
pub struct Outbound {
    clock: Arc<dyn Clock>,
    /// Made when TLS is first spoken, since reading the machine's certificates takes a while.
    tls: Arc<LazyLock<TlsConnector, Box<dyn FnOnce() -> TlsConnector + Send>>>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where the bytes go.
    pub to: SocketAddr,
    /// Whether TLS is spoken; the certificate has to be of the name.
    pub tls: bool,
    /// The name that the request is for, without a port.
    pub name: String,
    /// The port of the name, where it is not the scheme's own.
    pub port: Option<u16>,
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/`.
    pub target: String,
    /// Headers besides `Host`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's beginning.
    pub body: Bytes,
    /// Whether the body has more.
    pub cut: bool,
    /// From the connection's being there to the answer's head.
    pub took: Duration,
}

/// Why there is no answer. Says nothing of names or addresses, so that it may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum OutboundError {
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// Nothing is sent: the request cannot be written down as HTTP.
    #[error("the request is no HTTP")]
    NoRequest,
    /// No connection came about; nothing was sent.
    #[error("no connection comes about")]
    Unreachable,
    /// The other side has no certificate of that name which is trusted, or speaks no TLS; nothing was sent.
    #[error("the certificate is not accepted")]
    Tls,
    /// Time was up before the connection was there; nothing was sent.
    #[error("no connection in time")]
    Slow,
    /// Time was up after the request was sent.
    #[error("no answer in time")]
    TimedOut,
    /// The connection ended without an answer, or with something else than HTTP.
    #[error("the answer breaks off, or is no HTTP")]
    Broken,
}

impl Outbound {
    /// Trusts the machine's certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, tls: Arc::new(LazyLock::new(Box::new(|| tls::connector(tls::machine())))) }
    }

    /// Trusts the certificates that these sign, in DER, and no others.
    pub fn trusting(clock: Arc<dyn Clock>, roots: &[Vec<u8>]) -> Self {
        let roots = tls::these(roots);
        Self { clock, tls: Arc::new(LazyLock::new(Box::new(|| tls::connector(roots)))) }
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// [`OutboundError::NoAddress`], [`OutboundError::Slow`].
    pub async fn resolve(
        &self,
        name: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Vec<SocketAddr>, OutboundError> {
        let looked_up = self.within(timeout, tokio::net::lookup_host((name, port))).await;
        let addresses: Vec<_> =
            looked_up.ok_or(OutboundError::Slow)?.map_err(|_| OutboundError::NoAddress)?.collect();
        if addresses.is_empty() { Err(OutboundError::NoAddress) } else { Ok(addresses) }
    }

    /// Asks, and waits for the answer and for at most `most` bytes of its body; all of it within `patience`. Of no bytes
    /// nothing is waited for: the answer's head is enough.
    ///
    /// # Errors
    /// See [`OutboundError`].
    pub async fn ask(&self, asked: Asked, most: usize, timeout: Duration) -> Result<Answered, OutboundError> {
        let started = self.clock.monotonic();
        let request = written(&asked)?;
        let connected = self.within(timeout, TcpStream::connect(asked.to)).await;
        let stream = connected.ok_or(OutboundError::Slow)?.map_err(|_| OutboundError::Unreachable)?;
        // Requests are small: one that waits for more bytes only gets slower.
        drop(stream.set_nodelay(true));
        let left = || timeout.saturating_sub(self.clock.monotonic().since(started));
        if asked.tls {
            let name = tls::name(&asked.name).ok_or(OutboundError::NoRequest)?;
            let shaken = self.within(left(), self.tls.connect(name, stream)).await;
            let stream = shaken.ok_or(OutboundError::Slow)?.map_err(|_| OutboundError::Tls)?;
            self.exchange(stream, request, most, left()).await
        } else {
            self.exchange(stream, request, most, left()).await
        }
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        most: usize,
        timeout: Duration,
    ) -> Result<Answered, OutboundError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let started = self.clock.monotonic();
        let exchange = async {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MOST_HEAD);
            let (mut sender, connection) =
                builder.handshake(TokioIo::new(stream)).await.map_err(|_| OutboundError::Broken)?;
            let answer = async {
                let response = sender.send_request(request).await.map_err(|_| OutboundError::Broken)?;
                let took = self.clock.monotonic().since(started);
                read(response, most, took).await
            };
            pin_mut!(answer, connection);
            match select(answer, connection).await {
                Either::Left((answered, _)) => answered,
                // The connection has ended, and whatever came over it is there to be read.
                Either::Right((_, answer)) => answer.await,
            }
        };
        self.within(timeout, exchange).await.ok_or(OutboundError::TimedOut)?
    }

    /// `None` when time is up.
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

fn written(asked: &Asked) -> Result<Request<Full<Bytes>>, OutboundError> {
    let literal = if asked.name.contains(':') { format!("[{}]", asked.name) } else { asked.name.clone() };
    let host = match asked.port {
        Some(port) => format!("{literal}:{port}"),
        None => literal,
    };
    if !asked.target.starts_with('/') {
        return Err(OutboundError::NoRequest);
    }
    let mut builder =
        Request::builder().method(asked.method.clone()).uri(asked.target.as_str()).header(HOST, host);
    if let Some(headers) = builder.headers_mut() {
        headers.extend(asked.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    builder.body(Full::new(asked.body.clone())).map_err(|_| OutboundError::NoRequest)
}

async fn read(response: Response<Incoming>, most: usize, took: Duration) -> Result<Answered, OutboundError> {
    let (parts, mut body) = response.into_parts();
    let (mut kept, mut cut) = (Vec::new(), most == 0);
    while !cut && let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| OutboundError::Broken)?.into_data() else { continue };
        let room = most - kept.len();
        cut = data.len() > room;
        kept.extend_from_slice(&data[..data.len().min(room)]);
    }
    Ok(Answered { status: parts.status.as_u16(), headers: parts.headers, body: kept.into(), cut, took })
}

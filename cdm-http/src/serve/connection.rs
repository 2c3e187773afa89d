//! One connection, from the accept to its end: TLS handshake, requests and timeouts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use cdm_core::domain::MonotonicTime;
use cdm_core::ports::Clock;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::activity::{Activity, Phase, ResponseBody};
use super::admission::Permit;
use super::connection_limits::ConnectionLimits;
use super::tls::Tls;
use super::write_timeout::WriteTimeout;
use crate::client::{Peer, Transport};

/// How long a closing connection may take to send the rest of its last response.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of concurrent requests on an HTTP/2 connection.
const STREAMS: u32 = 100;

/// Serves connections; clones share the routes and limits.
#[derive(Clone, Debug)]
pub(super) struct ConnectionServer {
    pub(super) routes: Router,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: ConnectionLimits,
    pub(super) tls: Option<Tls>,
    pub(super) shutdown: CancellationToken,
}

/// An admitted connection, with its permit.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) address: SocketAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) permit: Permit,
}

impl ConnectionServer {
    /// Serves a connection until the client or the server closes it, a timeout expires, or the connection is evicted.
    pub(super) async fn serve(self, stream: TcpStream, accepted: Accepted) {
        // Sends small responses at once.
        drop(stream.set_nodelay(true));
        let stream = WriteTimeout::new(stream, Arc::clone(&self.clock), self.limits.write_timeout);
        let Some(tls) = &self.tls else { return self.requests(stream, Transport::Plaintext, accepted).await };
        let handshake = tls.accept(stream);
        let stream = tokio::select! {
            stream = handshake => stream,
            () = accepted.permit.evicted.cancelled() => return,
            () = self.shutdown.cancelled() => return,
            () = self.header_timeout(&accepted) => return,
        };
        match stream {
            Ok(stream) => self.requests(stream, Transport::Tls, accepted).await,
            Err(error) => tracing::debug!(%error, peer = %accepted.address, "a TLS handshake failed"),
        }
    }

    /// Returns when the timeout of the first request header expires.
    async fn header_timeout(&self, accepted: &Accepted) {
        if let Phase::Opening(since) = accepted.activity.phase() {
            self.clock.sleep_until(since.after(self.limits.header_timeout)).await;
        }
    }

    async fn requests<I>(self, stream: I, transport: Transport, accepted: Accepted)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Accepted { address, activity, permit } = accepted;
        let peer = ConnectInfo(Peer { address, transport });
        let (routes, tracker) = (self.routes, Arc::clone(&activity));
        let service = service_fn(move |request: Request<Incoming>| {
            let open_request = tracker.begin();
            let mut request = request.map(|body| tracker.receive(body));
            request.extensions_mut().insert(peer);
            let response = routes.clone().oneshot(request);
            async move {
                let response = match response.await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                Ok::<_, Infallible>(response.map(|body| ResponseBody::new(body, open_request)))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // The timer of hyper starts only once the HTTP version is known, so `activity` measures the time instead.
        builder.http1().header_read_timeout(None).max_buf_size(self.limits.header_bytes);
        let header_bytes = u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX);
        builder.http2().max_header_list_size(header_bytes).max_concurrent_streams(STREAMS);
        let mut http_connection = pin!(builder.serve_connection(TokioIo::new(stream), service));

        let clock = self.clock;
        let deadline = |phase| match phase {
            Phase::Opening(since) => Some(since.after(self.limits.header_timeout)),
            Phase::Idle(since) => Some(since.after(permit.idle_timeout)),
            Phase::Receiving(_) | Phase::Working => None,
        };
        let mut ending = Ending::No;
        loop {
            let until = match ending {
                Ending::No => deadline(activity.phase()),
                Ending::By(until) => Some(until),
                Ending::AfterResponses => None,
            };
            // Without a deadline, one check per idle timeout finds a connection that has become idle.
            let next_check = until.unwrap_or_else(|| clock.monotonic().after(permit.idle_timeout));
            tokio::select! {
                ended = &mut http_connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, peer = %address, "a connection ended early");
                    }
                    return;
                }
                () = self.shutdown.cancelled(), if ending == Ending::No => {}
                () = permit.evicted.cancelled(), if ending == Ending::No => {
                    if matches!(activity.phase(), Phase::Opening(_) | Phase::Receiving(_)) {
                        return;
                    }
                }
                () = clock.sleep_until(next_check) => {
                    let is_over = |until: Option<MonotonicTime>| until.is_some_and(|until| until <= clock.monotonic());
                    let phase = activity.phase();
                    match ending {
                        Ending::No if !is_over(deadline(phase)) => continue,
                        Ending::No if matches!(phase, Phase::Idle(_)) => {}
                        Ending::AfterResponses => continue,
                        // A request arrived after the shutdown began; HTTP/2 still handles it.
                        Ending::By(_) if matches!(phase, Phase::Receiving(_) | Phase::Working) => {
                            ending = Ending::AfterResponses;
                            continue;
                        }
                        Ending::No | Ending::By(_) => return,
                    }
                }
            }
            http_connection.as_mut().graceful_shutdown();
            ending = match activity.phase() {
                Phase::Opening(_) | Phase::Idle(_) => Ending::By(clock.monotonic().after(FLUSH_TIMEOUT)),
                // Requests that do not end are cut off at the end of the server's grace period.
                Phase::Receiving(_) | Phase::Working => Ending::AfterResponses,
            };
        }
    }
}

/// Whether and how a connection is closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// Closes after the responses to the open requests.
    AfterResponses,
    /// Closes at this time; no request is open, and unsent data is dropped.
    By(MonotonicTime),
}

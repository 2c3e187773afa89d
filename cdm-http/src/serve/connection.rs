//! One connection, from the accept to its end: TLS handshake, requests, and the limits of time.

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

use super::activity::{Activity, Doing, Sent};
use super::admission::{ConnectionLimits, Permit};
use super::stall::Stalling;
use super::tls::Tls;
use crate::client::{Peer, Transport};

/// How long a connection whose time is over may take to send the rest of its last answer.
const FAREWELL: Duration = Duration::from_secs(5);
/// Requests at a time on one connection of HTTP/2.
const STREAMS: u32 = 100;

/// What all connections share.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    pub(super) routes: Router,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: ConnectionLimits,
    pub(super) tls: Option<Tls>,
    pub(super) shutdown: CancellationToken,
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) address: SocketAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) permit: Permit,
}

impl Serving {
    /// Serves a connection until either side ends it, its time is over, or it has to make way for another.
    pub(super) async fn connection(self, stream: TcpStream, accepted: Accepted) {
        // Answers are small, and wait for no further ones.
        drop(stream.set_nodelay(true));
        let stream = Stalling::new(stream, Arc::clone(&self.clock), self.limits.write_timeout);
        let Some(tls) = &self.tls else { return self.requests(stream, Transport::Plaintext, accepted).await };
        let handshake = tls.accept(stream);
        let stream = tokio::select! {
            stream = handshake => stream,
            () = accepted.permit.leave.cancelled() => return,
            () = self.shutdown.cancelled() => return,
            () = self.opened(&accepted) => return,
        };
        match stream {
            Ok(stream) => self.requests(stream, Transport::Tls, accepted).await,
            Err(error) => tracing::debug!(%error, peer = %accepted.address, "a TLS handshake failed"),
        }
    }

    /// Returns when the time for the first header is over.
    async fn opened(&self, accepted: &Accepted) {
        if let Doing::Opening(since) = accepted.activity.doing() {
            self.clock.sleep_until(since.after(self.limits.header_timeout)).await;
        }
    }

    async fn requests<I>(self, stream: I, transport: Transport, accepted: Accepted)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Accepted { address, activity, permit } = accepted;
        let peer = ConnectInfo(Peer { address, transport });
        let (routes, seen) = (self.routes, Arc::clone(&activity));
        let service = service_fn(move |request: Request<Incoming>| {
            let answering = seen.begin();
            let mut request = request.map(|body| seen.receive(body));
            request.extensions_mut().insert(peer);
            let answer = routes.clone().oneshot(request);
            async move {
                let answer = match answer.await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                };
                Ok::<_, Infallible>(answer.map(|body| Sent::new(body, answering)))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Hyper's own timer begins with the first byte after the version is known; `activity` sees all of it.
        builder.http1().header_read_timeout(None).max_buf_size(self.limits.header_bytes);
        let header_bytes = u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX);
        builder.http2().max_header_list_size(header_bytes).max_concurrent_streams(STREAMS);
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));

        let clock = self.clock;
        let deadline = |doing| match doing {
            Doing::Opening(since) => Some(since.after(self.limits.header_timeout)),
            Doing::Idle(since) => Some(since.after(permit.idle_timeout)),
            Doing::Receiving(_) | Doing::Working => None,
        };
        let mut ending = Ending::No;
        loop {
            let due = match ending {
                Ending::No => deadline(activity.doing()),
                Ending::By(due) => Some(due),
                Ending::AfterAnswers => None,
            };
            // While a request is at work its end is not known; one look per idle time finds an idle connection.
            let look = due.unwrap_or_else(|| clock.monotonic().after(permit.idle_timeout));
            tokio::select! {
                ended = &mut serving => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, peer = %address, "a connection ended early");
                    }
                    return;
                }
                () = self.shutdown.cancelled(), if ending == Ending::No => {}
                () = permit.leave.cancelled(), if ending == Ending::No => {
                    if matches!(activity.doing(), Doing::Opening(_) | Doing::Receiving(_)) {
                        return;
                    }
                }
                () = clock.sleep_until(look) => {
                    let over = |due: Option<MonotonicTime>| due.is_some_and(|due| due <= clock.monotonic());
                    let doing = activity.doing();
                    match ending {
                        Ending::No if !over(deadline(doing)) => continue,
                        Ending::No if matches!(doing, Doing::Idle(_)) => {}
                        Ending::AfterAnswers => continue,
                        // A last request was on its way; only HTTP/2 still takes it.
                        Ending::By(_) if matches!(doing, Doing::Receiving(_) | Doing::Working) => {
                            ending = Ending::AfterAnswers;
                            continue;
                        }
                        Ending::No | Ending::By(_) => return,
                    }
                }
            }
            serving.as_mut().graceful_shutdown();
            ending = match activity.doing() {
                Doing::Opening(_) | Doing::Idle(_) => Ending::By(clock.monotonic().after(FAREWELL)),
                // The server's own grace ends these, where they do not end by themselves.
                Doing::Receiving(_) | Doing::Working => Ending::AfterAnswers,
            };
        }
    }
}

/// Whether a connection takes no further request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// Its requests are answered first.
    AfterAnswers,
    /// None is open; what is not sent by then stays unsent.
    By(MonotonicTime),
}

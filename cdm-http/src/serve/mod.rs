//! Serves the routes on a socket: accepts connections within limits, and shuts down gracefully.

mod activity;
mod admission;
mod connection;
pub(crate) mod connection_limits;
pub(crate) mod tls;
mod write_timeout;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::MonotonicTime;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use connection_limits::ConnectionLimits;
pub use tls::{Tls, TlsError};

use activity::Activity;
use admission::Connections;
use connection::{Accepted, ConnectionServer};

use crate::router::stoppable;
use crate::settings::App;

/// The delay after a failed accept, for example when file descriptors are exhausted.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// The minimum time between two log lines about rejected or failed connections.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The response to a rejected connection without TLS.
const OVERLOADED: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves `app` until `shutdown` is canceled. Then `/readyz` returns 503, event streams end, no connection is accepted, and
/// running requests may take up to `grace` to finish.
///
/// `app.settings.connections` limits the connections, which use TLS if `app.settings.tls` is set.
///
/// # Errors
/// Currently none: a failed accept is retried.
pub fn serve(
    listener: TcpListener,
    app: App,
    shutdown: CancellationToken,
    grace: Duration,
) -> BoxFuture<'static, io::Result<()>> {
    // Boxed: compiled once, in this crate, and not again in each program and test with a server.
    Box::pin(accept_until(listener, app, shutdown, grace))
}

async fn accept_until(
    listener: TcpListener,
    app: App,
    shutdown: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    let clock = Arc::clone(&app.clock);
    let (limits, tls) = (app.settings.connections.clone(), app.settings.tls.clone());
    let connections = Connections::new(limits.clone(), app.settings.trusted_proxies.clone());
    let mut background = JoinSet::new();
    if let Some(tls) = &tls {
        background.spawn(tls.clone().watch(Arc::clone(&clock)));
    }
    let routes = stoppable(app, shutdown.clone());
    let server =
        ConnectionServer { routes, clock: Arc::clone(&clock), limits, tls, shutdown: shutdown.clone() };
    let mut open = JoinSet::new();
    let (mut rejected, mut failed) = (LogThrottle::default(), LogThrottle::default());
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                connections.close_longest_waiting();
                if let Some(times) = failed.count(clock.monotonic()) {
                    tracing::error!(%error, times, "connections cannot be accepted; the connection that has waited longest is closed");
                }
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = clock.sleep_until(clock.monotonic().after(ACCEPT_RETRY_DELAY)) => continue,
                }
            }
        };
        let activity = Activity::new(Arc::clone(&clock));
        let Some(permit) = connections.admit(address.ip(), &activity) else {
            if let Some(times) = rejected.count(clock.monotonic()) {
                tracing::warn!(peer = %address, times, "too many connections; new connections are rejected");
            }
            if server.tls.is_none() {
                // Best effort; the connection is closed in any case.
                drop(stream.try_write(OVERLOADED));
            }
            continue;
        };
        open.spawn(server.clone().serve(stream, Accepted { address, activity, permit }));
    }
    drop(listener);
    let timeout = clock.sleep_until(clock.monotonic().after(grace));
    tokio::select! {
        () = timeout => {}
        () = async { while open.join_next().await.is_some() {} } => {}
    }
    Ok(())
}

/// Returns whether an error concerns only the accepted connection, so that the next accept may follow at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Limits the log lines about an event that may happen often.
#[derive(Debug, Default)]
struct LogThrottle {
    last_logged: Option<MonotonicTime>,
    times: u64,
}

impl LogThrottle {
    /// Counts an event. Returns the number of events since the last log line if another line may be logged now.
    fn count(&mut self, now: MonotonicTime) -> Option<u64> {
        self.times += 1;
        if self.last_logged.is_some_and(|last_logged| now.since(last_logged) < LOG_INTERVAL) {
            return None;
        }
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

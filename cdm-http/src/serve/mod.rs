//! Serves the routes on a socket: accepts connections within limits, and stops in good order.

mod activity;
mod admission;
mod connection;
mod stall;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::MonotonicTime;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use admission::ConnectionLimits;
pub use tls::{Tls, TlsError};

use activity::Activity;
use admission::Connections;
use connection::{Accepted, Serving};

use crate::app::App;
use crate::router::stoppable;

/// How long the listener rests when it cannot accept, as when descriptors have run out.
const REST: Duration = Duration::from_millis(50);
/// How often the log says that connections are refused or not accepted.
const SAID: Duration = Duration::from_secs(10);
/// What a connection over the limit gets where there is no TLS.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves `app` until `shutdown` is cancelled: then `/readyz` says so, streams end, nothing new is accepted, and what
/// runs may take `grace` to finish.
///
/// Connections are limited by `app.settings.connections`, and speak TLS where `app.settings.tls` has a certificate.
///
/// # Errors
/// None at present: a socket that cannot accept is tried again.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    let clock = Arc::clone(&app.clock);
    let (limits, tls) = (app.settings.connections.clone(), app.settings.tls.clone());
    let connections = Connections::new(limits.clone(), app.settings.trusted_proxies.clone());
    let mut following = JoinSet::new();
    if let Some(tls) = &tls {
        following.spawn(tls.clone().follow(Arc::clone(&clock)));
    }
    let routes = stoppable(app, shutdown.clone());
    let serving = Serving { routes, clock: Arc::clone(&clock), limits, tls, shutdown: shutdown.clone() };
    let mut open = JoinSet::new();
    let (mut refused, mut failed) = (Rarely::default(), Rarely::default());
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                connections.make_room();
                if let Some(times) = failed.say(clock.monotonic()) {
                    tracing::error!(%error, times, "connections cannot be accepted; waiting ones are closed");
                }
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = clock.sleep_until(clock.monotonic().after(REST)) => continue,
                }
            }
        };
        let activity = Activity::new(Arc::clone(&clock));
        let Some(permit) = connections.admit(address.ip(), &activity) else {
            if let Some(times) = refused.say(clock.monotonic()) {
                tracing::warn!(peer = %address, times, "too many connections: the newest are refused");
            }
            if serving.tls.is_none() {
                // A courtesy: whether it arrives makes no difference to the server.
                drop(stream.try_write(FULL));
            }
            continue;
        };
        open.spawn(serving.clone().connection(stream, Accepted { address, activity, permit }));
    }
    drop(listener);
    let over = clock.sleep_until(clock.monotonic().after(grace));
    tokio::select! {
        () = over => {}
        () = async { while open.join_next().await.is_some() {} } => {}
    }
    Ok(())
}

/// Whether an error is that of the connection which was to be accepted, and the next one may be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Something that happens often and is logged rarely.
#[derive(Debug, Default)]
struct Rarely {
    said: Option<MonotonicTime>,
    times: u64,
}

impl Rarely {
    /// Counts it; how often it happened since the last time, when it is time to say so.
    fn say(&mut self, now: MonotonicTime) -> Option<u64> {
        self.times += 1;
        if self.said.is_some_and(|said| now.since(said) < SAID) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

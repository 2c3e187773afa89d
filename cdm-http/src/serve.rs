//! Serves the routes on a socket, and stops in good order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::client::Peer;
use crate::router::stoppable;

/// Serves `app` until `shutdown` is cancelled: then `/readyz` says so, streams end, nothing new is accepted, and what
/// runs may take `grace` to finish.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    let clock = Arc::clone(&app.clock);
    let routes = stoppable(app, shutdown.clone());
    let service = routes.into_make_service_with_connect_info::<Peer>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let over = async {
        shutdown.cancelled().await;
        clock.sleep_until(clock.monotonic().after(grace)).await;
    };
    match select(std::pin::pin!(serving.into_future()), std::pin::pin!(over)).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Ok(()),
    }
}

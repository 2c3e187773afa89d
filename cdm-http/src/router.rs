//! The router: all routes, and the middleware of every request.

use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use cdm_core::domain::{Actor, Role};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::{AppState, SharedState};
use crate::auth::{Caller, authenticate, authorize};
use crate::client::resolve_client;
use crate::host::require_one_host;
use crate::middleware::{enforce_timeout, finish, handle_panic};
use crate::routes::{guarded, open};
use crate::settings::App;

/// Returns the routes of the API and the console; every request needs a token or a session, except on open routes.
pub fn router(app: App) -> Router {
    stoppable(app, CancellationToken::new())
}

/// Returns the routes of [`router`]; once `stopping` is cancelled, `/readyz` returns 503 and event streams end.
pub(crate) fn stoppable(app: App, stopping: CancellationToken) -> Router {
    let server = AppState::new(app, stopping, crate::openapi::text);
    let (guarded, _) = guarded().split_for_parts();
    let guarded = guarded
        .route_layer(from_fn_with_state(SharedState::clone(&server), authorize))
        .route_layer(from_fn_with_state(SharedState::clone(&server), authenticate));
    let pages = crate::console::routes(&server);
    let root = server.app.settings.root.clone();
    crate::root::under_root(&root, with_middleware(server, guarded.merge(pages)))
}

/// Returns the API routes for callers in this process: every request runs as `actor` with `role`, and needs no token.
pub fn local_router(app: App, actor: Actor, role: Role) -> Router {
    let server = AppState::new(app, CancellationToken::new(), crate::openapi::text);
    let (guarded, _) = guarded().split_for_parts();
    let guarded = guarded
        .route_layer(from_fn_with_state(SharedState::clone(&server), authorize))
        .route_layer(Extension(Caller::new(actor, role)));
    with_middleware(server, guarded)
}

fn with_middleware(server: SharedState, guarded: Router<SharedState>) -> Router {
    let (open, _) = open().split_for_parts();
    open.merge(guarded)
        .layer(from_fn_with_state(SharedState::clone(&server), enforce_timeout))
        .layer(CatchPanicLayer::custom(handle_panic))
        .layer(from_fn(require_one_host))
        .layer(from_fn_with_state(SharedState::clone(&server), finish))
        .layer(from_fn_with_state(SharedState::clone(&server), resolve_client))
        .with_state(server)
}

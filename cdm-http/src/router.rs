//! The router: all routes, and the middleware of every request.

use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use cdm_core::domain::{Actor, Role};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, AppState, SharedState};
use crate::auth::{Caller, authenticate};
use crate::client::resolve_client;
use crate::host::require_one_host;
use crate::middleware::{enforce_timeout, finish, handle_panic};
use crate::permissions::authorize;
use crate::routes::{
    events, freezes, operations, rollouts, services, sites, system, tokens, users, webhooks,
};

/// Returns the routes of the API and the console; every request needs a token or a session, except on open routes.
pub fn router(app: App) -> Router {
    stoppable(app, CancellationToken::new())
}

/// Returns the routes of [`router`]; once `stopping` is cancelled, `/readyz` returns 503 and event streams end.
pub(crate) fn stoppable(app: App, stopping: CancellationToken) -> Router {
    let server = AppState::new(app, stopping);
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
    let server = AppState::new(app, CancellationToken::new());
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

/// Returns the routes that need no token.
pub(crate) fn open() -> OpenApiRouter<SharedState> {
    OpenApiRouter::new()
        .routes(routes!(system::live))
        .routes(routes!(system::ready))
        .routes(routes!(system::document))
}

/// Returns the routes that need a token.
pub(crate) fn guarded() -> OpenApiRouter<SharedState> {
    OpenApiRouter::new()
        .routes(routes!(sites::create))
        .routes(routes!(sites::list))
        .routes(routes!(sites::get, sites::delete))
        .routes(routes!(sites::provision))
        .routes(routes!(sites::upgrade))
        .routes(routes!(sites::promote))
        .routes(routes!(services::show, services::change, services::roll_out))
        .routes(routes!(services::rollback))
        .routes(routes!(services::history))
        .routes(routes!(services::mark))
        .routes(routes!(operations::list))
        .routes(routes!(operations::get))
        .routes(routes!(operations::log))
        .routes(routes!(operations::retry))
        .routes(routes!(operations::cancel))
        .routes(routes!(operations::audit))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::get))
        .routes(routes!(rollouts::pause))
        .routes(routes!(rollouts::resume))
        .routes(routes!(rollouts::abort))
        .routes(routes!(rollouts::retry))
        .routes(routes!(freezes::list, freezes::create))
        .routes(routes!(freezes::remove))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::remove))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::change, users::remove))
        .routes(routes!(users::end_sessions))
        .routes(routes!(events::all))
        .routes(routes!(events::of_operation))
        .routes(routes!(events::of_rollout))
        .routes(routes!(system::metrics))
}

//! The routes in one router, with what every request goes through.

use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use cdm_core::domain::{Actor, Role};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, Server, Shared};
use crate::auth::{Caller, authenticate};
use crate::client::identify;
use crate::host::one_host;
use crate::permissions::authorize;
use crate::request::{finish, in_time, panicked};
use crate::routes::{
    events, freezes, operations, rollouts, services, sites, system, tokens, users, webhooks,
};

/// The server's routes, for callers who bring a token.
pub fn router(app: App) -> Router {
    stoppable(app, CancellationToken::new())
}

/// The same; once `stopping` is cancelled it is not ready, and its streams end.
pub(crate) fn stoppable(app: App, stopping: CancellationToken) -> Router {
    let server = Server::new(app, stopping);
    let (guarded, _) = guarded().split_for_parts();
    let guarded = guarded
        .route_layer(from_fn_with_state(Shared::clone(&server), authorize))
        .route_layer(from_fn_with_state(Shared::clone(&server), authenticate));
    let pages = crate::console::routes(&server);
    let root = server.app.settings.root.clone();
    crate::root::below(&root, whole(server, guarded.merge(pages)))
}

/// The routes for callers in this process: every request is `actor`'s, who has that role, and needs no token.
pub fn local_router(app: App, actor: Actor, role: Role) -> Router {
    let server = Server::new(app, CancellationToken::new());
    let (guarded, _) = guarded().split_for_parts();
    let guarded = guarded
        .route_layer(from_fn_with_state(Shared::clone(&server), authorize))
        .route_layer(Extension(Caller::new(actor, role)));
    whole(server, guarded)
}

fn whole(server: Shared, guarded: Router<Shared>) -> Router {
    let (open, _) = open().split_for_parts();
    open.merge(guarded)
        .layer(from_fn_with_state(Shared::clone(&server), in_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(one_host))
        .layer(from_fn_with_state(Shared::clone(&server), finish))
        .layer(from_fn_with_state(Shared::clone(&server), identify))
        .with_state(server)
}

/// Routes that need no token.
pub(crate) fn open() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(system::live))
        .routes(routes!(system::ready))
        .routes(routes!(system::document))
}

/// Routes that need one.
pub(crate) fn guarded() -> OpenApiRouter<Shared> {
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

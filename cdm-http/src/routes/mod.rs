//! The routes of the API. Each handler extracts the request, calls the manager once, and converts the result.

pub(crate) mod events;
pub(crate) mod freezes;
pub(crate) mod operations;
pub(crate) mod response;
pub(crate) mod rollouts;
pub(crate) mod services;
pub(crate) mod sites;
pub(crate) mod system;
pub(crate) mod tokens;
pub(crate) mod users;
pub(crate) mod webhooks;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::SharedState;

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

//! Routes of the server itself: health, metrics and the OpenAPI document.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::health::{BackendStatus, Live, Readiness, Ready};
use crate::app::SharedState;
use crate::error::ApiError;
use crate::extract::{NoQuery, QueryParams};

/// Returns 200 while the process runs.
#[utoipa::path(get, path = "/healthz", operation_id = "getLiveness", tag = "system", security(()), responses((status = 200, body = Live)))]
pub(crate) async fn live(_: QueryParams<NoQuery>) -> Json<Live> {
    Json(Live { status: "ok".to_owned() })
}

/// Returns 200 if every backend responds, otherwise 503.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "system", security(()), responses(
    (status = 200, body = Ready), (status = 503, body = Ready)))]
pub(crate) async fn ready(State(server): State<SharedState>, _: QueryParams<NoQuery>) -> Response {
    let all = server.app.health.backends().await;
    let healthy = all.iter().all(|backend| backend.problem.is_none());
    let (code, status) = match (server.stopping.is_cancelled(), healthy) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, Readiness::Stopping),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, Readiness::NotReady),
        (false, true) => (StatusCode::OK, Readiness::Ready),
    };
    let backends = all.into_iter().map(|backend| BackendStatus {
        name: backend.name,
        ready: backend.problem.is_none(),
        problem: backend.problem,
    });
    (code, Json(Ready { status, backends: backends.collect() })).into_response()
}

/// Returns the metrics of the server in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "system", responses(
    (status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(
    State(server): State<SharedState>,
    _: QueryParams<NoQuery>,
) -> Result<Response, ApiError> {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, server.metrics.render()).into_response())
}

/// Returns this OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApi", tag = "system", security(()), responses(
    (status = 200, body = Object)))]
pub(crate) async fn document(State(server): State<SharedState>, _: QueryParams<NoQuery>) -> Response {
    // The document does not depend on the caller, and changes with the version of the server.
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, (server.openapi)()).into_response()
}

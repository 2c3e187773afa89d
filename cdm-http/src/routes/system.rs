//! How the server itself is.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::Shared;
use crate::error::Refusal;
use crate::input::{Nothing, Params};

/// That it lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Live {
    /// `ok`.
    status: &'static str,
}

/// Whether it can work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    /// `ready`, `not_ready` or `stopping`.
    status: &'static str,
    /// Every backend.
    backends: Vec<BackendStatus>,
}

/// How one backend is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackendStatus {
    /// Its name.
    name: String,
    /// Whether it answers.
    ready: bool,
    /// What is wrong with it.
    #[schema(required = true)]
    problem: Option<String>,
}

/// Tells that the process lives.
#[utoipa::path(get, path = "/healthz", operation_id = "getLiveness", tag = "system", security(()), responses((status = 200, body = Live)))]
pub(crate) async fn live(_: Params<Nothing>) -> Json<Live> {
    Json(Live { status: "ok" })
}

/// Tells whether every backend answers.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "system", security(()), responses(
    (status = 200, body = Ready), (status = 503, body = Ready)))]
pub(crate) async fn ready(State(server): State<Shared>, _: Params<Nothing>) -> Response {
    let all = server.app.health.backends().await;
    let well = all.iter().all(|backend| backend.problem.is_none());
    let (code, status) = match (server.stopping.is_cancelled(), well) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    let backends = all.into_iter().map(|backend| BackendStatus {
        name: backend.name,
        ready: backend.problem.is_none(),
        problem: backend.problem,
    });
    (code, Json(Ready { status, backends: backends.collect() })).into_response()
}

/// Shows what was counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "system", responses(
    (status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(server): State<Shared>, _: Params<Nothing>) -> Result<Response, Refusal> {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, server.metrics.render()).into_response())
}

/// Shows this document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApi", tag = "system", security(()), responses(
    (status = 200, body = Object)))]
pub(crate) async fn document(_: Params<Nothing>) -> Response {
    // It is the same for everyone, and of this version of the server.
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, crate::openapi::text()).into_response()
}

//! Responses that several routes return.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cdm_core::domain::{Operation, OperationId};
use cdm_core::manager::Accepted;

use crate::api;
use crate::app::AppState;
use crate::error::ApiError;

/// How long the handlers wait by default for an operation that usually ends within seconds.
pub(crate) const DEFAULT_WAIT: Duration = Duration::from_secs(10);

impl AppState {
    /// Returns an operation once it has ended or is parked, or its state after `wait`.
    pub(crate) async fn wait_for_operation(
        &self,
        id: &OperationId,
        wait: Duration,
    ) -> Result<Operation, ApiError> {
        let until = self.app.clock.monotonic().after(wait);
        Ok(self.app.manager.rested(id, until).await?)
    }

    /// Returns the response to an accepted request: 202 with the operation, or 200 if it ends or is parked within `wait`.
    /// For a rollout, returns 202 with the rollout; for other requests, 204.
    pub(crate) async fn accepted_response(
        &self,
        accepted: Accepted,
        wait: Option<Duration>,
    ) -> Result<Response, ApiError> {
        match accepted {
            Accepted::Operation(id) => {
                let operation = self.wait_for_operation(&id, wait.unwrap_or(Duration::ZERO)).await?;
                let rests = wait.is_some() && operation.state.status.is_settled();
                Ok(operation_response(if rests { StatusCode::OK } else { StatusCode::ACCEPTED }, &operation))
            }
            Accepted::Rollout(number) => self.rollout_response(number).await,
            Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => {
                Ok(StatusCode::NO_CONTENT.into_response())
            }
        }
    }

    async fn rollout_response(&self, number: u64) -> Result<Response, ApiError> {
        let rollout = self.app.manager.get_rollout(number).await?;
        let body = api::rollout::Rollout::new(&rollout, self.image(rollout.spec.digest));
        let location = format!("/rollouts/{}", body.id);
        Ok(with_location(StatusCode::ACCEPTED, &location, Json(body)))
    }
}

/// Returns a response with the operation and its `Location`.
pub(crate) fn operation_response(status: StatusCode, operation: &Operation) -> Response {
    let body = api::operation::Operation::from(operation);
    let location = format!("/operations/{}", body.id);
    with_location(status, &location, Json(body))
}

/// Returns a response with a `Location` header.
pub(crate) fn with_location(status: StatusCode, location: &str, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// Marks a response that contains a secret, so that no cache stores it.
pub(crate) fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

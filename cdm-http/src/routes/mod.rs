//! The routes: what is asked of the services, and how the answer is put.

pub(crate) mod events;
pub(crate) mod freezes;
pub(crate) mod operations;
pub(crate) mod rollouts;
pub(crate) mod services;
pub(crate) mod sites;
pub(crate) mod system;
pub(crate) mod tokens;
pub(crate) mod users;
pub(crate) mod webhooks;

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cdm_core::domain::{Operation, OperationId};
use cdm_core::manager::Accepted;

use crate::api;
use crate::app::Server;
use crate::error::Refusal;

/// How long a request that is usually done at once is waited for.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(10);

impl Server {
    /// The operation once it rests, or after the span.
    pub(crate) async fn rested(&self, id: &OperationId, span: Duration) -> Result<Operation, Refusal> {
        let until = self.app.clock.monotonic().after(span);
        Ok(self.app.manager.rested(id, until).await?)
    }

    /// 202 with the operation; 200 once it rests, where that is waited for.
    pub(crate) async fn answer(
        &self,
        accepted: Accepted,
        wait: Option<Duration>,
    ) -> Result<Response, Refusal> {
        match accepted {
            Accepted::Operation(id) => {
                let operation = self.rested(&id, wait.unwrap_or(Duration::ZERO)).await?;
                let rests = wait.is_some() && operation.state.status.rests();
                Ok(told(if rests { StatusCode::OK } else { StatusCode::ACCEPTED }, &operation))
            }
            Accepted::Rollout(number) => self.rollout(number).await,
            Accepted::Freeze(_) | Accepted::Webhook(_) | Accepted::Done => {
                Ok(StatusCode::NO_CONTENT.into_response())
            }
        }
    }

    /// 202 with the rollout.
    pub(crate) async fn rollout(&self, number: u64) -> Result<Response, Refusal> {
        let rollout = self.app.manager.get_rollout(number).await?;
        let shown = api::rollout::Rollout::new(&rollout, self.image(rollout.digest));
        let location = format!("/rollouts/{}", shown.id);
        Ok(located(StatusCode::ACCEPTED, &location, Json(shown)))
    }
}

/// An operation with its place.
pub(crate) fn told(status: StatusCode, operation: &Operation) -> Response {
    let shown = api::operation::Operation::from(operation);
    let location = format!("/operations/{}", shown.id);
    located(status, &location, Json(shown))
}

pub(crate) fn located(status: StatusCode, location: &str, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// An answer with a secret, which nobody on its way is to keep.
pub(crate) fn once(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

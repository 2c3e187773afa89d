//! Operations: the list, the page of an operation with its steps, the logs of jobs, and retry and cancel.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::{self, OperationId};
use cdm_core::manager::{Accepted, Action, ManagerError, Work};

use super::confirm::{Confirmation, confirmation_error, confirmation_page};
use super::controls::Controls;
use super::form::Form;
use super::format::{self, Now};
use super::page::{Section, View, live, render};
use super::rollouts::{force_field, force_of};
use super::session::{CurrentUser, PageRequest};
use super::{Filter, Pager};
use crate::api::RolloutId;
use crate::api::operation::{Operation, OperationKind, OperationStatus};
use crate::app::SharedState;
use crate::error::ApiError;
use crate::extract::PathSegment;
use crate::routes::operations::{OperationFilter, listed};

const PATH: &str = "/console/operations";

#[derive(Template)]
#[template(path = "operations_head.html")]
struct Head<'a> {
    filter: &'a OperationFilter,
    kinds: &'static [OperationKind],
    statuses: &'static [OperationStatus],
}

#[derive(Template)]
#[template(path = "operations.html")]
struct Table {
    items: Vec<Operation>,
    pager: Pager,
    now: Now,
}

fn pager(filter: &OperationFilter, next: Option<&str>) -> Pager {
    let OperationFilter { site, kind, status, rollout, limit, cursor } = filter;
    let filter = [
        ("site", site.as_deref()),
        ("kind", kind.as_ref().map(OperationKind::as_str)),
        ("status", status.as_ref().map(OperationStatus::as_str)),
        ("rollout", rollout.as_ref().map(RolloutId::as_str)),
    ];
    Pager::new(PATH, &filter, limit.as_deref(), (cursor.as_deref(), next))
}

pub(crate) async fn list(
    State(server): State<SharedState>,
    request: PageRequest,
    Filter(filter): Filter<OperationFilter>,
) -> Result<Response, ApiError> {
    live(
        server,
        request,
        |event| event.operation.is_some(),
        move |server, _| {
            let filter = filter.clone();
            async move {
                let page = listed(&server, &filter).await?;
                let (kinds, statuses) = (OperationKind::ALL, OperationStatus::ALL);
                let now = Now(server.app.clock.wall());
                Ok(View {
                    title: "Operations".to_owned(),
                    section: Section::Operations,
                    head: render(&Head { filter: &filter, kinds, statuses })?,
                    body: render(&Table {
                        pager: pager(&filter, page.next.as_deref()),
                        items: page.items,
                        now,
                    })?,
                })
            }
        },
    )
    .await
}

pub(crate) fn page_url(id: &str) -> String {
    format!("{PATH}/{id}")
}

#[derive(Template)]
#[template(path = "operation_panel.html")]
struct Panel<'a> {
    operation: &'a Operation,
    can_retry: bool,
    can_cancel: bool,
    /// Names the controls that the user's role does not permit.
    role_note: Option<String>,
    csrf: &'a str,
    now: Now,
}

/// Renders an operation with its steps and controls.
pub(crate) fn panel(current_user: &CurrentUser, operation: &Operation, now: Now) -> Result<String, ApiError> {
    let (kind, standalone) = (operation.kind.known(), operation.rollout.is_none());
    let role = |action: Action| kind.map_or(action.role(), |kind| action.role_on(Work::Operation(kind)));
    let mut controls = Controls::for_user(current_user);
    let retries = standalone
        && matches!(
            operation.status,
            OperationStatus::Parked | OperationStatus::Failed | OperationStatus::Cancelled
        )
        && kind != Some(domain::OperationKind::Select);
    let cancels = standalone
        && matches!(
            operation.status,
            OperationStatus::Queued
                | OperationStatus::Running
                | OperationStatus::Waiting
                | OperationStatus::Parked
        );
    render(&Panel {
        operation,
        can_retry: retries && controls.permits("Retry", role(Action::RetryOperation)),
        can_cancel: cancels && controls.permits("Cancel", role(Action::CancelOperation)),
        role_note: controls.role_note(),
        csrf: &current_user.csrf,
        now,
    })
}

pub(crate) async fn show(
    State(server): State<SharedState>,
    request: PageRequest,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = OperationId::from_segment(&id)?;
    let shown = id.clone();
    let affects = move |event: &cdm_core::ports::FeedEvent| event.operation.as_ref() == Some(&shown);
    live(server, request, affects, move |server, current_user| {
        let id = id.clone();
        async move {
            let operation = Operation::from(&server.app.manager.operation(&id).await?);
            let now = Now(server.app.clock.wall());
            let head = format!(
                "<h1><span class=\"quiet\">{}</span> {}</h1>",
                format::escape(operation.kind.as_str()),
                format::escape(operation.id.as_str())
            );
            let body = panel(&current_user, &operation, now)?;
            Ok(View { title: operation.id.to_string(), section: Section::Operations, head, body })
        }
    })
    .await
}

#[derive(Template)]
#[template(path = "log.html")]
struct Log<'a> {
    log: &'a str,
}

/// Shows the log of a step's job.
pub(crate) async fn log(
    State(server): State<SharedState>,
    request: PageRequest,
    Path((id, step)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let id = OperationId::from_segment(&id)?;
    live(
        server,
        request,
        |_| false,
        move |server, _| {
            let (id, step) = (id.clone(), step.clone());
            async move {
                let log = server.app.manager.step_log(&id, &step).await?.unwrap_or_default();
                let (name, url) = (format::escape(&step), page_url(&format::escape(&id.to_string())));
                let head = format!("<h1>Log of {name}</h1><p><a href=\"{url}\">{id}</a></p>");
                Ok(View {
                    title: format!("Log of {step}"),
                    section: Section::Operations,
                    head,
                    body: render(&Log { log: &log })?,
                })
            }
        },
    )
    .await
}

/// Returns the confirmation of a retry that deploys a bad digest; `reason` states why the digest is bad.
fn retry_confirmation(id: &OperationId, reason: &str) -> Confirmation {
    Confirmation {
        title: "Deploy a bad digest again?".to_owned(),
        lines: vec![format!("{}.", reason.trim_end_matches('.'))],
        fields: vec![force_field("Deploy the digest anyway")],
        button: "Retry the deploy".to_owned(),
        danger: true,
        action: format!("{PATH}/{id}/retry"),
        back: page_url(&id.to_string()),
        ..Confirmation::default()
    }
}

fn cancel_confirmation(id: &OperationId) -> Confirmation {
    Confirmation {
        title: format!("Cancel {id}?"),
        lines: vec![
            "The operation stops after its current step. Completed steps are undone where possible: a promote first moves the route back; a provision keeps what it created, and the next provision uses it.".to_owned(),
            "A terminate cannot be canceled after it has removed the route.".to_owned(),
        ],
        button: "Cancel the operation".to_owned(),
        danger: true,
        action: format!("{PATH}/{id}/cancel"),
        back: page_url(&id.to_string()),
        ..Confirmation::default()
    }
}

/// Shows the confirmation page of a cancellation.
pub(crate) async fn confirm(
    State(server): State<SharedState>,
    request: PageRequest,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let id = OperationId::from_segment(&id)?;
    if action != "cancel" {
        return Err(ApiError::not_found("the page"));
    }
    server.app.manager.operation(&id).await?;
    confirmation_page(
        &server,
        &request.current_user,
        Section::Operations,
        StatusCode::OK,
        &cancel_confirmation(&id),
    )
}

/// Retries or cancels an operation, and redirects to the page of the operation.
pub(crate) async fn submit(
    State(server): State<SharedState>,
    Path((id, action)): Path<(String, String)>,
    form: Form,
) -> Result<Response, ApiError> {
    let id = OperationId::from_segment(&id)?;
    let (current_user, request) = form.authenticated_request()?;
    let manager = &server.app.manager;
    let result = match action.as_str() {
        "retry" => manager.retry_with(&request, &id, force_of(&form)).await,
        "cancel" => manager.cancel(&request, &id).await,
        _ => return Err(ApiError::not_found("the page")),
    };
    match result {
        Ok(Accepted::Operation(operation)) => {
            Ok(Redirect::to(&page_url(&operation.to_string())).into_response())
        }
        Ok(_) => Ok(Redirect::to(&page_url(&id.to_string())).into_response()),
        Err(error @ ManagerError::BadDigest { .. }) => {
            let confirmation = retry_confirmation(&id, &error.to_string());
            confirmation_error(&server, &current_user, Section::Operations, confirmation, error.into())
        }
        Err(error) if action == "cancel" => confirmation_error(
            &server,
            &current_user,
            Section::Operations,
            cancel_confirmation(&id),
            error.into(),
        ),
        Err(error) => Err(error.into()),
    }
}

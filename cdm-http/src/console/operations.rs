//! Operations: what runs, what waits and why, what is parked and what would clear it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::{OperationId, OperationKind};
use cdm_core::manager::{Accepted, Action, ManagerError, Work};

use super::confirm::{Question, asked, asked_again};
use super::form::Form;
use super::guard::{Visit, Visitor};
use super::offers::Offers;
use super::page::{Section, View, live, rendered};
use super::rollouts::{insist, insists};
use super::shape::{self, Now};
use super::{Filter, Pager};
use crate::api::operation::Operation;
use crate::api::words::STATUSES;
use crate::app::Shared;
use crate::error::Refusal;
use crate::input::Named;
use crate::routes::operations::{OperationFilter, listed};

const PATH: &str = "/console/operations";

#[derive(Template)]
#[template(path = "operations_head.html")]
struct Head<'a> {
    filter: &'a OperationFilter,
    kinds: Vec<&'static str>,
    statuses: Vec<&'static str>,
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
    let filter = [("site", site), ("kind", kind), ("status", status), ("rollout", rollout)];
    Pager::new(PATH, &filter, limit.as_deref(), (cursor.as_deref(), next))
}

/// Lists operations.
pub(crate) async fn list(
    State(server): State<Shared>,
    visit: Visit,
    Filter(filter): Filter<OperationFilter>,
) -> Result<Response, Refusal> {
    live(
        server,
        visit,
        |event| event.operation.is_some(),
        move |server, _| {
            let filter = filter.clone();
            async move {
                let page = listed(&server, &filter).await?;
                let kinds = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
                let statuses = STATUSES.iter().map(|status| status.as_str()).collect();
                let now = Now(server.app.clock.wall());
                Ok(View {
                    title: "Operations".to_owned(),
                    section: Section::Operations,
                    head: rendered(&Head { filter: &filter, kinds, statuses })?,
                    body: rendered(&Table {
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

/// Where one reads of an operation.
pub(crate) fn place(id: &str) -> String {
    format!("{PATH}/{id}")
}

#[derive(Template)]
#[template(path = "operation_panel.html")]
struct Panel<'a> {
    operation: &'a Operation,
    can_retry: bool,
    can_cancel: bool,
    /// Why it cannot be asked for either.
    why: Option<String>,
    csrf: &'a str,
    now: Now,
}

/// An operation with every step, and what can be asked of it.
pub(crate) fn panel(visitor: &Visitor, operation: &Operation, now: Now) -> Result<String, Refusal> {
    let (status, own) = (operation.status.as_str(), operation.rollout.is_none());
    let kind = OperationKind::ALL.into_iter().find(|kind| kind.as_str() == operation.kind);
    let role = |action: Action| kind.map_or(action.role(), |kind| action.role_on(Work::Operation(kind)));
    let mut offers = Offers::to(visitor);
    let retries =
        own && matches!(status, "parked" | "failed" | "cancelled") && kind != Some(OperationKind::Select);
    let cancels = own && matches!(status, "queued" | "running" | "waiting" | "parked");
    rendered(&Panel {
        operation,
        can_retry: retries && offers.offer("Retry", role(Action::RetryOperation)),
        can_cancel: cancels && offers.offer("Cancel", role(Action::CancelOperation)),
        why: offers.why(),
        csrf: &visitor.csrf,
        now,
    })
}

/// Shows an operation.
pub(crate) async fn show(
    State(server): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id = OperationId::named(&id)?;
    let about = id.clone();
    let of_it = move |event: &cdm_core::ports::FeedEvent| event.operation.as_ref() == Some(&about);
    live(server, visit, of_it, move |server, visitor| {
        let id = id.clone();
        async move {
            let operation = Operation::from(&server.app.manager.operation(&id).await?);
            let now = Now(server.app.clock.wall());
            let head = format!(
                "<h1><span class=\"quiet\">{}</span> {}</h1>",
                shape::escaped(&operation.kind),
                shape::escaped(&operation.id)
            );
            let body = panel(&visitor, &operation, now)?;
            Ok(View { title: operation.id.clone(), section: Section::Operations, head, body })
        }
    })
    .await
}

#[derive(Template)]
#[template(path = "log.html")]
struct Log<'a> {
    log: &'a str,
}

/// Shows what a step's job printed.
pub(crate) async fn log(
    State(server): State<Shared>,
    visit: Visit,
    Path((id, step)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let id = OperationId::named(&id)?;
    live(
        server,
        visit,
        |_| false,
        move |server, _| {
            let (id, step) = (id.clone(), step.clone());
            async move {
                let log = server.app.manager.step_log(&id, &step).await?.unwrap_or_default();
                let (name, place) = (shape::escaped(&step), place(&shape::escaped(&id.to_string())));
                let head = format!("<h1>Log of {name}</h1><p><a href=\"{place}\">{id}</a></p>");
                Ok(View {
                    title: format!("Log of {step}"),
                    section: Section::Operations,
                    head,
                    body: rendered(&Log { log: &log })?,
                })
            }
        },
    )
    .await
}

fn deploy_again(id: &OperationId, why: &str) -> Question {
    Question {
        title: "Deploy a bad digest again?".to_owned(),
        lines: vec![format!("{}.", why.trim_end_matches('.'))],
        fields: vec![insist("Deploy it all the same")],
        button: "Retry the deploy".to_owned(),
        danger: true,
        action: format!("{PATH}/{id}/retry"),
        back: place(&id.to_string()),
        ..Question::default()
    }
}

fn question(id: &OperationId) -> Question {
    Question {
        title: format!("Cancel {id}?"),
        lines: vec![
            "It stops at the end of its present step. What it did is undone where it can be: a promote moves the route back first, a provision leaves what it made for the next one.".to_owned(),
            "A terminate whose route is gone cannot be cancelled any more.".to_owned(),
        ],
        button: "Cancel the operation".to_owned(),
        danger: true,
        action: format!("{PATH}/{id}/cancel"),
        back: place(&id.to_string()),
        ..Question::default()
    }
}

/// Says what a cancellation does.
pub(crate) async fn ask(
    State(server): State<Shared>,
    visit: Visit,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let id = OperationId::named(&id)?;
    if action != "cancel" {
        return Err(Refusal::not_found("the page"));
    }
    server.app.manager.operation(&id).await?;
    asked(&server, &visit.visitor, Section::Operations, StatusCode::OK, &question(&id))
}

/// Retries or cancels.
pub(crate) async fn act(
    State(server): State<Shared>,
    Path((id, action)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Refusal> {
    let id = OperationId::named(&id)?;
    let (visitor, request) = form.asks()?;
    let services = &server.app.manager;
    let done = match action.as_str() {
        "retry" => services.retry_with(&request, &id, insists(&form)).await,
        "cancel" => services.cancel(&request, &id).await,
        _ => return Err(Refusal::not_found("the page")),
    };
    match done {
        Ok(Accepted::Operation(operation)) => {
            Ok(Redirect::to(&place(&operation.to_string())).into_response())
        }
        Ok(_) => Ok(Redirect::to(&place(&id.to_string())).into_response()),
        Err(error @ ManagerError::BadDigest { .. }) => {
            let question = deploy_again(&id, &error.to_string());
            asked_again(&server, &visitor, Section::Operations, question, error.into())
        }
        Err(error) if action == "cancel" => {
            asked_again(&server, &visitor, Section::Operations, question(&id), error.into())
        }
        Err(error) => Err(error.into()),
    }
}

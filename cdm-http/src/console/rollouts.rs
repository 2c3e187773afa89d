//! Rollouts: the list, the page of a rollout with its progress and failures, and pause, resume, abort and retry.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::operation::OperationParent;
use cdm_core::manager::{Accepted, Action, Force, ManagerError, Resume, Work};
use cdm_core::ports::FeedEvent;
use serde::Deserialize;

use super::chart::chart;
use super::confirm::{Confirmation, Field, FieldKind, confirmation_error, confirmation_page};
use super::controls::Controls;
use super::form::Form;
use super::format::{self, Now};
use super::page::{Section, View, live, render};
use super::session::{CurrentUser, PageRequest};
use super::{Filter, Pager};
use crate::api::rollout::{Rollout, RolloutStatus, Scope, ScopeName};
use crate::api::services::digest_of;
use crate::api::{RolloutId, SiteId};
use crate::app::{AppState, SharedState};
use crate::error::ApiError;
use crate::extract::{Numbered, Paging, PathSegment, cursor};
use crate::routes::rollouts::shown;

pub(crate) const PATH: &str = "/console/rollouts";
/// The number of rollouts per page of the list, as a query parameter.
const LIMIT: &str = "50";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "rollouts.html")]
struct Table {
    items: Vec<Rollout>,
    pager: Pager,
    now: Now,
}

fn is_rollout_event(event: &FeedEvent) -> bool {
    let parent = event.operation.as_ref().map(|id| &id.parent);
    event.rollout.is_some() || matches!(parent, Some(OperationParent::Rollout(..)))
}

pub(crate) async fn list(
    State(server): State<SharedState>,
    request: PageRequest,
    Filter(query): Filter<ListQuery>,
) -> Result<Response, ApiError> {
    live(server, request, is_rollout_event, move |server, current_user| {
        let query = query.clone();
        async move {
            let paging = Paging::new('r', Some(LIMIT), query.cursor.as_deref())?;
            let page = server.app.manager.rollouts(paging.position()?, paging.limit).await?;
            let next = page.next.map(|next| cursor('r', next));
            let body = Table {
                items: page.items.iter().map(|rollout| shown(&server, rollout)).collect(),
                pager: Pager::new(PATH, &[], None, (query.cursor.as_deref(), next.as_deref())),
                now: Now(server.app.clock.wall()),
            };
            let start = if current_user.can(Action::StartRollout) {
                "<a class=\"button main\" href=\"/console/rollouts/start\">Start a rollout</a>"
            } else {
                ""
            };
            Ok(View {
                title: "Rollouts".to_owned(),
                section: Section::Rollouts,
                head: format!("<div class=\"headline\"><h1>Rollouts</h1>{start}</div>"),
                body: render(&body)?,
            })
        }
    })
    .await
}

#[derive(Template)]
#[template(path = "rollout.html")]
struct RolloutBody<'a> {
    rollout: &'a Rollout,
    scope: String,
    /// The chart as an SVG element.
    chart: String,
    rate: Option<String>,
    can: AllowedActions,
    /// The digest that the target service runs, if the rollout has stopped because of it.
    changed: Option<String>,
    /// Names the controls that the user's role does not permit.
    role_note: Option<String>,
    csrf: &'a str,
    now: Now,
}

/// The actions that the rollout's status and the user's role permit.
#[derive(Clone, Copy, Debug)]
struct AllowedActions {
    pause: bool,
    resume: bool,
    abort: bool,
    retry: bool,
}

impl AllowedActions {
    /// `retry` is the work that a retry would do, on which the required role depends.
    fn of(controls: &mut Controls, rollout: &Rollout, retry: Work) -> Self {
        let has_unfinished = rollout.counts.failed + rollout.counts.skipped + rollout.counts.parked > 0;
        use RolloutStatus::{Aborted, Failed, Halted, Paused, Running, Succeeded, Waiting};
        let mut permits = |label, statuses: &[RolloutStatus], required| {
            statuses.contains(&rollout.status) && controls.permits(label, required)
        };
        Self {
            pause: permits("Pause", &[Running, Waiting], Action::PauseRollout.role()),
            resume: (format::needs_operator(rollout) || rollout.status != Waiting)
                && permits("Resume", &[Paused, Halted, Waiting], Action::ResumeRollout.role()),
            abort: permits("Abort", &[Running, Waiting, Paused, Halted], Action::AbortRollout.role()),
            retry: has_unfinished
                && permits("Retry", &[Aborted, Succeeded, Failed], Action::RetryRollout.role_on(retry)),
        }
    }
}

/// Describes the sites of a rollout.
fn scope(rollout: &Rollout) -> String {
    match &rollout.scope {
        Scope::Named(ScopeName::Active) => "the sites on the active canary".to_owned(),
        Scope::Named(ScopeName::Inactive) => "the sites on the other service".to_owned(),
        Scope::Named(ScopeName::All) => "all sites".to_owned(),
        Scope::Named(service @ (ScopeName::Blue | ScopeName::Green | ScopeName::Other(_))) => {
            format!("the sites on {service}")
        }
        Scope::Sites(named) if named.sites.len() <= 5 => {
            named.sites.iter().map(SiteId::as_str).collect::<Vec<_>>().join(", ")
        }
        Scope::Sites(named) => format::count_of(named.sites.len(), "site by id", "sites by id"),
    }
}

pub(crate) async fn show(
    State(server): State<SharedState>,
    request: PageRequest,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let number = Numbered::<RolloutId>::from_segment(&id)?.number;
    let affects = move |event: &FeedEvent| {
        let parent = event.operation.as_ref().map(|id| &id.parent);
        event.rollout == Some(number)
            || matches!(parent, Some(OperationParent::Rollout(of, _)) if *of == number)
    };
    live(server, request, affects, move |server, current_user| async move {
        view(&server, &current_user, number).await
    })
    .await
}

async fn view(server: &AppState, current_user: &CurrentUser, number: u64) -> Result<View, ApiError> {
    let stored = server.app.manager.get_rollout(number).await?;
    let rollout = shown(server, &stored);
    let wall = server.app.clock.wall();
    let retry =
        if stored.status.ended() { server.app.manager.retry_work(&stored).await? } else { Work::Moves };
    let mut controls = Controls::for_user(current_user);
    let can = AllowedActions::of(&mut controls, &rollout, retry);
    let body = RolloutBody {
        scope: scope(&rollout),
        chart: chart(&stored, wall),
        rate: rate(&stored),
        can,
        changed: if format::needs_operator(&rollout) { changed_digest(server, &stored).await } else { None },
        role_note: controls.role_note(),
        csrf: &current_user.csrf,
        now: Now(wall),
        rollout: &rollout,
    };
    Ok(View {
        title: rollout.id.to_string(),
        section: Section::Rollouts,
        head: format!("<h1><span class=\"quiet\">{}</span> {}</h1>", rollout.kind, rollout.id),
        body: render(&body)?,
    })
}

/// Returns the rate of a running rollout, over its last samples.
fn rate(rollout: &cdm_core::domain::Rollout) -> Option<String> {
    let last =
        rollout.samples.last().filter(|_| rollout.status == cdm_core::domain::RolloutStatus::Running)?;
    let before = rollout.samples.iter().rev().nth(3).or(rollout.samples.first())?;
    let done = (last.succeeded + last.failed).checked_sub(before.succeeded + before.failed)?;
    let seconds = last.at.since(before.at).as_secs_f64();
    (done > 0 && seconds > 0.0).then(|| {
        let rate = f64::from(done) / seconds;
        if rate >= 10.0 { format!("{rate:.0} sites a second") } else { format!("{rate:.1} sites a second") }
    })
}

/// Returns the digest that the target service runs, if it is not the rollout's digest.
async fn changed_digest(server: &AppState, stored: &cdm_core::domain::Rollout) -> Option<String> {
    server.app.manager.conflicting_digest(stored).await.map(|digest| digest.to_string())
}

/// Returns the confirmation of a resume. If the target service runs another digest than the rollout's, the confirmation
/// names both digests.
async fn resume_confirmation(server: &AppState, number: u64) -> Result<Confirmation, ApiError> {
    let stored = server.app.manager.get_rollout(number).await?;
    let rollout = shown(server, &stored);
    let id = &rollout.id;
    let remaining = u64::from(rollout.counts.pending + rollout.counts.running);
    let remaining = format::count_of(remaining, "site remains", "sites remain");
    let mut confirmation = Confirmation {
        title: format!("Resume {id}?"),
        lines: vec![format!("{remaining} to be moved to {}.", rollout.service)],
        button: "Resume the rollout".to_owned(),
        action: format!("{PATH}/{id}/resume"),
        back: format!("{PATH}/{id}"),
        ..Confirmation::default()
    };
    let Some(running) = server.app.manager.conflicting_digest(&stored).await else { return Ok(confirmation) };
    let own = stored.wanted().map(|digest| digest.to_string()).unwrap_or_default();
    confirmation.title = format!("Resume {id} on another digest?");
    confirmation.lines = vec![
        format!(
            "{service} runs {running}. The rollout is for {own}, which {service} no longer runs.",
            service = rollout.service
        ),
        format!(
            "{remaining} to be moved, which would move to {running}. The results of the health checks would count for that digest."
        ),
        format!("To continue with {own} instead, deploy {own} again. Or abort the rollout."),
    ];
    confirmation.fields = vec![Field {
        name: "acceptDigest",
        label: "Running digest".to_owned(),
        kind: FieldKind::Fixed,
        value: running.to_string(),
        required: true,
        ..Field::default()
    }];
    if let Some(reason) = server.app.manager.why_bad(running).await? {
        confirmation.warnings = vec![format!("{running} is bad: {reason}")];
        confirmation.fields.push(force_field("Move sites to this bad digest (requires the role admin)"));
        confirmation.danger = true;
    }
    confirmation.button = "Resume on this digest".to_owned();
    Ok(confirmation)
}

/// Returns the checkbox that confirms the use of a bad digest.
pub(crate) fn force_field(label: &str) -> Field {
    Field { name: "force", label: label.to_owned(), kind: FieldKind::Check, ..Field::default() }
}

/// Returns whether the form confirms the use of a bad digest.
pub(crate) fn force_of(form: &Form) -> Force {
    if form.optional("force").is_some() { Force::Yes } else { Force::No }
}

/// Returns the confirmation of a retry that moves sites to a bad digest; `reason` states why the digest is bad.
fn retry_confirmation(id: &str, reason: &str) -> Confirmation {
    Confirmation {
        title: format!("Retry {id} on a bad digest?"),
        lines: vec![format!("{}.", reason.trim_end_matches('.'))],
        fields: vec![force_field("Move sites to the digest anyway (requires the role admin)")],
        button: "Retry the rollout".to_owned(),
        danger: true,
        action: format!("{PATH}/{id}/retry"),
        back: format!("{PATH}/{id}"),
        ..Confirmation::default()
    }
}

fn abort_confirmation(id: &str, rollout: &Rollout) -> Confirmation {
    let remaining = u64::from(rollout.counts.pending + rollout.counts.running);
    let moved = format::count_of(rollout.counts.succeeded, "site has", "sites have");
    Confirmation {
        title: format!("Abort {id}?"),
        lines: vec![
            format!(
                "The rollout stops permanently once no site is in progress; {}.",
                format::count_of(remaining, "site stays where it is", "sites stay where they are")
            ),
            format!(
                "{moved} succeeded and will not be moved back. An aborted rollout cannot be resumed, but can be retried."
            ),
        ],
        button: "Abort the rollout".to_owned(),
        danger: true,
        action: format!("{PATH}/{id}/abort"),
        back: format!("{PATH}/{id}"),
        ..Confirmation::default()
    }
}

/// Shows the confirmation page of an abort or a resume.
pub(crate) async fn confirm(
    State(server): State<SharedState>,
    request: PageRequest,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let number = Numbered::<RolloutId>::from_segment(&id)?.number;
    match action.as_str() {
        "abort" => {}
        "resume" => {
            let confirmation = resume_confirmation(&server, number).await?;
            return confirmation_page(
                &server,
                &request.current_user,
                Section::Rollouts,
                StatusCode::OK,
                &confirmation,
            );
        }
        _ => return Err(ApiError::not_found("the page")),
    }
    let rollout = shown(&server, &server.app.manager.get_rollout(number).await?);
    confirmation_page(
        &server,
        &request.current_user,
        Section::Rollouts,
        StatusCode::OK,
        &abort_confirmation(&id, &rollout),
    )
}

/// Pauses, resumes, aborts or retries a rollout, and redirects to the page of the rollout.
pub(crate) async fn submit(
    State(server): State<SharedState>,
    Path((id, action)): Path<(String, String)>,
    form: Form,
) -> Result<Response, ApiError> {
    let number = Numbered::<RolloutId>::from_segment(&id)?.number;
    let (current_user, request) = form.authenticated_request()?;
    let manager = &server.app.manager;
    let result = match action.as_str() {
        "pause" => manager.pause(&request, number).await,
        "resume" => {
            let accept = form
                .optional("acceptDigest")
                .map(|text| digest_of("acceptDigest", text, server.repository()));
            let accept = accept.transpose()?;
            manager.resume_on(&request, number, Resume { accept, force: force_of(&form) }).await
        }
        "abort" => manager.abort(&request, number).await,
        "retry" => manager.retry_rollout_with(&request, number, force_of(&form)).await,
        _ => return Err(ApiError::not_found("the page")),
    };
    match result {
        Ok(Accepted::Rollout(other)) => {
            Ok(Redirect::to(&format!("{PATH}/{}", RolloutId::from_number(other))).into_response())
        }
        Ok(_) => Ok(Redirect::to(&format!("{PATH}/{id}")).into_response()),
        Err(error) if action == "abort" => {
            let rollout = shown(&server, &manager.get_rollout(number).await?);
            confirmation_error(
                &server,
                &current_user,
                Section::Rollouts,
                abort_confirmation(&id, &rollout),
                error.into(),
            )
        }
        Err(error @ (ManagerError::DigestChanged { .. } | ManagerError::BadDigest { .. }))
            if action == "resume" =>
        {
            let confirmation = resume_confirmation(&server, number).await?;
            confirmation_error(&server, &current_user, Section::Rollouts, confirmation, error.into())
        }
        Err(error @ ManagerError::BadDigest { .. }) => {
            let confirmation = retry_confirmation(&id, &error.to_string());
            confirmation_error(&server, &current_user, Section::Rollouts, confirmation, error.into())
        }
        Err(error) => Err(error.into()),
    }
}

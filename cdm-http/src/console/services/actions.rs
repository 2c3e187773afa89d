//! Select, deploy, roll back and mark: for each action a confirmation page and the submission of its form.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::{Color, Digest};
use cdm_core::manager::{Accepted, DeployRequest, ManagerError, ServiceStatus};

use super::PATH;
use crate::api::services::{MarkVerdict, digest};
use crate::app::{AppState, SharedState};
use crate::console::confirm::{Confirmation, Field, FieldKind, confirmation_error, confirmation_page};
use crate::console::form::Form;
use crate::console::page::Section;
use crate::console::session::PageRequest;
use crate::console::{format, operations};
use crate::error::ApiError;
use crate::extract::{PathSegment, parse_field};
use crate::routes::services::reason;

/// Returns the image that a service runs, as text for a sentence.
fn image(server: &AppState, service: &ServiceStatus) -> String {
    server.image(service.view.digest).unwrap_or_else(|| "no image with a known digest".to_owned())
}

fn sites(number: u64) -> String {
    format::count_of(number, "site", "sites")
}

/// Returns a confirmation with the URLs of an action on a service.
fn base_confirmation(color: Color, action: &str) -> Confirmation {
    Confirmation {
        action: format!("{PATH}/{color}/{action}"),
        back: PATH.to_owned(),
        ..Confirmation::default()
    }
}

async fn select_confirmation(server: &AppState, color: Color) -> Result<Confirmation, ApiError> {
    let fleet = server.app.manager.services().await?;
    let (service, other) = (fleet.service(color), fleet.service(color.other()));
    let image = image(server, service);
    let mut warnings = Vec::new();
    if !service.view.is_ready() {
        warnings.push(format!("{color} is not ready: moves to {color} would wait."));
    }
    Ok(Confirmation {
        title: format!("Make {color} the active canary?"),
        lines: vec![
            format!(
                "From then on, promotes, upgrades, deploys and new sites use {color}. {color} runs {image}."
            ),
            format!(
                "No site moves: {} on {color} and {} on {} stay where they are.",
                sites(service.sites),
                sites(other.sites),
                color.other()
            ),
        ],
        warnings,
        button: format!("Select {color}"),
        ..base_confirmation(color, "select")
    })
}

/// Shows the confirmation page of a selection.
pub(crate) async fn confirm_select(
    State(server): State<SharedState>,
    request: PageRequest,
    Path(color): Path<String>,
) -> Result<Response, ApiError> {
    let color = Color::from_segment(&color)?;
    let confirmation = select_confirmation(&server, color).await?;
    confirmation_page(&server, &request.current_user, Section::Services, StatusCode::OK, &confirmation)
}

/// Selects a service as the active canary, and redirects to the services page.
pub(crate) async fn select(
    State(server): State<SharedState>,
    Path(color): Path<String>,
    form: Form,
) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    let color = Color::from_segment(&color)?;
    match server.app.manager.select(&request, color).await {
        Ok(selected) => {
            if let Some(operation) = selected.operation {
                server.wait_for_operation(&operation, crate::routes::response::DEFAULT_WAIT).await?;
            }
            Ok(Redirect::to(PATH).into_response())
        }
        Err(error) => {
            let confirmation = select_confirmation(&server, color).await?;
            confirmation_error(&server, &current_user, Section::Services, confirmation, error.into())
        }
    }
}

async fn deploy_confirmation(
    server: &AppState,
    color: Color,
    form: Option<&Form>,
) -> Result<Confirmation, ApiError> {
    let fleet = server.app.manager.services().await?;
    let service = fleet.service(color);
    let canary = if fleet.canary == color { "the active canary" } else { "not the active canary" };
    let image = image(server, service);
    let text = |name| form.map_or("", |form| form.text(name)).to_owned();
    Ok(Confirmation {
        title: format!("Deploy an image to {color}"),
        lines: vec![
            format!("{color} is {canary}, serves {} and runs {image}.", sites(service.sites)),
            "The Deployment replaces its pods by its update strategy. The new image serves the sites as pods become ready; then the caches of the sites are flushed.".to_owned(),
            "An image that does not become ready is rolled back: the previous pods keep serving.".to_owned(),
        ],
        fields: vec![
            Field {
                name: "imageTag",
                label: "Digest".to_owned(),
                hint: "64 hexadecimal digits, optionally with sha256: and the repository in front.".to_owned(),
                kind: FieldKind::Code,
                value: text("imageTag"),
                required: true,
                ..Field::default()
            },
            Field {
                name: "promote",
                label: format!("Also route those of the {} of {color} that are routed elsewhere to {color}", sites(service.sites)),
                kind: FieldKind::Check,
                value: text("promote"),
                ..Field::default()
            },
        ],
        button: format!("Deploy to {color}"),
        ..base_confirmation(color, "deploy")
    })
}

pub(crate) async fn deploy_form(
    State(server): State<SharedState>,
    request: PageRequest,
    Path(color): Path<String>,
) -> Result<Response, ApiError> {
    let color = Color::from_segment(&color)?;
    let confirmation = deploy_confirmation(&server, color, None).await?;
    confirmation_page(&server, &request.current_user, Section::Services, StatusCode::OK, &confirmation)
}

/// Deploys an image, and redirects to the page of the operation.
pub(crate) async fn deploy(
    State(server): State<SharedState>,
    Path(color): Path<String>,
    form: Form,
) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    let color = Color::from_segment(&color)?;
    let result = match digest(form.text("imageTag"), server.repository()) {
        Ok(digest) => {
            let promote = form.optional("promote").is_some();
            let deploy = DeployRequest { digest, service: Some(color), promote };
            server.app.manager.deploy(&request, deploy).await.map_err(ApiError::from)
        }
        Err(invalid) => Err(invalid.into()),
    };
    match result {
        Ok(accepted) => Ok(to_operation(&accepted)),
        Err(error) => {
            let confirmation = deploy_confirmation(&server, color, Some(&form)).await?;
            confirmation_error(&server, &current_user, Section::Services, confirmation, error)
        }
    }
}

/// Redirects to the page of the operation, or to the services page if there is no operation.
fn to_operation(accepted: &Accepted) -> Response {
    match accepted {
        Accepted::Operation(id) => Redirect::to(&operations::page_url(&id.to_string())).into_response(),
        _ => Redirect::to(PATH).into_response(),
    }
}

/// Returns the confirmation of a rollback, and the digest to which the rollback would go.
async fn rollback_confirmation(
    server: &AppState,
    color: Color,
) -> Result<(Confirmation, Option<Digest>), ApiError> {
    let fleet = server.app.manager.services().await?;
    let service = fleet.service(color);
    let running = image(server, service);
    let target = match server.app.manager.rollback_target(color).await {
        Ok(digest) => Some(digest),
        Err(ManagerError::NoHealthyDigest) => None,
        Err(error) => return Err(error.into()),
    };
    let mut confirmation = Confirmation {
        title: format!("Roll {color} back?"),
        button: format!("Roll {color} back"),
        ..base_confirmation(color, "rollback")
    };
    match server.image(target) {
        Some(image) => {
            confirmation.lines = vec![
                format!("{color} serves {} and runs {running}.", sites(service.sites)),
                format!(
                    "The rollback deploys {image}, the newest digest with the verdict healthy. Then the caches of the sites are flushed."
                ),
                "Database schemas are not reverted: each image must be compatible with the version before it."
                    .to_owned(),
            ];
            confirmation.fields = vec![Field {
                name: "digest",
                label: "Digest".to_owned(),
                kind: FieldKind::Fixed,
                value: target.map(|digest| digest.to_string()).unwrap_or_default(),
                hint: "To use another digest, deploy it instead.".to_owned(),
                required: true,
                ..Field::default()
            }];
        }
        None => {
            confirmation.lines = vec![ManagerError::NoHealthyDigest.to_string()];
            confirmation.button = String::new();
        }
    }
    Ok((confirmation, target))
}

/// Shows the confirmation page of a rollback, with the digest that it would deploy.
pub(crate) async fn confirm_rollback(
    State(server): State<SharedState>,
    request: PageRequest,
    Path(color): Path<String>,
) -> Result<Response, ApiError> {
    let color = Color::from_segment(&color)?;
    let (confirmation, _) = rollback_confirmation(&server, color).await?;
    confirmation_page(&server, &request.current_user, Section::Services, StatusCode::OK, &confirmation)
}

/// Rolls a service back to the digest that the confirmation page named; rejects the request if the target has changed.
pub(crate) async fn roll_back(
    State(server): State<SharedState>,
    Path(color): Path<String>,
    form: Form,
) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    let color = Color::from_segment(&color)?;
    let (confirmation, target) = rollback_confirmation(&server, color).await?;
    let error = if target.map(|digest| digest.to_string()).as_deref() == Some(form.text("digest")) {
        match server.app.manager.rollback(&request, Some(color)).await {
            Ok(accepted) => return Ok(to_operation(&accepted)),
            Err(error) => error.into(),
        }
    } else {
        ApiError::field("digest", "the target of the rollback has changed to this digest; nothing was done")
    };
    confirmation_error(&server, &current_user, Section::Services, confirmation, error)
}

/// Parses the digest in the path.
fn parse_digest(digest: &str) -> Result<Digest, ApiError> {
    parse_field("digest", Digest::parse(digest))
}

fn mark_confirmation(color: Color, digest: Digest, form: Option<&Form>) -> Confirmation {
    let text = |name, default: &str| form.map_or(default, |form| form.text(name)).to_owned();
    let verdicts = ["healthy", "bad", "unknown"].map(|verdict| (verdict.to_owned(), verdict.to_owned()));
    Confirmation {
        title: "Mark a digest".to_owned(),
        lines: vec![
            format!("The verdict on {digest} applies to both services."),
            "A rollback uses the newest healthy digest, never a bad one.".to_owned(),
        ],
        fields: vec![
            Field {
                name: "verdict",
                label: "Verdict".to_owned(),
                kind: FieldKind::Choice(verdicts.to_vec()),
                value: text("verdict", "bad"),
                required: true,
                ..Field::default()
            },
            Field {
                name: "reason",
                label: "Reason".to_owned(),
                hint: "Shown in the history of the services.".to_owned(),
                value: text("reason", ""),
                required: true,
                ..Field::default()
            },
        ],
        button: "Mark the digest".to_owned(),
        ..base_confirmation(color, &format!("mark/{digest}"))
    }
}

/// Shows the form of a verdict.
pub(crate) async fn mark_form(
    State(server): State<SharedState>,
    request: PageRequest,
    Path((color, digest)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let color = Color::from_segment(&color)?;
    let confirmation = mark_confirmation(color, parse_digest(&digest)?, None);
    confirmation_page(&server, &request.current_user, Section::Services, StatusCode::OK, &confirmation)
}

/// Sets the verdict on a digest, and redirects to the services page.
pub(crate) async fn mark(
    State(server): State<SharedState>,
    Path((color, digest)): Path<(String, String)>,
    form: Form,
) -> Result<Response, ApiError> {
    let (current_user, request) = form.authenticated_request()?;
    let (color, digest) = (Color::from_segment(&color)?, parse_digest(&digest)?);
    let verdict = match form.text("verdict") {
        "healthy" => Ok(MarkVerdict::Healthy),
        "bad" => Ok(MarkVerdict::Bad),
        "unknown" => Ok(MarkVerdict::Unknown),
        _ => Err(ApiError::field("verdict", "the verdict must be `healthy`, `bad` or `unknown`")),
    };
    let input = verdict.and_then(|verdict| Ok((verdict, reason(form.text("reason"))?)));
    let result = match input {
        Ok((verdict, reason)) => {
            let marked = server.app.manager.mark(&request, digest, verdict.into(), reason).await;
            marked.map_err(ApiError::from)
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(_) => Ok(Redirect::to(PATH).into_response()),
        Err(error) => {
            let confirmation = mark_confirmation(color, digest, Some(&form));
            confirmation_error(&server, &current_user, Section::Services, confirmation, error)
        }
    }
}

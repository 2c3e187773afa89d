//! Selecting, deploying, rolling back and marking: each asks first.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::{Color, Digest};
use cdm_core::manager::{Accepted, DeployRequest, ManagerError, ServiceStatus};

use super::PATH;
use crate::api::services::{MarkVerdict, digest};
use crate::app::{Server, Shared};
use crate::console::confirm::{Field, FieldKind, Question, asked, asked_again};
use crate::console::form::Form;
use crate::console::guard::Visit;
use crate::console::page::Section;
use crate::console::{operations, shape};
use crate::error::Refusal;
use crate::input::{Named, parsed};
use crate::routes::services::reason;

/// The image that a service runs, in words where there is none to name.
fn image(server: &Server, service: &ServiceStatus) -> String {
    server.image(service.view.digest).unwrap_or_else(|| "no image by digest".to_owned())
}

fn sites(number: u64) -> String {
    shape::counted(number, "site", "sites")
}

/// What a question about a service begins with.
fn about(color: Color, action: &str) -> Question {
    Question { action: format!("{PATH}/{color}/{action}"), back: PATH.to_owned(), ..Question::default() }
}

async fn selection(server: &Server, color: Color) -> Result<Question, Refusal> {
    let fleet = server.app.manager.services().await?;
    let (here, other) = (fleet.service(color), fleet.service(color.other()));
    let image = image(server, here);
    let mut warnings = Vec::new();
    if !here.view.is_ready() {
        warnings.push(format!("{color} is not ready: a move to it would wait."));
    }
    Ok(Question {
        title: format!("Make {color} the active canary?"),
        lines: vec![
            format!(
                "Promotes, upgrades, deploys and new sites go to {color} from then on; its image is {image}."
            ),
            format!(
                "No site moves by this: the {} on {color} stay there, and so do the {} on {}.",
                sites(here.sites),
                sites(other.sites),
                color.other()
            ),
        ],
        warnings,
        button: format!("Select {color}"),
        ..about(color, "select")
    })
}

/// Says what a selection does.
pub(crate) async fn ask_select(
    State(server): State<Shared>,
    visit: Visit,
    Path(color): Path<String>,
) -> Result<Response, Refusal> {
    let color = Color::named(&color)?;
    let question = selection(&server, color).await?;
    asked(&server, &visit.visitor, Section::Services, StatusCode::OK, &question)
}

/// Selects.
pub(crate) async fn select(
    State(server): State<Shared>,
    Path(color): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let color = Color::named(&color)?;
    match server.app.manager.select(&request, color).await {
        Ok(selected) => {
            if let Some(operation) = selected.operation {
                server.rested(&operation, crate::routes::AT_ONCE).await?;
            }
            Ok(Redirect::to(PATH).into_response())
        }
        Err(error) => {
            let question = selection(&server, color).await?;
            asked_again(&server, &visitor, Section::Services, question, error.into())
        }
    }
}

async fn deployment(server: &Server, color: Color, form: Option<&Form>) -> Result<Question, Refusal> {
    let fleet = server.app.manager.services().await?;
    let here = fleet.service(color);
    let canary = if fleet.canary == color { "the active canary" } else { "not the active canary" };
    let image = image(server, here);
    let text = |name| form.map_or("", |form| form.text(name)).to_owned();
    Ok(Question {
        title: format!("Deploy an image to {color}"),
        lines: vec![
            format!("{color} is {canary}, serves {} and runs {image}.", sites(here.sites)),
            "Its pods are replaced at the pace of its Deployment; the sites on it are served by the new image as its pods get ready, then their caches are flushed.".to_owned(),
            "An image that does not get ready is taken back: the pods before it go on.".to_owned(),
        ],
        fields: vec![
            Field {
                name: "imageTag",
                label: "Digest".to_owned(),
                hint: "64 hex digits, with or without sha256: and the repository before it.".to_owned(),
                kind: FieldKind::Code,
                value: text("imageTag"),
                required: true,
                ..Field::default()
            },
            Field {
                name: "promote",
                label: format!("Also route the {} of {color} to it, those that point elsewhere", sites(here.sites)),
                kind: FieldKind::Check,
                value: text("promote"),
                ..Field::default()
            },
        ],
        button: format!("Deploy to {color}"),
        ..about(color, "deploy")
    })
}

/// Says what a deploy does, and asks for the image.
pub(crate) async fn ask_deploy(
    State(server): State<Shared>,
    visit: Visit,
    Path(color): Path<String>,
) -> Result<Response, Refusal> {
    let color = Color::named(&color)?;
    let question = deployment(&server, color, None).await?;
    asked(&server, &visit.visitor, Section::Services, StatusCode::OK, &question)
}

/// Deploys, and leads to the operation.
pub(crate) async fn deploy(
    State(server): State<Shared>,
    Path(color): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let color = Color::named(&color)?;
    let done = match digest(form.text("imageTag"), server.repository()) {
        Ok(digest) => {
            let promote = form.given("promote").is_some();
            let wanted = DeployRequest { digest, service: Some(color), promote };
            server.app.manager.deploy(&request, wanted).await.map_err(Refusal::from)
        }
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(accepted) => Ok(to_operation(&accepted)),
        Err(refusal) => {
            let question = deployment(&server, color, Some(&form)).await?;
            asked_again(&server, &visitor, Section::Services, question, refusal)
        }
    }
}

fn to_operation(accepted: &Accepted) -> Response {
    match accepted {
        Accepted::Operation(id) => Redirect::to(&operations::place(&id.to_string())).into_response(),
        _ => Redirect::to(PATH).into_response(),
    }
}

async fn way_back(server: &Server, color: Color) -> Result<(Question, Option<Digest>), Refusal> {
    let fleet = server.app.manager.services().await?;
    let here = fleet.service(color);
    let running = image(server, here);
    let target = match server.app.manager.rollback_target(color).await {
        Ok(digest) => Some(digest),
        Err(ManagerError::NoHealthyDigest) => None,
        Err(error) => return Err(error.into()),
    };
    let mut question = Question {
        title: format!("Roll {color} back?"),
        button: format!("Roll {color} back"),
        ..about(color, "rollback")
    };
    match server.image(target) {
        Some(image) => {
            question.lines = vec![
                format!("{color} serves {} and runs {running}.", sites(here.sites)),
                format!(
                    "It gets {image}, the newest digest that is known to be healthy; then the caches of its sites are flushed."
                ),
                "Database schemas are not reverted: images have to be compatible one version back."
                    .to_owned(),
            ];
            question.fields = vec![Field {
                name: "digest",
                label: "Digest".to_owned(),
                kind: FieldKind::Fixed,
                value: target.map(|digest| digest.to_string()).unwrap_or_default(),
                hint: "Another one can be deployed instead.".to_owned(),
                required: true,
                ..Field::default()
            }];
        }
        None => {
            question.lines = vec![ManagerError::NoHealthyDigest.to_string()];
            question.button = String::new();
        }
    }
    Ok((question, target))
}

/// Says what a rollback would deploy.
pub(crate) async fn ask_rollback(
    State(server): State<Shared>,
    visit: Visit,
    Path(color): Path<String>,
) -> Result<Response, Refusal> {
    let color = Color::named(&color)?;
    let (question, _) = way_back(&server, color).await?;
    asked(&server, &visit.visitor, Section::Services, StatusCode::OK, &question)
}

/// Rolls back to what the page said, and to nothing else.
pub(crate) async fn roll_back(
    State(server): State<Shared>,
    Path(color): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let color = Color::named(&color)?;
    let (question, target) = way_back(&server, color).await?;
    let refusal = if target.map(|digest| digest.to_string()).as_deref() == Some(form.text("digest")) {
        match server.app.manager.rollback(&request, Some(color)).await {
            Ok(accepted) => return Ok(to_operation(&accepted)),
            Err(error) => error.into(),
        }
    } else {
        Refusal::field("digest", "a rollback would take this one now; nothing was done")
    };
    asked_again(&server, &visitor, Section::Services, question, refusal)
}

/// The digest of a page's own link.
fn marked(digest: &str) -> Result<Digest, Refusal> {
    parsed("digest", Digest::parse(digest))
}

fn marking(color: Color, digest: Digest, form: Option<&Form>) -> Question {
    let text = |name, usual: &str| form.map_or(usual, |form| form.text(name)).to_owned();
    let words = ["healthy", "bad", "unknown"].map(|word| (word.to_owned(), word.to_owned()));
    Question {
        title: "Mark a digest".to_owned(),
        lines: vec![
            format!("What is said of {digest} holds for both services."),
            "A rollback takes the newest healthy digest, and never a bad one.".to_owned(),
        ],
        fields: vec![
            Field {
                name: "verdict",
                label: "Verdict".to_owned(),
                kind: FieldKind::Choice(words.to_vec()),
                value: text("verdict", "bad"),
                required: true,
                ..Field::default()
            },
            Field {
                name: "reason",
                label: "Reason".to_owned(),
                hint: "For whoever looks at it later.".to_owned(),
                value: text("reason", ""),
                required: true,
                ..Field::default()
            },
        ],
        button: "Mark it".to_owned(),
        ..about(color, &format!("mark/{digest}"))
    }
}

/// Asks for a verdict.
pub(crate) async fn ask_mark(
    State(server): State<Shared>,
    visit: Visit,
    Path((color, digest)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let color = Color::named(&color)?;
    let question = marking(color, marked(&digest)?, None);
    asked(&server, &visit.visitor, Section::Services, StatusCode::OK, &question)
}

/// Marks a digest.
pub(crate) async fn mark(
    State(server): State<Shared>,
    Path((color, digest)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let (color, digest) = (Color::named(&color)?, marked(&digest)?);
    let verdict = match form.text("verdict") {
        "healthy" => Ok(MarkVerdict::Healthy),
        "bad" => Ok(MarkVerdict::Bad),
        "unknown" => Ok(MarkVerdict::Unknown),
        _ => Err(Refusal::field("verdict", "a verdict is healthy, bad or unknown")),
    };
    let judged = verdict.and_then(|verdict| Ok((verdict, reason(form.text("reason"))?)));
    let done = match judged {
        Ok((verdict, reason)) => {
            let done = server.app.manager.mark(&request, digest, verdict.into(), reason).await;
            done.map_err(Refusal::from)
        }
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(_) => Ok(Redirect::to(PATH).into_response()),
        Err(refusal) => {
            let question = marking(color, digest, Some(&form));
            asked_again(&server, &visitor, Section::Services, question, refusal)
        }
    }
}

//! Selecting, deploying, rolling back and marking: each asks first.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::{Digest, Selector};
use cdm_core::services::{Accepted, DeployRequest, ServiceError, ServiceStatus};

use super::PATH;
use crate::api::services::{MarkVerdict, digest};
use crate::app::{Server, Shared};
use crate::console::confirm::{Field, Kind, Question, asked, asked_again};
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
fn about(selector: Selector, action: &str) -> Question {
    Question { action: format!("{PATH}/{selector}/{action}"), back: PATH.to_owned(), ..Question::default() }
}

async fn selection(server: &Server, selector: Selector) -> Result<Question, Refusal> {
    let fleet = server.app.services.services().await?;
    let (here, other) = (fleet.service(selector), fleet.service(selector.other()));
    let image = image(server, here);
    let mut warnings = Vec::new();
    if !here.view.is_ready() {
        warnings.push(format!("{selector} is not ready: a move to it would wait."));
    }
    Ok(Question {
        title: format!("Make {selector} the active canary?"),
        lines: vec![
            format!(
                "Promotes, upgrades, deploys and new sites go to {selector} from then on; its image is {image}."
            ),
            format!(
                "No site moves by this: the {} on {selector} stay there, and so do the {} on {}.",
                sites(here.sites),
                sites(other.sites),
                selector.other()
            ),
        ],
        warnings,
        button: format!("Select {selector}"),
        ..about(selector, "select")
    })
}

/// Says what a selection does.
pub(crate) async fn ask_select(
    State(server): State<Shared>,
    visit: Visit,
    Path(selector): Path<String>,
) -> Result<Response, Refusal> {
    let selector = Selector::named(&selector)?;
    let question = selection(&server, selector).await?;
    asked(&server, &visit.visitor, Section::Services, StatusCode::OK, &question)
}

/// Selects.
pub(crate) async fn select(
    State(server): State<Shared>,
    Path(selector): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let selector = Selector::named(&selector)?;
    match server.app.services.select(&request, selector).await {
        Ok(selected) => {
            if let Some(operation) = selected.operation {
                server.rested(&operation, crate::routes::AT_ONCE).await?;
            }
            Ok(Redirect::to(PATH).into_response())
        }
        Err(error) => {
            let question = selection(&server, selector).await?;
            asked_again(&server, &visitor, Section::Services, question, error.into())
        }
    }
}

async fn deployment(server: &Server, selector: Selector, form: Option<&Form>) -> Result<Question, Refusal> {
    let fleet = server.app.services.services().await?;
    let here = fleet.service(selector);
    let canary = if fleet.canary == selector { "the active canary" } else { "not the active canary" };
    let image = image(server, here);
    let text = |name| form.map_or("", |form| form.text(name)).to_owned();
    Ok(Question {
        title: format!("Deploy an image to {selector}"),
        lines: vec![
            format!("{selector} is {canary}, serves {} and runs {image}.", sites(here.sites)),
            "Its pods are replaced at the pace of its Deployment; the sites on it are served by the new image as its pods get ready, then their caches are flushed.".to_owned(),
            "An image that does not get ready is taken back: the pods before it go on.".to_owned(),
        ],
        fields: vec![
            Field {
                name: "imageTag",
                label: "Digest".to_owned(),
                hint: "64 hex digits, with or without sha256: and the repository before it.".to_owned(),
                kind: Kind::Code,
                value: text("imageTag"),
                required: true,
                ..Field::default()
            },
            Field {
                name: "promote",
                label: format!("Also route the {} of {selector} to it, those that point elsewhere", sites(here.sites)),
                kind: Kind::Check,
                value: text("promote"),
                ..Field::default()
            },
        ],
        button: format!("Deploy to {selector}"),
        ..about(selector, "deploy")
    })
}

/// Says what a deploy does, and asks for the image.
pub(crate) async fn ask_deploy(
    State(server): State<Shared>,
    visit: Visit,
    Path(selector): Path<String>,
) -> Result<Response, Refusal> {
    let selector = Selector::named(&selector)?;
    let question = deployment(&server, selector, None).await?;
    asked(&server, &visit.visitor, Section::Services, StatusCode::OK, &question)
}

/// Deploys, and leads to the operation.
pub(crate) async fn deploy(
    State(server): State<Shared>,
    Path(selector): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let selector = Selector::named(&selector)?;
    let done = match digest(form.text("imageTag"), server.repository()) {
        Ok(digest) => {
            let promote = form.given("promote").is_some();
            let wanted = DeployRequest { digest, service: Some(selector), promote };
            server.app.services.deploy(&request, wanted).await.map_err(Refusal::from)
        }
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(accepted) => Ok(to_operation(&accepted)),
        Err(refusal) => {
            let question = deployment(&server, selector, Some(&form)).await?;
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

async fn way_back(server: &Server, selector: Selector) -> Result<(Question, Option<Digest>), Refusal> {
    let fleet = server.app.services.services().await?;
    let here = fleet.service(selector);
    let running = image(server, here);
    let target = match server.app.services.rollback_target(selector).await {
        Ok(digest) => Some(digest),
        Err(ServiceError::NoHealthyDigest) => None,
        Err(error) => return Err(error.into()),
    };
    let mut question = Question {
        title: format!("Roll {selector} back?"),
        button: format!("Roll {selector} back"),
        ..about(selector, "rollback")
    };
    match server.image(target) {
        Some(image) => {
            question.lines = vec![
                format!("{selector} serves {} and runs {running}.", sites(here.sites)),
                format!(
                    "It gets {image}, the newest digest that is known to be healthy; then the caches of its sites are flushed."
                ),
                "Database schemas are not reverted: images have to be compatible one version back."
                    .to_owned(),
            ];
            question.fields = vec![Field {
                name: "digest",
                label: "Digest".to_owned(),
                kind: Kind::Fixed,
                value: target.map(|digest| digest.to_string()).unwrap_or_default(),
                hint: "Another one can be deployed instead.".to_owned(),
                required: true,
                ..Field::default()
            }];
        }
        None => {
            question.lines = vec![ServiceError::NoHealthyDigest.to_string()];
            question.button = String::new();
        }
    }
    Ok((question, target))
}

/// Says what a rollback would deploy.
pub(crate) async fn ask_rollback(
    State(server): State<Shared>,
    visit: Visit,
    Path(selector): Path<String>,
) -> Result<Response, Refusal> {
    let selector = Selector::named(&selector)?;
    let (question, _) = way_back(&server, selector).await?;
    asked(&server, &visit.visitor, Section::Services, StatusCode::OK, &question)
}

/// Rolls back to what the page said, and to nothing else.
pub(crate) async fn roll_back(
    State(server): State<Shared>,
    Path(selector): Path<String>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let selector = Selector::named(&selector)?;
    let (question, target) = way_back(&server, selector).await?;
    let refusal = if target.map(|digest| digest.to_string()).as_deref() == Some(form.text("digest")) {
        match server.app.services.rollback(&request, Some(selector)).await {
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

fn marking(selector: Selector, digest: Digest, form: Option<&Form>) -> Question {
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
                kind: Kind::Choice(words.to_vec()),
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
        ..about(selector, &format!("mark/{digest}"))
    }
}

/// Asks for a verdict.
pub(crate) async fn ask_mark(
    State(server): State<Shared>,
    visit: Visit,
    Path((selector, digest)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let selector = Selector::named(&selector)?;
    let question = marking(selector, marked(&digest)?, None);
    asked(&server, &visit.visitor, Section::Services, StatusCode::OK, &question)
}

/// Marks a digest.
pub(crate) async fn mark(
    State(server): State<Shared>,
    Path((selector, digest)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks()?;
    let (selector, digest) = (Selector::named(&selector)?, marked(&digest)?);
    let verdict = match form.text("verdict") {
        "healthy" => Ok(MarkVerdict::Healthy),
        "bad" => Ok(MarkVerdict::Bad),
        "unknown" => Ok(MarkVerdict::Unknown),
        _ => Err(Refusal::field("verdict", "a verdict is healthy, bad or unknown")),
    };
    let judged = verdict.and_then(|verdict| Ok((verdict, reason(form.text("reason"))?)));
    let done = match judged {
        Ok((verdict, reason)) => {
            let done = server.app.services.mark(&request, digest, verdict.into(), reason).await;
            done.map_err(Refusal::from)
        }
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(_) => Ok(Redirect::to(PATH).into_response()),
        Err(refusal) => {
            let question = marking(selector, digest, Some(&form));
            asked_again(&server, &visitor, Section::Services, question, refusal)
        }
    }
}

//! Rollouts: how far each is, what failed, and what is asked of it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::operation::OperationParent;
use cdm_core::manager::{Accepted, Action, Force, ManagerError, Resume, Work};
use cdm_core::ports::FeedEvent;
use serde::Deserialize;

use super::confirm::{Field, FieldKind, Question, asked, asked_again};
use super::form::Form;
use super::guard::{Visit, Visitor};
use super::offers::Offers;
use super::page::{Section, View, live, rendered};
use super::picture::picture;
use super::shape::{self, Now};
use super::{Filter, Pager};
use crate::api::rollout::{Rollout, ScopeShown, id as named};
use crate::api::services::digest_of;
use crate::app::{Server, Shared};
use crate::error::Refusal;
use crate::input::{Named, Paging, cursor};
use crate::routes::rollouts::{RolloutId, shown};

pub(crate) const PATH: &str = "/console/rollouts";
/// Rollouts of one page.
const LIMIT: &str = "50";

/// Which part of the list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "rollouts.html")]
struct Table {
    items: Vec<Rollout>,
    pager: Pager,
    now: Now,
}

fn concerns(event: &FeedEvent) -> bool {
    let parent = event.operation.as_ref().map(|id| &id.parent);
    event.rollout.is_some() || matches!(parent, Some(OperationParent::Rollout(..)))
}

/// Lists rollouts.
pub(crate) async fn list(
    State(server): State<Shared>,
    visit: Visit,
    Filter(part): Filter<Part>,
) -> Result<Response, Refusal> {
    live(server, visit, concerns, move |server, visitor| {
        let part = part.clone();
        async move {
            let paging = Paging::new('r', Some(LIMIT), part.cursor.as_deref())?;
            let page = server.app.manager.rollouts(paging.position()?, paging.limit).await?;
            let next = page.next.map(|next| cursor('r', next));
            let body = Table {
                items: page.items.iter().map(|rollout| shown(&server, rollout)).collect(),
                pager: Pager::new(PATH, &[], None, (part.cursor.as_deref(), next.as_deref())),
                now: Now(server.app.clock.wall()),
            };
            let start = if visitor.can(Action::StartRollout) {
                "<a class=\"button main\" href=\"/console/rollouts/start\">Start a rollout</a>"
            } else {
                ""
            };
            Ok(View {
                title: "Rollouts".to_owned(),
                section: Section::Rollouts,
                head: format!("<div class=\"headline\"><h1>Rollouts</h1>{start}</div>"),
                body: rendered(&body)?,
            })
        }
    })
    .await
}

#[derive(Template)]
#[template(path = "rollout.html")]
struct One<'a> {
    rollout: &'a Rollout,
    scope: String,
    picture: String,
    rate: Option<String>,
    can: Can,
    /// The digest that its service runs, where that is another one than its own.
    changed: Option<String>,
    /// Why not more can be asked of it.
    why: Option<String>,
    csrf: &'a str,
    now: Now,
}

/// What someone may ask of it as it stands.
#[derive(Clone, Copy, Debug)]
struct Can {
    pause: bool,
    resume: bool,
    abort: bool,
    retry: bool,
}

impl Can {
    /// `retry` is what a retry would do.
    fn of(offers: &mut Offers, rollout: &Rollout, retry: Work) -> Self {
        let left = rollout.counts.failed + rollout.counts.skipped + rollout.counts.parked > 0;
        let mut offer = |label, words: &[&str], needed| {
            words.contains(&rollout.status.as_str()) && offers.offer(label, needed)
        };
        Self {
            pause: offer("Pause", &["running", "waiting"], Action::PauseRollout.role()),
            resume: (shape::stands(rollout) || rollout.status != "waiting")
                && offer("Resume", &["paused", "halted", "waiting"], Action::ResumeRollout.role()),
            abort: offer("Abort", &["running", "waiting", "paused", "halted"], Action::AbortRollout.role()),
            retry: left
                && offer(
                    "Retry what failed",
                    &["aborted", "succeeded", "failed"],
                    Action::RetryRollout.role_on(retry),
                ),
        }
    }
}

fn scope(rollout: &Rollout) -> String {
    match &rollout.scope {
        ScopeShown::Word(word) => match word.0 {
            "active" => "the sites on the active canary".to_owned(),
            "inactive" => "the sites on the other service".to_owned(),
            "all" => "all sites".to_owned(),
            service => format!("the sites on {service}"),
        },
        ScopeShown::Sites(named) if named.sites.len() <= 5 => named.sites.join(", "),
        ScopeShown::Sites(named) => shape::counted(named.sites.len(), "site", "sites by name"),
    }
}

/// Shows a rollout.
pub(crate) async fn show(
    State(server): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let RolloutId(number) = RolloutId::named(&id)?;
    let of_it = move |event: &FeedEvent| {
        let parent = event.operation.as_ref().map(|id| &id.parent);
        event.rollout == Some(number)
            || matches!(parent, Some(OperationParent::Rollout(of, _)) if *of == number)
    };
    live(server, visit, of_it, move |server, visitor| async move { view(&server, &visitor, number).await })
        .await
}

async fn view(server: &Server, visitor: &Visitor, number: u64) -> Result<View, Refusal> {
    let known = server.app.manager.get_rollout(number).await?;
    let rollout = shown(server, &known);
    let wall = server.app.clock.wall();
    let retry = if known.status.ended() { server.app.manager.retry_work(&known).await? } else { Work::Moves };
    let mut offers = Offers::to(visitor);
    let can = Can::of(&mut offers, &rollout, retry);
    let body = One {
        scope: scope(&rollout),
        picture: picture(&known, wall),
        rate: rate(&known),
        can,
        changed: if shape::stands(&rollout) { in_the_way(server, &known).await } else { None },
        why: offers.why(),
        csrf: &visitor.csrf,
        now: Now(wall),
        rollout: &rollout,
    };
    Ok(View {
        title: rollout.id.clone(),
        section: Section::Rollouts,
        head: format!("<h1><span class=\"quiet\">{}</span> {}</h1>", rollout.kind, rollout.id),
        body: rendered(&body)?,
    })
}

/// How many sites it does a second, by its last marks, while it runs.
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

async fn in_the_way(server: &Server, known: &cdm_core::domain::Rollout) -> Option<String> {
    server.app.manager.digest_in_the_way(known).await.map(|digest| digest.to_string())
}

/// Whether it is to go on, and on what.
async fn resuming(server: &Server, number: u64) -> Result<Question, Refusal> {
    let known = server.app.manager.get_rollout(number).await?;
    let rollout = shown(server, &known);
    let id = &rollout.id;
    let left = u64::from(rollout.counts.pending + rollout.counts.running);
    let left = shape::counted(left, "site is", "sites are");
    let mut question = Question {
        title: format!("Resume {id}?"),
        lines: vec![format!("{left} still to be moved to {}.", rollout.service)],
        button: "Resume the rollout".to_owned(),
        action: format!("{PATH}/{id}/resume"),
        back: format!("{PATH}/{id}"),
        ..Question::default()
    };
    let Some(running) = server.app.manager.digest_in_the_way(&known).await else { return Ok(question) };
    let own = known.wanted().map(|digest| digest.to_string()).unwrap_or_default();
    question.title = format!("Resume {id} on another digest?");
    question.lines = vec![
        format!("{} runs {running}. The rollout is for {own}, which is not there any more.", rollout.service),
        format!(
            "{left} still to be moved: they would move to {running}, and what their health check says counts for that digest."
        ),
        format!("To go on with {own} instead, deploy it again; or abort the rollout."),
    ];
    question.fields = vec![Field {
        name: "acceptDigest",
        label: "The digest that runs".to_owned(),
        kind: FieldKind::Fixed,
        value: running.to_string(),
        required: true,
        ..Field::default()
    }];
    if let Some(why) = server.app.manager.why_bad(running).await? {
        question.warnings = vec![format!("{running} is bad: {why}")];
        question.fields.push(insist("Move sites to it although it is bad; takes the role admin"));
        question.danger = true;
    }
    question.button = "Resume on this digest".to_owned();
    Ok(question)
}

/// Whether a digest that is bad is meant.
pub(crate) fn insist(label: &str) -> Field {
    Field { name: "force", label: label.to_owned(), kind: FieldKind::Check, ..Field::default() }
}

/// Whether somebody insists.
pub(crate) fn insists(form: &Form) -> Force {
    if form.given("force").is_some() { Force::Yes } else { Force::No }
}

fn again(id: &str, why: &str) -> Question {
    Question {
        title: format!("Retry {id} on a bad digest?"),
        lines: vec![format!("{}.", why.trim_end_matches('.'))],
        fields: vec![insist("Move sites to it all the same; takes the role admin")],
        button: "Retry what failed".to_owned(),
        danger: true,
        action: format!("{PATH}/{id}/retry"),
        back: format!("{PATH}/{id}"),
        ..Question::default()
    }
}

fn question(id: &str, rollout: &Rollout) -> Question {
    let left = u64::from(rollout.counts.pending + rollout.counts.running);
    let moved = shape::counted(u64::from(rollout.counts.succeeded), "site is", "sites are");
    Question {
        title: format!("Abort {id}?"),
        lines: vec![
            format!(
                "It stops for good at its next checkpoint; {} then left where they are.",
                shape::counted(left, "site is", "sites are")
            ),
            format!(
                "{moved} where it wanted them, and stay there. An aborted rollout is not resumed, but can be retried."
            ),
        ],
        button: "Abort the rollout".to_owned(),
        danger: true,
        action: format!("{PATH}/{id}/abort"),
        back: format!("{PATH}/{id}"),
        ..Question::default()
    }
}

/// Says what an abort does, or what a resume would go on with.
pub(crate) async fn ask(
    State(server): State<Shared>,
    visit: Visit,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let RolloutId(number) = RolloutId::named(&id)?;
    match action.as_str() {
        "abort" => {}
        "resume" => {
            let question = resuming(&server, number).await?;
            return asked(&server, &visit.visitor, Section::Rollouts, StatusCode::OK, &question);
        }
        _ => return Err(Refusal::not_found("the page")),
    }
    let rollout = shown(&server, &server.app.manager.get_rollout(number).await?);
    asked(&server, &visit.visitor, Section::Rollouts, StatusCode::OK, &question(&id, &rollout))
}

/// Pauses, resumes, aborts or retries.
pub(crate) async fn act(
    State(server): State<Shared>,
    Path((id, action)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Refusal> {
    let RolloutId(number) = RolloutId::named(&id)?;
    let (visitor, request) = form.asks()?;
    let services = &server.app.manager;
    let done = match action.as_str() {
        "pause" => services.pause(&request, number).await,
        "resume" => {
            let accept =
                form.given("acceptDigest").map(|text| digest_of("acceptDigest", text, server.repository()));
            let accept = accept.transpose()?;
            services.resume_on(&request, number, Resume { accept, force: insists(&form) }).await
        }
        "abort" => services.abort(&request, number).await,
        "retry" => services.retry_rollout_with(&request, number, insists(&form)).await,
        _ => return Err(Refusal::not_found("the page")),
    };
    match done {
        Ok(Accepted::Rollout(other)) => Ok(Redirect::to(&format!("{PATH}/{}", named(other))).into_response()),
        Ok(_) => Ok(Redirect::to(&format!("{PATH}/{id}")).into_response()),
        Err(error) if action == "abort" => {
            let rollout = shown(&server, &services.get_rollout(number).await?);
            asked_again(&server, &visitor, Section::Rollouts, question(&id, &rollout), error.into())
        }
        Err(error @ (ManagerError::DigestChanged { .. } | ManagerError::BadDigest { .. }))
            if action == "resume" =>
        {
            let question = resuming(&server, number).await?;
            asked_again(&server, &visitor, Section::Rollouts, question, error.into())
        }
        Err(error @ ManagerError::BadDigest { .. }) => {
            let question = again(&id, &error.to_string());
            asked_again(&server, &visitor, Section::Rollouts, question, error.into())
        }
        Err(error) => Err(error.into()),
    }
}

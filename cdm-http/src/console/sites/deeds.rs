//! Provisioning, promoting, upgrading and terminating a site: each asks first.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::SiteId;
use cdm_core::manager;

use super::PATH;
use crate::api::site::Site;
use crate::app::{Server, Shared};
use crate::console::confirm::{Field, FieldKind, Question, asked, asked_again};
use crate::console::form::Form;
use crate::console::guard::Visit;
use crate::console::offers::Offers;
use crate::console::page::Section;
use crate::console::shape;
use crate::error::Refusal;
use crate::input::Named;

/// Something that is asked of a site.
struct Action {
    name: &'static str,
    button: &'static str,
    action: manager::Action,
    /// In which states; all where there is none.
    states: &'static [&'static str],
}

const ACTIONS: [Action; 4] = [
    Action {
        name: "provision",
        button: "Provision",
        action: manager::Action::Provision,
        states: &["created"],
    },
    Action { name: "promote", button: "Promote", action: manager::Action::Promote, states: &["active"] },
    Action { name: "upgrade", button: "Upgrade", action: manager::Action::Upgrade, states: &["active"] },
    Action { name: "terminate", button: "Terminate", action: manager::Action::Terminate, states: &[] },
];

fn action(name: &str) -> Result<&'static Action, Refusal> {
    ACTIONS.iter().find(|action| action.name == name).ok_or_else(|| Refusal::not_found("the page"))
}

async fn question(server: &Server, id: &SiteId, action: &Action) -> Result<Question, Refusal> {
    let site = Site::from(&server.app.manager.site(id).await?);
    let fleet = server.app.manager.services().await?;
    let canary = fleet.canary;
    let routed = site.routed_service.as_deref().unwrap_or("nothing");
    let lines = match action.name {
        "provision" => vec![
            format!(
                "Makes the database and the files of {id}, installs WordPress, and routes {} to {}.",
                shape::counted(site.hostnames.len(), "hostname", "hostnames"),
                site.service
            ),
            "What cannot go on parks, says why, and can be retried.".to_owned(),
        ],
        "promote" => vec![
            format!(
                "Moves the route of {id} from {routed} to {canary}, the active canary, and its record with it; then flushes its caches."
            ),
            "The route moves only if that service is ready, and is never without a target.".to_owned(),
        ],
        "upgrade" => vec![format!(
            "Assigns {id} to {canary}, the active canary, and flushes its caches. Its route stays on {routed} until it is promoted."
        )],
        _ => vec![
            format!(
                "Removes the route, the database with its user, all files and the credentials of {id}, for good."
            ),
            format!("These hostnames are free again afterwards: {}.", site.hostnames.join(", ")),
        ],
    };
    let moves = matches!(action.name, "promote" | "upgrade");
    let warnings =
        fleet.freezes.iter().filter(|freeze| moves && (freeze.sites.is_none() || freeze.names(id)));
    let terminate = action.name == "terminate";
    let typed = Field {
        name: "typed",
        label: format!("Type {id} to confirm"),
        kind: FieldKind::Code,
        required: true,
        ..Field::default()
    };
    Ok(Question {
        title: format!("{} {id}?", action.button),
        lines,
        warnings: warnings.map(|freeze| freeze.describe()).collect(),
        fields: if terminate { vec![typed] } else { Vec::new() },
        button: action.button.to_owned(),
        danger: terminate,
        action: format!("{PATH}/{id}/{}", action.name),
        back: format!("{PATH}/{id}"),
        problem: None,
    })
}

/// What a visitor may ask of a site in that state: each by its name and what its button says.
pub(super) fn actions(offers: &mut Offers, site: &Site) -> Vec<(&'static str, &'static str)> {
    let states = |action: &Action| action.states.is_empty() || action.states.contains(&site.state.as_str());
    let fit = ACTIONS.iter().filter(|action| states(action));
    fit.filter(|action| site.operation.is_none() || action.name == "terminate")
        .filter(|_| site.state != "terminating")
        .filter(|action| offers.offer(action.button, action.action.role()))
        .map(|action| (action.name, action.button))
        .collect()
}

/// Says what would happen to a site.
pub(crate) async fn ask(
    State(server): State<Shared>,
    visit: Visit,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let (id, action) = (SiteId::named(&id)?, action(&name)?);
    let question = question(&server, &id, action).await?;
    asked(&server, &visit.visitor, Section::Sites, StatusCode::OK, &question)
}

/// Does it, and leads to where one can follow it.
pub(crate) async fn act(
    State(server): State<Shared>,
    Path((id, name)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Refusal> {
    let (id, action) = (SiteId::named(&id)?, action(&name)?);
    let (visitor, request) = form.asks()?;
    let services = &server.app.manager;
    let done = match action.name {
        "provision" => services.provision(&request, &id).await,
        "promote" => services.promote(&request, &id).await,
        "upgrade" => services.upgrade(&request, &id).await,
        _ if form.text("typed") != id.as_str() => {
            let mut question = question(&server, &id, action).await?;
            let refusal = Refusal::field("typed", format!("this is not {id}; nothing was done"));
            question.problem = Field::blame(&mut question.fields, &refusal);
            return asked(&server, &visitor, Section::Sites, refusal.status, &question);
        }
        _ => services.terminate(&request, &id).await,
    };
    match done {
        Ok(_) => Ok(Redirect::to(&format!("{PATH}/{id}")).into_response()),
        Err(error) => {
            let question = question(&server, &id, action).await?;
            asked_again(&server, &visitor, Section::Sites, question, error.into())
        }
    }
}

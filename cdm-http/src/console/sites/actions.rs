//! Provision, promote, upgrade and terminate: for each action a confirmation page and the submission of its form.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::SiteId;
use cdm_core::manager;

use super::PATH;
use crate::api::ServiceName;
use crate::api::site::{Site, SiteState};
use crate::app::{AppState, SharedState};
use crate::console::confirm::{Confirmation, Field, FieldKind, confirmation_error, confirmation_page};
use crate::console::controls::Controls;
use crate::console::form::Form;
use crate::console::format;
use crate::console::page::Section;
use crate::console::session::PageRequest;
use crate::error::ApiError;
use crate::extract::PathSegment;

struct SiteAction {
    /// The last segment of the action's path.
    name: &'static str,
    button: &'static str,
    action: manager::Action,
    /// The states of a site that permit the action; empty if all states permit it.
    states: &'static [SiteState],
}

const ACTIONS: [SiteAction; 4] = [
    SiteAction {
        name: "provision",
        button: "Provision",
        action: manager::Action::Provision,
        states: &[SiteState::Created],
    },
    SiteAction {
        name: "promote",
        button: "Promote",
        action: manager::Action::Promote,
        states: &[SiteState::Active],
    },
    SiteAction {
        name: "upgrade",
        button: "Upgrade",
        action: manager::Action::Upgrade,
        states: &[SiteState::Active],
    },
    SiteAction { name: "terminate", button: "Terminate", action: manager::Action::Terminate, states: &[] },
];

fn action(name: &str) -> Result<&'static SiteAction, ApiError> {
    ACTIONS.iter().find(|action| action.name == name).ok_or_else(|| ApiError::not_found("the page"))
}

/// Returns the confirmation of an action, with a warning for each freeze that covers the site.
async fn confirmation(server: &AppState, id: &SiteId, action: &SiteAction) -> Result<Confirmation, ApiError> {
    let site = Site::from(&server.app.manager.site(id).await?);
    let fleet = server.app.manager.services().await?;
    let canary = fleet.canary;
    let routed = site.routed_service.as_ref().map_or("no service", ServiceName::as_str);
    let lines = match action.action {
        manager::Action::Provision => vec![
            format!(
                "Creates the database and the files of {id}, installs WordPress, and routes {} to {}.",
                format::count_of(site.hostnames.len(), "hostname", "hostnames"),
                site.service
            ),
            "If a step needs an operator, the operation parks with a reason, and can be retried.".to_owned(),
        ],
        manager::Action::Promote => vec![
            format!(
                "Moves the route of {id} from {routed} to {canary}, the active canary, and assigns the site to {canary}. Then flushes the caches of the site."
            ),
            format!("The route moves only if {canary} is ready, and always has a target."),
        ],
        manager::Action::Upgrade => vec![format!(
            "Assigns {id} to {canary}, the active canary, and flushes its caches. Its route stays on {routed} until the site is promoted."
        )],
        _ => vec![
            format!(
                "Permanently removes the route, the database and its user, all files and the credentials of {id}."
            ),
            format!("Afterwards, these hostnames are available again: {}.", site.hostnames.join(", ")),
        ],
    };
    let moves = matches!(action.action, manager::Action::Promote | manager::Action::Upgrade);
    let warnings =
        fleet.freezes.iter().filter(|freeze| moves && (freeze.sites.is_none() || freeze.names(id)));
    let terminate = action.action == manager::Action::Terminate;
    let typed = Field {
        name: "typed",
        label: format!("Type {id} to confirm"),
        kind: FieldKind::Code,
        required: true,
        ..Field::default()
    };
    Ok(Confirmation {
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

/// Returns the actions that the site's state and the user's role permit: path segment and label.
pub(super) fn available(controls: &mut Controls, site: &Site) -> Vec<(&'static str, &'static str)> {
    let states = |action: &SiteAction| action.states.is_empty() || action.states.contains(&site.state);
    let permitted = ACTIONS.iter().filter(|action| states(action));
    permitted
        .filter(|action| site.operation.is_none() || action.action == manager::Action::Terminate)
        .filter(|_| site.state != SiteState::Terminating)
        .filter(|action| controls.permits(action.button, action.action.role()))
        .map(|action| (action.name, action.button))
        .collect()
}

/// Shows the confirmation page of an action.
pub(crate) async fn confirm(
    State(server): State<SharedState>,
    request: PageRequest,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (id, action) = (SiteId::from_segment(&id)?, action(&name)?);
    let confirmation = confirmation(&server, &id, action).await?;
    confirmation_page(&server, &request.current_user, Section::Sites, StatusCode::OK, &confirmation)
}

/// Requests an action, and redirects to the page of the site, which shows the operation.
pub(crate) async fn submit(
    State(server): State<SharedState>,
    Path((id, name)): Path<(String, String)>,
    form: Form,
) -> Result<Response, ApiError> {
    let (id, action) = (SiteId::from_segment(&id)?, action(&name)?);
    let (current_user, request) = form.authenticated_request()?;
    let manager = &server.app.manager;
    let result = match action.action {
        manager::Action::Provision => manager.provision(&request, &id).await,
        manager::Action::Promote => manager.promote(&request, &id).await,
        manager::Action::Upgrade => manager.upgrade(&request, &id).await,
        _ if form.text("typed") != id.as_str() => {
            let mut confirmation = confirmation(&server, &id, action).await?;
            let error = ApiError::field("typed", format!("the input is not `{id}`; nothing was done"));
            confirmation.problem = Field::assign_errors(&mut confirmation.fields, &error);
            return confirmation_page(&server, &current_user, Section::Sites, error.status, &confirmation);
        }
        _ => manager.terminate(&request, &id).await,
    };
    match result {
        Ok(_) => Ok(Redirect::to(&format!("{PATH}/{id}")).into_response()),
        Err(error) => {
            let confirmation = confirmation(&server, &id, action).await?;
            confirmation_error(&server, &current_user, Section::Sites, confirmation, error.into())
        }
    }
}

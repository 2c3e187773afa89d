//! The sites: a table that is searched and paged in the store, a page for each, and what is asked of it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cdm_core::domain::{Role, SiteId, Subject};
use cdm_core::services::Accepted;

use super::confirm::{Field, Kind, Question, asked, asked_again};
use super::guard::{Form, Visit, Visitor};
use super::page::{Section, View, live, rendered};
use super::shape::{self, Now};
use super::{Filter, operations, with_cursor};
use crate::api::operation::Operation;
use crate::api::site::{CreateSite, Site};
use crate::api::words;
use crate::app::{Server, Shared};
use crate::error::Refusal;
use crate::input::Named;
use crate::routes::operations::OperationFilter;
use crate::routes::sites::{SiteFilter, listed};

const PATH: &str = "/console/sites";
/// Operations of a site that its page tells of.
const OPERATIONS: &str = "20";

#[derive(Template)]
#[template(path = "sites_head.html")]
struct Head<'a> {
    filter: &'a SiteFilter,
    states: Vec<&'static str>,
    can_create: bool,
}

#[derive(Template)]
#[template(path = "sites.html")]
struct Table<'a> {
    filter: &'a SiteFilter,
    items: Vec<Site>,
    next: Option<String>,
    now: Now,
}

impl Table<'_> {
    fn first(&self) -> Option<String> {
        self.filter.cursor.as_ref().map(|_| self.part(None))
    }

    fn next(&self) -> Option<String> {
        self.next.as_deref().map(|next| self.part(Some(next)))
    }

    fn part(&self, cursor: Option<&str>) -> String {
        let SiteFilter { service, state, q, drifted, limit, .. } = self.filter;
        let pairs =
            [("q", q), ("service", service), ("state", state), ("drifted", drifted), ("limit", limit)];
        with_cursor(PATH, &pairs, cursor)
    }

    fn is_filtered(&self) -> bool {
        let SiteFilter { service, state, q, drifted, .. } = self.filter;
        [service, state, q, drifted].iter().any(|part| part.is_some())
    }
}

/// Lists sites.
pub(crate) async fn list(
    State(server): State<Shared>,
    visit: Visit,
    Filter(filter): Filter<SiteFilter>,
) -> Result<Response, Refusal> {
    live(
        server,
        visit,
        |event| matches!(event.subject, Some(Subject::Site(_))),
        move |server, visitor| {
            let filter = filter.clone();
            async move {
                let page = listed(&server, &filter).await?;
                let states = cdm_core::domain::State::ALL.iter().map(|state| state.as_str()).collect();
                let head = Head { filter: &filter, states, can_create: visitor.can(Role::Operator) };
                let now = Now(server.app.clock.wall());
                let body = Table { filter: &filter, items: page.items, next: page.next, now };
                Ok(View {
                    title: "Sites".to_owned(),
                    section: Section::Sites,
                    head: rendered(&head)?,
                    body: rendered(&body)?,
                })
            }
        },
    )
    .await
}

#[derive(Template)]
#[template(path = "site.html")]
struct One<'a> {
    site: &'a Site,
    drifted: bool,
    /// The one at work, or the last.
    latest: Option<String>,
    before: Vec<Operation>,
    actions: Vec<(&'static str, &'static str)>,
    now: Now,
}

/// What someone may ask of a site in that state: each by its name and what its button says.
fn actions(visitor: &Visitor, site: &Site) -> Vec<(&'static str, &'static str)> {
    let known = ACTIONS.iter().filter(|action| visitor.can(action.role));
    let fit = known.filter(|action| action.states.is_empty() || action.states.contains(&site.state.as_str()));
    fit.filter(|action| site.operation.is_none() || action.name == "terminate")
        .filter(|_| site.state != "terminating")
        .map(|action| (action.name, action.button))
        .collect()
}

/// Shows a site.
pub(crate) async fn show(
    State(server): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id = SiteId::named(&id).map_err(|_| Refusal::not_found("the site"))?;
    let about = id.clone();
    let of_site =
        move |event: &cdm_core::ports::FeedEvent| event.subject == Some(Subject::Site(about.clone()));
    live(server, visit, of_site, move |server, visitor| {
        let id = id.clone();
        async move { view(&server, &visitor, &id).await }
    })
    .await
}

async fn view(server: &Server, visitor: &Visitor, id: &SiteId) -> Result<View, Refusal> {
    let filter = OperationFilter {
        site: Some(id.to_string()),
        limit: Some(OPERATIONS.to_owned()),
        ..OperationFilter::default()
    };
    let mut before = crate::routes::operations::listed(server, &filter).await?.items;
    let now = Now(server.app.clock.wall());
    let site = match server.app.services.site(id).await {
        Ok(site) => Site::from(&site),
        // Its operations stay, and may tell what became of it.
        Err(cdm_core::services::ServiceError::NotFound { .. }) if !before.is_empty() => {
            let latest = operations::panel(visitor, &before.remove(0), now)?;
            let body = rendered(&Gone { id: id.as_str(), latest, before, now })?;
            return Ok(View { title: id.to_string(), section: Section::Sites, head: String::new(), body });
        }
        Err(error) => return Err(error.into()),
    };
    // A rollout's operation is in no list but at work here.
    let member = site.operation.as_ref().filter(|id| before.first().is_none_or(|first| first.id != **id));
    let latest = match member {
        Some(member) => {
            match server.app.services.operation(&cdm_core::domain::OperationId::named(member)?).await {
                Ok(operation) => Some(Operation::from(&operation)),
                // It came to its end in between.
                Err(_) => None,
            }
        }
        None if before.is_empty() => None,
        None => Some(before.remove(0)),
    };
    let latest = latest.map(|latest| operations::panel(visitor, &latest, now)).transpose()?;
    let drifted = site.routed_service.as_ref().is_some_and(|routed| *routed != site.service);
    let body = One { site: &site, drifted, latest, before, actions: actions(visitor, &site), now };
    Ok(View { title: site.id.clone(), section: Section::Sites, head: String::new(), body: rendered(&body)? })
}

#[derive(Template)]
#[template(path = "site_gone.html")]
struct Gone<'a> {
    id: &'a str,
    latest: String,
    before: Vec<Operation>,
    now: Now,
}

/// Something that is asked of a site.
struct Action {
    name: &'static str,
    button: &'static str,
    role: Role,
    /// In which states; all where there is none.
    states: &'static [&'static str],
}

const ACTIONS: [Action; 4] = [
    Action { name: "provision", button: "Provision", role: Role::Operator, states: &["created"] },
    Action { name: "promote", button: "Promote", role: Role::Operator, states: &["active"] },
    Action { name: "upgrade", button: "Upgrade", role: Role::Operator, states: &["active"] },
    Action { name: "terminate", button: "Terminate", role: Role::Admin, states: &[] },
];

fn action(name: &str) -> Result<&'static Action, Refusal> {
    ACTIONS.iter().find(|action| action.name == name).ok_or_else(|| Refusal::not_found("the page"))
}

async fn question(server: &Server, id: &SiteId, action: &Action) -> Result<Question, Refusal> {
    let site = Site::from(&server.app.services.site(id).await?);
    let fleet = server.app.services.services().await?;
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
        kind: Kind::Code,
        required: true,
        ..Field::default()
    };
    Ok(Question {
        title: format!("{} {id}?", action.button),
        lines,
        warnings: warnings.map(|freeze| freeze.told()).collect(),
        fields: if terminate { vec![typed] } else { Vec::new() },
        button: action.button.to_owned(),
        danger: terminate,
        action: format!("{PATH}/{id}/{}", action.name),
        back: format!("{PATH}/{id}"),
        problem: None,
    })
}

/// Says what would happen to a site.
pub(crate) async fn ask(
    State(server): State<Shared>,
    visit: Visit,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let (id, action) = (SiteId::named(&id)?, action(&name)?);
    visit.visitor.may(action.role)?;
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
    let (visitor, request) = form.asks(action.role)?;
    let services = &server.app.services;
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

/// The form of a new site, with what was filled in.
async fn form_of(server: &Server, filled: &CreateSite) -> Result<Question, Refusal> {
    let canary = server.app.services.services().await?.canary;
    let mut services = vec![(String::new(), format!("{canary}, the active canary"))];
    services.extend(words::service_names().map(|name| (name.to_owned(), name.to_owned())));
    let field = |name, label: &str, hint: &str, kind, value: &str| Field {
        name,
        label: label.to_owned(),
        hint: hint.to_owned(),
        kind,
        value: value.to_owned(),
        problem: None,
        required: name != "service" && name != "canonicalHostname",
    };
    Ok(Question {
        title: "Create a site".to_owned(),
        lines: vec![
            "Claims the id and the hostnames, and makes the site's credentials. Provisioning makes it live."
                .to_owned(),
        ],
        fields: vec![
            field(
                "id",
                "Id",
                "Lower-case letters, digits and hyphens, at most 32. It stays.",
                Kind::Code,
                &filled.id,
            ),
            field("name", "Title", "As visitors read it.", Kind::Line, &filled.name),
            field("theme", "Theme", "Such as twentytwentyfive.", Kind::Code, &filled.theme),
            field(
                "hostnames",
                "Hostnames",
                "One on each line, at most 16.",
                Kind::Lines,
                &filled.hostnames.join("\n"),
            ),
            field(
                "canonicalHostname",
                "Canonical hostname",
                "One of them; the first where it is left out.",
                Kind::Code,
                &filled.canonical_hostname,
            ),
            field(
                "service",
                "Service",
                "",
                Kind::Choice(services),
                filled.service.as_deref().unwrap_or_default(),
            ),
        ],
        button: "Create the site".to_owned(),
        action: format!("{PATH}/create"),
        back: PATH.to_owned(),
        ..Question::default()
    })
}

/// Asks for a new site.
pub(crate) async fn ask_create(State(server): State<Shared>, visit: Visit) -> Result<Response, Refusal> {
    visit.visitor.may(Role::Operator)?;
    let empty = CreateSite {
        id: String::new(),
        theme: String::new(),
        hostnames: Vec::new(),
        service: None,
        name: String::new(),
        canonical_hostname: String::new(),
    };
    let question = form_of(&server, &empty).await?;
    asked(&server, &visit.visitor, Section::Sites, StatusCode::OK, &question)
}

/// Creates it, and leads to its page.
pub(crate) async fn create(State(server): State<Shared>, form: Form) -> Result<Response, Refusal> {
    let (visitor, request) = form.asks(Role::Operator)?;
    let hosts = form.text("hostnames").split([',', ' ', '\n', '\r']).filter(|host| !host.is_empty());
    let hostnames: Vec<String> = hosts.map(str::to_owned).collect();
    let canonical = form.given("canonicalHostname").or(hostnames.first().map(String::as_str));
    let filled = CreateSite {
        id: form.text("id").to_owned(),
        theme: form.text("theme").to_owned(),
        canonical_hostname: canonical.unwrap_or_default().to_owned(),
        hostnames,
        service: form.given("service").map(str::to_owned),
        name: form.text("name").to_owned(),
    };
    let done = match filled.parse() {
        Ok(new) => server.app.services.create_site(&request, &new).await.map_err(Refusal::from),
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(accepted) => {
            if let Accepted::Operation(operation) = &accepted {
                // It is usually done at once; a page without it would only be a moment old.
                server.rested(operation, crate::routes::AT_ONCE).await?;
            }
            Ok(Redirect::to(&format!("{PATH}/{}", filled.id)).into_response())
        }
        Err(refusal) => {
            let question = form_of(&server, &filled).await?;
            asked_again(&server, &visitor, Section::Sites, question, refusal)
        }
    }
}

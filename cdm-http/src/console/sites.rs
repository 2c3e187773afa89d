//! The table of sites, which is searched and paged in the store, and the page of a site. The actions on a site are in
//! [`actions`], its creation is in [`create`].

pub(crate) mod actions;
pub(crate) mod create;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use cdm_core::domain::{SiteId, Subject};
use cdm_core::manager::Action;

use super::controls::Controls;
use super::format::{self, Now};
use super::page::{Section, View, live, render};
use super::session::{CurrentUser, PageRequest};
use super::{Filter, Pager, operations};
use crate::api::ServiceName;
use crate::api::operation::Operation;
use crate::api::site::{Site, SiteState};
use crate::app::{AppState, SharedState};
use crate::error::ApiError;
use crate::extract::PathSegment;
use crate::routes::operations::OperationFilter;
use crate::routes::sites::{SiteFilter, listed};

const PATH: &str = "/console/sites";
/// Operations that a site's page shows at most.
const OPERATIONS: &str = "20";

#[derive(Template)]
#[template(path = "sites_head.html")]
struct Head<'a> {
    filter: &'a SiteFilter,
    services: &'static [ServiceName],
    states: &'static [SiteState],
    can_create: bool,
}

#[derive(Template)]
#[template(path = "sites.html")]
struct Table {
    items: Vec<Site>,
    pager: Pager,
    now: Now,
}

fn pager(filter: &SiteFilter, next: Option<&str>) -> Pager {
    let SiteFilter { service, state, q, drifted, limit, cursor } = filter;
    let filter = [
        ("q", q.as_deref()),
        ("service", service.as_ref().map(ServiceName::as_str)),
        ("state", state.as_ref().map(SiteState::as_str)),
        ("drifted", drifted.as_deref()),
    ];
    Pager::new(PATH, &filter, limit.as_deref(), (cursor.as_deref(), next))
}

pub(crate) async fn list(
    State(server): State<SharedState>,
    request: PageRequest,
    Filter(filter): Filter<SiteFilter>,
) -> Result<Response, ApiError> {
    live(
        server,
        request,
        |event| matches!(event.subject, Some(Subject::Site(_))),
        move |server, current_user| {
            let filter = filter.clone();
            async move {
                let page = listed(&server, &filter).await?;
                let head = Head {
                    filter: &filter,
                    services: ServiceName::ALL,
                    states: SiteState::ALL,
                    can_create: current_user.can(Action::CreateSite),
                };
                let now = Now(server.app.clock.wall());
                let body = Table { pager: pager(&filter, page.next.as_deref()), items: page.items, now };
                Ok(View {
                    title: "Sites".to_owned(),
                    section: Section::Sites,
                    head: render(&head)?,
                    body: render(&body)?,
                })
            }
        },
    )
    .await
}

#[derive(Template)]
#[template(path = "site.html")]
struct SiteBody<'a> {
    site: &'a Site,
    drifted: bool,
    /// The unfinished operation, or else the last one, as HTML.
    latest: Option<String>,
    /// Earlier operations, newest first.
    earlier: Vec<Operation>,
    /// The actions that the user may request: path segment and label.
    actions: Vec<(&'static str, &'static str)>,
    /// Names the controls that the user's role does not permit.
    role_note: Option<String>,
    now: Now,
}

pub(crate) async fn show(
    State(server): State<SharedState>,
    request: PageRequest,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = SiteId::from_segment(&id).map_err(|_| ApiError::not_found("the site"))?;
    let shown = id.clone();
    let affects =
        move |event: &cdm_core::ports::FeedEvent| event.subject == Some(Subject::Site(shown.clone()));
    live(server, request, affects, move |server, current_user| {
        let id = id.clone();
        async move { view(&server, &current_user, &id).await }
    })
    .await
}

async fn view(server: &AppState, current_user: &CurrentUser, id: &SiteId) -> Result<View, ApiError> {
    let filter = OperationFilter {
        site: Some(id.to_string()),
        limit: Some(OPERATIONS.to_owned()),
        ..OperationFilter::default()
    };
    let mut earlier = crate::routes::operations::listed(server, &filter).await?.items;
    let now = Now(server.app.clock.wall());
    let site = match server.app.manager.site(id).await {
        Ok(site) => Site::from(&site),
        // The operations of a terminated site are kept, and the page shows them.
        Err(cdm_core::manager::ManagerError::NotFound { .. }) if !earlier.is_empty() => {
            let latest = operations::panel(current_user, &earlier.remove(0), now)?;
            let body = render(&DeletedSite { id: id.as_str(), latest, earlier, now })?;
            return Ok(View { title: id.to_string(), section: Section::Sites, head: String::new(), body });
        }
        Err(error) => return Err(error.into()),
    };
    // An unfinished operation of a rollout is not in the list, so it is read by its id.
    let member = site.operation.as_ref().filter(|id| earlier.first().is_none_or(|first| first.id != **id));
    let latest = match member {
        Some(member) => {
            match server
                .app
                .manager
                .operation(&cdm_core::domain::OperationId::from_segment(member.as_str())?)
                .await
            {
                Ok(operation) => Some(Operation::from(&operation)),
                // The operation has finished since the read of the site.
                Err(_) => None,
            }
        }
        None if earlier.is_empty() => None,
        None => Some(earlier.remove(0)),
    };
    let latest = latest.map(|latest| operations::panel(current_user, &latest, now)).transpose()?;
    let drifted = site.routed_service.as_ref().is_some_and(|routed| *routed != site.service);
    let mut controls = Controls::for_user(current_user);
    let actions = actions::available(&mut controls, &site);
    let role_note = controls.role_note();
    let body = SiteBody { site: &site, drifted, latest, earlier, actions, role_note, now };
    Ok(View {
        title: site.id.to_string(),
        section: Section::Sites,
        head: String::new(),
        body: render(&body)?,
    })
}

#[derive(Template)]
#[template(path = "deleted_site.html")]
struct DeletedSite<'a> {
    id: &'a str,
    latest: String,
    earlier: Vec<Operation>,
    now: Now,
}

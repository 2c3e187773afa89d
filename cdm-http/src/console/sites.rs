//! The sites: a table that is searched and paged in the store, a page for each; in `deeds` what is asked of one, in
//! `create` a new one.

pub(crate) mod create;
pub(crate) mod deeds;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use cdm_core::domain::{SiteId, Subject};
use cdm_core::manager::Action;

use super::guard::{Visit, Visitor};
use super::offers::Offers;
use super::page::{Section, View, live, rendered};
use super::shape::{self, Now};
use super::{Filter, Pager, operations};
use crate::api::operation::Operation;
use crate::api::site::Site;
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
struct Table {
    items: Vec<Site>,
    pager: Pager,
    now: Now,
}

fn pager(filter: &SiteFilter, next: Option<&str>) -> Pager {
    let SiteFilter { service, state, q, drifted, limit, cursor } = filter;
    let filter = [("q", q), ("service", service), ("state", state), ("drifted", drifted)];
    Pager::new(PATH, &filter, limit.as_deref(), (cursor.as_deref(), next))
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
                let head = Head { filter: &filter, states, can_create: visitor.can(Action::CreateSite) };
                let now = Now(server.app.clock.wall());
                let body = Table { pager: pager(&filter, page.next.as_deref()), items: page.items, now };
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
    /// Why there are not more of them.
    why: Option<String>,
    now: Now,
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
    let site = match server.app.manager.site(id).await {
        Ok(site) => Site::from(&site),
        // Its operations stay, and may tell what became of it.
        Err(cdm_core::manager::ManagerError::NotFound { .. }) if !before.is_empty() => {
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
            match server.app.manager.operation(&cdm_core::domain::OperationId::named(member)?).await {
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
    let mut offers = Offers::to(visitor);
    let actions = deeds::actions(&mut offers, &site);
    let body = One { site: &site, drifted, latest, before, actions, why: offers.why(), now };
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

//! The routes `/sites…`: reads sites, and starts operations on them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use cdm_core::domain::operation::{Status, TerminalStatus};
use cdm_core::domain::{Color, SiteId};
use cdm_core::manager::Accepted;
use cdm_core::ports::SiteQuery;
use serde::Deserialize;
use utoipa::IntoParams;

use super::response::{DEFAULT_WAIT, operation_response, with_location};
use crate::api::ServiceName;
use crate::api::list::Listing;
use crate::api::operation::Operation;
use crate::api::site::{CreateSite, Site, SiteState};
use crate::app::{AppState, SharedState};
use crate::auth::CallerRequest;
use crate::error::ApiError;
use crate::extract::{JsonBody, NoQuery, Paging, PathParam, QueryParams, WaitParam, cursor, parse_field};

/// Creates a site.
///
/// Claims the id and the hostnames, and creates the site's credentials. Returns 201 if that succeeds within 10 s, or
/// within `wait`; otherwise 202 with the operation.
#[utoipa::path(post, path = "/sites/create", operation_id = "createSite", tag = "sites", request_body(content = CreateSite, examples(
    ("site" = (summary = "A site with two hostnames", value = json!({"id": "rrr", "name": "Roses, roses, roses",
        "theme": "twentytwentyfive", "hostnames": ["rrr.example.com", "www.rrr.example.com"],
        "canonicalHostname": "rrr.example.com"}))),
    ("on-green" = (summary = "A site on the green service", value = json!({"id": "tulips", "name": "Tulips",
        "theme": "twentytwentyfive", "hostnames": ["tulips.example.com"], "canonicalHostname": "tulips.example.com",
        "service": "green"}))))), params(WaitParam), responses(
    (status = 201, body = Site, headers(("Location" = String, description = "The site."))),
    (status = 202, body = Operation),
    (status = 409)))]
pub(crate) async fn create(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    QueryParams(wait): QueryParams<WaitParam>,
    JsonBody(body): JsonBody<CreateSite>,
) -> Result<Response, ApiError> {
    let (wait, new) = (wait.duration()?.unwrap_or(DEFAULT_WAIT), body.parse()?);
    let accepted = server.app.manager.create_site(&request, &new).await?;
    let Accepted::Operation(id) = accepted else { return server.accepted_response(accepted, None).await };
    let operation = server.wait_for_operation(&id, wait).await?;
    if operation.state.status == Status::Ended(TerminalStatus::Succeeded)
        && let Ok(site) = server.app.manager.site(&new.id).await
    {
        let location = format!("/sites/{}", site.id);
        return Ok(with_location(StatusCode::CREATED, &location, Json(Site::from(&site))));
    }
    Ok(operation_response(StatusCode::ACCEPTED, &operation))
}

/// The filter and the page of a list of sites.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SiteFilter {
    /// Only sites that are assigned to this service.
    #[param(value_type = ServiceName, required = false)]
    pub(crate) service: Option<ServiceName>,
    /// Only sites in this state.
    #[param(value_type = SiteState, required = false)]
    pub(crate) state: Option<SiteState>,
    /// Only sites with this text in their id, name or a hostname.
    #[param(nullable = false)]
    pub(crate) q: Option<String>,
    /// With `true`, only sites whose `routedService` differs from their `service`.
    #[param(value_type = Option<bool>, nullable = false)]
    pub(crate) drifted: Option<String>,
    /// The maximum number of items. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, nullable = false)]
    pub(crate) limit: Option<String>,
    /// The start of the page: the `next` of an earlier page.
    #[param(pattern = "^([0-9a-f]{2})+$", max_length = 1024, nullable = false)]
    pub(crate) cursor: Option<String>,
}

/// Lists sites, sorted by id.
#[utoipa::path(get, path = "/sites", operation_id = "listSites", tag = "sites", params(SiteFilter), responses(
    (status = 200, body = Listing<Site>)))]
pub(crate) async fn list(
    State(server): State<SharedState>,
    QueryParams(filter): QueryParams<SiteFilter>,
) -> Result<Json<Listing<Site>>, ApiError> {
    listed(&server, &filter).await.map(Json)
}

/// Returns the page of sites that a filter selects.
pub(crate) async fn listed(server: &AppState, filter: &SiteFilter) -> Result<Listing<Site>, ApiError> {
    let paging = Paging::new('s', filter.limit.as_deref(), filter.cursor.as_deref())?;
    let service = filter.service.as_ref().map(|name| Color::parse(name.as_str())).transpose();
    let state = filter.state.as_ref().map(|state| {
        state.known().ok_or_else(|| ApiError::field("state", "this state of a site does not exist"))
    });
    let drifted = match filter.drifted.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::field("drifted", "the value must be `true` or `false`")),
    };
    let (service, state) = (parse_field("service", service)?, state.transpose()?);
    let query = SiteQuery { service, state, text: filter.q.clone(), drifted };
    let after = paging.position::<SiteId>()?;
    let page = server.app.manager.sites(&query, after.as_ref(), paging.limit).await?;
    let items = page.items.iter().map(Site::from).collect();
    Ok(Listing { items, next: page.next.map(|next| cursor('s', next)) })
}

/// Returns a site with its current operation.
#[utoipa::path(get, path = "/sites/{id}", operation_id = "getSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "The id of the site.")), responses(
    (status = 200, body = Site)))]
pub(crate) async fn get(
    State(server): State<SharedState>,
    PathParam(id): PathParam<SiteId>,
    _: QueryParams<NoQuery>,
) -> Result<Json<Site>, ApiError> {
    Ok(Json(Site::from(&server.app.manager.site(&id).await?)))
}

/// Provisions a created site, which then serves requests.
///
/// Creates the database and the object prefix, runs `wp core install`, creates the route and activates the theme. An
/// operation that cannot continue is parked, and its `reason` describes what clears it.
#[utoipa::path(post, path = "/sites/{id}/provision", operation_id = "provisionSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "The id of the site."), WaitParam), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn provision(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(id): PathParam<SiteId>,
    QueryParams(wait): QueryParams<WaitParam>,
) -> Result<Response, ApiError> {
    let wait = wait.duration()?;
    server.accepted_response(server.app.manager.provision(&request, &id).await?, wait).await
}

/// Assigns a site to the active canary without moving its route.
///
/// The caches of the site are flushed afterwards. `service` and `routedService` may differ until the site is promoted.
#[utoipa::path(put, path = "/sites/{id}/upgrade", operation_id = "upgradeSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "The id of the site."), WaitParam), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn upgrade(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(id): PathParam<SiteId>,
    QueryParams(wait): QueryParams<WaitParam>,
) -> Result<Response, ApiError> {
    let wait = wait.duration()?;
    server.accepted_response(server.app.manager.upgrade(&request, &id).await?, wait).await
}

/// Moves a site's route and assignment to the active canary.
///
/// The route is moved only if the service is ready at a check before the write, and the site keeps a route at all times.
#[utoipa::path(put, path = "/sites/{id}/promote", operation_id = "promoteSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "The id of the site."), WaitParam), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn promote(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(id): PathParam<SiteId>,
    QueryParams(wait): QueryParams<WaitParam>,
) -> Result<Response, ApiError> {
    let wait = wait.duration()?;
    server.accepted_response(server.app.manager.promote(&request, &id).await?, wait).await
}

/// Terminates a site permanently.
///
/// Deletes the route, the database and its user, the objects, the secrets and the record, in this order. A second request
/// while the operation runs returns the same operation.
#[utoipa::path(delete, path = "/sites/{id}", operation_id = "deleteSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "The id of the site."), WaitParam), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn delete(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(id): PathParam<SiteId>,
    QueryParams(wait): QueryParams<WaitParam>,
) -> Result<Response, ApiError> {
    let wait = wait.duration()?;
    server.accepted_response(server.app.manager.terminate(&request, &id).await?, wait).await
}

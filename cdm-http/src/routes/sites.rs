//! What is asked of sites.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use cdm_core::domain::operation::{Status, TerminalStatus};
use cdm_core::domain::{Color, SiteId, State as SiteState};
use cdm_core::manager::Accepted;
use cdm_core::ports::SiteQuery;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{AT_ONCE, located, told};
use crate::api::list::Listing;
use crate::api::operation::Operation;
use crate::api::site::{CreateSite, Site};
use crate::api::words::{ServiceName, SiteState as StateWord};
use crate::app::{Server, Shared};
use crate::auth::Asked;
use crate::error::Refusal;
use crate::input::{Body, Nothing, Paging, Params, Part, Wait, cursor, parsed};

/// Creates a site.
///
/// Claims the id and the hostnames, and makes its credentials. Answers 201 when that is done within 10 s, or within
/// `wait`, else 202 with the operation.
#[utoipa::path(post, path = "/sites/create", operation_id = "createSite", tag = "sites", request_body(content = CreateSite, examples(
    ("site" = (summary = "A site with two hostnames", value = json!({"id": "rrr", "name": "Roses, roses, roses",
        "theme": "twentytwentyfive", "hostnames": ["rrr.example.com", "www.rrr.example.com"],
        "canonicalHostname": "rrr.example.com"}))),
    ("on-green" = (summary = "A site on the green service", value = json!({"id": "tulips", "name": "Tulips",
        "theme": "twentytwentyfive", "hostnames": ["tulips.example.com"], "canonicalHostname": "tulips.example.com",
        "service": "green"}))))), params(Wait), responses(
    (status = 201, body = Site, headers(("Location" = String, description = "The site."))),
    (status = 202, body = Operation),
    (status = 409)))]
pub(crate) async fn create(
    State(server): State<Shared>,
    Asked(request): Asked,
    Params(wait): Params<Wait>,
    Body(body): Body<CreateSite>,
) -> Result<Response, Refusal> {
    let (span, new) = (wait.span()?.unwrap_or(AT_ONCE), body.parse()?);
    let accepted = server.app.manager.create_site(&request, &new).await?;
    let Accepted::Operation(id) = accepted else { return server.answer(accepted, None).await };
    let operation = server.rested(&id, span).await?;
    if operation.state.status == Status::Ended(TerminalStatus::Succeeded)
        && let Ok(site) = server.app.manager.site(&new.id).await
    {
        let location = format!("/sites/{}", site.id);
        return Ok(located(StatusCode::CREATED, &location, Json(Site::from(&site))));
    }
    Ok(told(StatusCode::ACCEPTED, &operation))
}

/// Which sites.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SiteFilter {
    /// Of this service.
    #[param(value_type = ServiceName, required = false)]
    pub(crate) service: Option<String>,
    /// In this state.
    #[param(value_type = StateWord, required = false)]
    pub(crate) state: Option<String>,
    /// With this text in id, name or a hostname.
    #[param(nullable = false)]
    pub(crate) q: Option<String>,
    /// Only those whose `routedService` is another than their `service`.
    #[param(value_type = Option<bool>, nullable = false)]
    pub(crate) drifted: Option<String>,
    /// Items at most; 100 where it is left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, nullable = false)]
    pub(crate) limit: Option<String>,
    /// Where to go on: what an earlier page said in `next`.
    #[param(pattern = "^([0-9a-f]{2})+$", max_length = 1024, nullable = false)]
    pub(crate) cursor: Option<String>,
}

/// Lists sites, in the order of their ids.
#[utoipa::path(get, path = "/sites", operation_id = "listSites", tag = "sites", params(SiteFilter), responses(
    (status = 200, body = Listing<Site>)))]
pub(crate) async fn list(
    State(server): State<Shared>,
    Params(filter): Params<SiteFilter>,
) -> Result<Json<Listing<Site>>, Refusal> {
    listed(&server, &filter).await.map(Json)
}

/// The page of the list that a filter names.
pub(crate) async fn listed(server: &Server, filter: &SiteFilter) -> Result<Listing<Site>, Refusal> {
    let paging = Paging::new('s', filter.limit.as_deref(), filter.cursor.as_deref())?;
    let service = filter.service.as_deref().map(Color::parse).transpose();
    let state = filter.state.as_deref().map(|text| {
        let known = SiteState::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| Refusal::field("state", "a site has no such state"))
    });
    let drifted = match filter.drifted.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Refusal::field("drifted", "it is `true` or `false`")),
    };
    let (service, state) = (parsed("service", service)?, state.transpose()?);
    let query = SiteQuery { service, state, text: filter.q.clone(), drifted };
    let after = paging.position::<SiteId>()?;
    let page = server.app.manager.sites(&query, after.as_ref(), paging.limit).await?;
    let items = page.items.iter().map(Site::from).collect();
    Ok(Listing { items, next: page.next.map(|next| cursor('s', next)) })
}

/// Shows a site.
#[utoipa::path(get, path = "/sites/{id}", operation_id = "getSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "Which site.")), responses(
    (status = 200, body = Site)))]
pub(crate) async fn get(
    State(server): State<Shared>,
    Part(id): Part<SiteId>,
    _: Params<Nothing>,
) -> Result<Json<Site>, Refusal> {
    Ok(Json(Site::from(&server.app.manager.site(&id).await?)))
}

/// Makes a created site live.
///
/// Database, object prefix, `wp core install`, route, theme. What cannot go on parks, and says what clears it.
#[utoipa::path(post, path = "/sites/{id}/provision", operation_id = "provisionSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "Which site."), Wait), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn provision(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<SiteId>,
    Params(wait): Params<Wait>,
) -> Result<Response, Refusal> {
    let span = wait.span()?;
    server.answer(server.app.manager.provision(&request, &id).await?, span).await
}

/// Assigns a site to the active canary without moving its route.
///
/// Its caches are flushed afterwards. `service` and `routedService` differ until it is promoted.
#[utoipa::path(put, path = "/sites/{id}/upgrade", operation_id = "upgradeSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "Which site."), Wait), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn upgrade(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<SiteId>,
    Params(wait): Params<Wait>,
) -> Result<Response, Refusal> {
    let span = wait.span()?;
    server.answer(server.app.manager.upgrade(&request, &id).await?, span).await
}

/// Moves a site's route and assignment to the active canary.
///
/// The route moves only to a service that is ready at a look before the write, and never goes away in between.
#[utoipa::path(put, path = "/sites/{id}/promote", operation_id = "promoteSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "Which site."), Wait), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn promote(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<SiteId>,
    Params(wait): Params<Wait>,
) -> Result<Response, Refusal> {
    let span = wait.span()?;
    server.answer(server.app.manager.promote(&request, &id).await?, span).await
}

/// Removes a site for good.
///
/// Route, database and user, objects, secrets and record, in that order. A second request while it runs answers with the
/// same operation.
#[utoipa::path(delete, path = "/sites/{id}", operation_id = "deleteSite", tag = "sites", params(("id" = String, Path, pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, description = "Which site."), Wait), responses(
    (status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn delete(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<SiteId>,
    Params(wait): Params<Wait>,
) -> Result<Response, Refusal> {
    let span = wait.span()?;
    server.answer(server.app.manager.terminate(&request, &id).await?, span).await
}

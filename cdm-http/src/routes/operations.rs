//! Routes of operations and of the audit log.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::operation::OperationParent;
use cdm_core::domain::{Actor, OperationId, SiteId, Subject};
use cdm_core::ports::OperationQuery;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::audit::AuditEntry;
use crate::api::list::Listing;
use crate::api::operation::{Operation, OperationKind, OperationStatus};
use crate::api::{RolloutId, Time};
use crate::app::{AppState, SharedState};
use crate::auth::CallerRequest;
use crate::error::ApiError;
use crate::extract::{
    NoQuery, Paging, PathParam, PathSegment, QueryParams, RetryParams, WaitParam, cursor, parse_field,
};

/// The maximum number of pages that a filtered request reads; the response then has a cursor for the rest.
const MAX_PAGES: usize = 32;

/// The filter and the page of a list of operations.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OperationFilter {
    /// Only operations on this site.
    #[param(pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, nullable = false)]
    pub(crate) site: Option<String>,
    /// Only operations of this kind.
    #[param(value_type = OperationKind, required = false)]
    pub(crate) kind: Option<OperationKind>,
    /// Only operations with this status.
    #[param(value_type = OperationStatus, required = false)]
    pub(crate) status: Option<OperationStatus>,
    /// Only operations on the sites of this rollout, in the order of the rollout.
    #[param(value_type = Option<String>, nullable = false)]
    pub(crate) rollout: Option<RolloutId>,
    /// The maximum number of items. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, nullable = false)]
    pub(crate) limit: Option<String>,
    /// The start of the page: the `next` of an earlier page.
    #[param(pattern = "^([0-9a-f]{2})+$", max_length = 1024, nullable = false)]
    pub(crate) cursor: Option<String>,
}

/// Lists operations, newest first.
///
/// Operations that rollouts run on sites are listed only with `rollout` or `site`. With `site`, the list contains the
/// operations on the site, including those of rollouts; a page may have fewer items than `limit` and still have a `next`.
#[utoipa::path(get, path = "/operations", operation_id = "listOperations", tag = "operations", params(OperationFilter), responses(
    (status = 200, body = Listing<Operation>)))]
pub(crate) async fn list(
    State(server): State<SharedState>,
    QueryParams(filter): QueryParams<OperationFilter>,
) -> Result<Json<Listing<Operation>>, ApiError> {
    listed(&server, &filter).await.map(Json)
}

/// Returns the page of operations that a filter selects.
pub(crate) async fn listed(
    server: &AppState,
    filter: &OperationFilter,
) -> Result<Listing<Operation>, ApiError> {
    let kind = filter.kind.as_ref().map(|kind| {
        kind.known().ok_or_else(|| ApiError::field("kind", "this kind of operation does not exist"))
    });
    let status = filter
        .status
        .as_ref()
        .map(|status| status.known().ok_or_else(|| ApiError::field("status", "this status does not exist")));
    let site = parse_field("site", filter.site.as_deref().map(SiteId::parse).transpose())?;
    let query = OperationQuery { site, kind: kind.transpose()?, status: status.transpose()? };
    let list = match (&filter.rollout, &filter.site) {
        (Some(_), _) => 'm',
        (None, Some(_)) => 'h',
        (None, None) => 'o',
    };
    let paging = Paging::new(list, filter.limit.as_deref(), filter.cursor.as_deref())?;
    if let Some(id) = &filter.rollout {
        let number =
            id.number().ok_or_else(|| ApiError::field("rollout", "this is not the id of a rollout"))?;
        return members(server, number, &query, &paging).await;
    }
    if let Some(site) = &query.site {
        let from = paging.position()?.unwrap_or_default();
        let page = server.app.manager.site_operations(site, &query, from, paging.limit).await?;
        let items = page.items.iter().map(Operation::from).collect();
        return Ok(Listing { items, next: page.next.map(|next| cursor('h', next)) });
    }
    let page = server.app.manager.operations(&query, paging.position()?, paging.limit).await?;
    let items = page.items.iter().map(Operation::from).collect();
    Ok(Listing { items, next: page.next.map(|next| cursor('o', next)) })
}

/// Returns the operations on a rollout's sites, in the order of the rollout; reads at most `limit` of them.
async fn members(
    server: &AppState,
    number: u64,
    query: &OperationQuery,
    paging: &Paging,
) -> Result<Listing<Operation>, ApiError> {
    let rollout = server.app.manager.get_rollout(number).await?;
    let first = paging.position::<u32>()?.unwrap_or(0);
    let limit = u32::try_from(paging.limit).unwrap_or(u32::MAX);
    let end = rollout.total.min(first.saturating_add(limit));
    let mut items = Vec::new();
    for ordinal in first..end {
        let number = rollout.first_number + u64::from(ordinal);
        let id = OperationId { number, parent: OperationParent::Rollout(rollout.number, ordinal) };
        let operation = server.app.manager.operation(&id).await?;
        let site = query.site.as_ref();
        let matches = site.is_none_or(|site| operation.subject == Subject::Site(site.clone()))
            && query.kind.is_none_or(|kind| kind == operation.state.input.kind())
            && query.status.is_none_or(|status| status == operation.state.status);
        if matches {
            items.push(Operation::from(&operation));
        }
    }
    Ok(Listing { items, next: (end < rollout.total).then(|| cursor('m', end)) })
}

/// Returns an operation; with `wait`, once it has ended or is parked.
#[utoipa::path(get, path = "/operations/{id}", operation_id = "getOperation", tag = "operations", params(("id" = String, Path, description = "The id of the operation."), WaitParam), responses(
    (status = 200, body = Operation)))]
pub(crate) async fn get(
    State(server): State<SharedState>,
    PathParam(id): PathParam<OperationId>,
    QueryParams(wait): QueryParams<WaitParam>,
) -> Result<Json<Operation>, ApiError> {
    let wait = wait.duration()?.unwrap_or_default();
    Ok(Json(Operation::from(&server.wait_for_operation(&id, wait).await?)))
}

/// Returns the output of a step's job.
#[utoipa::path(get, path = "/operations/{id}/steps/{name}/log", operation_id = "getStepLog", tag = "operations",
    params(("id" = String, Path, description = "The id of the operation."), ("name" = String, Path, description = "The name of the step.")),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn log(
    State(server): State<SharedState>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    _: QueryParams<NoQuery>,
) -> Result<Response, ApiError> {
    let Path((id, step)) = path.map_err(|_| ApiError::not_found("the object in the path"))?;
    let log = server.app.manager.step_log(&OperationId::from_segment(&id)?, &step).await?.unwrap_or_default();
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, log).into_response())
}

/// Resumes a parked operation, or repeats one that failed or was canceled.
///
/// A repetition is a new operation with `retryOf`. It needs the role that the original request needs: `admin` for a
/// terminate, a deploy and a selection. The deploy of a digest that is marked bad is repeated only with `force`.
#[utoipa::path(post, path = "/operations/{id}/retry", operation_id = "retryOperation", tag = "operations", params(("id" = String, Path, description = "The id of the operation."), RetryParams),
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn retry(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(id): PathParam<OperationId>,
    QueryParams(requested): QueryParams<RetryParams>,
) -> Result<Response, ApiError> {
    let (wait, force) = requested.parse()?;
    server.accepted_response(server.app.manager.retry_with(&request, &id, force).await?, wait).await
}

/// Cancels an operation.
///
/// Completed steps are undone where possible. If it is too late to cancel the operation, the response is 409. A cancel
/// needs the role that the original request needs: `admin` for a terminate, a deploy and a selection.
#[utoipa::path(post, path = "/operations/{id}/cancel", operation_id = "cancelOperation", tag = "operations", params(("id" = String, Path, description = "The id of the operation."), WaitParam),
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn cancel(
    State(server): State<SharedState>,
    CallerRequest(request): CallerRequest,
    PathParam(id): PathParam<OperationId>,
    QueryParams(wait): QueryParams<WaitParam>,
) -> Result<Response, ApiError> {
    let wait = wait.duration()?;
    server.accepted_response(server.app.manager.cancel(&request, &id).await?, wait).await
}

/// The filter and the page of the audit log.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditFilter {
    /// Only entries of this actor.
    #[param(pattern = "^[!-~]([ -~]{0,98}[!-~])?$", nullable = false)]
    pub(crate) actor: Option<String>,
    /// Only entries that concern this site.
    #[param(pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, nullable = false)]
    pub(crate) site: Option<String>,
    /// Only entries at this time or later, in RFC 3339.
    #[param(format = DateTime, nullable = false)]
    pub(crate) since: Option<String>,
    /// The maximum number of items. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, nullable = false)]
    pub(crate) limit: Option<String>,
    /// The start of the page: the `next` of an earlier page.
    #[param(pattern = "^([0-9a-f]{2})+$", max_length = 1024, nullable = false)]
    pub(crate) cursor: Option<String>,
}

/// Lists the entries of the audit log, newest first.
///
/// With a filter, a page may have fewer items than `limit` and still have a `next`.
#[utoipa::path(get, path = "/audit", operation_id = "listAudit", tag = "audit", params(AuditFilter), responses(
    (status = 200, body = Listing<AuditEntry>)))]
pub(crate) async fn audit(
    State(server): State<SharedState>,
    QueryParams(filter): QueryParams<AuditFilter>,
) -> Result<Json<Listing<AuditEntry>>, ApiError> {
    entries(&server, &filter).await.map(Json)
}

/// Returns the page of the audit log that a filter selects.
pub(crate) async fn entries(
    server: &AppState,
    filter: &AuditFilter,
) -> Result<Listing<AuditEntry>, ApiError> {
    let actor = parse_field("actor", filter.actor.as_deref().map(Actor::parse).transpose())?;
    let site = parse_field("site", filter.site.as_deref().map(SiteId::parse).transpose())?;
    let since = filter.since.as_deref().map(|text| {
        Time::parse(text).map(|time| time.0).ok_or_else(|| {
            ApiError::field("since", "the time must be in RFC 3339, such as `2026-01-31T12:00:00Z`")
        })
    });
    let since = since.transpose()?;
    let paging = Paging::new('a', filter.limit.as_deref(), filter.cursor.as_deref())?;
    let mut before = paging.position::<u64>()?;
    let mut items = Vec::new();
    let mut rollouts = BTreeMap::new();
    for _ in 0..MAX_PAGES {
        let page = server.app.manager.audit_log(before, paging.limit - items.len()).await?;
        let over = page.items.last().is_some_and(|entry| since.is_some_and(|since| entry.at < since));
        before = page.next.filter(|_| !over);
        let found = page.items.iter().filter(|entry| {
            actor.as_ref().is_none_or(|actor| entry.actor == *actor)
                && since.is_none_or(|since| entry.at >= since)
        });
        for entry in found {
            let concerns = match &site {
                Some(site) => concerns(server, entry, site, &mut rollouts).await?,
                None => true,
            };
            if concerns {
                items.push(AuditEntry::from(entry));
            }
        }
        if before.is_none() || items.len() >= paging.limit {
            break;
        }
    }
    Ok(Listing { items, next: before.map(|before| cursor('a', before)) })
}

/// Returns whether an entry concerns a site: its target is the site, or its operation runs on the site, or its rollout
/// contains the site. `rollouts` caches which rollouts contain the site.
async fn concerns(
    server: &AppState,
    entry: &cdm_core::domain::AuditEntry,
    site: &SiteId,
    rollouts: &mut BTreeMap<u64, bool>,
) -> Result<bool, ApiError> {
    let subject = OperationParent::Subject(Subject::Site(site.clone()));
    let named = entry.action.starts_with("site.") && entry.target == site.as_str();
    if named || entry.operation.as_ref().is_some_and(|operation| operation.parent == subject) {
        return Ok(true);
    }
    let Some(number) = entry.rollout.or_else(|| RolloutId::from(entry.target.as_str()).number()) else {
        return Ok(false);
    };
    if let Some(known) = rollouts.get(&number) {
        return Ok(*known);
    }
    let contains = server.app.manager.has_member(number, site).await?;
    rollouts.insert(number, contains);
    Ok(contains)
}

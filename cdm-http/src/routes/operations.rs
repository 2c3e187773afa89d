//! What is asked of operations, and the record of what was asked.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use cdm_core::domain::OperationKind as DomainKind;
use cdm_core::domain::operation::OperationParent;
use cdm_core::domain::{Actor, OperationId, SiteId, Subject};
use cdm_core::ports::OperationQuery;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::audit::AuditEntry;
use crate::api::list::Listing;
use crate::api::operation::Operation;
use crate::api::words::{OperationKind, OperationStatus, STATUSES};
use crate::api::{moment, rollout};
use crate::app::{Server, Shared};
use crate::auth::Asked;
use crate::error::Refusal;
use crate::input::{Named, Nothing, Paging, Params, Part, Retry, Wait, cursor, parsed};

/// How many pages a filter looks at before it hands the rest to the next request.
const PAGES: usize = 32;

/// Which operations.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OperationFilter {
    /// On this site.
    #[param(pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, nullable = false)]
    pub(crate) site: Option<String>,
    /// Of this kind.
    #[param(value_type = OperationKind, required = false)]
    pub(crate) kind: Option<String>,
    /// That stand so.
    #[param(value_type = OperationStatus, required = false)]
    pub(crate) status: Option<String>,
    /// Of this rollout's sites, in the rollout's order.
    #[param(nullable = false)]
    pub(crate) rollout: Option<String>,
    /// Items at most; 100 where it is left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, nullable = false)]
    pub(crate) limit: Option<String>,
    /// Where to go on: what an earlier page said in `next`.
    #[param(pattern = "^([0-9a-f]{2})+$", max_length = 1024, nullable = false)]
    pub(crate) cursor: Option<String>,
}

/// Lists operations, newest first; those of rollouts' sites only with `rollout` or `site`.
///
/// With `site` they are its own and what rollouts did to it; such a page may be short and still have a next.
#[utoipa::path(get, path = "/operations", operation_id = "listOperations", tag = "operations", params(OperationFilter), responses(
    (status = 200, body = Listing<Operation>)))]
pub(crate) async fn list(
    State(server): State<Shared>,
    Params(filter): Params<OperationFilter>,
) -> Result<Json<Listing<Operation>>, Refusal> {
    listed(&server, &filter).await.map(Json)
}

/// The page of the list that a filter names.
pub(crate) async fn listed(server: &Server, filter: &OperationFilter) -> Result<Listing<Operation>, Refusal> {
    let kind = filter.kind.as_deref().map(|text| {
        let known = DomainKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| Refusal::field("kind", "there is no such kind"))
    });
    let status = filter.status.as_deref().map(|text| {
        let known = STATUSES.into_iter().find(|status| status.as_str() == text);
        known.ok_or_else(|| Refusal::field("status", "there is no such status"))
    });
    let site = parsed("site", filter.site.as_deref().map(SiteId::parse).transpose())?;
    let query = OperationQuery { site, kind: kind.transpose()?, status: status.transpose()? };
    let list = match (&filter.rollout, &filter.site) {
        (Some(_), _) => 'm',
        (None, Some(_)) => 'h',
        (None, None) => 'o',
    };
    let paging = Paging::new(list, filter.limit.as_deref(), filter.cursor.as_deref())?;
    if let Some(id) = &filter.rollout {
        let number =
            rollout::number(id).ok_or_else(|| Refusal::field("rollout", "there is no such rollout"))?;
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

/// The operations of a rollout's sites, in its order. At most `limit` sites are looked at.
async fn members(
    server: &Server,
    number: u64,
    query: &OperationQuery,
    paging: &Paging,
) -> Result<Listing<Operation>, Refusal> {
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
        let has = site.is_none_or(|site| operation.subject == Subject::Site(site.clone()))
            && query.kind.is_none_or(|kind| kind == operation.state.input.kind())
            && query.status.is_none_or(|status| status == operation.state.status);
        if has {
            items.push(Operation::from(&operation));
        }
    }
    Ok(Listing { items, next: (end < rollout.total).then(|| cursor('m', end)) })
}

/// Shows an operation; waits for its rest where asked to.
#[utoipa::path(get, path = "/operations/{id}", operation_id = "getOperation", tag = "operations", params(("id" = String, Path, description = "Which operation."), Wait), responses(
    (status = 200, body = Operation)))]
pub(crate) async fn get(
    State(server): State<Shared>,
    Part(id): Part<OperationId>,
    Params(wait): Params<Wait>,
) -> Result<Json<Operation>, Refusal> {
    let span = wait.span()?.unwrap_or_default();
    Ok(Json(Operation::from(&server.rested(&id, span).await?)))
}

/// Shows what a step's job printed.
#[utoipa::path(get, path = "/operations/{id}/steps/{name}/log", operation_id = "getStepLog", tag = "operations",
    params(("id" = String, Path, description = "Which operation."), ("name" = String, Path, description = "Which step.")),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn log(
    State(server): State<Shared>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    _: Params<Nothing>,
) -> Result<Response, Refusal> {
    let Path((id, step)) = path.map_err(|_| Refusal::not_found("what the path names"))?;
    let log = server.app.manager.step_log(&OperationId::named(&id)?, &step).await?.unwrap_or_default();
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, log).into_response())
}

/// Lets a parked operation go on, or repeats one that failed or was cancelled.
///
/// A repetition is a new operation with `retryOf`. It takes the role of what it repeats: `admin` for a terminate, a deploy
/// and a selection. The deploy of a digest that is bad is repeated only with `force`.
#[utoipa::path(post, path = "/operations/{id}/retry", operation_id = "retryOperation", tag = "operations", params(("id" = String, Path, description = "Which operation."), Retry),
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn retry(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<OperationId>,
    Params(wanted): Params<Retry>,
) -> Result<Response, Refusal> {
    let (span, force) = wanted.parse()?;
    server.answer(server.app.manager.retry_with(&request, &id, force).await?, span).await
}

/// Asks an operation to stop.
///
/// What was done is undone where that can be; an operation that has gone too far answers 409. It takes the role of what it
/// stops: `admin` for a terminate, a deploy and a selection.
#[utoipa::path(post, path = "/operations/{id}/cancel", operation_id = "cancelOperation", tag = "operations", params(("id" = String, Path, description = "Which operation."), Wait),
    responses((status = 200, body = Operation), (status = 202, body = Operation), (status = 409)))]
pub(crate) async fn cancel(
    State(server): State<Shared>,
    Asked(request): Asked,
    Part(id): Part<OperationId>,
    Params(wait): Params<Wait>,
) -> Result<Response, Refusal> {
    let span = wait.span()?;
    server.answer(server.app.manager.cancel(&request, &id).await?, span).await
}

/// Which entries.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditFilter {
    /// Of this actor.
    #[param(pattern = "^[!-~]([ -~]{0,98}[!-~])?$", nullable = false)]
    pub(crate) actor: Option<String>,
    /// Of this site.
    #[param(pattern = "^[a-z]([a-z0-9]|-[a-z0-9]){0,31}$", max_length = 32, nullable = false)]
    pub(crate) site: Option<String>,
    /// At this moment or later: RFC 3339.
    #[param(format = DateTime, nullable = false)]
    pub(crate) since: Option<String>,
    /// Items at most; 100 where it is left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, nullable = false)]
    pub(crate) limit: Option<String>,
    /// Where to go on: what an earlier page said in `next`.
    #[param(pattern = "^([0-9a-f]{2})+$", max_length = 1024, nullable = false)]
    pub(crate) cursor: Option<String>,
}

/// Lists who asked for what, newest first; a page of a filtered list may be short and still have a next.
#[utoipa::path(get, path = "/audit", operation_id = "listAudit", tag = "audit", params(AuditFilter), responses(
    (status = 200, body = Listing<AuditEntry>)))]
pub(crate) async fn audit(
    State(server): State<Shared>,
    Params(filter): Params<AuditFilter>,
) -> Result<Json<Listing<AuditEntry>>, Refusal> {
    entries(&server, &filter).await.map(Json)
}

/// The page of the audit that a filter names.
pub(crate) async fn entries(server: &Server, filter: &AuditFilter) -> Result<Listing<AuditEntry>, Refusal> {
    let actor = parsed("actor", filter.actor.as_deref().map(Actor::parse).transpose())?;
    let site = parsed("site", filter.site.as_deref().map(SiteId::parse).transpose())?;
    let since = filter.since.as_deref().map(|text| {
        moment(text).ok_or_else(|| Refusal::field("since", "a moment is written as in RFC 3339"))
    });
    let since = since.transpose()?;
    let paging = Paging::new('a', filter.limit.as_deref(), filter.cursor.as_deref())?;
    let mut before = paging.position::<u64>()?;
    let mut items = Vec::new();
    let mut rollouts = BTreeMap::new();
    for _ in 0..PAGES {
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

/// Whether an entry concerns a site: it names it, is about an operation of it, or about a rollout that has it. `rollouts`
/// keeps which do.
async fn concerns(
    server: &Server,
    entry: &cdm_core::domain::AuditEntry,
    site: &SiteId,
    rollouts: &mut BTreeMap<u64, bool>,
) -> Result<bool, Refusal> {
    let subject = OperationParent::Subject(Subject::Site(site.clone()));
    let named = entry.action.starts_with("site.") && entry.target == site.as_str();
    if named || entry.operation.as_ref().is_some_and(|operation| operation.parent == subject) {
        return Ok(true);
    }
    let Some(number) = entry.rollout.or_else(|| rollout::number(&entry.target)) else { return Ok(false) };
    if let Some(known) = rollouts.get(&number) {
        return Ok(*known);
    }
    let has = server.app.manager.has_member(number, site).await?;
    rollouts.insert(number, has);
    Ok(has)
}

//! The page of the audit log.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::format::{self, Now};
use super::page::{Section, View, live, render};
use super::session::PageRequest;
use super::{Filter, Pager};
use crate::api::audit::AuditEntry;
use crate::app::SharedState;
use crate::error::ApiError;
use crate::routes::operations::{AuditFilter, entries};

const PATH: &str = "/console/audit";

#[derive(Template)]
#[template(path = "audit_head.html")]
struct Head<'a> {
    filter: &'a AuditFilter,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Table {
    items: Vec<AuditEntry>,
    pager: Pager,
    now: Now,
}

fn pager(filter: &AuditFilter, next: Option<&str>) -> Pager {
    let AuditFilter { actor, site, since, limit, cursor } = filter;
    let filter = [("actor", actor.as_deref()), ("site", site.as_deref()), ("since", since.as_deref())];
    Pager::new(PATH, &filter, limit.as_deref(), (cursor.as_deref(), next))
}

/// Lists the entries of the audit log.
pub(crate) async fn list(
    State(server): State<SharedState>,
    request: PageRequest,
    Filter(filter): Filter<AuditFilter>,
) -> Result<Response, ApiError> {
    live(
        server,
        request,
        |_| true,
        move |server, _| {
            let filter = filter.clone();
            async move {
                let page = entries(&server, &filter).await?;
                let now = Now(server.app.clock.wall());
                Ok(View {
                    title: "Audit log".to_owned(),
                    section: Section::Audit,
                    head: render(&Head { filter: &filter })?,
                    body: render(&Table {
                        pager: pager(&filter, page.next.as_deref()),
                        items: page.items,
                        now,
                    })?,
                })
            }
        },
    )
    .await
}

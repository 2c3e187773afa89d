//! Who asked for what.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::guard::Visit;
use super::page::{Section, View, live, rendered};
use super::shape::{self, Now};
use super::{Filter, Pager};
use crate::api::audit::AuditEntry;
use crate::app::Shared;
use crate::error::Refusal;
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
    let filter = [("actor", actor), ("site", site), ("since", since)];
    Pager::new(PATH, &filter, limit.as_deref(), (cursor.as_deref(), next))
}

/// Lists who asked for what.
pub(crate) async fn list(
    State(server): State<Shared>,
    visit: Visit,
    Filter(filter): Filter<AuditFilter>,
) -> Result<Response, Refusal> {
    live(
        server,
        visit,
        |_| true,
        move |server, _| {
            let filter = filter.clone();
            async move {
                let page = entries(&server, &filter).await?;
                let now = Now(server.app.clock.wall());
                Ok(View {
                    title: "Audit".to_owned(),
                    section: Section::Audit,
                    head: rendered(&Head { filter: &filter })?,
                    body: rendered(&Table {
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

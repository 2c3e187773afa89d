//! Who asked for what.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::guard::Visit;
use super::page::{Section, View, live, rendered};
use super::shape::{self, Now};
use super::{Filter, with_cursor};
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
struct Table<'a> {
    filter: &'a AuditFilter,
    items: Vec<AuditEntry>,
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
        let AuditFilter { actor, site, since, limit, .. } = self.filter;
        with_cursor(PATH, &[("actor", actor), ("site", site), ("since", since), ("limit", limit)], cursor)
    }

    fn is_filtered(&self) -> bool {
        let AuditFilter { actor, site, since, .. } = self.filter;
        [actor, site, since].iter().any(|part| part.is_some())
    }
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
                    body: rendered(&Table { filter: &filter, items: page.items, next: page.next, now })?,
                })
            }
        },
    )
    .await
}

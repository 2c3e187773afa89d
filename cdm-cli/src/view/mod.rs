//! Tables, and the description of one object.
//!
//! A table has the columns of the typed object. A description has a line for each field of the object as the server sent
//! it, so it also shows the fields of a newer server.

mod columns;
mod table;

use cdm_core::domain::Timestamp;
use cdm_http::api::Time;
use cdm_http::api::event::Event;
use cdm_http::api::freeze::Freeze;
use cdm_http::api::health::BackendStatus;
use cdm_http::api::list::Removed;
use cdm_http::api::operation::{Operation, Reason};
use cdm_http::api::plan::Plan;
use cdm_http::api::rollout::Rollout;
use cdm_http::api::services::{Selected, Services};
use cdm_http::api::site::Site;
use cdm_http::api::token::{MadeToken, Token};
use cdm_http::api::user::User;
use cdm_http::api::webhook::{MadeWebhook, Webhook};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::age;
use crate::client::Received;
use crate::text::{clean, plain};
pub(crate) use columns::rollout_status;
pub use columns::{Column, ColumnPriority, NamedService, Row, headings};

/// An object that a command prints alone.
pub trait Shown: Sized {
    /// Returns the text of the object for a terminal. Ages refer to `now`.
    fn format(item: &Received<Self>, now: Timestamp, width: Option<usize>) -> String {
        describe(&item.json, None, now, width)
    }
}

impl Shown for Site {}
impl Shown for Freeze {}
impl Shown for Webhook {}
impl Shown for MadeWebhook {}
impl Shown for Token {}
impl Shown for MadeToken {}
impl Shown for User {}
impl Shown for Removed {}
/// A report of this command.
impl Shown for Value {}

impl Shown for Operation {
    fn format(item: &Received<Self>, now: Timestamp, width: Option<usize>) -> String {
        let steps = rows(&item.value.steps, now, width);
        describe(&item.json, Some(("steps", steps)), now, width)
    }
}

impl Shown for Rollout {
    fn format(item: &Received<Self>, now: Timestamp, width: Option<usize>) -> String {
        let waves = rows(&item.value.waves, now, width);
        describe(&item.json, Some(("waves", waves)), now, width)
    }
}

/// The report of `cdm doctor`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Health {
    /// Status of the server: `ready`, `not_ready` or `stopping`.
    pub server: cdm_http::api::health::Readiness,
    /// Every backend of the server, including the healthy ones.
    pub backends: Vec<BackendStatus>,
    /// `accepted`, or why the server rejects the token.
    pub token: String,
}

impl Shown for Health {
    fn format(item: &Received<Self>, now: Timestamp, width: Option<usize>) -> String {
        let backends = rows(&item.value.backends, now, width);
        describe(&item.json, Some(("backends", backends)), now, width)
    }
}

impl Shown for Selected {
    fn format(item: &Received<Self>, _: Timestamp, _: Option<usize>) -> String {
        format!("{}\n", clean(&item.value.message))
    }
}

/// Both services with the active canary, and the freezes in effect.
impl Shown for Services {
    fn format(item: &Received<Self>, now: Timestamp, width: Option<usize>) -> String {
        let Self { canary, services, freezes, .. } = &item.value;
        let named = services.iter().map(|(name, service)| NamedService {
            name: name.clone(),
            is_canary: *name == canary.service,
            service: service.clone(),
        });
        let mut text = table(&named.collect::<Vec<_>>(), now, width);
        for freeze in freezes {
            text.push_str(&format!("\n{}\n", describe_freeze(freeze)));
        }
        text
    }
}

/// A plan: its totals, its waves, the first sites, and the warnings.
impl Shown for Plan {
    fn format(item: &Received<Self>, now: Timestamp, width: Option<usize>) -> String {
        let plan = &item.value;
        let mut fields = item.json.clone();
        if let Value::Object(fields) = &mut fields {
            fields.retain(|key, _| !matches!(key.as_str(), "sites" | "warnings"));
            let calls = fields.get("calls").and_then(Value::as_object).into_iter().flatten();
            let calls = calls.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
            fields.insert("calls".to_owned(), calls.into());
        }
        let waves = rows(&plan.waves, now, width);
        let mut text = describe(&fields, Some(("waves", waves)), now, width);
        if !plan.sites.is_empty() {
            text.push('\n');
            text.push_str(&table(&plan.sites, now, width));
            let more = u64::from(plan.total).saturating_sub(plan.sites.len() as u64);
            if more > 0 {
                text.push_str(&format!("… and {more} more\n"));
            }
        }
        for warning in &plan.warnings {
            let (code, message) = (clean(warning.code.as_str()), clean(&warning.message));
            text.push_str(&format!("\nwarning: {code}: {message}\n"));
        }
        text
    }
}

/// Formats an event on one line: time, subject, operation, event. An event of another form is printed as it is.
pub(crate) fn event(json: &Value) -> String {
    let Ok(event) = Event::deserialize(json) else { return format!("{}\n", plain(json)) };
    let about = event.subject.map(|id| id.to_string()).or_else(|| event.rollout.map(|id| id.to_string()));
    let parts =
        [Some(event.at.to_string()), about, event.operation.map(|id| id.to_string()), Some(event.what)];
    let parts = parts.into_iter().flatten().map(|part| clean(&part)).filter(|part| !part.is_empty());
    format!("{}\n", parts.collect::<Vec<_>>().join("  "))
}

/// Formats a freeze on one line: sites, owner, end and reason.
pub(crate) fn describe_freeze(freeze: &Freeze) -> String {
    let moves = match columns::frozen_sites(freeze).as_str() {
        "" => "all moves are frozen".to_owned(),
        sites => format!("moves of {sites} are frozen"),
    };
    let until = freeze.expires_at.map_or_else(String::new, |end| format!(" until {end}"));
    format!("{moves} by {}{until}: {}", clean(freeze.owner.as_str()), clean(&freeze.reason))
}

/// Formats a list of objects.
pub(crate) fn format_list<T: Row>(items: &[Received<T>], now: Timestamp, width: Option<usize>) -> String {
    let items: Vec<&T> = items.iter().map(|item| &item.value).collect();
    render(&items, now, width)
}

/// Formats each field on its own line, then the table of the parts, which replaces their field.
fn describe(
    json: &Value,
    parts: Option<(&str, Option<String>)>,
    now: Timestamp,
    width: Option<usize>,
) -> String {
    let mut lines = Vec::new();
    let mut fields: Vec<_> = json.as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(key, _)| rank(key));
    for (key, field) in fields {
        if field.is_null() || parts.as_ref().is_some_and(|(name, _)| name == key) {
            continue;
        }
        let shown = match field {
            Value::Object(_) if key == "reason" => reason(field),
            Value::String(text) if key == "at" || key.ends_with("At") => Time::parse(text)
                .map_or_else(|| clean(text), |at| format!("{} ({})", clean(text), age::of(at, now))),
            other => plain(other),
        };
        lines.push((format!("{}:", clean(key)), shown));
    }
    let mut text = table::pairs(lines, width);
    if let Some((_, Some(table))) = parts {
        text.push('\n');
        text.push_str(&table);
    }
    text
}

/// Returns the sort key of a field: the most important fields first, times last, all others between them.
fn rank(key: &str) -> usize {
    const FIRST: [&str; 22] = [
        "id",
        "planHash",
        "name",
        "kind",
        "site",
        "state",
        "status",
        "reason",
        "service",
        "routedService",
        "imageTag",
        "total",
        "moves",
        "inPlace",
        "succeeded",
        "failed",
        "parked",
        "skipped",
        "running",
        "pending",
        "canonicalHostname",
        "hostnames",
    ];
    const LAST: [&str; 5] = ["createdAt", "startedAt", "updatedAt", "finishedAt", "version"];
    let first = FIRST.iter().position(|known| *known == key);
    let last = LAST.iter().position(|known| *known == key).map(|at| FIRST.len() + 1 + at);
    first.or(last).unwrap_or(FIRST.len())
}

/// Formats the reason of an operation or rollout on one line.
fn reason(json: &Value) -> String {
    let Ok(reason) = Reason::deserialize(json) else { return plain(json) };
    let until = reason.until.map_or_else(String::new, |until| format!(" (until {until})"));
    format!("{}: {}{until}", clean(reason.code.as_str()), clean(&reason.message))
}

/// Returns the table of the parts of an object; `None` without parts.
fn rows<T: Row>(parts: &[T], now: Timestamp, width: Option<usize>) -> Option<String> {
    (!parts.is_empty()).then(|| table(parts, now, width))
}

fn table<T: Row>(items: &[T], now: Timestamp, width: Option<usize>) -> String {
    render(&items.iter().collect::<Vec<_>>(), now, width)
}

fn render<T: Row>(items: &[&T], now: Timestamp, width: Option<usize>) -> String {
    let columns = T::COLUMNS.iter().map(|column| {
        let cells = items.iter().map(|item| match (column.cell)(item, now) {
            text if text.is_empty() => "-".to_owned(),
            text => text,
        });
        table::Column { heading: column.heading, priority: column.priority, cells: cells.collect() }
    });
    table::render(columns.collect(), width)
}

//! Tables: which fields of each kind of object are shown, and how.

mod columns;
mod table;

use cdm_core::domain::Timestamp;
use serde_json::Value;

use crate::age;
use crate::printer::clean;
pub use columns::Shape;
use columns::{ColumnPriority, Columns};
use table::Column;

/// Formats one object.
pub(crate) fn format_one(shape: Shape, value: &Value, now: Timestamp, width: Option<usize>) -> String {
    match shape {
        Shape::Services => services(value, now, width),
        Shape::Plan => plan(value, now, width),
        Shape::Selection => {
            format!("{}\n", value.get("message").and_then(Value::as_str).map_or_else(String::new, clean))
        }
        Shape::Site
        | Shape::Operation
        | Shape::Rollout
        | Shape::Freeze
        | Shape::Webhook
        | Shape::Token
        | Shape::User
        | Shape::Audit
        | Shape::Release
        | Shape::Health
        | Shape::Done => describe(shape, value, now, width),
    }
}

/// Formats a list of objects.
pub(crate) fn format_list(shape: Shape, items: &[Value], now: Timestamp, width: Option<usize>) -> String {
    table(shape.columns(), items, now, width)
}

/// Formats an event on one line: time, subject, operation, event.
pub(crate) fn event(value: &Value) -> String {
    let part = |key: &str| value.get(key).map(plain).filter(|text| !text.is_empty());
    let about = part("subject").or_else(|| part("rollout"));
    let parts = [part("at"), about, part("operation"), part("what")];
    format!("{}\n", parts.into_iter().flatten().collect::<Vec<_>>().join("  "))
}

/// Formats a plan: its totals, its waves, and the first sites.
fn plan(value: &Value, now: Timestamp, width: Option<usize>) -> String {
    let mut rest = value.clone();
    let mut take_field =
        |key: &str| rest.as_object_mut().and_then(|rest| rest.remove(key)).unwrap_or_default();
    let (sites, warnings, calls, steps) =
        (take_field("sites"), take_field("warnings"), take_field("calls"), take_field("steps"));
    let steps: Vec<_> = steps.as_array().into_iter().flatten().map(plain).collect();
    rest["steps"] = steps.join(", ").into();
    let calls = calls.as_object().into_iter().flatten().map(|(name, count)| format!("{name} {count}"));
    rest["calls"] = calls.collect::<Vec<_>>().join(", ").into();
    let mut text = describe(Shape::Plan, &rest, now, width);
    if let Some(sites) = sites.as_array().filter(|sites| !sites.is_empty()) {
        text.push('\n');
        text.push_str(&table(Shape::Plan.columns(), sites, now, width));
        let total = value.get("total").and_then(Value::as_u64).unwrap_or(0);
        let more = total.saturating_sub(sites.len() as u64);
        if more > 0 {
            text.push_str(&format!("… and {more} more\n"));
        }
    }
    let warnings = warnings.as_array().into_iter().flatten();
    let lines = warnings.map(|warning| {
        let part = |key: &str| warning.get(key).map(plain).unwrap_or_default();
        format!("\nwarning: {}: {}\n", part("code"), part("message"))
    });
    text.push_str(&lines.collect::<String>());
    text
}

fn services(value: &Value, now: Timestamp, width: Option<usize>) -> String {
    let canary = value.pointer("/canary/selector").cloned().unwrap_or_default();
    let rows = value
        .get("services")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, service)| service.is_object())
        .map(|(name, service)| {
            let mut row = service.clone();
            row["#name"] = Value::from(name.as_str());
            row["#canary"] = Value::from(if canary == name.as_str() { "active" } else { "" });
            row["#ready"] =
                Value::from(format!("{}/{}", field(service, "/ready", now), field(service, "/desired", now)));
            row
        });
    let mut text = table(Shape::Services.columns(), &rows.collect::<Vec<_>>(), now, width);
    for freeze in value.get("freezes").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("\n{}\n", describe_freeze(freeze)));
    }
    text
}

/// Formats a freeze on one line: sites, owner, end and reason.
pub(crate) fn describe_freeze(freeze: &Value) -> String {
    let part = |key: &str| freeze.get(key).map(plain).filter(|text| !text.is_empty());
    let whom = part("sites")
        .map_or_else(|| "all moves are frozen".to_owned(), |sites| format!("moves of {sites} are frozen"));
    let until = part("expiresAt").map_or_else(String::new, |end| format!(" until {end}"));
    let (owner, reason) = (part("owner").unwrap_or_default(), part("reason").unwrap_or_default());
    format!("{whom} by {owner}{until}: {reason}")
}

/// Formats each field on its own line, then the table of parts.
fn describe(shape: Shape, value: &Value, now: Timestamp, width: Option<usize>) -> String {
    let (parts, columns) = shape.parts_columns().unwrap_or(("", &[]));
    let mut rows = Vec::new();
    let mut fields: Vec<_> = value.as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(key, _)| rank(key));
    for (key, field) in fields {
        if key == parts || field.is_null() {
            continue;
        }
        let shown = match field {
            Value::Object(_) if key == "reason" => reason(field),
            Value::String(text) if is_time(key) => {
                age::of(text, now).map_or_else(|| clean(text), |age| format!("{} ({age})", clean(text)))
            }
            other => plain(other),
        };
        rows.push((format!("{}:", clean(key)), shown));
    }
    let mut text = table::pairs(rows, width);
    if let Some(items) = value.get(parts).and_then(Value::as_array).filter(|items| !items.is_empty()) {
        text.push('\n');
        text.push_str(&table(columns, items, now, width));
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

fn reason(value: &Value) -> String {
    let part = |key: &str| value.get(key).map(plain).unwrap_or_default();
    match part("until").as_str() {
        "" => format!("{}: {}", part("code"), part("message")),
        until => format!("{}: {} (until {until})", part("code"), part("message")),
    }
}

fn table(columns: &Columns, items: &[Value], now: Timestamp, width: Option<usize>) -> String {
    let cell = |item: &Value, path: &str| Some(field(item, path, now)).filter(|text| !text.is_empty());
    let columns = columns.iter().map(|&(heading, path, priority): &(_, _, ColumnPriority)| {
        let cells = items.iter().map(|item| cell(item, path).unwrap_or_else(|| "-".into()));
        Column { heading, priority, cells: cells.collect() }
    });
    table::render(columns.collect(), width)
}

fn field(item: &Value, path: &str, now: Timestamp) -> String {
    match path {
        "#step" => step(item),
        "#status" => rollout_status(item),
        "#state" => state(item),
        "#sessions" => item["sessions"].as_array().map_or(0, Vec::len).to_string(),
        "#took" => step_duration(item, now),
        "/reason" if item.get("reason").is_some_and(Value::is_object) => {
            item.pointer("/reason/code").map(plain).unwrap_or_default()
        }
        path if path.starts_with('#') => item.get(path).map(plain).unwrap_or_default(),
        path => match item.pointer(path) {
            Some(Value::String(text)) if is_time(path) => age::of(text, now).unwrap_or_else(|| clean(text)),
            Some(value) => plain(value),
            None => String::new(),
        },
    }
}

/// Returns a rollout's status, or `partly succeeded` if it succeeded without moving each of its sites.
pub(crate) fn rollout_status(rollout: &Value) -> String {
    match rollout.get("partial").and_then(Value::as_bool) {
        Some(true) => "partly succeeded".to_owned(),
        Some(false) | None => rollout.get("status").map(plain).unwrap_or_default(),
    }
}

/// Returns a site's state, marked `(parked)` if its operation is parked.
fn state(site: &Value) -> String {
    let part = |key: &str| site.get(key).map(plain).unwrap_or_default();
    match part("operationStatus").as_str() {
        "parked" => format!("{} (parked)", part("state")),
        _ => part("state"),
    }
}

fn is_time(path: &str) -> bool {
    path.ends_with("At") || path.ends_with("/at") || path == "at"
}

/// Returns the progress of an operation: finished and total steps, and the step that is running or has failed.
fn step(operation: &Value) -> String {
    let steps = operation.get("steps").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let status = |step: &Value| step.get("status").map(plain).unwrap_or_default();
    let done = steps.iter().filter(|step| matches!(status(step).as_str(), "succeeded" | "skipped")).count();
    if steps.is_empty() {
        return String::new();
    }
    let current = steps.iter().find(|step| matches!(status(step).as_str(), "running" | "failed"));
    let name = current.and_then(|step| step.get("name")).map(plain).unwrap_or_default();
    format!("{done}/{} {name}", steps.len()).trim_end().to_owned()
}

fn step_duration(step: &Value, now: Timestamp) -> String {
    let Some(started) = step.get("startedAt").and_then(Value::as_str) else { return String::new() };
    match step.get("finishedAt").and_then(Value::as_str) {
        Some(finished) => age::between(started, finished).unwrap_or_default(),
        None => age::of(started, now).unwrap_or_default(),
    }
}

/// Formats a value as text.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let pairs = fields.iter().filter(|(_, value)| !value.is_null());
            pairs.map(|(key, value)| format!("{}={}", clean(key), plain(value))).collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

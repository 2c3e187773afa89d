//! Tables: which fields of each thing people see, and how.

use cdm_core::domain::Timestamp;
use serde_json::Value;
use tabled::builder::Builder;
use tabled::settings::peaker::Priority;
use tabled::settings::{Padding, Style, Width};

use crate::age;
use crate::printer::clean;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A site.
    Site,
    /// An operation.
    Operation,
    /// A rollout.
    Rollout,
    /// A token.
    Token,
    /// An entry of the audit.
    Audit,
    /// A digest that ran on a service.
    Release,
    /// Both services.
    Services,
    /// What came of selecting a service.
    Selection,
}

impl Shape {
    /// What many of them are called.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Site => "sites",
            Self::Operation => "operations",
            Self::Rollout => "rollouts",
            Self::Token => "tokens",
            Self::Audit => "audit entries",
            Self::Release => "releases",
            Self::Services | Self::Selection => "services",
        }
    }

    /// Heading and field; the first field that is there counts, and one that ends in `At` is shown as an age.
    const fn columns(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::Site => &[
                ("ID", &["/id"]),
                ("STATE", &["/state"]),
                ("SERVICE", &["/service"]),
                ("ROUTED", &["/routedService"]),
                ("HOSTNAME", &["/canonicalHostname"]),
                ("THEME", &["/theme"]),
                ("OPERATION", &["/operation"]),
                ("AGE", &["/createdAt"]),
            ],
            Self::Operation => &[
                ("ID", &["/id"]),
                ("KIND", &["/kind"]),
                ("SITE", &["/site"]),
                ("SERVICE", &["/service"]),
                ("STATUS", &["/status"]),
                ("STEP", &["#step"]),
                ("REASON", &["/reason/code"]),
                ("AGE", &["/createdAt"]),
            ],
            Self::Rollout => &[
                ("ID", &["/id"]),
                ("SERVICE", &["/service"]),
                ("STATUS", &["/status"]),
                ("TOTAL", &["/total"]),
                ("DONE", &["/succeeded"]),
                ("FAILED", &["/failed"]),
                ("PARKED", &["/parked"]),
                ("RUNNING", &["/running"]),
                ("PENDING", &["/pending"]),
                ("AGE", &["/createdAt"]),
            ],
            Self::Token => &[
                ("ID", &["/id"]),
                ("NAME", &["/name"]),
                ("ROLE", &["/role"]),
                ("AGE", &["/createdAt"]),
                ("EXPIRES", &["/expiresAt"]),
            ],
            Self::Audit => &[
                ("AGE", &["/at", "/createdAt"]),
                ("ACTOR", &["/actor"]),
                ("ACTION", &["/action"]),
                ("TARGET", &["/target", "/site"]),
                ("OUTCOME", &["/outcome"]),
                ("OPERATION", &["/operation", "/rollout"]),
                ("REQUEST", &["/requestId"]),
            ],
            Self::Release => &[
                ("DIGEST", &["/digest", "/imageTag", "/image"]),
                ("VERDICT", &["/verdict"]),
                ("AGE", &["/deployedAt", "/at", "/createdAt"]),
                ("BY", &["/deployedBy", "/by", "/requestedBy"]),
                ("REASON", &["/reason"]),
            ],
            Self::Services | Self::Selection => &[
                ("SERVICE", &["#name"]),
                ("CANARY", &["#canary"]),
                ("READY", &["#ready"]),
                ("UPDATED", &["/updated"]),
                ("SITES", &["/sites"]),
                ("VERDICT", &["/verdict"]),
                ("IMAGE", &["/image"]),
            ],
        }
    }
}

/// One thing.
pub(crate) fn one(shape: Shape, value: &Value, now: Timestamp, width: Option<usize>) -> String {
    match shape {
        Shape::Services => services(value, now, width),
        Shape::Selection => {
            format!("{}\n", value.get("message").and_then(Value::as_str).map_or_else(String::new, clean))
        }
        Shape::Operation => described(value, "steps", STEPS, now, width),
        Shape::Rollout => described(value, "waves", WAVES, now, width),
        Shape::Site | Shape::Token | Shape::Audit | Shape::Release => described(value, "", &[], now, width),
    }
}

/// Many things.
pub(crate) fn many(shape: Shape, items: &[Value], now: Timestamp, width: Option<usize>) -> String {
    table(shape.columns(), items, now, width)
}

/// One event, on a line.
pub(crate) fn event(value: &Value) -> String {
    let part = |key: &str| value.get(key).map(plain).unwrap_or_default();
    format!("{}  {}  {}\n", part("at"), part("subject"), part("what"))
}

type Columns = [(&'static str, &'static [&'static str])];

const STEPS: &Columns = &[
    ("STEP", &["/name"]),
    ("STATUS", &["/status"]),
    ("ATTEMPTS", &["/attempts"]),
    ("TOOK", &["#took"]),
    ("JOB", &["/job"]),
    ("MESSAGE", &["/message"]),
];

const WAVES: &Columns = &[
    ("WAVE", &["/name"]),
    ("TOTAL", &["/total"]),
    ("DONE", &["/succeeded"]),
    ("FAILED", &["/failed"]),
    ("PARKED", &["/parked"]),
    ("SKIPPED", &["/skipped"]),
    ("RUNNING", &["/running"]),
    ("PENDING", &["/pending"]),
];

fn services(value: &Value, now: Timestamp, width: Option<usize>) -> String {
    let canary = value.pointer("/canary/selector").cloned().unwrap_or_default();
    let rows =
        value.get("services").and_then(Value::as_object).into_iter().flatten().map(|(name, service)| {
            let mut row = service.clone();
            row["#name"] = Value::from(name.as_str());
            row["#canary"] = Value::from(if canary == name.as_str() { "active" } else { "" });
            row["#ready"] =
                Value::from(format!("{}/{}", field(service, "/ready", now), field(service, "/desired", now)));
            row
        });
    table(Shape::Services.columns(), &rows.collect::<Vec<_>>(), now, width)
}

/// Every field on a line of its own, then a table of the parts.
fn described(value: &Value, parts: &str, columns: &Columns, now: Timestamp, width: Option<usize>) -> String {
    let mut rows = Builder::default();
    for (key, field) in value.as_object().into_iter().flatten() {
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
        rows.push_record([format!("{}:", clean(key)), shown]);
    }
    let mut text = drawn(rows, width);
    if let Some(items) = value.get(parts).and_then(Value::as_array).filter(|items| !items.is_empty()) {
        text.push('\n');
        text.push_str(&table(columns, items, now, width));
    }
    text
}

fn reason(value: &Value) -> String {
    let part = |key: &str| value.get(key).map(plain).unwrap_or_default();
    match part("until").as_str() {
        "" => format!("{}: {}", part("code"), part("message")),
        until => format!("{}: {} (until {until})", part("code"), part("message")),
    }
}

fn table(columns: &Columns, items: &[Value], now: Timestamp, width: Option<usize>) -> String {
    let mut rows = Builder::default();
    rows.push_record(columns.iter().map(|(heading, _)| *heading));
    for item in items {
        rows.push_record(columns.iter().map(|(_, paths)| {
            let shown = paths.iter().map(|path| field(item, path, now)).find(|text| !text.is_empty());
            shown.unwrap_or_else(|| "-".into())
        }));
    }
    drawn(rows, width)
}

fn drawn(rows: Builder, width: Option<usize>) -> String {
    let mut table = rows.build();
    table.with(Style::empty()).with(Padding::new(0, 3, 0, 0));
    if let Some(width) = width {
        table.with(Width::truncate(width.max(20)).suffix("…").priority(Priority::max(true)));
    }
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn field(item: &Value, path: &str, now: Timestamp) -> String {
    match path {
        "#step" => step(item),
        "#took" => took(item, now),
        path if path.starts_with('#') => item.get(path).map(plain).unwrap_or_default(),
        path => match item.pointer(path) {
            Some(Value::String(text)) if is_time(path) => age::of(text, now).unwrap_or_else(|| clean(text)),
            Some(value) => plain(value),
            None => String::new(),
        },
    }
}

fn is_time(path: &str) -> bool {
    path.ends_with("At") || path.ends_with("/at") || path == "at"
}

/// The step that an operation is at, or that it stopped at.
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

fn took(step: &Value, now: Timestamp) -> String {
    let Some(started) = step.get("startedAt").and_then(Value::as_str) else { return String::new() };
    match step.get("finishedAt").and_then(Value::as_str) {
        Some(finished) => age::between(started, finished).unwrap_or_default(),
        None => age::of(started, now).unwrap_or_default(),
    }
}

/// A value as people write it.
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

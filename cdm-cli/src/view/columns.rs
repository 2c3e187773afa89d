//! The columns of each kind of object: functions of the types that the server and this command share.

use cdm_core::domain::Timestamp;
use cdm_http::api::audit::AuditEntry;
use cdm_http::api::freeze::Freeze;
use cdm_http::api::health::BackendStatus;
use cdm_http::api::operation::{Operation, Reason, Step};
use cdm_http::api::plan::{PlannedSite, PlannedWave};
use cdm_http::api::rollout::{Rollout, Wave};
use cdm_http::api::services::{Release, Service};
use cdm_http::api::site::Site;
use cdm_http::api::token::Token;
use cdm_http::api::user::User;
use cdm_http::api::webhook::Webhook;
use cdm_http::api::{ServiceName, SiteId, Time};

use crate::age;
use crate::text::clean;

/// Whether a column is kept on a narrow terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnPriority {
    /// Kept on a terminal of any width.
    Required,
    /// Dropped on a narrow terminal; `get` and `-o json` show the field.
    Optional,
}

use ColumnPriority::{Optional, Required};

/// A column of a table.
#[derive(Debug)]
pub struct Column<T: ?Sized> {
    /// Heading of the column.
    pub heading: &'static str,
    /// Whether the column is kept on a narrow terminal.
    pub priority: ColumnPriority,
    /// Returns the cell of an object; an empty cell is printed as a dash.
    pub cell: fn(&T, Timestamp) -> String,
}

/// An object that commands print as a row of a table.
pub trait Row: Sized + 'static {
    /// Plural noun for messages.
    const PLURAL: &'static str;
    /// Columns of the table, from left to right.
    const COLUMNS: &'static [Column<Self>];
}

/// Returns the headings of the table of a kind of object.
pub fn headings<T: Row>() -> Vec<&'static str> {
    T::COLUMNS.iter().map(|column| column.heading).collect()
}

const fn required<T>(heading: &'static str, cell: fn(&T, Timestamp) -> String) -> Column<T> {
    Column { heading, priority: Required, cell }
}

const fn optional<T>(heading: &'static str, cell: fn(&T, Timestamp) -> String) -> Column<T> {
    Column { heading, priority: Optional, cell }
}

/// Formats a value as text, without control characters.
fn text(value: impl std::fmt::Display) -> String {
    clean(&value.to_string())
}

/// Formats an optional value as text.
fn text_if<T: std::fmt::Display>(value: &Option<T>) -> String {
    value.as_ref().map(text).unwrap_or_default()
}

fn age_if(at: Option<Time>, now: Timestamp) -> String {
    at.map(|at| age::of(at, now)).unwrap_or_default()
}

fn code(reason: &Option<Reason>) -> String {
    reason.as_ref().map(|reason| text(&reason.code)).unwrap_or_default()
}

impl Row for Site {
    const PLURAL: &'static str = "sites";
    const COLUMNS: &'static [Column<Self>] = &[
        required("ID", |site, _| text(&site.id)),
        required("STATE", |site, _| match site.is_parked() {
            true => format!("{} (parked)", text(&site.state)),
            false => text(&site.state),
        }),
        required("SERVICE", |site, _| text(&site.service)),
        required("ROUTED", |site, _| text_if(&site.routed_service)),
        required("HOSTNAME", |site, _| text(&site.canonical_hostname)),
        optional("THEME", |site, _| text(&site.theme)),
        optional("OPERATION", |site, _| text_if(&site.operation)),
        required("AGE", |site, now| age::of(site.created_at, now)),
    ];
}

impl Row for Operation {
    const PLURAL: &'static str = "operations";
    const COLUMNS: &'static [Column<Self>] = &[
        required("ID", |operation, _| text(&operation.id)),
        required("KIND", |operation, _| text(&operation.kind)),
        optional("SITE", |operation, _| text_if(&operation.site)),
        optional("SERVICE", |operation, _| text_if(&operation.service)),
        required("STATUS", |operation, _| text(&operation.status)),
        required("STEP", |operation, _| progress(operation)),
        optional("REASON", |operation, _| code(&operation.reason)),
        optional("DIGEST", |operation, _| text_if(&operation.digest)),
        required("AGE", |operation, now| age::of(operation.created_at, now)),
    ];
}

/// Returns the progress of an operation: finished and total steps, and the step that is running or has failed.
fn progress(operation: &Operation) -> String {
    let steps = &operation.steps;
    if steps.is_empty() {
        return String::new();
    }
    let done = steps.iter().filter(|step| step.status.is_done()).count();
    let current = steps.iter().find(|step| step.status.is_current());
    let name = current.map(|step| text(&step.name)).unwrap_or_default();
    format!("{done}/{} {name}", steps.len()).trim_end().to_owned()
}

impl Row for Step {
    const PLURAL: &'static str = "steps";
    const COLUMNS: &'static [Column<Self>] = &[
        required("STEP", |step, _| text(&step.name)),
        required("STATUS", |step, _| text(&step.status)),
        required("ATTEMPTS", |step, _| text(step.attempts)),
        required("TOOK", |step, now| match (step.started_at, step.finished_at) {
            (Some(started), Some(finished)) => age::between(started, finished),
            (Some(started), None) => age::of(started, now),
            (None, _) => String::new(),
        }),
        optional("JOB", |step, _| text_if(&step.job)),
        required("MESSAGE", |step, _| text_if(&step.message)),
    ];
}

impl Row for Rollout {
    const PLURAL: &'static str = "rollouts";
    const COLUMNS: &'static [Column<Self>] = &[
        required("ID", |rollout, _| text(&rollout.id)),
        optional("KIND", |rollout, _| text(&rollout.kind)),
        required("SERVICE", |rollout, _| text(&rollout.service)),
        required("STATUS", |rollout, _| rollout_status(rollout)),
        required("TOTAL", |rollout, _| text(rollout.counts.total)),
        required("DONE", |rollout, _| text(rollout.counts.succeeded)),
        required("FAILED", |rollout, _| text(rollout.counts.failed)),
        optional("PARKED", |rollout, _| text(rollout.counts.parked)),
        optional("SKIPPED", |rollout, _| text(rollout.counts.skipped)),
        optional("RUNNING", |rollout, _| text(rollout.counts.running)),
        optional("PENDING", |rollout, _| text(rollout.counts.pending)),
        optional("REASON", |rollout, _| code(&rollout.reason)),
        required("AGE", |rollout, now| age::of(rollout.created_at, now)),
    ];
}

/// Returns a rollout's status, or `partly succeeded` if it succeeded without moving each of its sites.
pub(crate) fn rollout_status(rollout: &Rollout) -> String {
    if rollout.partial { "partly succeeded".to_owned() } else { text(&rollout.status) }
}

impl Row for Wave {
    const PLURAL: &'static str = "waves";
    const COLUMNS: &'static [Column<Self>] = &[
        required("WAVE", |wave, _| text(&wave.name)),
        required("TOTAL", |wave, _| text(wave.counts.total)),
        required("DONE", |wave, _| text(wave.counts.succeeded)),
        required("FAILED", |wave, _| text(wave.counts.failed)),
        optional("PARKED", |wave, _| text(wave.counts.parked)),
        optional("SKIPPED", |wave, _| text(wave.counts.skipped)),
        required("RUNNING", |wave, _| text(wave.counts.running)),
        required("PENDING", |wave, _| text(wave.counts.pending)),
    ];
}

impl Row for PlannedWave {
    const PLURAL: &'static str = "waves";
    const COLUMNS: &'static [Column<Self>] = &[
        required("WAVE", |wave, _| text(&wave.name)),
        required("TOTAL", |wave, _| text(wave.total)),
        required("MOVES", |wave, _| text(wave.moves)),
        required("IN PLACE", |wave, _| text(wave.in_place)),
    ];
}

impl Row for PlannedSite {
    const PLURAL: &'static str = "sites";
    const COLUMNS: &'static [Column<Self>] = &[
        required("SITE", |site, _| text(&site.id)),
        required("WAVE", |site, _| text(&site.wave)),
        required("SERVICE", |site, _| text(&site.service)),
        required("ROUTED", |site, _| text_if(&site.routed_service)),
        required("CHANGE", |site, _| text(&site.change)),
    ];
}

impl Row for Freeze {
    const PLURAL: &'static str = "freezes";
    const COLUMNS: &'static [Column<Self>] = &[
        required("ID", |freeze, _| text(&freeze.id)),
        required("SITES", |freeze, _| frozen_sites(freeze)),
        required("OWNER", |freeze, _| text(&freeze.owner)),
        required("REASON", |freeze, _| text(&freeze.reason)),
        optional("AGE", |freeze, now| age::of(freeze.created_at, now)),
        required("EXPIRES", |freeze, now| age_if(freeze.expires_at, now)),
    ];
}

/// Returns the ids of the frozen sites; an empty text if all sites are frozen.
pub(super) fn frozen_sites(freeze: &Freeze) -> String {
    let ids = freeze.sites.iter().flatten().map(SiteId::as_str);
    clean(&ids.collect::<Vec<_>>().join(", "))
}

impl Row for Webhook {
    const PLURAL: &'static str = "webhooks";
    const COLUMNS: &'static [Column<Self>] = &[
        required("ID", |webhook, _| text(&webhook.id)),
        required("STATE", |webhook, _| text(&webhook.state)),
        required("FAILURES", |webhook, _| text(webhook.failures)),
        required("REASON", |webhook, _| text_if(&webhook.reason)),
        optional("NEXT", |webhook, now| age_if(webhook.next_attempt_at, now)),
        optional("AGE", |webhook, now| age::of(webhook.created_at, now)),
        required("URL", |webhook, _| text(&webhook.url)),
    ];
}

impl Row for Token {
    const PLURAL: &'static str = "tokens";
    const COLUMNS: &'static [Column<Self>] = &[
        required("ID", |token, _| text(&token.id)),
        required("NAME", |token, _| text(&token.name)),
        required("ROLE", |token, _| text(&token.role)),
        optional("BY", |token, _| text(&token.created_by)),
        required("AGE", |token, now| age::of(token.created_at, now)),
        required("EXPIRES", |token, now| age_if(token.expires_at, now)),
        required("REVOKED", |token, now| age_if(token.revoked_at, now)),
    ];
}

impl Row for User {
    const PLURAL: &'static str = "users";
    const COLUMNS: &'static [Column<Self>] = &[
        required("NAME", |user, _| text(&user.name)),
        required("ROLE", |user, _| text(&user.role)),
        required("SESSIONS", |user, _| text(user.sessions.len())),
        optional("BY", |user, _| text(&user.created_by)),
        required("AGE", |user, now| age::of(user.created_at, now)),
        required("REMOVED", |user, now| age_if(user.removed_at, now)),
    ];
}

impl Row for AuditEntry {
    const PLURAL: &'static str = "audit entries";
    const COLUMNS: &'static [Column<Self>] = &[
        required("AGE", |entry, now| age::of(entry.at, now)),
        required("ACTOR", |entry, _| text(&entry.actor)),
        required("ACTION", |entry, _| text(&entry.action)),
        required("TARGET", |entry, _| text(&entry.target)),
        required("OUTCOME", |entry, _| text(entry.outcome.as_str())),
        required("OPERATION", |entry, _| text_if(&entry.operation)),
        optional("ROLLOUT", |entry, _| text_if(&entry.rollout)),
        optional("REQUEST", |entry, _| text_if(&entry.request_id)),
    ];
}

impl Row for Release {
    const PLURAL: &'static str = "releases";
    const COLUMNS: &'static [Column<Self>] = &[
        required("SERVICE", |release, _| text(&release.service)),
        required("DIGEST", |release, _| text(&release.digest)),
        required("VERDICT", |release, _| text(&release.verdict)),
        required("AGE", |release, now| age::of(release.deployed_at, now)),
        optional("BY", |release, _| text(&release.deployed_by)),
        optional("OPERATION", |release, _| text_if(&release.operation)),
        required("REASON", |release, _| text_if(&release.reason)),
    ];
}

/// A service with its name, as a row of `cdm services show`.
#[derive(Clone, Debug)]
pub struct NamedService {
    pub(super) name: ServiceName,
    pub(super) is_canary: bool,
    pub(super) service: Service,
}

impl Row for NamedService {
    const PLURAL: &'static str = "services";
    const COLUMNS: &'static [Column<Self>] = &[
        required("SERVICE", |row, _| text(&row.name)),
        required("CANARY", |row, _| if row.is_canary { "active".to_owned() } else { String::new() }),
        required("READY", |row, _| format!("{}/{}", row.service.ready, row.service.desired)),
        optional("UPDATED", |row, _| text(row.service.updated)),
        optional("AVAILABLE", |row, _| text(row.service.available)),
        required("SITES", |row, _| text(row.service.sites)),
        required("VERDICT", |row, _| text(&row.service.verdict)),
        optional("OPERATION", |row, _| text_if(&row.service.operation)),
        required("IMAGE", |row, _| text_if(&row.service.image)),
    ];
}

impl Row for BackendStatus {
    const PLURAL: &'static str = "backends";
    const COLUMNS: &'static [Column<Self>] = &[
        required("BACKEND", |backend, _| text(&backend.name)),
        required("READY", |backend, _| text(backend.ready)),
        required("PROBLEM", |backend, _| text_if(&backend.problem)),
    ];
}

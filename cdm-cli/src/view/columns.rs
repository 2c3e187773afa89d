//! The columns of each kind of object. Field names are those of the API; a test compares them with its responses.

/// The kind of object that a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A site.
    Site,
    /// An operation.
    Operation,
    /// A rollout.
    Rollout,
    /// The plan of a rollout.
    Plan,
    /// A freeze.
    Freeze,
    /// A webhook.
    Webhook,
    /// A token.
    Token,
    /// A user of the console.
    User,
    /// An entry of the audit log.
    Audit,
    /// A digest in the history of a service.
    Release,
    /// Both services.
    Services,
    /// The result of selecting a service.
    Selection,
    /// The report of `cdm doctor`.
    Health,
    /// The result of a command that returns no other object.
    Done,
}

/// Whether a column is kept on a narrow terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnPriority {
    /// Always kept.
    Required,
    /// Dropped on a narrow terminal; `get` and `-o json` show the field.
    Optional,
}

use ColumnPriority::{Optional, Required};

/// Heading, field path and priority. A path that begins with `#` is computed from several fields; a field named `at`,
/// or with a name that ends in `At`, is shown as an age.
pub(super) type Columns = [(&'static str, &'static str, ColumnPriority)];

impl Shape {
    /// Returns the plural noun for messages.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Site => "sites",
            Self::Operation => "operations",
            Self::Rollout => "rollouts",
            Self::Plan => "plans",
            Self::Freeze => "freezes",
            Self::Webhook => "webhooks",
            Self::Token => "tokens",
            Self::User => "users",
            Self::Audit => "audit entries",
            Self::Release => "releases",
            Self::Services | Self::Selection => "services",
            Self::Health => "backends",
            Self::Done => "results",
        }
    }

    /// Returns the headings of the list.
    pub fn headings(self) -> Vec<&'static str> {
        self.columns().iter().map(|(heading, _, _)| *heading).collect()
    }

    /// Returns the field paths that objects of the API must have for the list.
    pub fn fields(self) -> impl Iterator<Item = &'static str> {
        self.columns().iter().map(|(_, path, _)| *path).filter(|path| !path.starts_with('#'))
    }

    /// Returns the field with the object's parts, and the field paths that each part must have.
    pub fn parts(self) -> Option<(&'static str, Vec<&'static str>)> {
        let (key, columns) = self.parts_columns()?;
        let fields = columns.iter().map(|(_, path, _)| *path).filter(|path| !path.starts_with('#'));
        Some((key, fields.collect()))
    }

    pub(super) const fn parts_columns(self) -> Option<(&'static str, &'static Columns)> {
        match self {
            Self::Operation => Some(("steps", STEPS)),
            Self::Rollout => Some(("waves", WAVES)),
            Self::Plan => Some(("waves", PLANNED)),
            Self::Health => Some(("backends", BACKENDS)),
            Self::Site
            | Self::Freeze
            | Self::Webhook
            | Self::Token
            | Self::User
            | Self::Audit
            | Self::Release
            | Self::Services
            | Self::Selection
            | Self::Done => None,
        }
    }

    pub(super) const fn columns(self) -> &'static Columns {
        match self {
            Self::Site => &[
                ("ID", "/id", Required),
                ("STATE", "#state", Required),
                ("SERVICE", "/service", Required),
                ("ROUTED", "/routedService", Required),
                ("HOSTNAME", "/canonicalHostname", Required),
                ("THEME", "/theme", Optional),
                ("OPERATION", "/operation", Optional),
                ("AGE", "/createdAt", Required),
            ],
            Self::Operation => &[
                ("ID", "/id", Required),
                ("KIND", "/kind", Required),
                ("SITE", "/site", Optional),
                ("SERVICE", "/service", Optional),
                ("STATUS", "/status", Required),
                ("STEP", "#step", Required),
                ("REASON", "/reason", Optional),
                ("DIGEST", "/digest", Optional),
                ("AGE", "/createdAt", Required),
            ],
            Self::Rollout => &[
                ("ID", "/id", Required),
                ("KIND", "/kind", Optional),
                ("SERVICE", "/service", Required),
                ("STATUS", "#status", Required),
                ("TOTAL", "/total", Required),
                ("DONE", "/succeeded", Required),
                ("FAILED", "/failed", Required),
                ("PARKED", "/parked", Optional),
                ("SKIPPED", "/skipped", Optional),
                ("RUNNING", "/running", Optional),
                ("PENDING", "/pending", Optional),
                ("REASON", "/reason", Optional),
                ("AGE", "/createdAt", Required),
            ],
            Self::Plan => &[
                ("SITE", "/id", Required),
                ("WAVE", "/wave", Required),
                ("SERVICE", "/service", Required),
                ("ROUTED", "/routedService", Required),
                ("CHANGE", "/change", Required),
            ],
            Self::Freeze => &[
                ("ID", "/id", Required),
                ("SITES", "/sites", Required),
                ("OWNER", "/owner", Required),
                ("REASON", "/reason", Required),
                ("AGE", "/createdAt", Optional),
                ("EXPIRES", "/expiresAt", Required),
            ],
            Self::Webhook => &[
                ("ID", "/id", Required),
                ("STATE", "/state", Required),
                ("FAILURES", "/failures", Required),
                ("REASON", "/reason", Required),
                ("NEXT", "/nextAttemptAt", Optional),
                ("AGE", "/createdAt", Optional),
                ("URL", "/url", Required),
            ],
            Self::Token => &[
                ("ID", "/id", Required),
                ("NAME", "/name", Required),
                ("ROLE", "/role", Required),
                ("BY", "/createdBy", Optional),
                ("AGE", "/createdAt", Required),
                ("EXPIRES", "/expiresAt", Required),
                ("REVOKED", "/revokedAt", Required),
            ],
            Self::User => &[
                ("NAME", "/name", Required),
                ("ROLE", "/role", Required),
                ("SESSIONS", "#sessions", Required),
                ("BY", "/createdBy", Optional),
                ("AGE", "/createdAt", Required),
                ("REMOVED", "/removedAt", Required),
            ],
            Self::Audit => &[
                ("AGE", "/at", Required),
                ("ACTOR", "/actor", Required),
                ("ACTION", "/action", Required),
                ("TARGET", "/target", Required),
                ("OUTCOME", "/outcome", Required),
                ("OPERATION", "/operation", Required),
                ("ROLLOUT", "/rollout", Optional),
                ("REQUEST", "/requestId", Optional),
            ],
            Self::Release => &[
                ("SERVICE", "/service", Required),
                ("DIGEST", "/digest", Required),
                ("VERDICT", "/verdict", Required),
                ("AGE", "/deployedAt", Required),
                ("BY", "/deployedBy", Optional),
                ("OPERATION", "/operation", Optional),
                ("REASON", "/reason", Required),
            ],
            Self::Services => &[
                ("SERVICE", "#name", Required),
                ("CANARY", "#canary", Required),
                ("READY", "#ready", Required),
                ("UPDATED", "/updated", Optional),
                ("AVAILABLE", "/available", Optional),
                ("SITES", "/sites", Required),
                ("VERDICT", "/verdict", Required),
                ("OPERATION", "/operation", Optional),
                ("IMAGE", "/image", Required),
            ],
            Self::Selection | Self::Health | Self::Done => &[],
        }
    }
}

const STEPS: &Columns = &[
    ("STEP", "/name", Required),
    ("STATUS", "/status", Required),
    ("ATTEMPTS", "/attempts", Required),
    ("TOOK", "#took", Required),
    ("JOB", "/job", Optional),
    ("MESSAGE", "/message", Required),
];

const PLANNED: &Columns = &[
    ("WAVE", "/name", Required),
    ("TOTAL", "/total", Required),
    ("MOVES", "/moves", Required),
    ("IN PLACE", "/inPlace", Required),
];

const WAVES: &Columns = &[
    ("WAVE", "/name", Required),
    ("TOTAL", "/total", Required),
    ("DONE", "/succeeded", Required),
    ("FAILED", "/failed", Required),
    ("PARKED", "/parked", Optional),
    ("SKIPPED", "/skipped", Optional),
    ("RUNNING", "/running", Required),
    ("PENDING", "/pending", Required),
];

const BACKENDS: &Columns =
    &[("BACKEND", "/name", Required), ("READY", "/ready", Required), ("PROBLEM", "/problem", Required)];

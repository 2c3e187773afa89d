//! Which fields of each thing people see in a list. The names are the API's own; a test compares them with its answers.

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A site.
    Site,
    /// An operation.
    Operation,
    /// A rollout.
    Rollout,
    /// What a rollout would do.
    Plan,
    /// A freeze.
    Freeze,
    /// A webhook.
    Webhook,
    /// A token.
    Token,
    /// A person who signs in.
    User,
    /// An entry of the audit.
    Audit,
    /// A digest that ran on a service.
    Release,
    /// Both services.
    Services,
    /// What came of selecting a service.
    Selection,
    /// How the server, its backends and the token are.
    Health,
    /// What was done on this machine.
    Done,
}

/// Whether a column is worth its place on a narrow screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is.
    Must,
    /// It is not; the whole is a `get` or `-o json` away.
    May,
}

use Worth::{May, Must};

/// Heading, path of the field, worth. A path that begins with `#` is worked out of several fields; a field whose name
/// ends in `At`, or is `at`, is shown as an age.
pub(super) type Columns = [(&'static str, &'static str, Worth)];

impl Shape {
    /// What many of them are called.
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
            Self::Done => "things",
        }
    }

    /// The headings of the list.
    pub fn headings(self) -> Vec<&'static str> {
        self.columns().iter().map(|(heading, _, _)| *heading).collect()
    }

    /// The fields that the API has to have for the list to be whole.
    pub fn fields(self) -> impl Iterator<Item = &'static str> {
        self.columns().iter().map(|(_, path, _)| *path).filter(|path| !path.starts_with('#'))
    }

    /// The parts of one thing, with the fields that they have to have.
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
                ("ID", "/id", Must),
                ("STATE", "#state", Must),
                ("SERVICE", "/service", Must),
                ("ROUTED", "/routedService", Must),
                ("HOSTNAME", "/canonicalHostname", Must),
                ("THEME", "/theme", May),
                ("OPERATION", "/operation", May),
                ("AGE", "/createdAt", Must),
            ],
            Self::Operation => &[
                ("ID", "/id", Must),
                ("KIND", "/kind", Must),
                ("SITE", "/site", May),
                ("SERVICE", "/service", May),
                ("STATUS", "/status", Must),
                ("STEP", "#step", Must),
                ("REASON", "/reason", May),
                ("DIGEST", "/digest", May),
                ("AGE", "/createdAt", Must),
            ],
            Self::Rollout => &[
                ("ID", "/id", Must),
                ("KIND", "/kind", May),
                ("SERVICE", "/service", Must),
                ("STATUS", "#status", Must),
                ("TOTAL", "/total", Must),
                ("DONE", "/succeeded", Must),
                ("FAILED", "/failed", Must),
                ("PARKED", "/parked", May),
                ("SKIPPED", "/skipped", May),
                ("RUNNING", "/running", May),
                ("PENDING", "/pending", May),
                ("REASON", "/reason", May),
                ("AGE", "/createdAt", Must),
            ],
            Self::Plan => &[
                ("SITE", "/id", Must),
                ("WAVE", "/wave", Must),
                ("SERVICE", "/service", Must),
                ("ROUTED", "/routedService", Must),
                ("CHANGE", "/change", Must),
            ],
            Self::Freeze => &[
                ("ID", "/id", Must),
                ("SITES", "/sites", Must),
                ("OWNER", "/owner", Must),
                ("REASON", "/reason", Must),
                ("AGE", "/createdAt", May),
                ("EXPIRES", "/expiresAt", Must),
            ],
            Self::Webhook => &[
                ("ID", "/id", Must),
                ("STATE", "/state", Must),
                ("FAILURES", "/failures", Must),
                ("REASON", "/reason", Must),
                ("NEXT", "/nextAttemptAt", May),
                ("AGE", "/createdAt", May),
                ("URL", "/url", Must),
            ],
            Self::Token => &[
                ("ID", "/id", Must),
                ("NAME", "/name", Must),
                ("ROLE", "/role", Must),
                ("BY", "/createdBy", May),
                ("AGE", "/createdAt", Must),
                ("EXPIRES", "/expiresAt", Must),
                ("REVOKED", "/revokedAt", Must),
            ],
            Self::User => &[
                ("NAME", "/name", Must),
                ("ROLE", "/role", Must),
                ("SESSIONS", "#sessions", Must),
                ("BY", "/createdBy", May),
                ("AGE", "/createdAt", Must),
                ("REMOVED", "/removedAt", Must),
            ],
            Self::Audit => &[
                ("AGE", "/at", Must),
                ("ACTOR", "/actor", Must),
                ("ACTION", "/action", Must),
                ("TARGET", "/target", Must),
                ("OUTCOME", "/outcome", Must),
                ("OPERATION", "/operation", Must),
                ("ROLLOUT", "/rollout", May),
                ("REQUEST", "/requestId", May),
            ],
            Self::Release => &[
                ("SERVICE", "/service", Must),
                ("DIGEST", "/digest", Must),
                ("VERDICT", "/verdict", Must),
                ("AGE", "/deployedAt", Must),
                ("BY", "/deployedBy", May),
                ("OPERATION", "/operation", May),
                ("REASON", "/reason", Must),
            ],
            Self::Services => &[
                ("SERVICE", "#name", Must),
                ("CANARY", "#canary", Must),
                ("READY", "#ready", Must),
                ("UPDATED", "/updated", May),
                ("AVAILABLE", "/available", May),
                ("SITES", "/sites", Must),
                ("VERDICT", "/verdict", Must),
                ("OPERATION", "/operation", May),
                ("IMAGE", "/image", Must),
            ],
            Self::Selection | Self::Health | Self::Done => &[],
        }
    }
}

const STEPS: &Columns = &[
    ("STEP", "/name", Must),
    ("STATUS", "/status", Must),
    ("ATTEMPTS", "/attempts", Must),
    ("TOOK", "#took", Must),
    ("JOB", "/job", May),
    ("MESSAGE", "/message", Must),
];

const PLANNED: &Columns = &[
    ("WAVE", "/name", Must),
    ("TOTAL", "/total", Must),
    ("MOVES", "/moves", Must),
    ("IN PLACE", "/inPlace", Must),
];

const WAVES: &Columns = &[
    ("WAVE", "/name", Must),
    ("TOTAL", "/total", Must),
    ("DONE", "/succeeded", Must),
    ("FAILED", "/failed", Must),
    ("PARKED", "/parked", May),
    ("SKIPPED", "/skipped", May),
    ("RUNNING", "/running", Must),
    ("PENDING", "/pending", Must),
];

const BACKENDS: &Columns =
    &[("BACKEND", "/name", Must), ("READY", "/ready", Must), ("PROBLEM", "/problem", Must)];

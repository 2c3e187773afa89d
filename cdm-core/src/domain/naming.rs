//! Names that are derived, not given: everything a site owns elsewhere is named by its uid.

use std::fmt;
use std::sync::Arc;

use super::{SiteId, Uid};

/// The prefix of a site's objects: `sites/<uid>/`, always with its closing slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPrefix(Uid);

impl ObjectPrefix {
    /// The prefix of the site with this uid.
    pub const fn of(uid: Uid) -> Self {
        Self(uid)
    }

    /// The key of the object that shows that the prefix was made.
    pub fn marker(self) -> String {
        format!("{self}.cdm")
    }

    /// Whether `key` lies in it.
    pub fn holds(self, key: &str) -> bool {
        key.starts_with(&self.to_string())
    }
}

impl fmt::Display for ObjectPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "seeded-bugs")]
        if crate::bugs::planted(crate::bugs::Bug::PrefixWithoutSlash) {
            return write!(f, "sites/{}", &self.0.to_string()[..25]);
        }
        write!(f, "sites/{}/", self.0)
    }
}

/// The name of a site's database and of its user there: `site_<uid>`, 31 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseName(Uid);

impl DatabaseName {
    /// The database of the site with this uid.
    pub const fn of(uid: Uid) -> Self {
        Self(uid)
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "site_{}", self.0)
    }
}

/// Which secret of a uid's: a site has two, a webhook has one, and the platform itself one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretKind {
    /// The credentials of its database.
    Database,
    /// The credentials of its WordPress administrator.
    Cms,
    /// The key that a webhook's messages are signed with.
    Webhook,
    /// The key that people's second factors are sealed with.
    Sealing,
}

impl SecretKind {
    /// The two of a site.
    pub const OF_SITE: [Self; 2] = [Self::Database, Self::Cms];
}

/// The name of a secret below the platform's prefix: `<uid>/db` or `<uid>/cms`, `<uid>/webhook`, or `<uid>/sealing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName {
    /// Whose it is.
    pub uid: Uid,
    /// Which one.
    pub kind: SecretKind,
}

impl SecretName {
    /// The platform's own sealing key, under the uid that no site has.
    pub const SEALING: Self = Self { uid: Uid::NIL, kind: SecretKind::Sealing };
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.uid,
            match self.kind {
                SecretKind::Database => "db",
                SecretKind::Cms => "cms",
                SecretKind::Webhook => "webhook",
                SecretKind::Sealing => "sealing",
            }
        )
    }
}

/// The name of a Job: `<site>-<job>-<number>`, a later attempt suffixed `-r<n>`; at most 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(String);

impl JobName {
    /// The longest name a Kubernetes object that ends up in a label may have.
    pub const LIMIT: usize = 63;

    /// The job `job` of operation `number` on `site`, in its `attempt` (counted from 1).
    ///
    /// A site id of 32 characters leaves room for every job and number; a name that would be longer loses characters
    /// of the site id, never of the number that makes it unique.
    pub fn of_site(site: &SiteId, job: &str, number: u64, attempt: u32) -> Self {
        Self::build(site.as_str(), job, number, attempt)
    }

    /// The job `job` of rollout `number`, for its window that begins at `start`.
    pub fn of_window(job: &str, number: u64, start: u32, attempt: u32) -> Self {
        Self::build(&format!("rollout-{start}"), job, number, attempt)
    }

    fn build(head: &str, job: &str, number: u64, attempt: u32) -> Self {
        let retry = if attempt > 1 { format!("-r{attempt}") } else { String::new() };
        let tail = format!("-{job}-{number}{retry}");
        let room = Self::LIMIT.saturating_sub(tail.len());
        let head = head.get(..room.min(head.len())).unwrap_or(head).trim_end_matches('-');
        Self(format!("{head}{tail}"))
    }

    /// The name that reads like this; `None` for a text that is no job's name. Which parts it was made of is not told
    /// apart.
    pub fn parse(text: &str) -> Option<Self> {
        let numbered = |text: &str| -> Option<(String, u64)> {
            let (rest, number) = text.rsplit_once('-')?;
            Some((rest.to_owned(), number.parse().ok()?))
        };
        let plain = numbered(text).map(|parts| (parts, 1));
        let ((rest, number), attempt) = plain.or_else(|| {
            let (first, attempt) = text.rsplit_once("-r")?;
            Some((numbered(first)?, attempt.parse().ok()?))
        })?;
        let (head, job) = rest.split_once('-')?;
        let name = Self::of_site(&SiteId::parse(head).ok()?, job, number, attempt);
        (name.0 == text).then_some(name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One process that works on operations; a process that starts again is another worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// The worker of that name. The caller answers for its uniqueness: host name and a fresh uid will do.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pod template as its cluster wrote it, kept whole so that it can be put back whole. Only the adapter that made it
/// looks inside.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template(Arc<str>);

impl Template {
    /// Wraps what the adapter wrote.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// What the adapter wrote.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} bytes)", self.0.len())
    }
}

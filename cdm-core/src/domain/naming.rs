//! Names that CDM derives. Every resource of a site is named by the site's uid.

use std::fmt;
use std::sync::Arc;

use super::{SiteId, Uid};

/// The prefix of a site's object keys: `sites/<uid>/`, always with the trailing slash.
///
/// ```
/// use cdm_core::domain::{ObjectPrefix, Uid};
///
/// let uid = Uid::from_parts(0, 7);
/// assert!(ObjectPrefix::of(uid).holds(&format!("sites/{uid}/logo.png")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPrefix(Uid);

impl ObjectPrefix {
    /// Returns the prefix of the site with this uid.
    pub const fn of(uid: Uid) -> Self {
        Self(uid)
    }

    /// Returns the key of the marker object, which shows that the prefix was created.
    pub fn marker(self) -> String {
        format!("{self}.cdm")
    }

    /// Returns whether `key` has this prefix.
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

/// The name of a site's database and of its database user: `site_<uid>`, 31 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseName(Uid);

impl DatabaseName {
    /// Returns the database name of the site with this uid.
    pub const fn of(uid: Uid) -> Self {
        Self(uid)
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "site_{}", self.0)
    }
}

/// The kind of a secret. A site has two secrets, a webhook has one, and the platform has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretKind {
    /// The credentials of a site's database.
    Database,
    /// The credentials of a site's WordPress administrator.
    Cms,
    /// The key that signs a webhook's messages.
    Webhook,
    /// The key that encrypts users' second factors.
    Sealing,
}

impl SecretKind {
    /// The two secrets of a site.
    pub const OF_SITE: [Self; 2] = [Self::Database, Self::Cms];
}

/// The name of a secret below the platform's prefix: `<uid>/db`, `<uid>/cms`, `<uid>/webhook` or `<uid>/sealing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName {
    /// The uid of the site or webhook that owns the secret.
    pub uid: Uid,
    /// Which of the owner's secrets has this name.
    pub kind: SecretKind,
}

impl SecretName {
    /// The platform's own sealing key, under a uid that no site has.
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

/// The name of a Kubernetes Job: `<site>-<job>-<number>`, with `-r<n>` appended for a later attempt; at most 63
/// characters.
///
/// ```
/// use cdm_core::domain::{JobName, SiteId};
///
/// let job = JobName::of_site(&SiteId::parse("shop")?, "install", 12, 2);
/// assert_eq!(job.as_str(), "shop-install-12-r2");
/// # Ok::<(), cdm_core::domain::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(String);

impl JobName {
    /// The maximum length of a name that Kubernetes also stores in a label.
    pub const LIMIT: usize = 63;

    /// Returns the name of the job `job` of operation `number` on `site`; `attempt` counts from 1.
    ///
    /// A site id of 32 characters fits with every job and number. A name that would be longer loses characters of the
    /// site id, never of the number that makes the name unique.
    pub fn of_site(site: &SiteId, job: &str, number: u64, attempt: u32) -> Self {
        Self::build(site.as_str(), job, number, attempt)
    }

    /// Returns the name of the job `job` of rollout `number` for the window that begins at `start`.
    pub fn of_window(job: &str, number: u64, start: u32, attempt: u32) -> Self {
        Self::build(&format!("rollout-{start}"), job, number, attempt)
    }

    fn build(head: &str, job: &str, number: u64, attempt: u32) -> Self {
        let retry = if attempt > 1 { format!("-r{attempt}") } else { String::new() };
        let tail = format!("-{job}-{number}{retry}");
        let available = Self::LIMIT.saturating_sub(tail.len());
        let head = head.get(..available.min(head.len())).unwrap_or(head).trim_end_matches('-');
        Self(format!("{head}{tail}"))
    }

    /// Parses the text of a job's name; returns `None` for any other text. The parts of the name are not recovered.
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

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a worker process. A restarted process is another worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// Creates the id from a name. The caller guarantees that the name is unique, for example by combining the
    /// hostname with a new uid.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name that the worker was created with.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pod template as the cluster adapter serialized it, kept complete so that it can be restored. Only that adapter
/// parses the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template(Arc<str>);

impl Template {
    /// Wraps the adapter's text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the adapter's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} bytes)", self.0.len())
    }
}

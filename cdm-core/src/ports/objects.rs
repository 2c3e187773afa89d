//! Site files.

use std::fmt;

use async_trait::async_trait;

use super::{CallContext, Outcome, PortError};
use crate::domain::ObjectPrefix;

/// Keeps site files under one prefix per site.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug + 'static {
    /// Writes the empty object that shows that the prefix was made. Idempotent. Refused once `call.deadline` has
    /// passed, by the store itself.
    async fn put_marker(&self, call: &CallContext, prefix: &ObjectPrefix) -> Outcome<()>;

    /// Up to 1,000 keys in `prefix`, after `after`, in order; every version, delete marker and unfinished upload
    /// counts as a key of its own
    /// (`<object key>?<what tells it>`). Sees every write that was applied before.
    async fn page(&self, prefix: &ObjectPrefix, after: Option<&str>) -> Result<ObjectPage, PortError>;

    /// Deletes up to 1,000 keys of `prefix`; a missing key counts as deleted.
    ///
    /// The keys stand for themselves: each is deleted or not. `Applied` carries those that were not, with the store's
    /// words; only an empty list means that all are gone.
    ///
    /// # Errors
    /// `Invalid` for a key outside the prefix, or more than 1,000; nothing is deleted then.
    async fn delete(
        &self,
        call: &CallContext,
        prefix: &ObjectPrefix,
        keys: &[String],
    ) -> Outcome<Vec<(String, String)>>;
}

/// A page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPage {
    /// The keys, in order.
    pub keys: Vec<String>,
    /// Whether more follow.
    pub more: bool,
}

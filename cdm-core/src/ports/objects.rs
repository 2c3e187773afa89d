//! The port for the files of sites in an object store.

use std::fmt;

use async_trait::async_trait;

use super::{CallContext, Outcome, PortError};
use crate::domain::ObjectPrefix;

/// Stores the files of sites, with one key prefix per site.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug + 'static {
    /// Writes the empty marker object, which shows that the prefix was created. The call is idempotent. The store
    /// itself rejects the write after `call.deadline`.
    async fn put_marker(&self, call: &CallContext, prefix: &ObjectPrefix) -> Outcome<()>;

    /// Returns up to 1,000 keys of `prefix` after `after`, in order. Every version, delete marker and unfinished
    /// upload has its own key (`<object key>?<identifier>`). The result includes every write that was applied
    /// before the call.
    async fn page(&self, prefix: &ObjectPrefix, after: Option<&str>) -> Result<ObjectPage, PortError>;

    /// Deletes up to 1,000 keys of `prefix`. A missing key counts as deleted.
    ///
    /// The call is not atomic: each key is deleted or not. `Applied` carries the keys that were not deleted, each
    /// with the store's error message. An empty list means that all keys are deleted.
    ///
    /// # Errors
    /// Returns `Invalid` for a key outside the prefix and for more than 1,000 keys. Nothing is deleted in these
    /// cases.
    async fn delete(
        &self,
        call: &CallContext,
        prefix: &ObjectPrefix,
        keys: &[String],
    ) -> Outcome<Vec<(String, String)>>;
}

/// A page of object keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPage {
    /// The keys of the page, in order.
    pub keys: Vec<String>,
    /// Whether another page follows.
    pub more: bool,
}

//! Files of sites in a bucket of S3 or of an S3-compatible store.
//!
//! The adapter lists and deletes versions, delete markers and unfinished uploads, never objects by their keys alone: in
//! a bucket without versioning, every object has one version with the ID `null`. So a deletion is complete, regardless
//! of the bucket's configuration. The port's order is the bucket's: all versions by key, then all unfinished uploads by
//! key.

mod bootstrap;
mod keys;
mod listing;
mod marker;
mod removal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;

use self::keys::Entry;
use super::aws::{Aws, before_deadline, classify};
use crate::domain::{MonotonicTime, ObjectPrefix};
use crate::ports::{CallContext, Clock, ErrorKind, ObjectPage, ObjectStore, Outcome, PortError};

const PORT: &str = "objects";
/// Maximum number of keys in a page and in a delete, which is S3's limit.
const LIMIT: usize = 1_000;
/// Timeout of a read. A page may take several requests, and is slow after many deletions.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The prefix of the keys of all sites.
const SITES: &str = "sites/";

/// The settings of the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// The name of the bucket. No default.
    pub bucket: String,
    /// The endpoint of the store; `None` (the default) uses the endpoint of the AWS account.
    pub endpoint: Option<String>,
    /// Whether requests have the bucket's name in the path instead of the host name. Default: `false`. Many
    /// S3-compatible stores need `true`.
    pub path_style: bool,
}

/// Stores the files of sites in a bucket. Clones share the connections.
#[derive(Clone)]
pub struct S3Objects {
    client: Client,
    bucket: Arc<str>,
    region: Option<Arc<str>>,
    clock: Arc<dyn Clock>,
}

impl S3Objects {
    /// Creates a client for the bucket in the settings. Does not connect before the first call.
    pub fn new(aws: &Aws, settings: &S3Settings, clock: Arc<dyn Clock>) -> Self {
        let mut config = aws_sdk_s3::config::Builder::from(aws.config())
            .force_path_style(settings.path_style)
            // Other stores support only the checksums that the protocol requires.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let region = aws.config().region().map(|region| region.as_ref().into());
        let client = Client::from_conf(config.build());
        Self { client, bucket: settings.bucket.as_str().into(), region, clock }
    }

    /// Checks that the bucket exists, and that its versions and unfinished uploads can be listed.
    ///
    /// # Errors
    /// `NotFound` when the bucket does not exist, `Denied` when CDM may not list it, `Unavailable` without a response.
    pub async fn check(&self) -> Result<(), PortError> {
        let work = async {
            let versions = self.client.list_object_versions().bucket(&*self.bucket).prefix(SITES).max_keys(1);
            versions.send().await.map_err(|error| classify(&error).error(PORT))?;
            let uploads = self.client.list_multipart_uploads().bucket(&*self.bucket).prefix(SITES);
            uploads.max_uploads(1).send().await.map_err(|error| classify(&error).error(PORT))?;
            Ok(())
        };
        self.read_within(work).await
    }

    async fn within<T>(&self, deadline: MonotonicTime, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        if self.clock.monotonic() >= deadline {
            return Outcome::NotApplied(late());
        }
        before_deadline(&*self.clock, deadline, work).await.unwrap_or_else(|| Outcome::Unknown(late()))
    }

    async fn read_within<T>(&self, work: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
        before_deadline(&*self.clock, self.clock.monotonic().after(READ_TIMEOUT), work)
            .await
            .unwrap_or_else(|| Err(late()))
    }
}

#[async_trait]
impl ObjectStore for S3Objects {
    async fn put_marker(&self, call: &CallContext, prefix: &ObjectPrefix) -> Outcome<()> {
        self.within(call.deadline, self.put(call.deadline, &prefix.marker())).await
    }

    async fn page(&self, prefix: &ObjectPrefix, after: Option<&str>) -> Result<ObjectPage, PortError> {
        let prefix = prefix.to_string();
        let work = async { self.list(&prefix, after).await.map_err(|failure| failure.error(PORT)) };
        self.read_within(work).await
    }

    async fn delete(
        &self,
        call: &CallContext,
        prefix: &ObjectPrefix,
        keys: &[String],
    ) -> Outcome<Vec<(String, String)>> {
        let invalid = |message: &str| Outcome::NotApplied(PortError::new(PORT, ErrorKind::Invalid, message));
        if keys.len() > LIMIT {
            return invalid("a request must have at most 1,000 keys");
        }
        let inside = prefix.to_string();
        if !keys.iter().all(|key| Entry::parse(key).key().starts_with(&inside)) {
            return invalid("a key is outside the prefix");
        }
        self.within(call.deadline, self.remove(keys)).await
    }
}

impl fmt::Debug for S3Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Objects").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

fn late() -> PortError {
    PortError::new(PORT, ErrorKind::Unavailable, "the deadline passed before the call completed")
}

//! Site files in a bucket of S3, or of a store that speaks its protocol.
//!
//! What is listed and deleted are versions, delete markers and unfinished uploads, never objects by their keys alone: a
//! bucket that has never kept versions has one version of each object, called `null`. So nothing stays behind, however
//! the bucket is set up. The port's order is the bucket's: all versions by key, then all unfinished uploads by key.

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
use super::aws::{Aws, by, told};
use crate::domain::{MonotonicTime, ObjectPrefix};
use crate::ports::{CallContext, Clock, ErrorKind, ObjectPage, ObjectStore, Outcome, PortError};

const PORT: &str = "objects";
/// Most keys in one page and in one delete; S3 allows no more.
const LIMIT: usize = 1_000;
/// How long a read may take. A page may be several requests, and a slow one where much was deleted before it.
const READ: Duration = Duration::from_secs(20);
/// Below this the keys of all sites lie.
const SITES: &str = "sites/";

/// Which bucket, and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// The store's address, where it is not the account's own.
    pub endpoint: Option<String>,
    /// Whether the bucket stands in the path of a request's address instead of in its host name.
    pub path_style: bool,
}

/// Keeps site files in a bucket; clones share its connections.
#[derive(Clone)]
pub struct S3Objects {
    client: Client,
    bucket: Arc<str>,
    region: Option<Arc<str>>,
    clock: Arc<dyn Clock>,
}

impl S3Objects {
    /// Files in the bucket of the settings. Does not connect; the first call does.
    pub fn new(aws: &Aws, settings: &S3Settings, clock: Arc<dyn Clock>) -> Self {
        let mut config = aws_sdk_s3::config::Builder::from(aws.config())
            .force_path_style(settings.path_style)
            // Other stores know no checksums but those that the protocol asks for.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let region = aws.config().region().map(|region| region.as_ref().into());
        let client = Client::from_conf(config.build());
        Self { client, bucket: settings.bucket.as_str().into(), region, clock }
    }

    /// Whether the bucket is there, and its versions and unfinished uploads may be listed.
    ///
    /// # Errors
    /// `NotFound` when it is not there, `Denied` when CDM may not look, `Unavailable` when there is no answer.
    pub async fn check(&self) -> Result<(), PortError> {
        let work = async {
            let versions = self.client.list_object_versions().bucket(&*self.bucket).prefix(SITES).max_keys(1);
            versions.send().await.map_err(|error| told(&error).error(PORT))?;
            let uploads = self.client.list_multipart_uploads().bucket(&*self.bucket).prefix(SITES);
            uploads.max_uploads(1).send().await.map_err(|error| told(&error).error(PORT))?;
            Ok(())
        };
        self.read_within(work).await
    }

    async fn within<T>(&self, deadline: MonotonicTime, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        if self.clock.monotonic() >= deadline {
            return Outcome::NotApplied(late());
        }
        by(&*self.clock, deadline, work).await.unwrap_or_else(|| Outcome::Unknown(late()))
    }

    async fn read_within<T>(&self, work: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
        by(&*self.clock, self.clock.monotonic().after(READ), work).await.unwrap_or_else(|| Err(late()))
    }
}

#[async_trait]
impl ObjectStore for S3Objects {
    async fn put_marker(&self, call: &CallContext, prefix: &ObjectPrefix) -> Outcome<()> {
        self.within(call.deadline, self.put(call.deadline, &prefix.marker())).await
    }

    async fn page(&self, prefix: &ObjectPrefix, after: Option<&str>) -> Result<ObjectPage, PortError> {
        let prefix = prefix.to_string();
        let work = async { self.list(&prefix, after).await.map_err(|told| told.error(PORT)) };
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
            return invalid("a request has at most 1,000 keys");
        }
        let inside = prefix.to_string();
        if !keys.iter().all(|key| Entry::parse(key).key().starts_with(&inside)) {
            return invalid("a key lies outside the prefix");
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
    PortError::new(PORT, ErrorKind::Unavailable, "the call's deadline passed before it was done")
}

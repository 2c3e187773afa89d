//! Deletes entries: with one request for all entries that a list can contain, and one request for each other entry.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::future::join_all;

use super::keys::{self, Entry};
use super::{PORT, S3Objects};
use crate::adapters::aws::{AwsFailure, classify};
use crate::ports::{ErrorKind, Outcome};

/// Maximum number of concurrent requests for single entries.
const MAX_CONCURRENT: usize = 8;

impl S3Objects {
    /// Deletes `keys`; returns the keys that could not be deleted, with S3's error codes.
    pub(super) async fn remove(&self, keys: &[String]) -> Outcome<Vec<(String, String)>> {
        let entries: Vec<_> = keys.iter().map(|key| Entry::parse(key)).collect();
        let (listed, single): (Vec<_>, Vec<_>) = entries.into_iter().partition(Entry::fits_in_list);
        let mut failed = match self.remove_listed(&listed).await {
            Ok(failed) => failed,
            Err(failure) => return failure.outcome(PORT),
        };
        let mut unknown = None;
        for chunk in single.chunks(MAX_CONCURRENT) {
            let work: Vec<_> = chunk.iter().map(|entry| self.remove_single(*entry)).collect();
            for (entry, done) in chunk.iter().zip(join_all(work).await) {
                match done {
                    Ok(()) => {}
                    Err(failure) if failure.maybe_applied => unknown = Some(failure),
                    Err(failure) => failed.push((entry.to_string(), failure.code)),
                }
            }
        }
        unknown.map_or(Outcome::Applied(failed), |failure| failure.outcome(PORT))
    }

    /// Deletes entries with one request, whose response has an error for each entry that was not deleted.
    async fn remove_listed(&self, entries: &[Entry<'_>]) -> Result<Vec<(String, String)>, AwsFailure> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let named = entries.iter().map(|entry| {
            ObjectIdentifier::builder().key(entry.key()).set_version_id(entry.version()).build()
        });
        let delete = named
            .collect::<Result<Vec<_>, _>>()
            .and_then(|named| Delete::builder().set_objects(Some(named)).quiet(true).build());
        let Ok(delete) = delete else { return Err(invalid_request()) };
        let deleted = self.client.delete_objects().bucket(&*self.bucket).delete(delete).send().await;
        let deleted = deleted.map_err(|error| classify(&error))?;
        let failed =
            deleted.errors().iter().filter(|error| !keys::is_missing(error.code().unwrap_or_default()));
        let failures = failed.map(|error| {
            let key = error.key().unwrap_or_default();
            let entry = match error.version_id() {
                Some(version) if !version.is_empty() => Entry::Version(key, version),
                Some(_) | None => Entry::Object(key),
            };
            (entry.to_string(), error.code().unwrap_or_default().to_owned())
        });
        Ok(failures.collect())
    }

    async fn remove_single(&self, entry: Entry<'_>) -> Result<(), AwsFailure> {
        let deleted = match entry {
            Entry::Upload(key, id) => {
                let abort = self.client.abort_multipart_upload().bucket(&*self.bucket).key(key).upload_id(id);
                abort.send().await.map(drop).map_err(|error| classify(&error))
            }
            Entry::Version(..) | Entry::Object(_) => {
                let delete = self.client.delete_object().bucket(&*self.bucket).key(entry.key());
                delete
                    .set_version_id(entry.version())
                    .send()
                    .await
                    .map(drop)
                    .map_err(|error| classify(&error))
            }
        };
        match deleted {
            Err(failure) if keys::is_missing(&failure.code) => Ok(()),
            deleted => deleted,
        }
    }
}

const fn invalid_request() -> AwsFailure {
    AwsFailure { maybe_applied: false, kind: ErrorKind::Invalid, code: String::new() }
}

//! Deleting: one request for all that a list can name, and one for each that it cannot.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::future::join_all;

use super::keys::{self, Entry};
use super::{PORT, S3Objects};
use crate::adapters::aws::{AwsFailure, told};
use crate::ports::{ErrorKind, Outcome};

/// How many requests of one delete are under way at once, where there is one for each key.
const AT_ONCE: usize = 8;

impl S3Objects {
    /// What of `keys` could not be deleted, and why.
    pub(super) async fn remove(&self, keys: &[String]) -> Outcome<Vec<(String, String)>> {
        let entries: Vec<_> = keys.iter().map(|key| Entry::parse(key)).collect();
        let (listed, single): (Vec<_>, Vec<_>) = entries.into_iter().partition(Entry::fits_a_list);
        let mut kept = match self.remove_listed(&listed).await {
            Ok(kept) => kept,
            Err(told) => return told.outcome(PORT),
        };
        let mut lost = None;
        for some in single.chunks(AT_ONCE) {
            let work: Vec<_> = some.iter().map(|entry| self.remove_single(*entry)).collect();
            for (entry, done) in some.iter().zip(join_all(work).await) {
                match done {
                    Ok(()) => {}
                    Err(told) if told.lost => lost = Some(told),
                    Err(told) => kept.push((entry.to_string(), told.code)),
                }
            }
        }
        lost.map_or(Outcome::Applied(kept), |told| told.outcome(PORT))
    }

    /// One request for all of them; its answer has an error for each that stays.
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
        let Ok(delete) = delete else { return Err(unwritable()) };
        let deleted = self.client.delete_objects().bucket(&*self.bucket).delete(delete).send().await;
        let deleted = deleted.map_err(|error| told(&error))?;
        let kept = deleted.errors().iter().filter(|error| !keys::is_gone(error.code().unwrap_or_default()));
        let told = kept.map(|error| {
            let key = error.key().unwrap_or_default();
            let entry = match error.version_id() {
                Some(version) if !version.is_empty() => Entry::Version(key, version),
                Some(_) | None => Entry::Object(key),
            };
            (entry.to_string(), error.code().unwrap_or_default().to_owned())
        });
        Ok(told.collect())
    }

    async fn remove_single(&self, entry: Entry<'_>) -> Result<(), AwsFailure> {
        let told = match entry {
            Entry::Upload(key, id) => {
                let abort = self.client.abort_multipart_upload().bucket(&*self.bucket).key(key).upload_id(id);
                abort.send().await.map(drop).map_err(|error| told(&error))
            }
            Entry::Version(..) | Entry::Object(_) => {
                let delete = self.client.delete_object().bucket(&*self.bucket).key(entry.key());
                delete.set_version_id(entry.version()).send().await.map(drop).map_err(|error| told(&error))
            }
        };
        match told {
            Err(told) if keys::is_gone(&told.code) => Ok(()),
            told => told,
        }
    }
}

const fn unwritable() -> AwsFailure {
    AwsFailure { lost: false, kind: ErrorKind::Invalid, code: String::new() }
}

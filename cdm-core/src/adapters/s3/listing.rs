//! Lists the entries of a site: versions and delete markers, then unfinished uploads.

use aws_sdk_s3::types::EncodingType;

use super::keys::{self, Entry};
use super::{LIMIT, S3Objects};
use crate::adapters::aws::{AwsFailure, classify};
use crate::ports::ObjectPage;

impl S3Objects {
    pub(super) async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ObjectPage, AwsFailure> {
        let after = after.map(Entry::parse);
        let mut page = ObjectPage { keys: Vec::new(), more: false };
        if !matches!(after, Some(Entry::Upload(..))) {
            page = self.versions(prefix, after).await?;
        }
        if page.more {
            return Ok(page);
        }
        if page.keys.len() == LIMIT {
            // The next page determines whether there are uploads.
            return Ok(ObjectPage { more: true, ..page });
        }
        let uploads = self.uploads(prefix, after, LIMIT - page.keys.len()).await?;
        page.keys.extend(uploads.keys);
        Ok(ObjectPage { more: uploads.more, ..page })
    }

    /// Lists versions and delete markers.
    async fn versions(&self, prefix: &str, after: Option<Entry<'_>>) -> Result<ObjectPage, AwsFailure> {
        let (mut key, mut version) = match after {
            Some(Entry::Version(key, version)) => (Some(key.to_owned()), Some(version.to_owned())),
            Some(Entry::Object(key)) => (Some(key.to_owned()), None),
            Some(Entry::Upload(..)) | None => (None, None),
        };
        loop {
            let listed = self.client.list_object_versions().bucket(&*self.bucket).prefix(prefix);
            let listed = listed.encoding_type(EncodingType::Url).set_key_marker(key.clone());
            let listed = listed.set_version_id_marker(version.clone()).send().await;
            let listed = listed.map_err(|error| classify(&error))?;
            let plain = keys::decoder(listed.encoding_type());
            let versions = listed.versions().iter().map(|item| (item.key(), item.version_id()));
            let markers = listed.delete_markers().iter().map(|item| (item.key(), item.version_id()));
            let named = |(key, version): (Option<&str>, Option<&str>)| {
                Some((plain(key?), version.unwrap_or(keys::NULL).to_owned()))
            };
            let mut found: Vec<_> = versions.chain(markers).filter_map(named).collect();
            let more = listed.is_truncated() == Some(true);
            key = listed.next_key_marker().map(&plain);
            version = listed.next_version_id_marker().map(str::to_owned);
            // The response has two lists. The page ends with the entry of the response's markers, so that the next page
            // continues there.
            let is_end = |(k, v): &(String, String)| Some(k) == key.as_ref() && Some(v) == version.as_ref();
            found.sort_by(|a, b| (&a.0, is_end(a)).cmp(&(&b.0, is_end(b))));
            if !more || !found.is_empty() || key.is_none() {
                let keys = found.iter().map(|(key, version)| Entry::Version(key, version).to_string());
                return Ok(ObjectPage { more: more && !found.is_empty(), keys: keys.collect() });
            }
        }
    }

    /// Lists multipart uploads that were neither completed nor aborted.
    async fn uploads(
        &self,
        prefix: &str,
        after: Option<Entry<'_>>,
        limit: usize,
    ) -> Result<ObjectPage, AwsFailure> {
        let (mut key, mut id) = match after {
            Some(Entry::Upload(key, id)) => (Some(key.to_owned()), Some(id.to_owned())),
            Some(Entry::Version(..) | Entry::Object(_)) | None => (None, None),
        };
        loop {
            let listed = self.client.list_multipart_uploads().bucket(&*self.bucket).prefix(prefix);
            let listed = listed.encoding_type(EncodingType::Url).set_key_marker(key.clone());
            let listed = listed.set_upload_id_marker(id.clone()).set_max_uploads(i32::try_from(limit).ok());
            let listed = listed.send().await.map_err(|error| classify(&error))?;
            let plain = keys::decoder(listed.encoding_type());
            let named =
                |(key, id): (Option<&str>, Option<&str>)| Some(Entry::Upload(&plain(key?), id?).to_string());
            let found = listed.uploads().iter().map(|item| (item.key(), item.upload_id()));
            let keys: Vec<_> = found.filter_map(named).collect();
            let more = listed.is_truncated() == Some(true);
            key = listed.next_key_marker().map(&plain);
            id = listed.next_upload_id_marker().map(str::to_owned);
            if !more || !keys.is_empty() || key.is_none() {
                return Ok(ObjectPage { more: more && !keys.is_empty(), keys });
            }
        }
    }
}

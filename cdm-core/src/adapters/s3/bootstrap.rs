//! Creation of the bucket.

use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
    PublicAccessBlockConfiguration, VersioningConfiguration,
};

use super::{PORT, S3Objects};
use crate::adapters::aws::classify;
use crate::ports::{ErrorKind, PortError};

impl S3Objects {
    /// Creates the bucket if it is missing, with versioning and without public access. Does not change an existing
    /// bucket.
    ///
    /// # Errors
    /// When the bucket belongs to another account, or cannot be created or configured.
    pub async fn bootstrap(&self) -> Result<(), PortError> {
        match self.client.head_bucket().bucket(&*self.bucket).send().await {
            Ok(_) => return Ok(()),
            Err(error) => match classify(&error) {
                failure if failure.kind == ErrorKind::NotFound => {}
                failure => return Err(failure.error(PORT)),
            },
        }
        // The region us-east-1 is selected by omitting the location constraint.
        let region = self.region.as_deref().filter(|region| *region != "us-east-1");
        let location = region.map(|region| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region))
                .build()
        });
        let create =
            self.client.create_bucket().bucket(&*self.bucket).set_create_bucket_configuration(location);
        create.send().await.map_err(|error| classify(&error).error(PORT))?;
        let all = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let block = self.client.put_public_access_block().bucket(&*self.bucket);
        match block.public_access_block_configuration(all).send().await.map_err(|error| classify(&error)) {
            Ok(_) => {}
            // Other S3-compatible stores do not implement this.
            Err(failure) if failure.code == "NotImplemented" => {}
            Err(failure) => return Err(failure.error(PORT)),
        }
        let versioning = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let versions =
            self.client.put_bucket_versioning().bucket(&*self.bucket).versioning_configuration(versioning);
        versions.send().await.map(drop).map_err(|error| classify(&error).error(PORT))
    }
}

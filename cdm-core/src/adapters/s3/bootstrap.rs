//! The bucket itself: making it where there is none.

use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
    PublicAccessBlockConfiguration, VersioningConfiguration,
};

use super::{PORT, S3Objects};
use crate::adapters::aws::told;
use crate::ports::{ErrorKind, PortError};

impl S3Objects {
    /// Makes the bucket where there is none: with versions, and without public access. Leaves one that is there as it
    /// is.
    ///
    /// # Errors
    /// When the bucket is another account's, cannot be made, or cannot be set up.
    pub async fn bootstrap(&self) -> Result<(), PortError> {
        match self.client.head_bucket().bucket(&*self.bucket).send().await {
            Ok(_) => return Ok(()),
            Err(error) => match told(&error) {
                told if told.kind == ErrorKind::NotFound => {}
                told => return Err(told.error(PORT)),
            },
        }
        // What lies in this region is said by saying nothing.
        let region = self.region.as_deref().filter(|region| *region != "us-east-1");
        let place = region.map(|region| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region))
                .build()
        });
        let create = self.client.create_bucket().bucket(&*self.bucket).set_create_bucket_configuration(place);
        create.send().await.map_err(|error| told(&error).error(PORT))?;
        let all = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let block = self.client.put_public_access_block().bucket(&*self.bucket);
        match block.public_access_block_configuration(all).send().await.map_err(|error| told(&error)) {
            Ok(_) => {}
            // Other stores have no such thing.
            Err(told) if told.code == "NotImplemented" => {}
            Err(told) => return Err(told.error(PORT)),
        }
        let kept = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let versions =
            self.client.put_bucket_versioning().bucket(&*self.bucket).versioning_configuration(kept);
        versions.send().await.map(drop).map_err(|error| told(&error).error(PORT))
    }
}

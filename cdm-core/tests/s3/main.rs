//! Site files in S3: the contract of the port on moto, behind a proxy that enforces the limits of S3, and on an AWS
//! account if `CDM_TEST_AWS=1`.

mod deletion;
mod failures;
mod strict;

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use cdm_core::adapters::aws::{Aws, AwsSettings};
use cdm_core::adapters::s3::{S3Objects, S3Settings};
use cdm_core::domain::{ObjectPrefix, Uid};
use cdm_core::ports::{ErrorKind, ObjectStore, Outcome};
use cdm_testkit::backends;
use cdm_testkit::contract::SystemEnv;
use cdm_testkit::contract::objects::{self, ObjectSeeder};
use futures_util::future::join_all;

use strict::StrictServer;

/// A separate bucket, and the adapter, whose requests go through a proxy with injectable faults.
#[derive(Debug)]
struct TestEnv {
    suite: SystemEnv,
    strict: StrictServer,
    objects: S3Objects,
    /// A client without the adapter and the proxy.
    client: Client,
    bucket: String,
}

impl TestEnv {
    /// Creates an environment with an unversioned bucket; `None` if the backends were not started.
    async fn plain() -> Option<Self> {
        let env = Self::without_bucket().await?;
        let create = env.client.create_bucket().bucket(&env.bucket);
        let here = aws_sdk_s3::types::BucketLocationConstraint::EuCentral1;
        let location =
            aws_sdk_s3::types::CreateBucketConfiguration::builder().location_constraint(here).build();
        create.create_bucket_configuration(location).send().await.expect("a bucket");
        Some(env)
    }

    /// Creates an environment with a versioned bucket.
    async fn versioned() -> Option<Self> {
        let env = Self::plain().await?;
        let kept = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let keep = env.client.put_bucket_versioning().bucket(&env.bucket).versioning_configuration(kept);
        keep.send().await.expect("versions");
        Some(env)
    }

    async fn both() -> Vec<Self> {
        [Self::plain().await, Self::versioned().await].into_iter().flatten().collect()
    }

    async fn without_bucket() -> Option<Self> {
        let moto = backends::address("CDM_TEST_AWS_ENDPOINT")?;
        let suite = SystemEnv::new();
        let strict = strict::start(&moto, suite.clock).await;
        let bucket = format!("cdm-{}", suite.cx().uid());
        let settings =
            S3Settings { bucket: bucket.clone(), endpoint: Some(strict.proxy.url()), path_style: true };
        let region = Some("eu-central-1".to_owned());
        let aws = Aws::load(&AwsSettings { region, ..AwsSettings::default() }).await;
        let objects = S3Objects::new(&aws, &settings, Arc::new(suite.clock));
        let config = config().endpoint_url(moto).region("eu-central-1");
        let config = aws_sdk_s3::config::Builder::from(&config.load().await).force_path_style(true).build();
        Some(Self { suite, strict, objects, client: Client::from_conf(config), bucket })
    }

    fn uid(&self) -> Uid {
        self.suite.cx().uid()
    }

    async fn object(&self, key: &str) {
        self.seed_objects(&[key.to_owned()]).await;
    }

    async fn upload(&self, key: &str) -> String {
        let begin = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        begin.send().await.expect("an upload").upload_id().expect("its id").to_owned()
    }

    /// Returns every key that the pages of the adapter contain.
    async fn keys(&self, uid: Uid) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        loop {
            let page = self.objects.page(&ObjectPrefix::of(uid), keys.last().map(String::as_str)).await;
            let page = page.expect("a page");
            keys.extend(page.keys);
            if !page.more {
                return keys;
            }
        }
    }

    async fn delete(&self, uid: Uid, keys: &[String]) -> Outcome<Vec<(String, String)>> {
        self.objects.delete(&self.suite.cx().call(), &ObjectPrefix::of(uid), keys).await
    }

    /// Returns the number of versions, delete markers and unfinished uploads below a prefix, read without the adapter.
    async fn remaining(&self, prefix: &str) -> [usize; 3] {
        let versions = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix).max_keys(1000);
        let versions = versions.send().await.expect("versions");
        let uploads = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix);
        let uploads = uploads.send().await.expect("uploads");
        [versions.versions().len(), versions.delete_markers().len(), uploads.uploads().len()]
    }
}

#[async_trait]
impl ObjectSeeder for TestEnv {
    async fn seed_objects(&self, keys: &[String]) {
        ForeignObjects { client: &self.client, bucket: &self.bucket }.seed_objects(keys).await;
    }
}

/// Objects that are created without the adapter.
#[derive(Debug)]
struct ForeignObjects<'a> {
    client: &'a Client,
    bucket: &'a str,
}

#[async_trait]
impl ObjectSeeder for ForeignObjects<'_> {
    async fn seed_objects(&self, keys: &[String]) {
        for some in keys.chunks(16) {
            let puts = some.iter().map(|key| {
                let put = self.client.put_object().bucket(self.bucket).key(key);
                put.body(b"x".to_vec().into()).send()
            });
            for put in join_all(puts).await {
                put.expect("an object is put");
            }
        }
    }
}

/// Returns the configuration of a separate client.
fn config() -> aws_config::ConfigLoader {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(http.build_https())
}

/// Uses the buckets one after another, because moto scans a whole bucket for each page.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_fulfilled() {
    for env in TestEnv::both().await {
        objects::suite(&env.objects, &env, &env.suite.cx()).await;
        env.objects.check().await.expect("a response");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_creates_a_missing_bucket_and_keeps_an_existing_one() {
    let Some(env) = TestEnv::without_bucket().await else { return };
    assert_eq!(env.objects.check().await.expect_err("none").kind, ErrorKind::NotFound);
    env.objects.bootstrap().await.expect("made");
    env.objects.check().await.expect("the bucket exists");
    let blocked = env.client.get_public_access_block().bucket(&env.bucket).send().await.expect("a block");
    let blocked = blocked.public_access_block_configuration().expect("a configuration");
    let all = [blocked.block_public_acls(), blocked.ignore_public_acls(), blocked.block_public_policy()];
    assert_eq!((all, blocked.restrict_public_buckets()), ([Some(true); 3], Some(true)));
    let put = env.client.put_object().bucket(&env.bucket).key("other").send().await.expect("an object");
    assert!(put.version_id().is_some(), "versioning is enabled");
    env.strict.proxy.take_requests();
    env.objects.bootstrap().await.expect("no change");
    assert_eq!(env.strict.proxy.take_operations(), ["HeadBucket"]);
}

/// Uses a separate bucket, which is emptied and deleted afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_fulfills_the_contract() {
    if !backends::has_aws_account() {
        return;
    }
    let suite = SystemEnv::new();
    let bucket = format!("cdm-test-{}", suite.cx().uid());
    let settings = S3Settings { bucket: bucket.clone(), ..S3Settings::default() };
    let objects = S3Objects::new(&Aws::load(&AwsSettings::default()).await, &settings, Arc::new(suite.clock));
    objects.bootstrap().await.expect("a bucket is made");
    let client = Client::new(&config().load().await);
    let (planted, suite) = (ForeignObjects { client: &client, bucket: &bucket }, suite.cx());
    objects::suite(&objects, &planted, &suite).await;
    objects.check().await.expect("a response");
    loop {
        let listed = client.list_object_versions().bucket(&bucket).send().await.expect("versions");
        if listed.versions().is_empty() {
            break;
        }
        for version in listed.versions() {
            let delete = client.delete_object().bucket(&bucket).set_key(version.key().map(str::to_owned));
            delete.set_version_id(version.version_id().map(str::to_owned)).send().await.expect("deleted");
        }
    }
    client.delete_bucket().bucket(bucket).send().await.expect("the bucket is deleted");
}

//! Site files in S3: the promises of the port on moto, behind a doorman who is as strict as S3, and with
//! `CDM_TEST_AWS=1` on an account.

#[path = "../parts/mod.rs"]
mod parts;
mod rest;
mod strict;
mod trouble;
#[path = "../wire/mod.rs"]
mod wire;

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
use cdm_testkit::contract::objects::{self, Plant};
use futures_util::future::join_all;

use parts::Bench;
use strict::Strict;

/// A bucket of its own, and the adapter whose requests go over a wire that can fail.
#[derive(Debug)]
struct Lab {
    bench: Bench,
    strict: Strict,
    objects: S3Objects,
    /// Past the adapter and the doorman.
    client: Client,
    bucket: String,
}

impl Lab {
    /// With a bucket that keeps no versions; nothing where parts were not started.
    async fn plain() -> Option<Self> {
        let lab = Self::without_bucket().await?;
        let make = lab.client.create_bucket().bucket(&lab.bucket);
        let here = aws_sdk_s3::types::BucketLocationConstraint::EuCentral1;
        let place = aws_sdk_s3::types::CreateBucketConfiguration::builder().location_constraint(here).build();
        make.create_bucket_configuration(place).send().await.expect("a bucket");
        Some(lab)
    }

    /// With a bucket that keeps versions.
    async fn versioned() -> Option<Self> {
        let lab = Self::plain().await?;
        let kept = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let keep = lab.client.put_bucket_versioning().bucket(&lab.bucket).versioning_configuration(kept);
        keep.send().await.expect("versions");
        Some(lab)
    }

    async fn both() -> Vec<Self> {
        [Self::plain().await, Self::versioned().await].into_iter().flatten().collect()
    }

    async fn without_bucket() -> Option<Self> {
        let moto = parts::address("CDM_TEST_AWS_ENDPOINT")?;
        let bench = Bench::new();
        let strict = strict::start(moto.clone());
        let bucket = format!("cdm-{}", bench.cx().uid());
        let settings =
            S3Settings { bucket: bucket.clone(), endpoint: Some(strict.wire.endpoint()), path_style: true };
        let region = Some("eu-central-1".to_owned());
        let aws = Aws::load(&AwsSettings { region, ..AwsSettings::default() }).await;
        let objects = S3Objects::new(&aws, &settings, Arc::new(bench.clock));
        let config = config().endpoint_url(moto).region("eu-central-1");
        let config = aws_sdk_s3::config::Builder::from(&config.load().await).force_path_style(true).build();
        Some(Self { bench, strict, objects, client: Client::from_conf(config), bucket })
    }

    fn uid(&self) -> Uid {
        self.bench.cx().uid()
    }

    async fn object(&self, key: &str) {
        self.plant(&[key.to_owned()]).await;
    }

    async fn upload(&self, key: &str) -> String {
        let begin = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        begin.send().await.expect("an upload").upload_id().expect("its id").to_owned()
    }

    /// Every key of the adapter's own pages.
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
        self.objects.delete(&self.bench.cx().call(), &ObjectPrefix::of(uid), keys).await
    }

    /// How many versions, delete markers and unfinished uploads the bucket has below a prefix; asked without the adapter.
    async fn rest(&self, prefix: &str) -> [usize; 3] {
        let versions = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix).max_keys(1000);
        let versions = versions.send().await.expect("versions");
        let uploads = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix);
        let uploads = uploads.send().await.expect("uploads");
        [versions.versions().len(), versions.delete_markers().len(), uploads.uploads().len()]
    }
}

#[async_trait]
impl Plant for Lab {
    async fn plant(&self, keys: &[String]) {
        Planted { client: &self.client, bucket: &self.bucket }.plant(keys).await;
    }
}

/// Objects that are put past the adapter.
#[derive(Debug)]
struct Planted<'a> {
    client: &'a Client,
    bucket: &'a str,
}

#[async_trait]
impl Plant for Planted<'_> {
    async fn plant(&self, keys: &[String]) {
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

/// For a client of the test's own.
fn config() -> aws_config::ConfigLoader {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(http.build_https())
}

/// One bucket after the other: moto looks through a whole bucket for each page.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    for lab in Lab::both().await {
        objects::suite(&lab.objects, &lab, &lab.bench.cx()).await;
        lab.objects.check().await.expect("it answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_made_where_there_is_none_and_left_as_it_is_where_there_is_one() {
    let Some(lab) = Lab::without_bucket().await else { return };
    assert_eq!(lab.objects.check().await.expect_err("none").kind, ErrorKind::NotFound);
    lab.objects.bootstrap().await.expect("made");
    lab.objects.check().await.expect("it is there");
    let blocked = lab.client.get_public_access_block().bucket(&lab.bucket).send().await.expect("a block");
    let blocked = blocked.public_access_block_configuration().expect("a configuration");
    let all = [blocked.block_public_acls(), blocked.ignore_public_acls(), blocked.block_public_policy()];
    assert_eq!((all, blocked.restrict_public_buckets()), ([Some(true); 3], Some(true)));
    let put = lab.client.put_object().bucket(&lab.bucket).key("other").send().await.expect("an object");
    assert!(put.version_id().is_some(), "it keeps versions");
    lab.strict.wire.asked();
    lab.objects.bootstrap().await.expect("nothing to do");
    assert_eq!(lab.strict.wire.operations(), ["HeadBucket"]);
}

/// In a bucket of its own, that is emptied and deleted afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_keeps_the_contract() {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are told by their surroundings whether there is an account"
    )]
    if std::env::var("CDM_TEST_AWS").as_deref() != Ok("1") {
        return;
    }
    let bench = Bench::new();
    let bucket = format!("cdm-test-{}", bench.cx().uid());
    let settings = S3Settings { bucket: bucket.clone(), ..S3Settings::default() };
    let objects = S3Objects::new(&Aws::load(&AwsSettings::default()).await, &settings, Arc::new(bench.clock));
    objects.bootstrap().await.expect("a bucket is made");
    let client = Client::new(&config().load().await);
    let (planted, suite) = (Planted { client: &client, bucket: &bucket }, bench.cx());
    objects::suite(&objects, &planted, &suite).await;
    objects.check().await.expect("it answers");
    loop {
        let listed = client.list_object_versions().bucket(&bucket).send().await.expect("versions");
        if listed.versions().is_empty() {
            break;
        }
        for held in listed.versions() {
            let delete = client.delete_object().bucket(&bucket).set_key(held.key().map(str::to_owned));
            delete.set_version_id(held.version_id().map(str::to_owned)).send().await.expect("deleted");
        }
    }
    client.delete_bucket().bucket(bucket).send().await.expect("the bucket goes");
}

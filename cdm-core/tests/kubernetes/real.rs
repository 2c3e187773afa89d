//! The same contract on a real cluster, in a namespace that was created for it: see `docs/operations.md`.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::kubernetes::{Access, KubernetesSettings};
use cdm_core::domain::Digest;
use cdm_core::ports::Clock;
use cdm_testkit::backends;
use cdm_testkit::contract::cluster::{Images, suite};
use cdm_testkit::contract::{Settle, SuiteContext, SystemEnv};

use crate::env::open_cluster;

/// Polls at intervals that suit a real cluster.
#[derive(Debug)]
struct SlowSettle(SystemEnv);

#[async_trait]
impl Settle for SlowSettle {
    async fn settle(&self) {
        self.0.clock.sleep_until(self.0.clock.monotonic().after(Duration::from_secs(1))).await;
    }
}

/// With `CDM_TEST_KUBECONFIG`: the cluster of its current context, the namespace `CDM_TEST_NAMESPACE`, which contains
/// both Deployments, and two digests of `CDM_TEST_IMAGE` whose pods get ready there, `CDM_TEST_DIGESTS`, separated by
/// a comma.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_fulfilled_on_a_real_cluster() {
    let Some(path) = backends::optional("CDM_TEST_KUBECONFIG") else { return };
    let required =
        |name: &str| backends::optional(name).unwrap_or_else(|| panic!("{name} is required with a cluster"));
    let settings = KubernetesSettings::new(&required("CDM_TEST_NAMESPACE"), &required("CDM_TEST_IMAGE"));
    let digests = required("CDM_TEST_DIGESTS");
    let (first, second) = digests.split_once(',').expect("two digests");
    let digest = |text: &str| Digest::parse(text.trim()).expect("a digest");
    let images = Images { first: digest(first), second: digest(second) };
    let access = Access::Kubeconfig { path: path.into(), context: None };
    let cluster = open_cluster(settings, &access).await.expect("a cluster");
    cluster.bootstrap().await.expect("the configuration is valid");
    let slow = SlowSettle(SystemEnv::new());
    suite(&cluster, images, &SuiteContext::new(&slow.0.clock, &slow.0.ids, &slow)).await;
}

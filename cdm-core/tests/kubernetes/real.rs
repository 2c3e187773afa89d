//! The same contract on a real cluster, in a namespace that was made for it: see `docs/operations.md`.

use std::time::Duration;

use async_trait::async_trait;
use cdm_core::adapters::kubernetes::{Access, KubernetesSettings};
use cdm_core::domain::Digest;
use cdm_core::ports::Clock;
use cdm_testkit::contract::cluster::{Images, suite};
use cdm_testkit::contract::{Cx, Settle};

use crate::lab::opened;
use crate::parts::{self, Bench};

/// A cluster takes its time.
#[derive(Debug)]
struct Slow(Bench);

#[async_trait]
impl Settle for Slow {
    async fn settle(&self) {
        self.0.clock.sleep_until(self.0.clock.monotonic().after(Duration::from_secs(1))).await;
    }
}

/// With `CDM_TEST_KUBECONFIG`: its current context's cluster, the namespace `CDM_TEST_NAMESPACE`, which has both
/// Deployments, and two digests of `CDM_TEST_IMAGE` that get ready there, `CDM_TEST_DIGESTS`, with a comma between.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_on_a_real_cluster() {
    let Some(path) = parts::optional("CDM_TEST_KUBECONFIG") else { return };
    let needed =
        |name: &str| parts::optional(name).unwrap_or_else(|| panic!("{name} is needed with a cluster"));
    let settings = KubernetesSettings::new(&needed("CDM_TEST_NAMESPACE"), &needed("CDM_TEST_IMAGE"));
    let digests = needed("CDM_TEST_DIGESTS");
    let (first, second) = digests.split_once(',').expect("two digests");
    let digest = |text: &str| Digest::parse(text.trim()).expect("a digest");
    let images = Images { first: digest(first), second: digest(second) };
    let access = Access::Kubeconfig { path: path.into(), context: None };
    let cluster = opened(settings, &access).await.expect("a cluster");
    cluster.bootstrap().await.expect("all in order");
    let slow = Slow(Bench::new());
    suite(&cluster, images, &Cx::new(&slow.0.clock, &slow.0.ids, &slow)).await;
}

//! The same contract on a real cluster, in a namespace that was made for it: see `docs/operations.md`.

use cdm_core::adapters::kubernetes::{Access, KubernetesSettings};
use cdm_core::domain::Digest;
use cdm_testkit::contract::cluster::{Images, suite};

use crate::lab::opened;
use crate::parts::{self, Bench};

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
    suite(&cluster, images, &Bench::new().cx()).await;
}

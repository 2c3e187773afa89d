//! The cluster on a Kubernetes API on loopback keeps the promises of its port, under exactly the role that is shipped.

mod admission;
mod credentials;
mod jobs;
mod lab;
#[path = "../parts/mod.rs"]
mod parts;
mod real;
#[cfg(feature = "mysql")]
mod real_wp;
mod rights;
mod routes;
mod services;
mod trouble;
mod watching;

use cdm_core::adapters::kubernetes::{Access, KubernetesCluster, KubernetesError, KubernetesSettings};
use cdm_core::domain::Color;
use cdm_core::ports::ClusterOps;
use cdm_testkit::contract::cluster;

use lab::{IMAGES, Lab, gateway, ingress};

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_with_ingresses() {
    let lab = Lab::start(ingress()).await;
    cluster::suite(&lab.cluster, *IMAGES, &lab.cx()).await;
    lab.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_with_http_routes() {
    let lab = Lab::start(gateway()).await;
    cluster::suite(&lab.cluster, *IMAGES, &lab.cx()).await;
    lab.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_makes_the_canary_and_check_finds_all_in_order() {
    for route in [ingress(), gateway()] {
        let lab = Lab::start(route).await;
        assert!(lab.api.object("configmaps", lab::NAMESPACE, "canary-env").is_none());
        for _ in 0..2 {
            lab.cluster.bootstrap().await.expect("all in order");
        }
        let state = || {
            let made = lab.api.object("configmaps", lab::NAMESPACE, "canary-env").expect("a ConfigMap");
            let text = made["data"]["canaryEnv"].as_str().expect("the key").to_owned();
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
        };
        let deployment = lab.api.object("deployments", lab::NAMESPACE, "blue-deployment").expect("blue");
        let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        let web = containers.iter().find(|container| container["name"] == "web").expect("the container");
        let image = &web["image"];
        assert_eq!(state(), serde_json::json!({ "selector": "blue", "image": image }));
        let (canary, blue) = (lab.cluster.canary().await, lab.cluster.service(Color::Blue).await);
        let (canary, blue) = (canary.expect("answered").expect("a canary"), blue.expect("blue"));
        assert_eq!((canary.color, canary.digest), (Color::Blue, blue.digest));
        lab.assert_allowed();
    }
}

#[tokio::test]
async fn settings_are_judged_before_anything_is_asked() {
    let usual = || KubernetesSettings::new("sites", "registry.example/wordpress");
    let blue = usual().blue;
    let cases = [
        KubernetesSettings { namespace: "No".to_owned(), ..usual() },
        KubernetesSettings { container: String::new(), ..usual() },
        KubernetesSettings { green: blue, ..usual() },
        KubernetesSettings { image: "repo@sha256:00".to_owned(), ..usual() },
        KubernetesSettings { wp: Vec::new(), ..usual() },
    ];
    for settings in cases {
        let refused = lab::opened(settings.clone(), &Access::InCluster).await;
        assert!(!matches!(refused, Err(KubernetesError::Access(_)) | Ok(_)), "{settings:?}");
    }
    let no_file = Access::Kubeconfig { path: "/nowhere/kubeconfig".into(), context: None };
    for access in [Access::InCluster, no_file] {
        let refused: Result<KubernetesCluster, _> = lab::opened(usual(), &access).await;
        assert!(matches!(refused, Err(KubernetesError::Access(_))), "{access:?}");
    }
}

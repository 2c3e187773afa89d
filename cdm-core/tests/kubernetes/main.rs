//! The Kubernetes cluster fulfills the contract of its port on a Kubernetes API on loopback, with exactly the shipped
//! role.

mod admission;
mod credentials;
mod env;
mod failures;
mod jobs;
mod real;
#[cfg(feature = "mysql")]
mod real_wp;
mod role;
mod routes;
mod services;
mod watches;

use cdm_core::adapters::kubernetes::{Access, KubernetesCluster, KubernetesError, KubernetesSettings};
use cdm_core::domain::Color;
use cdm_core::ports::ClusterOps;
use cdm_testkit::contract::cluster;

use env::{IMAGES, TestEnv, gateway, ingress};

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_fulfilled_with_ingresses() {
    let env = TestEnv::start(ingress()).await;
    cluster::suite(&env.cluster, *IMAGES, &env.cx()).await;
    env.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_fulfilled_with_http_routes() {
    let env = TestEnv::start(gateway()).await;
    cluster::suite(&env.cluster, *IMAGES, &env.cx()).await;
    env.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_creates_the_canary_and_check_passes() {
    for route in [ingress(), gateway()] {
        let env = TestEnv::start(route).await;
        assert!(env.api.object("configmaps", env::NAMESPACE, "canary-env").is_none());
        for _ in 0..2 {
            env.cluster.bootstrap().await.expect("the configuration is valid");
        }
        let state = || {
            let made = env.api.object("configmaps", env::NAMESPACE, "canary-env").expect("a ConfigMap");
            let text = made["data"]["canaryEnv"].as_str().expect("the key").to_owned();
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
        };
        let deployment = env.api.object("deployments", env::NAMESPACE, "blue-deployment").expect("blue");
        let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        let web = containers.iter().find(|container| container["name"] == "web").expect("the container");
        let image = &web["image"];
        assert_eq!(state(), serde_json::json!({ "selector": "blue", "image": image }));
        let (canary, blue) = (env.cluster.canary().await, env.cluster.service(Color::Blue).await);
        let (canary, blue) = (canary.expect("answered").expect("a canary"), blue.expect("blue"));
        assert_eq!((canary.color, canary.digest), (Color::Blue, blue.digest));
        env.assert_allowed();
    }
}

#[tokio::test]
async fn settings_are_validated_before_a_request_is_sent() {
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
        let refused = env::open_cluster(settings.clone(), &Access::InCluster).await;
        assert!(!matches!(refused, Err(KubernetesError::Access(_)) | Ok(_)), "{settings:?}");
    }
    let no_file = Access::Kubeconfig { path: "/nowhere/kubeconfig".into(), context: None };
    for access in [Access::InCluster, no_file] {
        let refused: Result<KubernetesCluster, _> = env::open_cluster(usual(), &access).await;
        assert!(matches!(refused, Err(KubernetesError::Access(_))), "{access:?}");
    }
}

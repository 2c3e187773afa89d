//! The Kubernetes API of the testkit behaves like a real one over plain HTTP.

mod client;
mod deployments;
mod faults;
mod jobs;
mod kubectl;
mod objects;
mod owners;
mod patches;
mod watches;

use cdm_testkit::kubernetes::{KubernetesApi, Settings};
use serde_json::{Value, json};

use client::Client;

const MAPS: &str = "/api/v1/namespaces/cdm/configmaps";

async fn started() -> (KubernetesApi, Client) {
    let api = KubernetesApi::start(Settings::default()).await.expect("a server");
    let client = Client::of(&api);
    (api, client)
}

fn map(name: &str, labels: Value, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels}, "data": data,
    })
}

/// Returns a Deployment with this many pods of an image.
fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "cdm"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        },
    })
}

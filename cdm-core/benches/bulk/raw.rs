//! A raw client: uses the SDKs directly. For each site it sends the two updates and the patch that a rollout sends, 64
//! sites concurrently, and makes no decisions.

use std::collections::HashMap;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use cdm_core::domain::Color;
use futures_util::{StreamExt, stream};
use hyper::Request;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::servers::{NAMESPACE, Servers};

const CONCURRENCY: usize = 64;
/// Length of the stored document of a rollout's operation.
const STATE_LEN: usize = 420;

#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) uid: String,
    /// The number of the fence on the site's route.
    pub(crate) fence: u64,
}

pub(crate) struct RawClient {
    dynamodb: Client,
    kubernetes: kube::Client,
    pub(crate) table: String,
    pub(crate) targets: Vec<Target>,
    pass: u64,
}

impl RawClient {
    pub(crate) async fn new(servers: &Servers) -> Self {
        let tls = Provider::Rustls(CryptoMode::Ring);
        let aws = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(Builder::new().tls_provider(tls).build_https())
            .retry_config(RetryConfig::disabled())
            .endpoint_url(&servers.dynamodb)
            .load()
            .await;
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&servers.kubeconfig).expect("a kubeconfig");
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a config");
        Self {
            dynamodb: Client::new(&aws),
            kubernetes: kube::Client::try_from(config).expect("a client"),
            table: String::new(),
            targets: Vec::new(),
            pass: 0,
        }
    }

    /// Takes over the sites that a platform has created.
    pub(crate) fn adopt(&mut self, engine: &Engine) {
        self.table.clone_from(&engine.table);
        let target = |site: &cdm_core::domain::Site| Target {
            id: site.id.to_string(),
            uid: site.uid.to_string(),
            fence: 0,
        };
        self.targets = engine.sites.iter().map(target).collect();
    }

    /// Moves every site to `to`.
    pub(crate) async fn promote(&mut self, to: Color) {
        self.pass += 1;
        let (this, fence) = (&*self, self.pass);
        let all = stream::iter(&this.targets).map(|target| this.move_site(target, fence, to));
        all.buffer_unordered(CONCURRENCY).collect::<Vec<()>>().await;
        self.targets.iter_mut().for_each(|target| target.fence = fence);
    }

    async fn move_site(&self, target: &Target, fence: u64, to: Color) {
        let claim_token = format!("{fence:020}.0.{:020}", 1);
        let at = fence.to_string();
        self.update(
            target,
            "SET #slot = :slot, #number = :number, #epoch = :epoch, #courseFrom = #service, \
             #courseRouted = if_not_exists(#routeService, #service), #state = :state, #grant = :grant, \
             #updatedAt = :at, #version = #version + :one, #write = :write",
            "#uid = :uid AND #phase = :active AND attribute_not_exists(#slot) AND #grant <= :grant \
             AND (attribute_not_exists(#settledBy) OR #settledBy <> :leg)",
            vec![
                (":slot", text(&"s".repeat(STATE_LEN))),
                (":number", number(&at)),
                (":epoch", number("1")),
                (":state", text("promoting")),
                (":grant", text(&claim_token)),
                (":at", number(&at)),
                (":one", number("1")),
                (":write", number(&at)),
                (":uid", text(&target.uid)),
                (":active", text("active")),
                (":leg", text(&format!("{fence}.0"))),
            ],
        )
        .await;
        self.patch(target, fence, to).await;
        self.update(
            target,
            "SET #state = :state, #updatedAt = :at, #version = #version + :one, #write = :write, \
             #service = :service, #routeService = :service, #routedService = :service, \
             #routeNumber = :number, #routeEpoch = :epoch, #settled = :settled, #settledBy = :leg \
             REMOVE #slot, #number, #epoch, #courseFrom, #courseRouted",
            "#number = :number AND #epoch = :epoch AND #grant = :grant AND #phase = :active",
            vec![
                (":state", text("active")),
                (":at", number(&at)),
                (":one", number("1")),
                (":write", number(&at)),
                (":service", text(to.as_str())),
                (":number", number(&at)),
                (":epoch", number("1")),
                (":settled", text("{\"rollout\":1,\"leg\":\"out\",\"outcome\":\"moved\"}")),
                (":leg", text(&format!("{fence}.0"))),
                (":grant", text(&claim_token)),
                (":active", text("active")),
            ],
        )
        .await;
    }

    async fn update(&self, target: &Target, set: &str, when: &str, values: Vec<(&str, AttributeValue)>) {
        let mut names = HashMap::new();
        for from in set.split('#').skip(1).chain(when.split('#').skip(1)) {
            let name: String = from.chars().take_while(char::is_ascii_alphanumeric).collect();
            names.insert(format!("#{name}"), name);
        }
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let key = [("pk", format!("S#{}", target.id)), ("sk", "SITE".to_owned())];
        let key = key.map(|(name, value)| (name.to_owned(), text(&value)));
        let updated = self
            .dynamodb
            .update_item()
            .table_name(&self.table)
            .set_key(Some(HashMap::from(key)))
            .update_expression(set)
            .condition_expression(when)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        if let Err(error) = updated {
            panic!("an update of {}: {}", target.id, aws_sdk_dynamodb::error::DisplayErrorContext(error));
        }
    }

    async fn patch(&self, target: &Target, fence: u64, to: Color) {
        let path = format!(
            "/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses/cdm-{}?fieldManager=cdm",
            target.uid
        );
        let request = Request::patch(path)
            .header("content-type", "application/json-patch+json")
            .body(serde_json::to_vec(&route_patch(target, fence, to)).expect("JSON"))
            .expect("a request");
        let route_patch = self.kubernetes.request::<Value>(request).await;
        if let Err(error) = route_patch {
            panic!("the route of {}: {error}", target.id);
        }
    }
}

/// Returns the patch that moves a route, as a rollout sends it.
pub(crate) fn route_patch(target: &Target, fence: u64, to: Color) -> Value {
    json!([
        { "op": "test", "path": "/metadata/labels/cdm~1uid", "value": target.uid },
        { "op": "test", "path": "/metadata/annotations/cdm~1fence", "value": stored_fence(target.fence) },
        { "op": "test", "path": "/metadata/labels/cdm~1hostnames", "value": "1" },
        { "op": "replace", "path": "/spec/rules/0/http/paths/0/backend/service/name", "value": to.as_str() },
        { "op": "replace", "path": "/metadata/annotations/cdm~1fence", "value": stored_fence(fence) },
    ])
}

/// Formats a fence as it is stored; the initial fence is `0.0`.
fn stored_fence(fence: u64) -> String {
    if fence == 0 { "0.0".to_owned() } else { format!("{fence}.1") }
}

pub(crate) fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: &str) -> AttributeValue {
    AttributeValue::N(value.to_owned())
}

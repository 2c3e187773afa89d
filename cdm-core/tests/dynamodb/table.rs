//! The table itself and its items, inspected with another client.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ScalarAttributeType};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use cdm_core::adapters::dynamodb::{DynamoStore, DynamoTable};
use cdm_core::domain::{Color, Epoch, Fence, Routed, Site, Term};
use cdm_core::ports::{Journal, Mutation, Outcome, StoreError};

use super::lost_responses::{claim, release_claim};
use super::{TestEnv, aws};

/// Returns another client, configured only with the address.
pub(super) async fn client(endpoint: Option<&str>) -> Client {
    let tls = Provider::Rustls(CryptoMode::Ring);
    let http = aws_smithy_http_client::Builder::new().tls_provider(tls).build_https();
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(http);
    let config = match endpoint {
        Some(endpoint) => config.endpoint_url(endpoint),
        None => config,
    };
    Client::new(&config.load().await)
}

async fn item(client: &Client, env: &TestEnv, pk: &str, sk: &str) -> HashMap<String, AttributeValue> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let request = client.get_item().table_name(&env.name).key("pk", text(pk)).key("sk", text(sk));
    request.send().await.expect("a response").item.expect("an item")
}

/// Checks `docs/tenant-contract.md` attribute by attribute.
#[tokio::test(flavor = "multi_thread")]
async fn the_item_of_a_site_fulfills_the_tenant_contract() {
    for env in TestEnv::all().await {
        let client = client(Some(&env.direct)).await;
        let site = env.site("rrr").await;
        let host = item(&client, &env, "H#rrr.example.org", "HOST").await;
        assert_eq!(host["site"], AttributeValue::S("rrr".to_owned()));
        assert_eq!(host["contract"], AttributeValue::N("1".to_owned()));
        let uid = site.uid;
        let shown = item(&client, &env, "S#rrr", "SITE").await;
        for (name, value) in [
            ("id", "rrr".to_owned()),
            ("uid", uid.to_string()),
            ("name", "Site rrr".to_owned()),
            ("theme", "plain".to_owned()),
            ("service", "blue".to_owned()),
            ("canonicalHostname", "rrr.example.org".to_owned()),
            ("state", "active".to_owned()),
            ("objectPrefix", format!("sites/{uid}/")),
        ] {
            assert_eq!(shown[name], AttributeValue::S(value), "{name}");
        }
        for (name, value) in [("contract", "1"), ("version", "1")] {
            assert_eq!(shown[name], AttributeValue::N(value.to_owned()), "{name}");
        }
        let text = |text: String| AttributeValue::S(text);
        assert_eq!(shown["routedService"], AttributeValue::Null(true));
        assert_eq!(shown["hostnames"], AttributeValue::L(vec![text("rrr.example.org".to_owned())]));
        let database = HashMap::from([("name".to_owned(), text(format!("site_{uid}")))]);
        assert_eq!(shown["database"], AttributeValue::M(database));
        let secrets = [
            ("database".to_owned(), text(format!("{uid}/db"))),
            ("cms".to_owned(), text(format!("{uid}/cms"))),
        ];
        assert_eq!(shown["secrets"], AttributeValue::M(HashMap::from(secrets)));
    }
}

/// The in-place updates of a rollout leave the same item as a full write.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_updates_the_item() {
    for env in TestEnv::all().await {
        let client = client(Some(&env.direct)).await;
        let site = env.site("rrr").await;
        let rollout = env.number().await;
        let claimed = env.store.claim(&env.suite.cx().call(), &claim(&site, rollout, 1)).await;
        assert!(matches!(claimed, Outcome::Applied(_)));
        let shown = item(&client, &env, "S#rrr", "SITE").await;
        assert_eq!(shown["state"], AttributeValue::S("promoting".to_owned()));
        assert!(!shown.contains_key("work"), "a member is not listed by itself");
        let route = Routed { service: Color::Green, fence: Fence::new(rollout + 1, Epoch(1)) };
        let complete =
            cdm_core::domain::site::ReleaseClaim { route: Some(route), ..release_claim(&site, rollout, 1) };
        assert_eq!(env.store.release_claim(&env.suite.cx().call(), &complete).await, Outcome::Applied(()));
        let shown = item(&client, &env, "S#rrr", "SITE").await;
        for (name, value) in [("state", "active"), ("service", "green"), ("routedService", "green")] {
            assert_eq!(shown[name], AttributeValue::S(value.to_owned()), "{name}");
        }
        // The same site, stored by a full write, has the same attributes.
        let site = cdm_core::ports::SiteRepository::site(&env.store, &site.id)
            .await
            .expect("a response")
            .expect("a site");
        env.write(vec![Mutation::Site(Box::new(site))]).await;
        let whole = item(&client, &env, "S#rrr", "SITE").await;
        let differ = whole
            .iter()
            .filter(|(name, value)| shown.get(*name) != Some(*value))
            .map(|(name, _)| name.as_str());
        let mut differ: Vec<&str> = differ.collect();
        differ.sort_unstable();
        assert_eq!(differ, ["version", "write"]);
        assert_eq!(whole.len(), shown.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_created_once_and_checked() {
    for env in TestEnv::all().await {
        env.table.bootstrap().await.expect("an existing table is not changed");
        env.table.check().await.expect("the table is as required");
        let seen = env.proxy.take_operations();
        let changes = ["CreateTable", "UpdateTimeToLive"];
        assert!(!seen.iter().any(|operation| changes.contains(&operation.as_str())), "{seen:?}");
        let client = client(Some(&env.direct)).await;
        let expiry = client.describe_time_to_live().table_name(&env.name).send().await.expect("a response");
        let expiry = expiry.time_to_live_description.expect("a description");
        assert_eq!(expiry.attribute_name(), Some("expires"));

        let clock = Arc::new(env.suite.clock);
        let none = DynamoTable::new(&aws(Some(&env.direct)).await, "no-such-table", clock);
        let missing = none.check().await;
        assert!(
            matches!(&missing, Err(StoreError::Denied(why)) if why.contains("--bootstrap")),
            "{missing:?}"
        );
        let fleet = DynamoStore::new(none).fleet().await;
        assert!(matches!(&fleet, Err(StoreError::Denied(why)) if why.contains("--bootstrap")), "{fleet:?}");
    }
}

/// A table that another program created is rejected and not changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_table_is_rejected() {
    for env in TestEnv::all().await {
        let (client, name) = (client(Some(&env.direct)).await, format!("{}-strange", env.name));
        let definition = aws_sdk_dynamodb::types::AttributeDefinition::builder().attribute_name("id");
        let key = aws_sdk_dynamodb::types::KeySchemaElement::builder().attribute_name("id");
        let made = client
            .create_table()
            .table_name(&name)
            .billing_mode(aws_sdk_dynamodb::types::BillingMode::PayPerRequest)
            .attribute_definitions(
                definition.attribute_type(ScalarAttributeType::S).build().expect("a definition"),
            )
            .key_schema(key.key_type(aws_sdk_dynamodb::types::KeyType::Hash).build().expect("a key"));
        made.send().await.expect("a table");
        let table = DynamoTable::new(&aws(Some(&env.direct)).await, &name, Arc::new(env.suite.clock));
        for refused in [table.check().await, table.bootstrap().await] {
            assert!(
                matches!(&refused, Err(StoreError::Denied(why)) if why.contains("other keys")),
                "{refused:?}"
            );
        }
    }
}

/// A site with all fields set is read back as it was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_round_trips() {
    for env in TestEnv::all().await {
        let site = env.site("a").await;
        let fence = Fence::new(u64::MAX >> 1, Epoch(1 << 40));
        let full = Site {
            route: Some(Routed { service: Color::Green, fence }),
            claim_token: cdm_core::domain::ClaimToken {
                rollout: u64::MAX >> 1,
                direction: cdm_core::domain::Direction::Rollback,
                term: Term(9),
            },
            ..site.clone()
        };
        env.write(vec![Mutation::Site(Box::new(full.clone()))]).await;
        let read = cdm_core::ports::SiteRepository::site(&env.store, &site.id).await.expect("a response");
        assert_eq!(read, Some(Site { version: 2, ..full }));
    }
}

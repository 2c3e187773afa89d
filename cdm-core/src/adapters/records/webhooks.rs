//! The stored form of the list of webhooks, which is one record.

use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::mirror;
use super::text::{Millis, Text};
use crate::domain::webhook::{DeliveryState, Topic, Webhook, Webhooks};
use crate::domain::{Actor, Timestamp, Uid, WorkerId};

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Webhooks", rename_all = "camelCase")]
pub(crate) struct WebhooksDef {
    #[serde_as(as = "Option<Text>")]
    #[serde(rename = "courier")]
    dispatcher: Option<WorkerId>,
    #[serde_as(as = "Vec<WebhookDef>")]
    list: Vec<Webhook>,
    version: u64,
}
mirror!(WebhooksDef, Webhooks);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Webhook", rename_all = "camelCase")]
struct WebhookDef {
    number: u64,
    #[serde_as(as = "DisplayFromStr")]
    uid: Uid,
    url: String,
    #[serde_as(as = "Vec<Text>")]
    topics: Vec<Topic>,
    #[serde_as(as = "DisplayFromStr")]
    by: Actor,
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde(rename = "place")]
    cursor: u64,
    #[serde_as(as = "DeliveryStateDef")]
    standing: DeliveryState,
}
mirror!(WebhookDef, Webhook);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "DeliveryState", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum DeliveryStateDef {
    Active,
    Failing {
        times: u32,
        #[serde_as(as = "Millis")]
        since: Timestamp,
        #[serde_as(as = "Millis")]
        next: Timestamp,
        why: String,
    },
    Stopped {
        #[serde_as(as = "Millis")]
        at: Timestamp,
        why: String,
    },
}
mirror!(DeliveryStateDef, DeliveryState);

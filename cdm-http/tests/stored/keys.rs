//! Idempotency records of earlier versions.
//!
//! Version 6c45bd0 identified a request by a number that depends on names in its code. A later version cannot compute that
//! number: it takes a request with the key of such a record for another request and rejects it, for as long as the record
//! is kept, instead of answering without a comparison.

use std::path::Path;

use axum::http::StatusCode;
use serde_json::json;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::people::{KEYED, keyed};
use super::stage::Stage;

/// The current time in milliseconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Sets the time of the records of a data directory to now: a record is kept for 24 hours.
pub(crate) async fn renew_file(data: &Path) {
    let options = SqliteConnectOptions::new().filename(data.join("cdm.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.expect("a database");
    let query = sqlx::query("UPDATE keys SET at = ?1, body = json_set(body, '$.record.at', ?1)").bind(now());
    let done = query.execute(&mut connection).await.expect("an update");
    assert_eq!(done.rows_affected(), KEYED.len() as u64);
    connection.close().await.expect("a closed database");
}

/// The same, for the items of a table.
#[cfg(feature = "cloud")]
pub(crate) fn renew_items(file: &Path) {
    let text = std::fs::read_to_string(file).expect("items");
    let mut items: Vec<serde_json::Value> = serde_json::from_str(&text).expect("items");
    let is_record =
        |item: &serde_json::Value| item["pk"]["S"].as_str().is_some_and(|key| key.starts_with("I#"));
    let mut records = 0;
    for item in items.iter_mut().filter(|item| is_record(item)) {
        let document = item["document"]["S"].as_str().expect("a document");
        let mut document: serde_json::Value = serde_json::from_str(document).expect("a document");
        document["record"]["at"] = json!(now());
        item["document"]["S"] = json!(document.to_string());
        item["at"]["N"] = json!(now().to_string());
        item["expires"]["N"] = json!((now() / 1_000 + 86_400).to_string());
        records += 1;
    }
    assert_eq!(records, KEYED.len());
    std::fs::write(file, json!(items).to_string()).expect("items");
}

/// Demands that the requests whose keys are stored are rejected, and that a key of this version is answered as before.
pub(crate) async fn check(stage: Stage, stored: &Path) {
    let lists = async || {
        let mut lists = Vec::new();
        for path in ["/freezes", "/webhooks", "/services/green/history", "/operations?limit=1000"] {
            lists.push(stage.get(path).await["items"].as_array().expect("a list").len());
        }
        lists
    };
    let before = lists().await;
    for (key, _) in KEYED {
        let (line, body) = keyed(key);
        let (status, answer) = stage.ask_with(&line, body, Some(key)).await;
        let rejected = (StatusCode::UNPROCESSABLE_ENTITY, json!("idempotency_key_reused"));
        assert_eq!((status, answer["code"].clone()), rejected, "{}: {key}: {answer}", stored.display());
    }
    assert_eq!(lists().await, before, "{}", stored.display());
    let freeze = || Some(json!({"reason": "a launch", "sites": ["s1"]}));
    let (_, first) = stage.ask_with("POST /freezes", freeze(), Some("fresh-key")).await;
    let (_, again) = stage.ask_with("POST /freezes", freeze(), Some("fresh-key")).await;
    assert!(first["id"].is_string() && first == again, "{first}, then {again}");
    stage.close().await;
}

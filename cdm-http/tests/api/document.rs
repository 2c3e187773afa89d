//! The committed OpenAPI document is the one that is served.

use crate::support::Bed;

#[tokio::test]
async fn the_committed_document_is_the_served_one() {
    let bed = Bed::new().await;
    let served = bed.ask("GET /openapi.json", None).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    #[expect(clippy::disallowed_methods, reason = "whoever changes the routes asks for it")]
    if std::env::var_os("CDM_BLESS").is_some() {
        std::fs::write(path, &served.text).expect("written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == served.text, "openapi.json is of other routes: run this test with CDM_BLESS=1");
    let document = served.json();
    assert_eq!(document["openapi"].as_str().map(|version| version.starts_with("3.1")), Some(true));
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let described = response["description"].as_str().is_some_and(|said| !said.is_empty());
                assert!(described && response["content"].is_object(), "{method} {path} {status}");
            }
        }
    }
}

//! Two servers on one platform: when one is killed or paused, the other finishes its work, and the paused one changes
//! nothing afterwards.

use reqwest::Method;
use serde_json::{Value, json};

use super::platform::Platform;
use cdm_testkit::server::{Server, new_site};

const SITES: usize = 6;

async fn begin(server: &Server, method: Method, path: &str) -> String {
    let (status, operation) = server.ask(method, path, None).await;
    assert_eq!(status, 202, "{path}: {operation}");
    format!("/operations/{}", operation["id"].as_str().expect("an id"))
}

/// Requests the provision of every site, and returns the operations.
async fn begin_all(server: &Server) -> Vec<String> {
    let mut begun = Vec::new();
    for number in 0..SITES {
        let (status, site) =
            server.ask(Method::POST, "/sites/create", Some(&new_site(&format!("s{number}")))).await;
        assert_eq!(status, 201, "{site}");
        begun.push(begin(server, Method::POST, &format!("/sites/s{number}/provision")).await);
    }
    begun
}

/// Asserts that each site has one resource of each kind, and that there is nothing else.
async fn assert_one_of_each(platform: &Platform, server: &Server, operations: &[String]) {
    for path in operations {
        let ended = server.wait_until_at_rest(path).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    }
    let outside = tokio::task::block_in_place(|| platform.outside());
    let own_databases: Vec<String> = {
        let sites = server.get("/sites?limit=100").await;
        let items = sites["items"].as_array().expect("sites").clone();
        items.iter().map(|site| site["database"]["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(own_databases.len(), SITES);
    assert!(
        own_databases.iter().all(|name| outside.databases.contains(name) && outside.users.contains(name)),
        "{outside:?}"
    );
    assert_eq!(outside.ingresses.len(), SITES);
    let installs = |job: &&Value| job["metadata"]["name"].as_str().unwrap_or_default().contains("-install-");
    assert_eq!(outside.jobs.iter().filter(installs).count(), SITES, "one installation each");
    assert_eq!(outside.aws["secrets"].as_object().expect("secrets").len(), 2 * SITES);
}

async fn select_blue(server: &Server) {
    let (status, response) = server.ask(Method::POST, "/services", Some(&json!({"selector": "blue"}))).await;
    assert_eq!(status, 200, "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_finishes_the_work_of_a_killed_one() {
    let Some(platform) = Platform::open().await else { return };
    let (first, second) = tokio::task::block_in_place(|| (platform.start(), platform.start()));
    select_blue(&first).await;
    let operations = begin_all(&first).await;
    tokio::task::block_in_place(|| first.kill());
    assert_one_of_each(&platform, &second, &operations).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_paused_past_its_lease_changes_nothing() {
    let Some(platform) = Platform::open().await else { return };
    let (first, second) = tokio::task::block_in_place(|| (platform.start(), platform.start()));
    select_blue(&first).await;
    let operations = begin_all(&first).await;
    first.signal("-STOP");
    for path in &operations {
        let ended = second.wait_until_at_rest(path).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    }
    // A successor has ended these sites while the paused server still holds them.
    let ended = begin(&second, Method::DELETE, "/sites/s0").await;
    assert_eq!(second.wait_until_at_rest(&ended).await["status"], "succeeded");
    let (_, again) = second.ask(Method::POST, "/sites/create", Some(&new_site("s0"))).await;
    let provisioned = begin(&second, Method::POST, "/sites/s0/provision").await;
    assert_eq!(second.wait_until_at_rest(&provisioned).await["status"], "succeeded", "{again}");
    first.signal("-CONT");
    // The server responds again once it has checked its own lease.
    assert_eq!(first.get("/readyz").await["status"], "ready");
    assert_one_of_each(&platform, &second, &operations).await;
}

//! Shutdown: clean on SIGTERM, and without loss on SIGKILL.

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};

use cdm_testkit::server::{ADMIN, Server, directory, new_site};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_streams_hands_work_over_and_exits_with_0() {
    let dir = directory();
    let mut server = Server::start(dir.path());
    for id in ["aa", "bb", "cc", "dd"] {
        server.ask(Method::POST, "/sites/create", Some(&new_site(id))).await;
        let (status, _) = server.ask(Method::POST, &format!("/sites/{id}/provision"), None).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    let stream = server.ask_as(Some(ADMIN), Method::GET, "/events", None).await;
    let ended = tokio::spawn(async move { stream.bytes_stream().collect::<Vec<_>>().await.len() });
    let status = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(status.code(), Some(0), "{}", server.log.lock().unwrap());
    ended.await.expect("the stream has ended");
    let server = Server::start(dir.path());
    for id in ["aa", "bb", "cc", "dd"] {
        let operations = server.get(&format!("/operations?site={id}&kind=provision")).await;
        let operation = operations["items"][0]["id"].as_str().unwrap().to_owned();
        let now = server.wait_until_at_rest(&format!("/operations/{operation}")).await;
        assert_eq!(now["status"], "succeeded", "{now}");
    }
}

/// An empty variable counts as unset, as shells and manifests set optional variables.
#[test]
fn an_empty_variable_counts_as_unset() {
    let dir = directory();
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_cdm-server"))
        .arg("--check-config")
        .env("CDM_DATA_DIR", dir.path())
        .envs(["CDM_CONFIG", "CDM_LISTEN", "CDM_LOG", "CDM_RETENTION_AUDIT"].map(|name| (name, "")))
        .output()
        .expect("an exit status");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[tokio::test]
async fn accepted_work_is_finished_after_a_kill() {
    let dir = directory();
    let server = Server::start(dir.path());
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let (status, operation) = server.ask(Method::POST, "/sites/one/provision", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    server.kill();
    let server = Server::start(dir.path());
    let path = format!("/operations/{}", operation["id"].as_str().unwrap());
    let now = server.wait_until_at_rest(&path).await;
    assert_eq!(now["status"], "succeeded", "{now}");
    assert_eq!(server.page("one.example.com").await.status(), StatusCode::OK);
}

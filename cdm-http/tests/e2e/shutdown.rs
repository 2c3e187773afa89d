//! The end of a server: in good order when it is told, and without loss when it is not.

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};

use super::server::{ADMIN, Server, directory, new_site};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_streams_gives_work_back_and_exits_with_0() {
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
        let now = server.rested(&format!("/operations/{operation}")).await;
        assert_eq!(now["status"], "succeeded", "{now}");
    }
}

/// As a shell or a manifest sets it that has nothing to say.
#[test]
fn an_empty_variable_says_nothing() {
    let dir = directory();
    let judged = std::process::Command::new(env!("CARGO_BIN_EXE_cdm-server"))
        .arg("--check-config")
        .env("CDM_DATA_DIR", dir.path())
        .envs(["CDM_CONFIG", "CDM_LISTEN", "CDM_LOG", "CDM_RETENTION_AUDIT"].map(|name| (name, "")))
        .output()
        .expect("a judgment");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}

#[tokio::test]
async fn what_was_accepted_is_done_after_a_kill() {
    let dir = directory();
    let server = Server::start(dir.path());
    server.ask(Method::POST, "/sites/create", Some(&new_site("one"))).await;
    let (status, operation) = server.ask(Method::POST, "/sites/one/provision", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    server.kill();
    let server = Server::start(dir.path());
    let path = format!("/operations/{}", operation["id"].as_str().unwrap());
    let now = server.rested(&path).await;
    assert_eq!(now["status"], "succeeded", "{now}");
    assert_eq!(server.page("one.example.com").await.status(), StatusCode::OK);
}

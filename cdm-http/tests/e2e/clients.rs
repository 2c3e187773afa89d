//! The client address of a request: forwarded headers, and which proxies are trusted.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use reqwest::{Method, StatusCode};
use serde_json::json;

use cdm_testkit::server::{QUICK, Server, ServerMode, command, directory};

/// Starts a server for the first time; returns the server, its local token, and the link that creates the first user.
fn first_start(dir: &Path, trusted: &str) -> (Server, String, String) {
    let mut command = command(dir, QUICK);
    command.env_remove("CDM_ADMIN_TOKEN").env("CDM_TRUSTED_PROXIES", trusted).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the server starts");
    let mut output = BufReader::new(child.stdout.take().expect("the server's output"));
    let mut line = || {
        let mut line = String::new();
        output.by_ref().read_line(&mut line).expect("a line");
        line.trim().to_owned()
    };
    let (_, token) = (line(), line());
    let (_, link) = (line(), line());
    (Server::listen(child, ServerMode::ApiAndSites), token, link)
}

#[tokio::test]
async fn local_credentials_are_rejected_through_a_proxy() {
    for trusted in ["", "127.0.0.1"] {
        let dir = directory();
        let (server, token, link) = first_start(dir.path(), trusted);
        let send = async |url: &str, forwarded: Option<(&str, &str)>| {
            let mut request = server.client.get(url).bearer_auth(&token);
            if let Some((name, value)) = forwarded {
                request = request.header(name, value);
            }
            request.send().await.expect("a response").status()
        };
        let sites = format!("{}/sites", server.url);
        assert_eq!(send(&sites, None).await, StatusCode::OK, "trusted: {trusted}");
        assert_eq!(send(&link, None).await, StatusCode::OK, "trusted: {trusted}");
        for forwarded in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-for", "203.0.113.7"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
        ] {
            assert_eq!(send(&sites, Some(forwarded)).await, StatusCode::UNAUTHORIZED, "{forwarded:?}");
            assert_eq!(send(&link, Some(forwarded)).await, StatusCode::NOT_FOUND, "{forwarded:?}");
        }
    }
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_distinguished() {
    let refused = async |trusted: &str, clients: &[&str]| {
        let dir = directory();
        let mut command = command(dir.path(), &format!("[limits]\nfailures = 2\n{QUICK}"));
        command.env("CDM_TRUSTED_PROXIES", trusted);
        let server = Server::listen(command.spawn().expect("the server starts"), ServerMode::ApiAndSites);
        let mut statuses = Vec::new();
        for client in clients {
            let request = server.client.get(format!("{}/sites", server.url)).bearer_auth("wrong");
            let response = request.header("x-forwarded-for", *client).send().await.expect("a response");
            statuses.push(response.status().as_u16());
        }
        statuses
    };
    let clients = ["203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2"];
    assert_eq!(refused("127.0.0.1", &clients).await, [401, 401, 429, 401]);
    assert_eq!(
        refused("10.0.0.0/8", &clients).await,
        [401, 401, 429, 429],
        "the peer is not a trusted proxy"
    );
    let spoofed = ["1.1.1.1, 203.0.113.1", "2.2.2.2, 203.0.113.1", "3.3.3.3, 203.0.113.1"];
    assert_eq!(refused("127.0.0.1", &spoofed).await, [401, 401, 429], "only the proxy's own entry counts");
}

#[tokio::test]
async fn a_session_records_the_address_of_its_client() {
    let dir = directory();
    let mut command = command(dir.path(), QUICK);
    command.env("CDM_TRUSTED_PROXIES", "127.0.0.1");
    let server = Server::listen(command.spawn().expect("the server starts"), ServerMode::ApiAndSites);
    let user = json!({"name": "ada", "role": "viewer", "password": "correct horse battery"});
    assert_eq!(server.ask(Method::POST, "/users", Some(&user)).await.0, StatusCode::CREATED);
    let form = |scheme: &str| {
        let request = server.client.post(format!("{}/console/sign-in", server.url));
        request
            .header("sec-fetch-site", "same-origin")
            .header("x-forwarded-for", "203.0.113.7")
            .header("x-forwarded-proto", scheme)
            .header("content-type", "application/x-www-form-urlencoded")
            .body("name=ada&password=correct+horse+battery")
    };
    let response = form("https").send().await.expect("a response");
    let cookie = response.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.starts_with("__Host-cdm=") && cookie.contains("Secure"), "{cookie}");
    let session = cookie.split(';').next().expect("a cookie");
    let account = server.client.get(format!("{}/console/account", server.url)).header("cookie", session);
    let page = account.header("x-forwarded-proto", "https").send().await.expect("a page");
    assert!(page.text().await.expect("a page").contains("203.0.113.7"));
    let response = form("http").send().await.expect("a response");
    assert!(
        response.headers()["set-cookie"].to_str().expect("text").starts_with("cdm="),
        "a loopback address"
    );
}

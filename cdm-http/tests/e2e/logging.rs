//! The reader of the log may close it or stop reading: the server continues to serve requests, and shuts down cleanly.

use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, Command, Stdio};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use cdm_testkit::server::{QUICK, Server, ServerMode, begin, command, directory, new_site};

/// Starts a server, and reads its log up to the line with the listening address; returns the rest of the log.
fn start(dir: &std::path::Path) -> (Server, BufReader<ChildStderr>) {
    let mut child = begin(dir, QUICK);
    let mut log = BufReader::new(child.stderr.take().expect("the server's log"));
    let mut server = Server::unread(child);
    while server.url.is_empty() {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).expect("a log"), 0, "the server ended");
        let entry: Value = serde_json::from_str(&line).expect("a line of JSON");
        if let Some(address) = entry["fields"]["address"].as_str()
            && entry["fields"]["message"].as_str().is_some_and(|message| message.contains("the API"))
        {
            server.url = format!("http://{address}");
        }
    }
    (server, log)
}

async fn send_many_requests(server: &Server) {
    for id in ["aa", "bb", "cc"] {
        let (status, made) = server.ask(Method::POST, "/sites/create", Some(&new_site(id))).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
    }
    // More lines than the buffer of a pipe holds.
    for _ in 0..1_000 {
        let response = server.ask_as(None, Method::GET, "/healthz", None).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_served_after_the_log_reader_closes() {
    let dir = directory();
    let (mut server, log) = start(dir.path());
    drop(log);
    send_many_requests(&server).await;
    let metrics = server.ask_as(Some(cdm_testkit::server::ADMIN), Method::GET, "/metrics", None).await;
    let metrics = metrics.text().await.expect("metrics");
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("cdm_log_lines_dropped_total "));
    let dropped: u64 = dropped.expect("the metric").parse().expect("a number");
    assert!(dropped > 900, "{dropped}");
    let status = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_served_while_the_log_reader_stalls() {
    let dir = directory();
    let (mut server, log) = start(dir.path());
    send_many_requests(&server).await;
    let status = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(status.code(), Some(0));
    drop(log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_continues_with_closed_standard_output() {
    let dir = directory();
    let mut command = command(dir.path(), QUICK);
    let mut child = command.env_remove("CDM_ADMIN_TOKEN").stdout(Stdio::piped()).spawn().expect("a server");
    drop(child.stdout.take());
    let mut server = Server::listen(child, ServerMode::ApiAndSites);
    let response = server.ask_as(None, Method::GET, "/healthz", None).await;
    assert_eq!(response.status(), StatusCode::OK);
    let log = server.log.lock().expect("the log").clone();
    assert!(log.contains("the administrator's token could not be shown"), "{log}");
    let words = log.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let tokens: Vec<_> = words.filter(|word| word.starts_with("cdm_") && word.len() > 24).collect();
    assert!(tokens.is_empty(), "the log contains a token: {log}");
    let status = tokio::task::block_in_place(|| server.terminate());
    assert_eq!(status.code(), Some(0));
}

/// When its terminal closes, the server shuts down cleanly.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_shuts_down_cleanly() {
    let dir = directory();
    let inner = command(dir.path(), QUICK);
    // The test environment may ignore the signal, as under nohup, and the server would inherit that.
    let mut outer = Command::new("env");
    outer.arg("--default-signal=HUP").arg(inner.get_program()).args(inner.get_args());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = outer.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the server starts");
    let mut server = Server::listen(child, ServerMode::ApiAndSites);
    let status = tokio::task::block_in_place(|| server.end("-HUP"));
    assert_eq!(status.code(), Some(0));
}

/// The log line of each request contains actor and address.
#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_names_actor_and_address() {
    let dir = directory();
    let (mut server, mut log) = start(dir.path());
    server.get("/sites").await;
    server.ask_as(None, Method::GET, "/sites", None).await;
    let forged = [("x-forwarded-for", "203.0.113.7"), ("authorization", "Bearer invalid")];
    let mut request = server.client.get(format!("{}/operations", server.url));
    for (name, value) in forged {
        request = request.header(name, value);
    }
    assert_eq!(request.send().await.expect("a response").status(), StatusCode::UNAUTHORIZED);
    assert!(tokio::task::block_in_place(|| server.terminate()).success());
    let mut text = String::new();
    log.read_to_string(&mut text).expect("the rest of the log");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let access_lines =
        lines.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == "answered");
    let entries: Vec<_> = access_lines
        .map(|fields| {
            let text = |name: &str| fields[name].as_str().map(str::to_owned);
            (text("route"), fields["status"].as_u64(), text("actor"), text("address"))
        })
        .collect();
    let line = |route: &str, status, actor: &str| {
        (Some(route.to_owned()), Some(status), Some(actor.to_owned()), Some("127.0.0.1".to_owned()))
    };
    assert_eq!(entries.len(), 3, "{entries:?}");
    let actor = entries[0].2.clone().expect("an actor");
    assert!(actor.starts_with("bootstrap-"), "{actor}");
    assert_eq!(entries[0], line("/sites", 200, &actor));
    assert_eq!(entries[1], line("/sites", 401, "anonymous"));
    assert_eq!(entries[2], line("/operations", 401, "anonymous"));
}

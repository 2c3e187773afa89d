//! Passwords on a real server: what strangers can do to it and to the people who sign in.

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::json;
#[cfg(target_os = "linux")]
use tokio::io::AsyncWriteExt;

use super::server::{QUICK, Server, directory};
#[cfg(target_os = "linux")]
use super::server::{Serves, command};

const PASSWORD: &str = "correct horse battery";

/// Signs in with the cookies of a browser; the answer, and the cookies that it has then.
async fn sign_in(server: &Server, cookies: &str, name: &str, password: &str) -> (StatusCode, String) {
    let form = format!("name={name}&password={}", password.replace(' ', "+"));
    let request = server.client.post(format!("{}/console/sign-in", server.url)).header(COOKIE, cookies);
    let request = request.header("sec-fetch-site", "same-origin");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = request.send().await.expect("an answer");
    let given = answer.headers().get_all(SET_COOKIE).iter();
    let given = given.filter_map(|one| one.to_str().ok()?.split(';').next()).collect::<Vec<_>>();
    (answer.status(), given.join("; "))
}

async fn user(server: &Server, name: &str) {
    let body = json!({"name": name, "role": "admin", "password": PASSWORD});
    assert_eq!(server.ask(Method::POST, "/users", Some(&body)).await.0, StatusCode::CREATED);
}

/// The cookie of that name, of those that a browser has.
fn only<'a>(cookies: &'a str, name: &str) -> &'a str {
    let mut all = cookies.split("; ");
    all.find(|one| one.split('=').next() == Some(name)).unwrap_or_else(|| panic!("no {name} in {cookies}"))
}

/// The most memory that a process had at once, in KiB.
#[cfg(target_os = "linux")]
fn most_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// 150 clients send a sign-in and are gone at once: 150 hashes would take 2.9 GB.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_disconnect_cannot_exhaust_the_memory() {
    let dir = directory();
    let server = command(dir.path(), &format!("{QUICK}[limits]\nfailures = 100000\n"));
    // 1 GiB of address space in all; glibc would reserve 64 MiB of it for each of many threads.
    let mut bounded = std::process::Command::new("sh");
    bounded.args(["-c", "ulimit -v 1048576; exec \"$0\" \"$@\""]);
    bounded.arg(server.get_program()).args(server.get_args()).env("MALLOC_ARENA_MAX", "2");
    bounded.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let child = bounded.spawn().expect("the server starts");
    let id = child.id();
    let server = Server::listen(child, Serves::ApiAndSites);
    user(&server, "ada").await;
    let (status, cookies) = sign_in(&server, "", "ada", PASSWORD).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let address = server.url.trim_start_matches("http://").to_owned();
    for number in 0..150 {
        let body = format!("name=guest-{number}&password=guessed+at+random");
        let mut connection = tokio::net::TcpStream::connect(&address).await.expect("a connection");
        let request = format!(
            "POST /console/sign-in HTTP/1.1\r\nhost: {address}\r\nsec-fetch-site: same-origin\r\ncontent-type: \
             application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await.expect("a request");
        if number == 75 {
            // In the middle of it, from a known device.
            let (status, _) = sign_in(&server, only(&cookies, "cdm-device"), "ada", PASSWORD).await;
            assert_eq!(status, StatusCode::SEE_OTHER);
        }
    }
    let (status, _) = sign_in(&server, only(&cookies, "cdm-device"), "ada", PASSWORD).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let most = most_memory(id);
    assert!(most < 512 * 1024, "{most} KiB");
}

#[tokio::test]
async fn knowing_a_name_locks_nobody_out_of_a_known_device() {
    let dir = directory();
    let server = Server::start_with(dir.path(), &format!("{QUICK}[limits]\nfailures = 1000\n"));
    user(&server, "ada").await;
    // What succeeds is no attempt.
    let mut cookies = String::new();
    for _ in 0..12 {
        let (status, given) = sign_in(&server, "", "ada", PASSWORD).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        cookies = given;
    }
    let device = only(&cookies, "cdm-device");
    for _ in 0..10 {
        assert_eq!(
            sign_in(&server, "", "ada", "guessed at random").await.0,
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    for _ in 0..3 {
        assert_eq!(sign_in(&server, "", "ada", PASSWORD).await.0, StatusCode::TOO_MANY_REQUESTS);
    }
    let forged = format!("{}0", &device[..device.len() - 1]);
    let forged = if forged == device { format!("{}1", &device[..device.len() - 1]) } else { forged };
    assert_eq!(sign_in(&server, &forged, "ada", PASSWORD).await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(sign_in(&server, device, "ada", PASSWORD).await.0, StatusCode::SEE_OTHER);
    // The device has a limit of its own.
    for _ in 0..10 {
        let (status, _) = sign_in(&server, device, "ada", "guessed at random").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(sign_in(&server, device, "ada", PASSWORD).await.0, StatusCode::TOO_MANY_REQUESTS);
    // All failures that were judged are in the audit; of those that were not, the first.
    let audit = server.get("/audit?limit=1000").await;
    let count = |outcome: &str| {
        let items = audit["items"].as_array().expect("entries").iter();
        items.filter(|entry| entry["action"] == "session.open" && entry["outcome"] == outcome).count()
    };
    assert_eq!((count("invalid"), count("rate_limited")), (20, 2), "{audit}");
}

#[tokio::test]
async fn to_end_a_session_takes_the_password() {
    let dir = directory();
    let server = Server::start(dir.path());
    user(&server, "ada").await;
    let (_, there) = sign_in(&server, "", "ada", PASSWORD).await;
    let (_, here) = sign_in(&server, "", "ada", PASSWORD).await;
    let page = async |cookies: &str| {
        let page = server.client.get(format!("{}/console/account", server.url)).header(COOKIE, cookies);
        let page = page.send().await.expect("an answer");
        (page.status(), page.text().await.expect("a page"))
    };
    let (_, text) = page(&here).await;
    let after = |text: &str, mark: &str| {
        let (_, rest) = text.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {text}"));
        rest.split(['"', '/']).next().unwrap_or_default().to_owned()
    };
    let (csrf, session) =
        (after(&text, "name=\"csrf\" value=\""), after(&text, "/console/account/sessions/"));
    let end = async |password: &str| {
        let url = format!("{}/console/account/sessions/{session}/end", server.url);
        let form = format!("csrf={csrf}&old={}", password.replace(' ', "+"));
        let request = server.client.post(url).header(COOKIE, &here).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        request.send().await.expect("an answer").status()
    };
    assert_eq!(end("guessed at random").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(page(&there).await.0, StatusCode::OK);
    assert_eq!(end(PASSWORD).await, StatusCode::SEE_OTHER);
    assert_eq!(page(&there).await.0, StatusCode::SEE_OTHER);
    // Whoever signs in again in the same browser has one session.
    let (status, again) = sign_in(&server, &here, "ada", PASSWORD).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(page(&here).await.0, StatusCode::SEE_OTHER);
    let (_, text) = page(&again).await;
    assert!(!text.contains("/console/account/sessions/"), "{text}");
    let lost = server.client.get(format!("{}/console/setup/guessed", server.url)).send().await;
    let lost = lost.expect("an answer");
    assert_eq!((lost.status(), lost.headers().get(LOCATION)), (StatusCode::NOT_FOUND, None));
}

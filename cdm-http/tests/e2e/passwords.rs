//! Passwords on a real server: limits for anonymous clients, and their effect on users.

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::json;
#[cfg(target_os = "linux")]
use tokio::io::AsyncWriteExt;

use cdm_testkit::server::{QUICK, Server, directory};
#[cfg(target_os = "linux")]
use cdm_testkit::server::{ServerMode, command};

const PASSWORD: &str = "correct horse battery";

/// Signs in with the cookies of a browser; returns the status and the resulting cookies.
async fn sign_in(server: &Server, cookies: &str, name: &str, password: &str) -> (StatusCode, String) {
    let form = format!("name={name}&password={}", password.replace(' ', "+"));
    let request = server.client.post(format!("{}/console/sign-in", server.url)).header(COOKIE, cookies);
    let request = request.header("sec-fetch-site", "same-origin");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    let response = request.send().await.expect("a response");
    let set_cookies = response.headers().get_all(SET_COOKIE).iter();
    let set_cookies = set_cookies.filter_map(|one| one.to_str().ok()?.split(';').next()).collect::<Vec<_>>();
    (response.status(), set_cookies.join("; "))
}

async fn user(server: &Server, name: &str) {
    let body = json!({"name": name, "role": "admin", "password": PASSWORD});
    assert_eq!(server.ask(Method::POST, "/users", Some(&body)).await.0, StatusCode::CREATED);
}

/// Returns the cookie of that name from the cookies of a browser.
fn cookie<'a>(cookies: &'a str, name: &str) -> &'a str {
    let mut all = cookies.split("; ");
    all.find(|one| one.split('=').next() == Some(name)).unwrap_or_else(|| panic!("no {name} in {cookies}"))
}

/// Returns the peak memory of a process, in KiB.
#[cfg(target_os = "linux")]
fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// 150 clients send a sign-in request and disconnect immediately: 150 hashes would take 2.9 GB.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_disconnect_cannot_exhaust_the_memory() {
    let dir = directory();
    let server = command(dir.path(), &format!("{QUICK}[limits]\nfailures = 100000\n"));
    // 1 GiB of address space in total; glibc would reserve 64 MiB of it for each of many threads.
    let mut bounded = std::process::Command::new("sh");
    bounded.args(["-c", "ulimit -v 1048576; exec \"$0\" \"$@\""]);
    bounded.arg(server.get_program()).args(server.get_args()).env("MALLOC_ARENA_MAX", "2");
    bounded.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let child = bounded.spawn().expect("the server starts");
    let id = child.id();
    let server = Server::listen(child, ServerMode::ApiAndSites);
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
            // During the requests, a known device signs in.
            let (status, _) = sign_in(&server, cookie(&cookies, "cdm-device"), "ada", PASSWORD).await;
            assert_eq!(status, StatusCode::SEE_OTHER);
        }
    }
    let (status, _) = sign_in(&server, cookie(&cookies, "cdm-device"), "ada", PASSWORD).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let most = peak_memory(id);
    assert!(most < 512 * 1024, "{most} KiB");
}

#[tokio::test]
async fn failures_for_a_name_do_not_lock_a_known_device() {
    let dir = directory();
    let server = Server::start_with(dir.path(), &format!("{QUICK}[limits]\nfailures = 1000\n"));
    user(&server, "ada").await;
    // A success does not count as an attempt.
    let mut cookies = String::new();
    for _ in 0..12 {
        let (status, set_cookies) = sign_in(&server, "", "ada", PASSWORD).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        cookies = set_cookies;
    }
    let device = cookie(&cookies, "cdm-device");
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
    // The device has a separate limit.
    for _ in 0..10 {
        let (status, _) = sign_in(&server, device, "ada", "guessed at random").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(sign_in(&server, device, "ada", PASSWORD).await.0, StatusCode::TOO_MANY_REQUESTS);
    // All failures that were checked are in the audit log; of those that were not, only the first.
    let audit = server.get("/audit?limit=1000").await;
    let count = |outcome: &str| {
        let items = audit["items"].as_array().expect("entries").iter();
        items.filter(|entry| entry["action"] == "session.open" && entry["outcome"] == outcome).count()
    };
    assert_eq!((count("invalid"), count("rate_limited")), (20, 2), "{audit}");
}

#[tokio::test]
async fn ending_a_session_requires_the_password() {
    let dir = directory();
    let server = Server::start(dir.path());
    user(&server, "ada").await;
    let (_, there) = sign_in(&server, "", "ada", PASSWORD).await;
    let (_, current) = sign_in(&server, "", "ada", PASSWORD).await;
    let page = async |cookies: &str| {
        let page = server.client.get(format!("{}/console/account", server.url)).header(COOKIE, cookies);
        let page = page.send().await.expect("a response");
        (page.status(), page.text().await.expect("a page"))
    };
    let (_, text) = page(&current).await;
    let after = |text: &str, mark: &str| {
        let (_, following) = text.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {text}"));
        following.split(['"', '/']).next().unwrap_or_default().to_owned()
    };
    let (csrf, session) =
        (after(&text, "name=\"csrf\" value=\""), after(&text, "/console/account/sessions/"));
    let end = async |password: &str| {
        let url = format!("{}/console/account/sessions/{session}/end", server.url);
        let form = format!("csrf={csrf}&old={}", password.replace(' ', "+"));
        let request =
            server.client.post(url).header(COOKIE, &current).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        request.send().await.expect("a response").status()
    };
    assert_eq!(end("guessed at random").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(page(&there).await.0, StatusCode::OK);
    assert_eq!(end(PASSWORD).await, StatusCode::SEE_OTHER);
    assert_eq!(page(&there).await.0, StatusCode::SEE_OTHER);
    // A browser that signs in again has one session.
    let (status, again) = sign_in(&server, &current, "ada", PASSWORD).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(page(&current).await.0, StatusCode::SEE_OTHER);
    let (_, text) = page(&again).await;
    assert!(!text.contains("/console/account/sessions/"), "{text}");
    let other_session = server.client.get(format!("{}/console/setup/guessed", server.url)).send().await;
    let other_session = other_session.expect("a response");
    assert_eq!(
        (other_session.status(), other_session.headers().get(LOCATION)),
        (StatusCode::NOT_FOUND, None)
    );
}

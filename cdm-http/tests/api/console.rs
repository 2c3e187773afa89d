//! The console's pages: who may read them, who may act, and which requests do not belong to a page.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use cdm_core::domain::token::Role;
use cdm_core::domain::{MonotonicTime, PasswordHash, Session, UserName};
use cdm_core::manager::{self, NewUser, Proven, SignIn, UserChange};
use cdm_http::{HttpSettings, SetupLink};
use secrecy::{ExposeSecret, SecretString};

use crate::support::{TestEnv, TestResponse, digest, new_site};

/// Every page and every form, and the minimum role that it requires.
const PAGES: [(&str, Role); 48] = [
    ("GET /console", Role::Viewer),
    ("GET /console/services", Role::Viewer),
    ("GET /console/services/green/select", Role::Admin),
    ("POST /console/services/green/select", Role::Admin),
    ("GET /console/services/green/deploy", Role::Admin),
    ("POST /console/services/green/deploy", Role::Admin),
    ("GET /console/services/green/rollback", Role::Admin),
    ("POST /console/services/green/rollback", Role::Admin),
    ("GET /console/services/green/mark/DIGEST", Role::Admin),
    ("POST /console/services/green/mark/DIGEST", Role::Admin),
    ("GET /console/sites", Role::Viewer),
    ("GET /console/sites?service=blue&state=active&q=x&drifted=true&limit=2", Role::Viewer),
    ("GET /console/sites/create", Role::Operator),
    ("POST /console/sites/create", Role::Operator),
    ("GET /console/sites/rrr", Role::Viewer),
    ("GET /console/sites/rrr/provision", Role::Operator),
    ("POST /console/sites/rrr/provision", Role::Operator),
    ("GET /console/sites/rrr/promote", Role::Operator),
    ("POST /console/sites/rrr/promote", Role::Operator),
    ("GET /console/sites/rrr/upgrade", Role::Operator),
    ("POST /console/sites/rrr/upgrade", Role::Operator),
    ("GET /console/sites/rrr/terminate", Role::Admin),
    ("POST /console/sites/rrr/terminate", Role::Admin),
    ("GET /console/rollouts", Role::Viewer),
    ("GET /console/rollouts/start", Role::Operator),
    ("POST /console/rollouts/start", Role::Operator),
    ("GET /console/rollouts/rollout-1", Role::Viewer),
    ("GET /console/rollouts/rollout-1/abort", Role::Operator),
    ("POST /console/rollouts/rollout-1/pause", Role::Operator),
    ("POST /console/rollouts/rollout-1/resume", Role::Operator),
    ("POST /console/rollouts/rollout-1/abort", Role::Operator),
    ("POST /console/rollouts/rollout-1/retry", Role::Operator),
    ("GET /console/operations", Role::Viewer),
    ("GET /console/operations?status=parked&kind=provision&site=rrr", Role::Viewer),
    ("GET /console/operations/op-1-fleet", Role::Viewer),
    ("GET /console/operations/op-1-fleet/steps/Install", Role::Viewer),
    ("GET /console/operations/op-1-fleet/cancel", Role::Operator),
    ("POST /console/operations/op-1-fleet/cancel", Role::Operator),
    ("POST /console/operations/op-1-fleet/retry", Role::Operator),
    ("GET /console/audit", Role::Viewer),
    ("GET /console/audit?actor=user:ada&site=rrr&since=2026-01-01T00:00:00Z", Role::Viewer),
    ("GET /console/account", Role::Viewer),
    ("GET /console/nothing/like/that", Role::Viewer),
    ("POST /console/account/sessions/0/end", Role::Viewer),
    ("POST /console/account/password", Role::Viewer),
    ("GET /console/account/second-factor", Role::Viewer),
    ("POST /console/account/second-factor", Role::Viewer),
    ("POST /console/account/second-factor/remove", Role::Viewer),
];

/// A signed-in browser: its cookie, and the CSRF token of its pages.
pub(crate) struct Browser {
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

/// Opens a session without a password; the stored password hash is unusable.
pub(crate) async fn sign_in(env: &TestEnv, name: &str, role: Role) -> Browser {
    let name = UserName::parse(name).expect("a user name");
    let (request, password) =
        (manager::Request::by(name.actor(), Role::Admin), PasswordHash::new("none".to_owned()));
    let manager = &env.app.manager;
    let new = NewUser { name: name.clone(), role, password: password.clone() };
    manager.create_user(&request, &new).await.expect("a user");
    let proven = Proven::Password(password);
    let opened = SignIn { name, proven, from: None, former: None };
    let (_, text) = manager.open_session(&request, &opened).await.expect("a session");
    let mut browser = Browser { cookie: format!("cdm={}", text.expose_secret()), csrf: String::new() };
    let page = send(env, &browser, "GET /console/account", "127.0.0.1:8080").await;
    let (_, after) = page.text.split_once("name=\"csrf\" value=\"").expect("a token");
    browser.csrf = after.split('"').next().unwrap_or_default().to_owned();
    browser
}

async fn send(env: &TestEnv, browser: &Browser, request_line: &str, host: &str) -> TestResponse {
    let (method, path) = request_line.split_once(' ').expect("a method and a path");
    let request = Request::builder()
        .method(method)
        .uri(path.replace("DIGEST", &digest('a')))
        .header("host", host)
        .header("cookie", &browser.cookie)
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded");
    let body = if method == "POST" { format!("csrf={}", browser.csrf) } else { String::new() };
    env.send(request.body(Body::from(body)).expect("a request")).await
}

#[tokio::test]
async fn each_page_requires_its_role() {
    let env = TestEnv::new().await;
    env.ask("POST /sites/create", Some(&new_site("rrr"))).await;
    for role in Role::ALL {
        for (number, (request_line, least)) in PAGES.into_iter().enumerate() {
            // Each request has its own session, because some forms end it.
            let name = format!("{role}-{number}");
            let browser = sign_in(&env, &name, role).await;
            let response = send(&env, &browser, request_line, "127.0.0.1:8080").await;
            assert_eq!(response.status == 403, role < least, "{request_line} as {role}: {}", response.text);
            assert_ne!(response.status.as_u16(), 500, "{request_line} as {role}: {}", response.text);
            let html =
                response.headers.get("content-type").is_none_or(|kind| kind == "text/html; charset=utf-8");
            assert!(html, "{request_line} is not an HTML page: {:?}", response.headers);
            assert!(response.headers.contains_key("content-security-policy"), "{request_line}");
            let name = UserName::parse(&name).expect("a user name");
            let anonymous = manager::Request::by(name.actor(), Role::Admin);
            env.app.manager.remove_user(&anonymous, &name).await.expect("the user exists");
        }
    }
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_sign_in() {
    let env = TestEnv::new().await;
    let anonymous = Browser { cookie: "cdm=cdm_session_guessed".to_owned(), csrf: String::new() };
    for (request_line, _) in PAGES {
        let response = send(&env, &anonymous, request_line, "127.0.0.1:8080").await;
        assert_eq!(response.status, 303, "{request_line}");
        let to = response.headers["location"].to_str().expect("text");
        assert!(to.starts_with("/console/sign-in"), "{request_line} leads to {to}");
    }
    let root = send(&env, &anonymous, "GET /", "127.0.0.1:8080").await;
    assert_eq!(root.headers["location"], "/console/services");
    // A reconnecting stream reports the missing session within the page, and ends permanently.
    let stream = Request::get("/console/sites").header("accept", "text/html, text/event-stream");
    let stream_response = env.send(stream.body(Body::empty()).expect("a request")).await;
    assert_eq!(stream_response.headers["content-type"], "text/event-stream");
    assert!(
        stream_response.text.contains("You are signed out")
            && stream_response.text.ends_with("event: gone\ndata: gone\n\n")
    );
}

#[tokio::test]
async fn a_form_must_come_from_a_page_of_the_same_session() {
    let env = TestEnv::new().await;
    let (ada, bob) = (sign_in(&env, "ada", Role::Admin).await, sign_in(&env, "bob", Role::Admin).await);
    let mixed = Browser { cookie: ada.cookie.clone(), csrf: bob.csrf.clone() };
    let none = Browser { cookie: ada.cookie.clone(), csrf: String::new() };
    for (request_line, _) in PAGES.iter().filter(|(request_line, _)| request_line.starts_with("POST")) {
        for browser in [&mixed, &none] {
            let response = send(&env, browser, request_line, "127.0.0.1:8080").await;
            assert_eq!(response.status, 403, "{request_line}");
            assert!(
                response.text.contains("belongs to another session"),
                "{request_line}: {}",
                response.text
            );
        }
        // A request from another site is rejected, even with a valid token.
        let (_, path) = request_line.split_once(' ').expect("a path");
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://evil.example"),
        ] {
            let request = Request::post(path.replace("DIGEST", &digest('a')))
                .header("host", "127.0.0.1:8080")
                .header("cookie", &ada.cookie)
                .header(name, value)
                .body(Body::from(format!("csrf={}", ada.csrf)));
            let response = env.send(request.expect("a request")).await;
            assert!(
                response.status == 403 && response.text.contains("by another site"),
                "{request_line} from {value}"
            );
        }
    }
    let audit = env.ask("GET /audit?actor=user:ada", None).await.json();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(2), "no request was made as ada: {audit}");
}

/// A fragment or stream that a script requests is never answered with a full page, which the script would insert into
/// the current page.
#[tokio::test]
async fn fragments_and_streams_are_never_full_pages() {
    let env = TestEnv::with(HttpSettings { streams: 0, ..HttpSettings::default() }).await;
    let ada = sign_in(&env, "ada", Role::Viewer).await;
    let ask = async |cookie: &str, path: &str, stream: bool| {
        let mut request = Request::get(path).header("host", "localhost").header("cookie", cookie);
        request = request.header("hx-request", "true");
        if stream {
            request = request.header("accept", "text/html, text/event-stream");
        }
        env.send(request.body(Body::empty()).expect("a request")).await
    };
    let part = ask(&ada.cookie, "/console/sites?q=x", false).await;
    assert!(
        part.text.starts_with("<div id=\"live\"") && part.headers["vary"] == "HX-Request, Accept",
        "{}",
        part.text
    );
    let refused = ask(&ada.cookie, "/console/sites?service=red", false).await;
    assert_eq!((refused.status.as_u16(), refused.text.as_str()), (204, ""));
    assert_eq!(refused.headers["hx-redirect"], "/console/sites?service=red");
    let anonymous = ask("cdm=unknown", "/console/sites", false).await;
    assert!(
        anonymous.headers["hx-redirect"].to_str().is_ok_and(|to| to.starts_with("/console/sign-in?next="))
    );
    let full = ask(&ada.cookie, "/console/sites", true).await;
    assert_eq!(
        (full.status.as_u16(), full.text.as_str()),
        (200, "retry: 15000\nevent: later\ndata: later\n\n")
    );
}

/// Over TLS, the name of the cookie has a prefix, so that no other host and no plaintext page of this host can set it.
#[tokio::test]
async fn the_plain_cookie_is_valid_only_on_loopback() {
    let env = TestEnv::new().await;
    let plain = sign_in(&env, "ada", Role::Viewer).await;
    let host = Browser { cookie: format!("__Host-{}", plain.cookie), csrf: plain.csrf.clone() };
    for (browser, at, seen) in [
        (&plain, "127.0.0.1:8080", true),
        (&plain, "cdm.example.com", false),
        (&host, "cdm.example.com", true),
        (&host, "127.0.0.1:8080", false),
    ] {
        let response = send(&env, browser, "GET /console/account", at).await;
        assert_eq!(response.status == 200, seen, "{} at {at}", browser.cookie);
    }
}

#[tokio::test]
async fn changes_of_a_user_apply_from_the_next_request_on() {
    let env = TestEnv::new().await;
    let ada = sign_in(&env, "ada", Role::Operator).await;
    let (name, request) = (
        UserName::parse("ada").expect("a name"),
        manager::Request::by(UserName::parse("ada").expect("a name").actor(), Role::Admin),
    );
    let status = async |request_line: &str| send(&env, &ada, request_line, "localhost").await.status.as_u16();
    assert_eq!(status("GET /console/sites/create").await, 200);
    let less = UserChange { role: Some(Role::Viewer), ..UserChange::default() };
    env.app.manager.change_user(&request, &name, &less).await.expect("the user exists");
    assert_eq!(status("GET /console/sites/create").await, 403);
    let other = UserChange { password: Some(PasswordHash::new("other".to_owned())), ..UserChange::default() };
    env.app.manager.change_user(&request, &name, &other).await.expect("the user exists");
    assert_eq!(status("GET /console/sites").await, 303, "another password ends the session");
}

/// Empty fields of a filter count as absent; an unknown field is an error, and is not ignored.
#[tokio::test]
async fn filters_are_read_from_the_url() {
    let env = TestEnv::new().await;
    let ada = sign_in(&env, "ada", Role::Viewer).await;
    for (request_line, status) in [
        ("GET /console/sites?q=&service=&state=&limit=", 200),
        ("GET /console/sites?service=red", 422),
        ("GET /console/sites?colour=blue", 422),
        ("GET /console/sites?cursor=zz", 422),
        ("GET /console/operations?status=asleep", 422),
        ("GET /console/audit?since=yesterday", 422),
        ("GET /console/rollouts?cursor=00", 422),
        ("GET /console/sites/Nope", 404),
        ("GET /console/operations/nope", 404),
        ("GET /console/rollouts/nope", 404),
    ] {
        assert_eq!(
            send(&env, &ada, request_line, "localhost").await.status.as_u16(),
            status,
            "{request_line}"
        );
    }
}

/// The stream of a page ends with the session, even if it is not read, and reports the end.
#[tokio::test]
async fn a_stream_of_a_page_ends_with_its_session() {
    let env = TestEnv::new().await;
    let ada = sign_in(&env, "ada", Role::Viewer).await;
    let stream = Request::get("/console/sites").header("host", "localhost").header("cookie", &ada.cookie);
    let stream = stream.header("accept", "text/html, text/event-stream");
    let stream = env.send(stream.body(Body::empty()).expect("a request"));
    let name = UserName::parse("ada").expect("a name");
    let request = manager::Request::by(name.actor(), Role::Admin);
    let closed = env.app.manager.close_session(&request, &name, None);
    let (stream, closed) = futures_util::future::join(stream, closed).await;
    closed.expect("the session exists");
    assert!(stream.text.ends_with("event: gone\ndata: gone\n\n"), "{}", stream.text);
}

/// A browser that signs in again has one session, not two; an unused session expires.
#[tokio::test]
async fn sessions_end_on_a_new_sign_in_and_when_unused() {
    let env = TestEnv::new().await;
    let first = sign_in(&env, "ada", Role::Viewer).await;
    let name = UserName::parse("ada").expect("a name");
    let request = manager::Request::by(name.actor(), Role::Admin);
    let former = first.cookie.strip_prefix("cdm=").map(SecretString::from);
    let proven = Proven::Password(PasswordHash::new("none".to_owned()));
    let again = SignIn { name: name.clone(), proven, from: None, former };
    let (_, text) = env.app.manager.open_session(&request, &again).await.expect("a session");
    let second = Browser { cookie: format!("cdm={}", text.expose_secret()), csrf: String::new() };
    assert_eq!(send(&env, &first, "GET /console/sites", "localhost").await.status, 303);
    let clock = Arc::clone(&env.app.clock);
    let writes = async || env.app.manager.users().await.expect("users").version;
    let (start, before) = (clock.monotonic(), writes().await);
    let mut sent = 0;
    while clock.monotonic().since(start) < Session::IDLE * 2 {
        assert_eq!(send(&env, &second, "GET /console/account", "localhost").await.status, 200);
        sent += 1;
        let pause = if sent % 4 == 0 { Session::TOUCH * 3 } else { Session::TOUCH / 10 };
        clock.sleep_until(clock.monotonic().after(pause)).await;
    }
    let touched = writes().await - before;
    assert!(touched > 0 && touched <= sent / 4 + 1, "{touched} writes for {sent} requests");
    clock.sleep_until(clock.monotonic().after(Session::IDLE)).await;
    assert_eq!(
        send(&env, &second, "GET /console/account", "localhost").await.status,
        303,
        "the session was not used"
    );
}

#[tokio::test]
async fn the_setup_link_expires_and_wrong_codes_are_limited() {
    let env = async |until| {
        let link = SetupLink { code: SecretString::from("the-code-of-the-link"), until };
        TestEnv::with(HttpSettings { setup: Some(link), ..HttpSettings::default() }).await
    };
    let ask = async |env: &TestEnv, code: &str| {
        let request = Request::get(format!("/console/setup/{code}")).body(Body::empty()).expect("a request");
        env.send(request).await.status.as_u16()
    };
    let expired = env(MonotonicTime::default()).await;
    assert_eq!(ask(&expired, "the-code-of-the-link").await, 404);

    let valid = env(MonotonicTime::from_millis(u64::MAX)).await;
    assert_eq!(ask(&valid, "the-code-of-the-link").await, 200);
    for _ in 0..10 {
        assert_eq!(ask(&valid, "guessed").await, 404);
    }
    assert_eq!(ask(&valid, "guessed").await, 429);
}

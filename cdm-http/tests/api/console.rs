//! The console's pages: who sees them, who may act, and which requests are none of a page's.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use cdm_core::domain::token::Role;
use cdm_core::domain::{MonotonicTime, PasswordHash, Session, UserName};
use cdm_core::manager::{self, NewUser, Proven, SignIn, UserChange};
use cdm_http::{HttpSettings, SetupLink};
use secrecy::{ExposeSecret, SecretString};

use crate::support::{Answer, Bed, digest, new_site};

/// Every page and every form, and the least role that it takes.
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

/// Someone who is signed in: their cookie, and the token that their pages have.
pub(crate) struct Browser {
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

/// Signs somebody in without their password, whose hash would be none.
pub(crate) async fn sign_in(bed: &Bed, name: &str, role: Role) -> Browser {
    let name = UserName::parse(name).expect("a user name");
    let (request, password) =
        (manager::Request::by(name.actor(), Role::Admin), PasswordHash::new("none".to_owned()));
    let manager = &bed.app.manager;
    let new = NewUser { name: name.clone(), role, password: password.clone() };
    manager.create_user(&request, &new).await.expect("a user");
    let proven = Proven::Password(password);
    let opened = SignIn { name, proven, from: None, former: None };
    let (_, text) = manager.open_session(&request, &opened).await.expect("a session");
    let mut browser = Browser { cookie: format!("cdm={}", text.expose_secret()), csrf: String::new() };
    let page = send(bed, &browser, "GET /console/account", "127.0.0.1:8080").await;
    let (_, after) = page.text.split_once("name=\"csrf\" value=\"").expect("a token");
    browser.csrf = after.split('"').next().unwrap_or_default().to_owned();
    browser
}

async fn send(bed: &Bed, browser: &Browser, line: &str, host: &str) -> Answer {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let request = Request::builder()
        .method(method)
        .uri(path.replace("DIGEST", &digest('a')))
        .header("host", host)
        .header("cookie", &browser.cookie)
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded");
    let body = if method == "POST" { format!("csrf={}", browser.csrf) } else { String::new() };
    bed.send(request.body(Body::from(body)).expect("a request")).await
}

#[tokio::test]
async fn each_page_takes_its_role_and_no_less() {
    let bed = Bed::new().await;
    bed.ask("POST /sites/create", Some(&new_site("rrr"))).await;
    for role in Role::ALL {
        for (number, (line, least)) in PAGES.into_iter().enumerate() {
            // Each has a session of their own: some forms end it.
            let name = format!("{role}-{number}");
            let browser = sign_in(&bed, &name, role).await;
            let answer = send(&bed, &browser, line, "127.0.0.1:8080").await;
            assert_eq!(answer.status == 403, role < least, "{line} as {role}: {}", answer.text);
            assert_ne!(answer.status.as_u16(), 500, "{line} as {role}: {}", answer.text);
            let html =
                answer.headers.get("content-type").is_none_or(|kind| kind == "text/html; charset=utf-8");
            assert!(html, "{line} is put as a page: {:?}", answer.headers);
            assert!(answer.headers.contains_key("content-security-policy"), "{line}");
            let name = UserName::parse(&name).expect("a user name");
            let nobody = manager::Request::by(name.actor(), Role::Admin);
            bed.app.manager.remove_user(&nobody, &name).await.expect("there was one");
        }
    }
}

#[tokio::test]
async fn without_a_session_there_is_only_the_way_to_one() {
    let bed = Bed::new().await;
    let nobody = Browser { cookie: "cdm=cdm_session_guessed".to_owned(), csrf: String::new() };
    for (line, _) in PAGES {
        let answer = send(&bed, &nobody, line, "127.0.0.1:8080").await;
        assert_eq!(answer.status, 303, "{line}");
        let to = answer.headers["location"].to_str().expect("text");
        assert!(to.starts_with("/console/sign-in"), "{line} leads to {to}");
    }
    let root = send(&bed, &nobody, "GET /", "127.0.0.1:8080").await;
    assert_eq!(root.headers["location"], "/console/services");
    // A stream that begins anew says so within the page, and ends for good.
    let stream = Request::get("/console/sites").header("accept", "text/html, text/event-stream");
    let told = bed.send(stream.body(Body::empty()).expect("a request")).await;
    assert_eq!(told.headers["content-type"], "text/event-stream");
    assert!(told.text.contains("You are signed out") && told.text.ends_with("event: gone\ndata: \n\n"));
}

#[tokio::test]
async fn a_form_has_to_come_from_a_page_of_this_session() {
    let bed = Bed::new().await;
    let (ada, bob) = (sign_in(&bed, "ada", Role::Admin).await, sign_in(&bed, "bob", Role::Admin).await);
    let mixed = Browser { cookie: ada.cookie.clone(), csrf: bob.csrf.clone() };
    let none = Browser { cookie: ada.cookie.clone(), csrf: String::new() };
    for (line, _) in PAGES.iter().filter(|(line, _)| line.starts_with("POST")) {
        for browser in [&mixed, &none] {
            let answer = send(&bed, browser, line, "127.0.0.1:8080").await;
            assert_eq!(answer.status, 403, "{line}");
            assert!(answer.text.contains("of another session"), "{line}: {}", answer.text);
        }
        // Nor from another site, though it knew the token.
        let (_, path) = line.split_once(' ').expect("a path");
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
            let answer = bed.send(request.expect("a request")).await;
            assert!(answer.status == 403 && answer.text.contains("by another site"), "{line} from {value}");
        }
    }
    let audit = bed.ask("GET /audit?actor=user:ada", None).await.json();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(2), "nothing was asked in ada's name: {audit}");
}

/// What a script of a page asks for in between is never answered by a page that it would put into the other.
#[tokio::test]
async fn parts_and_streams_are_never_pages() {
    let bed = Bed::with(HttpSettings { streams: 0, ..HttpSettings::default() }).await;
    let ada = sign_in(&bed, "ada", Role::Viewer).await;
    let ask = async |cookie: &str, path: &str, stream: bool| {
        let mut request = Request::get(path).header("host", "localhost").header("cookie", cookie);
        request = request.header("hx-request", "true");
        if stream {
            request = request.header("accept", "text/html, text/event-stream");
        }
        bed.send(request.body(Body::empty()).expect("a request")).await
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
    let nobody = ask("cdm=nobody", "/console/sites", false).await;
    assert!(nobody.headers["hx-redirect"].to_str().is_ok_and(|to| to.starts_with("/console/sign-in?next=")));
    let full = ask(&ada.cookie, "/console/sites", true).await;
    assert_eq!((full.status.as_u16(), full.text.as_str()), (200, "retry: 15000\nevent: later\ndata: \n\n"));
}

/// Over TLS the cookie is one that no other host, and no page of this one without TLS, can set.
#[tokio::test]
async fn the_plain_cookie_opens_nothing_but_loopback() {
    let bed = Bed::new().await;
    let plain = sign_in(&bed, "ada", Role::Viewer).await;
    let host = Browser { cookie: format!("__Host-{}", plain.cookie), csrf: plain.csrf.clone() };
    for (browser, at, seen) in [
        (&plain, "127.0.0.1:8080", true),
        (&plain, "cdm.example.com", false),
        (&host, "cdm.example.com", true),
        (&host, "127.0.0.1:8080", false),
    ] {
        let answer = send(&bed, browser, "GET /console/account", at).await;
        assert_eq!(answer.status == 200, seen, "{} at {at}", browser.cookie);
    }
}

#[tokio::test]
async fn what_becomes_of_a_person_holds_from_their_next_request_on() {
    let bed = Bed::new().await;
    let ada = sign_in(&bed, "ada", Role::Operator).await;
    let (name, request) = (
        UserName::parse("ada").expect("a name"),
        manager::Request::by(UserName::parse("ada").expect("a name").actor(), Role::Admin),
    );
    let status = async |line: &str| send(&bed, &ada, line, "localhost").await.status.as_u16();
    assert_eq!(status("GET /console/sites/create").await, 200);
    let less = UserChange { role: Some(Role::Viewer), ..UserChange::default() };
    bed.app.manager.change_user(&request, &name, &less).await.expect("there is one");
    assert_eq!(status("GET /console/sites/create").await, 403);
    let other = UserChange { password: Some(PasswordHash::new("other".to_owned())), ..UserChange::default() };
    bed.app.manager.change_user(&request, &name, &other).await.expect("there is one");
    assert_eq!(status("GET /console/sites").await, 303, "another password ends the session");
}

/// A filter's fields that nobody filled in are as if they were absent; an unknown one is told, not ignored.
#[tokio::test]
async fn filters_are_read_from_the_address() {
    let bed = Bed::new().await;
    let ada = sign_in(&bed, "ada", Role::Viewer).await;
    for (line, status) in [
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
        assert_eq!(send(&bed, &ada, line, "localhost").await.status.as_u16(), status, "{line}");
    }
}

/// The stream of a page ends with the session, whether it is read or not, and says so.
#[tokio::test]
async fn a_stream_of_a_page_ends_with_its_session() {
    let bed = Bed::new().await;
    let ada = sign_in(&bed, "ada", Role::Viewer).await;
    let stream = Request::get("/console/sites").header("host", "localhost").header("cookie", &ada.cookie);
    let stream = stream.header("accept", "text/html, text/event-stream");
    let stream = bed.send(stream.body(Body::empty()).expect("a request"));
    let name = UserName::parse("ada").expect("a name");
    let request = manager::Request::by(name.actor(), Role::Admin);
    let closed = bed.app.manager.close_session(&request, &name, None);
    let (stream, closed) = futures_util::future::join(stream, closed).await;
    closed.expect("there was one");
    assert!(stream.text.ends_with("event: gone\ndata: \n\n"), "{}", stream.text);
}

/// A browser that signs in anew has one session, not two; and a page that nobody uses ends it.
#[tokio::test]
async fn sessions_end_with_the_next_of_their_browser_and_when_nobody_uses_them() {
    let bed = Bed::new().await;
    let first = sign_in(&bed, "ada", Role::Viewer).await;
    let name = UserName::parse("ada").expect("a name");
    let request = manager::Request::by(name.actor(), Role::Admin);
    let former = first.cookie.strip_prefix("cdm=").map(SecretString::from);
    let proven = Proven::Password(PasswordHash::new("none".to_owned()));
    let again = SignIn { name: name.clone(), proven, from: None, former };
    let (_, text) = bed.app.manager.open_session(&request, &again).await.expect("a session");
    let second = Browser { cookie: format!("cdm={}", text.expose_secret()), csrf: String::new() };
    assert_eq!(send(&bed, &first, "GET /console/sites", "localhost").await.status, 303);
    let clock = Arc::clone(&bed.app.clock);
    let writes = async || bed.app.manager.users().await.expect("users").version;
    let (start, before) = (clock.monotonic(), writes().await);
    let mut asked = 0;
    while clock.monotonic().since(start) < Session::IDLE * 2 {
        assert_eq!(send(&bed, &second, "GET /console/account", "localhost").await.status, 200);
        asked += 1;
        let pause = if asked % 4 == 0 { Session::TOUCH * 3 } else { Session::TOUCH / 10 };
        clock.sleep_until(clock.monotonic().after(pause)).await;
    }
    let touched = writes().await - before;
    assert!(touched > 0 && touched <= asked / 4 + 1, "{touched} writes for {asked} requests");
    clock.sleep_until(clock.monotonic().after(Session::IDLE)).await;
    assert_eq!(
        send(&bed, &second, "GET /console/account", "localhost").await.status,
        303,
        "nobody was there"
    );
}

#[tokio::test]
async fn the_setup_link_expires_and_wrong_codes_are_limited() {
    let bed = async |until| {
        let link = SetupLink { code: SecretString::from("the-code-of-the-link"), until };
        Bed::with(HttpSettings { setup: Some(link), ..HttpSettings::default() }).await
    };
    let ask = async |bed: &Bed, code: &str| {
        let request = Request::get(format!("/console/setup/{code}")).body(Body::empty()).expect("a request");
        bed.send(request).await.status.as_u16()
    };
    let expired = bed(MonotonicTime::default()).await;
    assert_eq!(ask(&expired, "the-code-of-the-link").await, 404);

    let valid = bed(MonotonicTime::from_millis(u64::MAX)).await;
    assert_eq!(ask(&valid, "the-code-of-the-link").await, 200);
    for _ in 0..10 {
        assert_eq!(ask(&valid, "guessed").await, 404);
    }
    assert_eq!(ask(&valid, "guessed").await, 429);
}

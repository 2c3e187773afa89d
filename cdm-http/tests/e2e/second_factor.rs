//! The second factor on a real server: setup, sign-in, single use, recovery and reset.

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::json;
use totp_rs::{Builder, Secret};

use cdm_testkit::server::{QUICK, Server, directory, files};

const PASSWORD: &str = "correct horse battery";

/// The last response of a browser.
struct Page {
    status: StatusCode,
    to: String,
    text: String,
    cookies: String,
}

impl Page {
    /// Returns the text between `mark` and the next quotation mark or tag.
    fn after(&self, mark: &str) -> String {
        let (_, following) =
            self.text.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {}", self.text));
        following.split(['"', '<']).next().unwrap_or_default().to_owned()
    }

    fn csrf(&self) -> String {
        self.after("name=\"csrf\" value=\"")
    }
}

async fn send(request: reqwest::RequestBuilder) -> Page {
    let request = request.header("sec-fetch-site", "same-origin").send().await.expect("a response");
    let to = request.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned();
    let set_cookies = request.headers().get_all(SET_COOKIE).iter();
    let set_cookies = set_cookies.filter_map(|one| one.to_str().ok()?.split(';').next()).collect::<Vec<_>>();
    let (status, cookies) = (request.status(), set_cookies.join("; "));
    Page { status, to, cookies, text: request.text().await.expect("a page") }
}

async fn get(server: &Server, cookies: &str, path: &str) -> Page {
    send(server.client.get(format!("{}{path}", server.url)).header(COOKIE, cookies)).await
}

async fn post(server: &Server, cookies: &str, path: &str, fields: &[(&str, &str)]) -> Page {
    let form = fields.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+")));
    let form = form.collect::<Vec<_>>().join("&");
    let request = server.client.post(format!("{}{path}", server.url)).header(COOKIE, cookies);
    send(request.header("content-type", "application/x-www-form-urlencoded").body(form)).await
}

async fn sign_in(server: &Server) -> Page {
    post(server, "", "/console/sign-in", &[("name", "ada"), ("password", PASSWORD)]).await
}

/// Returns the code of a key as an app shows it, `steps` periods later.
fn code(key: &str, steps: u64) -> String {
    let secret = Secret::try_from_base32(key.replace(' ', "")).expect("a key");
    let now = u64::try_from(jiff::Timestamp::now().as_second()).expect("a time after 1970");
    Builder::new().with_secret(secret).build().expect("a key").generate(now + 30 * steps).to_string()
}

async fn enrolled(server: &Server, session: &str) -> (String, Page) {
    let page = get(server, session, "/console/account/second-factor").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let key = page.after("<code id=\"secret\">");
    assert!(page.text.contains("<svg") && page.text.contains("otpauth://totp/"), "{}", page.text);
    let (csrf, sealed) = (page.csrf(), page.after("name=\"sealed\" value=\""));
    let path = "/console/account/second-factor";
    let give = async |code: &str, old: &str| {
        let fields = [("csrf", csrf.as_str()), ("sealed", &sealed), ("code", code), ("old", old)];
        post(server, session, path, &fields).await
    };
    assert_eq!(give("000000", PASSWORD).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(give(&code(&key, 0), "guessed at random").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let done = give(&code(&key, 0), PASSWORD).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    (key, done)
}

#[tokio::test]
async fn a_second_factor_is_set_up_required_and_used_once() {
    let dir = directory();
    let server = Server::start_with(dir.path(), &format!("{QUICK}[limits]\nfailures = 1000\n"));
    let ada = json!({"name": "ada", "role": "admin", "password": PASSWORD});
    assert_eq!(server.ask(Method::POST, "/users", Some(&ada)).await.0, StatusCode::CREATED);
    let session = sign_in(&server).await.cookies;
    let other = sign_in(&server).await.cookies;
    let (key, done) = enrolled(&server, &session).await;
    let recovery: Vec<&str> =
        done.text.split("<li><code>").skip(1).filter_map(|following| following.split('<').next()).collect();
    assert_eq!(recovery.len(), 8, "{}", done.text);
    assert_eq!(get(&server, &session, "/console/sites").await.status, StatusCode::OK);
    assert_eq!(
        get(&server, &other, "/console/sites").await.status,
        StatusCode::SEE_OTHER,
        "other sessions end"
    );
    assert_eq!(server.get("/users").await["items"][0]["secondFactor"], "totp");

    // The password alone opens no session.
    let challenge = sign_in(&server).await;
    assert_eq!((challenge.status, challenge.cookies.as_str()), (StatusCode::OK, ""), "{}", challenge.text);
    let ticket = challenge.after("name=\"ticket\" value=\"");
    let give = async |ticket: &str, code: &str| {
        let fields = [("name", "ada"), ("ticket", ticket), ("code", code), ("next", "/console/sites")];
        post(&server, "", "/console/sign-in/code", &fields).await
    };
    assert_eq!(give("00", &code(&key, 1)).await.to, "/console/sign-in", "without the password");
    assert_eq!(give(&ticket, "000000").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    // The code of the setup cannot be used again; a later code can be used once.
    let next = code(&key, 1);
    assert_eq!(give(&ticket, &next).await.to, "/console/sites");
    let replayed = give(&ticket, &next).await;
    assert_eq!((replayed.status, replayed.cookies.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, ""));
    assert_eq!(give(&ticket, recovery[0]).await.to, "/console/sites");
    assert_eq!(give(&ticket, recovery[0]).await.status, StatusCode::UNPROCESSABLE_ENTITY, "used");
    assert_eq!(give(&ticket, &recovery[1].to_uppercase()).await.to, "/console/sites");
    for _ in 0..7 {
        assert_eq!(give(&ticket, "000000").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(give(&ticket, recovery[2]).await.status, StatusCode::TOO_MANY_REQUESTS, "guesses are limited");

    // Neither the key nor a code is stored in plain text.
    let bare = key.replace(' ', "");
    let audit = server.get("/audit").await.to_string();
    let output = [server.log.lock().expect("the log").clone(), audit].concat();
    for (path, bytes) in files(&dir.path().join("data")) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&bare) && !text.contains(recovery[3]), "{}", path.display());
    }
    assert!(!output.contains(&bare) && !output.contains(recovery[3]), "{output}");

    // An administrator removes the second factor of a user who has lost it.
    let none = json!({"secondFactor": "none"});
    let (status, ada) = server.ask(Method::PUT, "/users/ada", Some(&none)).await;
    assert_eq!(
        (status, &ada["secondFactor"], &ada["sessions"]),
        (StatusCode::OK, &json!("none"), &json!([]))
    );
    let session = sign_in(&server).await;
    assert_eq!(session.status, StatusCode::SEE_OTHER);
    let (_, _) = enrolled(&server, &session.cookies).await;
    let page = get(&server, &session.cookies, "/console/account").await;
    let remove = async |old: &str| {
        let fields = [("csrf", page.csrf()), ("old", old.to_owned())];
        let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
        post(&server, &session.cookies, "/console/account/second-factor/remove", &fields).await
    };
    assert_eq!(remove("guessed at random").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(remove(PASSWORD).await.to, "/console/account");
    assert_eq!(sign_in(&server).await.status, StatusCode::SEE_OTHER);

    let audit = server.get("/audit?limit=1000").await;
    let has = |action: &str, outcome: &str| {
        let mut items = audit["items"].as_array().expect("entries").iter();
        items.any(|entry| entry["action"] == action && entry["outcome"] == outcome)
    };
    for (action, outcome) in [
        ("second-factor.enroll", "accepted"),
        ("second-factor.remove", "accepted"),
        ("session.recover", "accepted"),
        ("session.recover", "invalid"),
        ("session.open", "invalid"),
        ("session.open", "rate_limited"),
        ("user.change", "accepted"),
    ] {
        assert!(has(action, outcome), "{action} {outcome}: {audit}");
    }
}

#[tokio::test]
async fn a_required_second_factor_blocks_every_other_page() {
    let dir = directory();
    let mut server = Server::start_with(dir.path(), &format!("second_factor = 'required'\n{QUICK}"));
    let ada = json!({"name": "ada", "role": "admin", "password": PASSWORD});
    assert_eq!(server.ask(Method::POST, "/users", Some(&ada)).await.0, StatusCode::CREATED);
    let session = sign_in(&server).await;
    assert_eq!(session.status, StatusCode::SEE_OTHER);
    for path in ["/console/services", "/console/sites", "/console/account", "/console/audit"] {
        let page = get(&server, &session.cookies, path).await;
        assert_eq!(
            (page.status, page.to.as_str()),
            (StatusCode::SEE_OTHER, "/console/account/second-factor")
        );
    }
    let (key, _) = enrolled(&server, &session.cookies).await;
    assert_eq!(get(&server, &session.cookies, "/console/services").await.status, StatusCode::OK);
    // The key survives a restart, as the sealing key does.
    server.terminate();
    let server = Server::start_with(dir.path(), &format!("second_factor = 'off'\n{QUICK}"));
    let challenge = sign_in(&server).await;
    let ticket = challenge.after("name=\"ticket\" value=\"");
    let code = code(&key, 1);
    let fields = [("name", "ada"), ("ticket", ticket.as_str()), ("code", &code), ("next", "/console/sites")];
    let opened = post(&server, "", "/console/sign-in/code", &fields).await;
    assert_eq!(opened.to, "/console/sites", "a configured second factor is required: {}", opened.text);
    let page = get(&server, &opened.cookies, "/console/account/second-factor").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
}

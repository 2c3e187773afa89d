//! Signing in to a real server: which cookie, how often, and what the log keeps of it.

use reqwest::header::{COOKIE, HOST, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::server::{QUICK, Server, directory};

const PASSWORD: &str = "correct horse battery";

async fn sign_in(server: &Server, host: &str, name: &str, password: &str) -> reqwest::Response {
    let form = format!("name={name}&password={}&next=%2Fconsole%2Fsites", password.replace(' ', "+"));
    let request = server.client.post(format!("{}/console/sign-in", server.url));
    let request = request.header(HOST, host).header("sec-fetch-site", "same-origin");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn a_password_opens_a_session_whose_cookie_fits_the_way_there() {
    let dir = directory();
    let server = Server::start(dir.path());
    let ada = json!({"name": "ada", "role": "admin", "password": PASSWORD});
    assert_eq!(server.ask(Method::POST, "/users", Some(&ada)).await.0, StatusCode::CREATED);

    for (host, name, secure) in [("127.0.0.1", "cdm", false), ("cdm.example.com", "__Host-cdm", true)] {
        let answer = sign_in(&server, host, "ada", PASSWORD).await;
        assert_eq!(
            (answer.status(), answer.headers()[LOCATION].to_str().ok()),
            (StatusCode::SEE_OTHER, Some("/console/sites"))
        );
        let cookie = answer.headers()[SET_COOKIE].to_str().expect("text").to_owned();
        let (pair, rest) = cookie.split_once(';').expect("attributes");
        assert!(pair.starts_with(&format!("{name}=cdm_session_")) && pair.len() > 40, "{cookie}");
        assert!(
            rest.contains("HttpOnly") && rest.contains("SameSite=Lax") && rest.contains("Path=/"),
            "{cookie}"
        );
        assert_eq!(rest.contains("Secure"), secure, "{cookie}");
        assert!(
            !rest.contains("Domain") && !rest.contains("Expires") && !rest.contains("Max-Age"),
            "{cookie}"
        );
        let page = server.client.get(format!("{}/console/sites", server.url));
        let page = page.header(HOST, host).header(COOKIE, pair).send().await.expect("an answer");
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(page.headers()["cache-control"], "no-store");
    }
    let refused = sign_in(&server, "127.0.0.1", "ada", "wrong").await;
    assert_eq!(
        (refused.status(), refused.headers().get(SET_COOKIE)),
        (StatusCode::UNPROCESSABLE_ENTITY, None)
    );

    // Neither the password nor its hash is in any answer, nor in the log.
    let shown = [
        server.get("/users").await.to_string(),
        server.get("/audit").await.to_string(),
        server.log.lock().expect("the log").clone(),
    ]
    .concat();
    assert!(shown.contains("user:ada"), "{shown}");
    for secret in [PASSWORD, "argon2", "cdm_session_"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

#[tokio::test]
async fn over_plain_http_the_page_says_what_is_missing() {
    let dir = directory();
    let server = Server::start(dir.path());
    let page = async |host: &str, fetched: bool| {
        let mut request = server.client.get(format!("{}/console/sign-in", server.url)).header(HOST, host);
        if fetched {
            request = request.header("sec-fetch-site", "none");
        }
        request.send().await.expect("an answer").text().await.expect("a page")
    };
    assert!(page("10.0.0.7:8080", false).await.contains("without TLS"));
    assert!(!page("cdm.example.com", true).await.contains("without TLS"));
    assert!(!page("localhost:8080", false).await.contains("without TLS"));
}

/// An address that fails too often waits, whatever the names: so nobody tries a few passwords for everyone.
#[tokio::test]
async fn an_address_fails_so_often_whatever_the_name() {
    let dir = directory();
    let server = Server::start_with(dir.path(), &format!("{QUICK}[limits]\nfailures = 3\n"));
    for name in ["ada", "bob", "carol"] {
        assert_eq!(
            sign_in(&server, "127.0.0.1", name, "wrong").await.status(),
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    let late = sign_in(&server, "127.0.0.1", "dora", "wrong").await;
    assert_eq!(late.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(late.headers().contains_key("retry-after"), "{:?}", late.headers());
    let told = late.text().await.expect("a page");
    assert!(told.contains("Too many requests"), "{told}");
}

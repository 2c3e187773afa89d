//! Signing in to a real server: the cookie, the limits, and the log.

use reqwest::header::{COOKIE, HOST, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::json;

use cdm_testkit::server::{QUICK, Server, directory};

const PASSWORD: &str = "correct horse battery";

async fn sign_in(server: &Server, host: &str, name: &str, password: &str) -> reqwest::Response {
    let form = format!("name={name}&password={}&next=%2Fconsole%2Fsites", password.replace(' ', "+"));
    let request = server.client.post(format!("{}/console/sign-in", server.url));
    let request = request.header(HOST, host).header("sec-fetch-site", "same-origin");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    request.send().await.expect("a response")
}

#[tokio::test]
async fn the_session_cookie_matches_the_transport() {
    let dir = directory();
    let server = Server::start(dir.path());
    let ada = json!({"name": "ada", "role": "admin", "password": PASSWORD});
    assert_eq!(server.ask(Method::POST, "/users", Some(&ada)).await.0, StatusCode::CREATED);

    for (host, name, secure) in [("127.0.0.1", "cdm", false), ("cdm.example.com", "__Host-cdm", true)] {
        let response = sign_in(&server, host, "ada", PASSWORD).await;
        assert_eq!(
            (response.status(), response.headers()[LOCATION].to_str().ok()),
            (StatusCode::SEE_OTHER, Some("/console/sites"))
        );
        let cookie = response.headers()[SET_COOKIE].to_str().expect("text").to_owned();
        let (pair, attributes) = cookie.split_once(';').expect("attributes");
        assert!(pair.starts_with(&format!("{name}=cdm_session_")) && pair.len() > 40, "{cookie}");
        assert!(
            attributes.contains("HttpOnly")
                && attributes.contains("SameSite=Lax")
                && attributes.contains("Path=/"),
            "{cookie}"
        );
        assert_eq!(attributes.contains("Secure"), secure, "{cookie}");
        assert!(
            !attributes.contains("Domain")
                && !attributes.contains("Expires")
                && !attributes.contains("Max-Age"),
            "{cookie}"
        );
        let page = server.client.get(format!("{}/console/sites", server.url));
        let page = page.header(HOST, host).header(COOKIE, pair).send().await.expect("a response");
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(page.headers()["cache-control"], "no-store");
    }
    let refused = sign_in(&server, "127.0.0.1", "ada", "wrong").await;
    assert_eq!(
        (refused.status(), refused.headers().get(SET_COOKIE)),
        (StatusCode::UNPROCESSABLE_ENTITY, None)
    );

    // Neither the password nor its hash is in any response or in the log.
    let output = [
        server.get("/users").await.to_string(),
        server.get("/audit").await.to_string(),
        server.log.lock().expect("the log").clone(),
    ]
    .concat();
    assert!(output.contains("user:ada"), "{output}");
    for secret in [PASSWORD, "argon2", "cdm_session_"] {
        assert!(!output.contains(secret), "{secret} is shown");
    }
}

#[tokio::test]
async fn over_plain_http_the_page_warns_about_missing_tls() {
    let dir = directory();
    let server = Server::start(dir.path());
    let page = async |host: &str, fetched: bool| {
        let mut request = server.client.get(format!("{}/console/sign-in", server.url)).header(HOST, host);
        if fetched {
            request = request.header("sec-fetch-site", "none");
        }
        request.send().await.expect("a response").text().await.expect("a page")
    };
    assert!(page("10.0.0.7:8080", false).await.contains("without TLS"));
    assert!(!page("cdm.example.com", true).await.contains("without TLS"));
    assert!(!page("localhost:8080", false).await.contains("without TLS"));
}

/// An address with too many failures is limited across all names, so that it cannot try a few passwords for every
/// user.
#[tokio::test]
async fn failures_per_address_are_limited_across_names() {
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
    let page_text = late.text().await.expect("a page");
    assert!(page_text.contains("Too many requests"), "{page_text}");
}

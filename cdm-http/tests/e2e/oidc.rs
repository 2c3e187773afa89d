//! Signing in with an OpenID Connect provider, which the test provides.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use reqwest::Method;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};

use cdm_testkit::oidc_provider::{TokenClaims, provider};
use cdm_testkit::server::{QUICK, Server, directory};

/// Follows the redirects of a browser; returns the final response with its cookie.
async fn sign_in(server: &Server, modify: impl Fn(&str, &str) -> (String, String)) -> reqwest::Response {
    let ask = async |url: &str, cookie: &str| {
        server.client.get(url).header(COOKIE, cookie).send().await.expect("a response")
    };
    let to = |response: &reqwest::Response| response.headers()[LOCATION].to_str().expect("text").to_owned();
    let redirect = ask(&format!("{}/console/oidc/begin?next=%2Fconsole%2Fsites", server.url), "").await;
    let cookie = redirect.headers()[SET_COOKIE].to_str().expect("text").to_owned();
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    assert!(cookie.starts_with("cdm-oidc="), "{cookie}");
    let back = to(&ask(&to(&redirect), "").await);
    // Only browsers can resolve the public address.
    let (_, path) = back.split_once("/console/").expect("the callback");
    let (url, cookie) = modify(&format!("{}/console/{path}", server.url), &cookie);
    ask(&url, &cookie).await
}

fn unmodified(url: &str, cookie: &str) -> (String, String) {
    (url.to_owned(), cookie.to_owned())
}

#[tokio::test]
async fn only_verified_claims_of_the_provider_are_accepted() {
    let (dir, provider) = (directory(), provider().await);
    let secret = dir.path().join("client-secret");
    std::fs::write(&secret, "a secret of the client").expect("a file");
    let configuration = format!(
        "{QUICK}\n[oidc]\nissuer = '{}'\nclient_id = 'cdm'\nclient_secret_file = '{}'\npublic_url = 'https://cdm.example.com/'\n",
        provider.url,
        secret.display()
    );
    let server = Server::start_with(dir.path(), &configuration);
    let set_claims = |claims: Value, own_key: bool| {
        *provider.next_token.lock().expect("free") = TokenClaims { claims, own_key }
    };
    let page = server.client.get(format!("{}/console/sign-in", server.url)).send().await.expect("a response");
    assert!(page.text().await.expect("a page").contains("Sign in with your organization"));
    let grace = json!({"name": "grace@example.com", "role": "operator"});
    assert_eq!(server.ask(Method::POST, "/users", Some(&grace)).await.0, StatusCode::CREATED);
    let verified_claims = json!({"email": "Grace@example.com", "email_verified": true});

    set_claims(verified_claims.clone(), true);
    let response = sign_in(&server, unmodified).await;
    assert_eq!(
        (response.status(), response.headers()[LOCATION].to_str().ok()),
        (StatusCode::SEE_OTHER, Some("/console/sites"))
    );
    let cookies: Vec<&str> =
        response.headers().get_all(SET_COOKIE).iter().filter_map(|one| one.to_str().ok()).collect();
    let session = cookies.iter().find(|one| one.starts_with("cdm=cdm_session_")).expect("a session");
    assert!(
        cookies.iter().any(|one| one.starts_with("cdm-oidc=;") && one.contains("Max-Age=0")),
        "{cookies:?}"
    );
    let page =
        server.client.get(format!("{}/console/account", server.url)).header(COOKIE, *session).send().await;
    assert!(page.expect("a response").text().await.expect("a page").contains("grace@example.com"));

    // Claims that the provider does not confirm, or does not sign for this client, this time and this browser.
    let with = |name: &str, value: Value| {
        let mut claims = verified_claims.clone();
        claims["sub"] = json!("2");
        claims[name] = value;
        claims
    };
    for (claims, own_key, code) in [
        (with("email_verified", json!(false)), true, "oidc_refused"),
        (with("email", json!("unknown@example.com")), true, "oidc_refused"),
        (with("email", json!("<script>@example.com")), true, "oidc_refused"),
        (with("sub", json!("2")), true, "oidc_refused"),
        (with("aud", json!("another")), true, "oidc_failed"),
        (with("iss", json!("https://evil.example")), true, "oidc_failed"),
        (with("exp", json!(1)), true, "oidc_failed"),
        (with("nonce", json!("of another")), true, "oidc_failed"),
        (verified_claims.clone(), false, "oidc_failed"),
    ] {
        set_claims(claims.clone(), own_key);
        let response = sign_in(&server, unmodified).await;
        let expected = if code == "oidc_refused" { StatusCode::FORBIDDEN } else { StatusCode::BAD_GATEWAY };
        assert_eq!((response.status(), response.headers().get(SET_COOKIE)), (expected, None), "{claims}");
    }
    // Her account stays linked under another email; another identity is linked only after an administrator has removed
    // the first.
    set_claims(json!({"email": "grace.hopper@example.com", "email_verified": true}), true);
    assert_eq!(sign_in(&server, unmodified).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(server.get("/users").await["items"][0]["identity"], "bound");
    let unbound = json!({"identity": "none"});
    let (_, grace) = server.ask(Method::PUT, "/users/grace@example.com", Some(&unbound)).await;
    assert_eq!((&grace["identity"], &grace["sessions"]), (&json!("none"), &json!([])));
    set_claims(with("sub", json!("2")), true);
    assert_eq!(sign_in(&server, unmodified).await.status(), StatusCode::SEE_OTHER);
    set_claims(verified_claims.clone(), true);
    assert_eq!(sign_in(&server, unmodified).await.status(), StatusCode::FORBIDDEN, "the previous identity");
    set_claims(with("sub", json!("2")), true);
    assert_eq!(provider.described.load(Ordering::SeqCst), 1, "the metadata of the provider is cached");
    let no_cookie = |url: &str, _: &str| (url.to_owned(), String::new());
    let other_state = |url: &str, cookie: &str| (url.replace("state=", "state=x"), cookie.to_owned());
    let other_verifier = |url: &str, cookie: &str| (url.to_owned(), cookie.replacen('.', ".x", 2));
    let no_code = |url: &str, cookie: &str| (url.replace("code=", "error="), cookie.to_owned());
    assert_eq!(sign_in(&server, no_cookie).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(sign_in(&server, other_state).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(sign_in(&server, no_code).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(sign_in(&server, other_verifier).await.status(), StatusCode::BAD_GATEWAY);

    let audit = server.get("/audit").await;
    let mut entries = audit["items"].as_array().expect("entries").iter();
    let refused = entries.find(|entry| entry["target"] == "unknown@example.com").expect("an entry");
    assert_eq!((&refused["actor"], &refused["outcome"]), (&json!("console"), &json!("invalid")));
    let mut statuses = Vec::new();
    for _ in 0..40 {
        let url = format!("{}/console/oidc/begin", server.url);
        statuses.push(server.client.get(url).send().await.expect("a response").status());
    }
    assert_eq!(statuses.last(), Some(&StatusCode::TOO_MANY_REQUESTS), "sign-ins per address are limited");
    let log = server.log.lock().expect("the log").clone();
    assert!(!log.contains("a secret of the client") && !log.contains("cdm_session_"), "{log}");
}

#[tokio::test]
async fn passwords_can_be_disabled_with_a_provider() {
    let (dir, provider) = (directory(), provider().await);
    let configuration = format!(
        "passwords = 'off'\n{QUICK}\n[oidc]\nissuer = '{}'\nclient_id = 'cdm'\npublic_url = 'https://cdm.example.com/'\n",
        provider.url
    );
    let server = Server::start_with(dir.path(), &configuration);
    let with = json!({"name": "ada", "role": "admin", "password": "correct horse battery"});
    let (status, refused) = server.ask(Method::POST, "/users", Some(&with)).await;
    assert_eq!(
        (status, &refused["errors"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("password"))
    );
    let without = json!({"name": "ada", "role": "admin"});
    assert_eq!(server.ask(Method::POST, "/users", Some(&without)).await.0, StatusCode::CREATED);
    let page = server.client.get(format!("{}/console/sign-in", server.url)).send().await.expect("a response");
    let page = page.text().await.expect("a page");
    assert!(page.contains("Sign in with your organization") && !page.contains("type=\"password\""), "{page}");
    let form = server.client.post(format!("{}/console/sign-in", server.url));
    let form = form.header("sec-fetch-site", "same-origin").body("name=ada&password=correct+horse+battery");
    let refused = form.send().await.expect("a response");
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(refused.text().await.expect("a page").contains("does not accept passwords"));
}

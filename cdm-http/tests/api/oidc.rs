//! An OpenID Connect provider with changing keys, with a clock that the test controls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use cdm_core::ports::Clock;
use cdm_core::wiring::OidcConfig;
use cdm_http::{App, HttpSettings};
use cdm_testkit::clock::SimClock;
use secrecy::SecretString;
use serde_json::json;

use crate::support::TestEnv;
use cdm_testkit::oidc_provider::{TokenClaims, provider};

/// Follows the redirects of a browser from the link on the sign-in page to the provider and back.
async fn sign_in(env: &TestEnv) -> StatusCode {
    let request = |path: &str, cookie: &str| {
        let request = Request::get(path).header("host", "127.0.0.1:8080").header("cookie", cookie);
        request.body(Body::empty()).expect("a request")
    };
    let begun = env.send(request("/console/oidc/begin", "")).await;
    let text = |name| begun.headers[name].to_str().expect("text").to_owned();
    let cookie = text(header::SET_COOKIE);
    // The client follows no redirects, because only browsers can resolve the public address.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let sent = client.get(text(header::LOCATION)).send().await.expect("a response");
    let callback = sent.headers()["location"].to_str().expect("text");
    let path = callback.strip_prefix("https://cdm.example.com").expect("the public address");
    env.send(request(path, cookie.split(';').next().expect("a cookie"))).await.status
}

#[tokio::test]
async fn replaced_keys_of_the_provider_are_fetched_again() {
    let provider = provider().await;
    let oidc = OidcConfig {
        issuer: provider.url.clone(),
        client_id: "cdm".to_owned(),
        client_secret: Some(SecretString::from("a secret of the client")),
        claim: "email".to_owned(),
        public_url: "https://cdm.example.com".to_owned(),
    };
    let mut env =
        TestEnv::with_stopped_clock(HttpSettings { oidc: Some(oidc), ..HttpSettings::default() }).await;
    let clock = SimClock::new();
    let app = App { clock: Arc::new(clock.clone()) as Arc<dyn Clock>, ..env.app.clone() };
    env.router = cdm_http::router(app);
    let made = env.ask("POST /users", Some(r#"{"name":"grace@example.com","role":"viewer"}"#)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let claims = json!({"email": "grace@example.com", "email_verified": true});
    *provider.next_token.lock().expect("free") = TokenClaims { claims, own_key: true };
    let described = || provider.described.load(Ordering::SeqCst);
    assert_eq!((sign_in(&env).await, described()), (StatusCode::SEE_OTHER, 1));

    provider.current.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(59));
    assert_eq!(
        (sign_in(&env).await, described()),
        (StatusCode::BAD_GATEWAY, 1),
        "fetched at most once a minute"
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!((sign_in(&env).await, described()), (StatusCode::SEE_OTHER, 2));
    clock.advance(Duration::from_mins(59));
    assert_eq!((sign_in(&env).await, described()), (StatusCode::SEE_OTHER, 2), "cached for an hour");
    clock.advance(Duration::from_mins(1));
    assert_eq!((sign_in(&env).await, described()), (StatusCode::SEE_OTHER, 3));
}

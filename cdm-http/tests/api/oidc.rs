//! A provider of OpenID Connect whose keys change, on a clock that the test moves.

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

use crate::provider::{Word, provider};
use crate::support::Bed;

/// What a browser goes through, from the link on the sign-in page to the provider and back.
async fn sign_in(bed: &Bed) -> StatusCode {
    let request = |path: &str, cookie: &str| {
        let request = Request::get(path).header("host", "127.0.0.1:8080").header("cookie", cookie);
        request.body(Body::empty()).expect("a request")
    };
    let begun = bed.send(request("/console/oidc/begin", "")).await;
    let text = |name| begun.headers[name].to_str().expect("text").to_owned();
    let cookie = text(header::SET_COOKIE);
    // The client follows no redirect, and the public address is one that only browsers know.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let sent = client.get(text(header::LOCATION)).send().await.expect("an answer");
    let back = sent.headers()["location"].to_str().expect("text");
    let path = back.strip_prefix("https://cdm.example.com").expect("the public address");
    bed.send(request(path, cookie.split(';').next().expect("a cookie"))).await.status
}

#[tokio::test]
async fn keys_that_the_provider_has_replaced_are_fetched_again() {
    let provider = provider().await;
    let oidc = OidcConfig {
        issuer: provider.url.clone(),
        client_id: "cdm".to_owned(),
        client_secret: Some(SecretString::from("a secret of the client")),
        claim: "email".to_owned(),
        public_url: "https://cdm.example.com".to_owned(),
    };
    let mut bed = Bed::still(HttpSettings { oidc: Some(oidc), ..HttpSettings::default() }).await;
    let clock = SimClock::new();
    let app = App { clock: Arc::new(clock.clone()) as Arc<dyn Clock>, ..bed.app.clone() };
    bed.router = cdm_http::router(app);
    let made = bed.ask("POST /users", Some(r#"{"name":"grace@example.com","role":"viewer"}"#)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let claims = json!({"email": "grace@example.com", "email_verified": true});
    *provider.word.lock().expect("free") = Word { claims, own_key: true };
    let described = || provider.described.load(Ordering::SeqCst);
    assert_eq!((sign_in(&bed).await, described()), (StatusCode::SEE_OTHER, 1));

    provider.current.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(59));
    assert_eq!(
        (sign_in(&bed).await, described()),
        (StatusCode::BAD_GATEWAY, 1),
        "asked once a minute at most"
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!((sign_in(&bed).await, described()), (StatusCode::SEE_OTHER, 2));
    clock.advance(Duration::from_mins(59));
    assert_eq!((sign_in(&bed).await, described()), (StatusCode::SEE_OTHER, 2), "known for an hour");
    clock.advance(Duration::from_mins(1));
    assert_eq!((sign_in(&bed).await, described()), (StatusCode::SEE_OTHER, 3));
}

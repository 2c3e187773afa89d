//! A provider of OpenID Connect on loopback, that signs what a test says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as ES256, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// What the provider is to say next.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) claims: Value,
    /// Whether it is signed with the key that the provider shows.
    pub(crate) own_key: bool,
}

pub(crate) struct Provider {
    pub(crate) url: String,
    keys: [EcdsaKeyPair; 2],
    /// Which of them it shows and signs with.
    pub(crate) current: AtomicUsize,
    pub(crate) word: Mutex<Word>,
    /// How often it was asked for its description.
    pub(crate) described: AtomicUsize,
    /// Nonce and challenge of each code that was given out and not taken yet.
    codes: Mutex<HashMap<String, (String, String)>>,
}

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ES256, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ES256, pkcs8.as_ref(), &random).expect("a key")
}

async fn describe(State(provider): State<Arc<Provider>>) -> Json<Value> {
    provider.described.fetch_add(1, Ordering::SeqCst);
    let url = &provider.url;
    Json(json!({
        "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/keys"), "response_types_supported": ["code"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

async fn keys(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let current = provider.current.load(Ordering::SeqCst);
    let point = provider.keys[current].public_key().as_ref();
    let part = |range: std::ops::Range<usize>| BASE64.encode(&point[range]);
    Json(
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": current.to_string(),
        "x": part(1..33), "y": part(33..65)}]}),
    )
}

type Fields = HashMap<String, String>;

async fn authorize(State(provider): State<Arc<Provider>>, Query(asked): Query<Fields>) -> Redirect {
    assert_eq!((asked["response_type"].as_str(), asked["code_challenge_method"].as_str()), ("code", "S256"));
    let mut codes = provider.codes.lock().expect("free");
    let code = format!("code-{}", codes.len());
    codes.insert(code.clone(), (asked["nonce"].clone(), asked["code_challenge"].clone()));
    Redirect::to(&format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]))
}

async fn token(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    Form(asked): Form<Fields>,
) -> Response {
    assert!(headers["authorization"].to_str().is_ok_and(|text| text.starts_with("Basic ")));
    let known = provider.codes.lock().expect("free").remove(&asked["code"]);
    let proof = ring::digest::digest(&ring::digest::SHA256, asked["code_verifier"].as_bytes());
    let Some((nonce, _)) = known.filter(|(_, challenge)| *challenge == BASE64.encode(proof)) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let word = provider.word.lock().expect("free").clone();
    let now = jiff::Timestamp::now().as_second();
    let mut claims =
        json!({"iss": provider.url, "aud": "cdm", "sub": "1", "iat": now, "exp": now + 60, "nonce": nonce});
    for (name, value) in word.claims.as_object().expect("claims") {
        claims[name] = value.clone();
    }
    let current = provider.current.load(Ordering::SeqCst);
    let signed = format!(
        "{}.{}",
        BASE64.encode(json!({"alg": "ES256", "kid": current.to_string()}).to_string()),
        BASE64.encode(claims.to_string())
    );
    let key = &provider.keys[if word.own_key { current } else { 1 - current }];
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
    let token = format!("{signed}.{}", BASE64.encode(signature));
    Json(json!({"access_token": "nothing", "token_type": "Bearer", "id_token": token})).into_response()
}

pub(crate) async fn provider() -> Arc<Provider> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let word = Mutex::new(Word { claims: json!({}), own_key: true });
    let provider = Arc::new(Provider {
        url,
        keys: [key(), key()],
        current: AtomicUsize::new(0),
        word,
        described: AtomicUsize::new(0),
        codes: Mutex::default(),
    });
    let routes = Router::new()
        .route("/.well-known/openid-configuration", get(describe))
        .route("/keys", get(keys))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .with_state(Arc::clone(&provider));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    provider
}

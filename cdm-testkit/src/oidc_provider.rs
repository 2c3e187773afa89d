//! An OpenID Connect provider on loopback, which signs the claims that a test specifies.

use std::collections::HashMap;
use std::fmt;
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

/// The claims of the next token.
#[derive(Clone, Debug)]
pub struct TokenClaims {
    /// The claims that replace or extend those of every token.
    pub claims: Value,
    /// Whether the token is signed with the key that the provider publishes.
    pub own_key: bool,
}

/// A provider for tests, which listens at `url` while it runs.
pub struct Provider {
    /// The address of the provider, which is its issuer.
    pub url: String,
    keys: [EcdsaKeyPair; 2],
    /// The index of the published key, which signs.
    pub current: AtomicUsize,
    /// The claims of the next token.
    pub next_token: Mutex<TokenClaims>,
    /// How often the discovery document was requested.
    pub described: AtomicUsize,
    /// Nonce and challenge of each issued and unused code.
    codes: Mutex<HashMap<String, (String, String)>>,
}

impl fmt::Debug for Provider {
    /// Omits the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("url", &self.url).finish_non_exhaustive()
    }
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

async fn authorize(State(provider): State<Arc<Provider>>, Query(query): Query<Fields>) -> Redirect {
    assert_eq!((query["response_type"].as_str(), query["code_challenge_method"].as_str()), ("code", "S256"));
    let mut codes = provider.codes.lock().expect("free");
    let code = format!("code-{}", codes.len());
    codes.insert(code.clone(), (query["nonce"].clone(), query["code_challenge"].clone()));
    Redirect::to(&format!("{}?code={code}&state={}", query["redirect_uri"], query["state"]))
}

async fn token(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    Form(query): Form<Fields>,
) -> Response {
    assert!(headers["authorization"].to_str().is_ok_and(|text| text.starts_with("Basic ")));
    let known = provider.codes.lock().expect("free").remove(&query["code"]);
    let proof = ring::digest::digest(&ring::digest::SHA256, query["code_verifier"].as_bytes());
    let Some((nonce, _)) = known.filter(|(_, challenge)| *challenge == BASE64.encode(proof)) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let next_token = provider.next_token.lock().expect("free").clone();
    let now = jiff::Timestamp::now().as_second();
    let mut claims =
        json!({"iss": provider.url, "aud": "cdm", "sub": "1", "iat": now, "exp": now + 60, "nonce": nonce});
    for (name, value) in next_token.claims.as_object().expect("claims") {
        claims[name] = value.clone();
    }
    let current = provider.current.load(Ordering::SeqCst);
    let signed = format!(
        "{}.{}",
        BASE64.encode(json!({"alg": "ES256", "kid": current.to_string()}).to_string()),
        BASE64.encode(claims.to_string())
    );
    let key = &provider.keys[if next_token.own_key { current } else { 1 - current }];
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
    let token = format!("{signed}.{}", BASE64.encode(signature));
    Json(json!({"access_token": "nothing", "token_type": "Bearer", "id_token": token})).into_response()
}

/// Starts a provider, which ends with the runtime of the test.
pub async fn provider() -> Arc<Provider> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let next_token = Mutex::new(TokenClaims { claims: json!({}), own_key: true });
    let provider = Arc::new(Provider {
        url,
        keys: [key(), key()],
        current: AtomicUsize::new(0),
        next_token,
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

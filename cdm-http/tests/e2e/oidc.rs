//! Signing in by a provider of OpenID Connect: a provider of our own on loopback, that signs what a test says.

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
use reqwest::Method;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as ES256, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::server::{QUICK, Server, directory};

/// What the provider is to say next.
#[derive(Clone, Debug)]
struct Word {
    claims: Value,
    /// Whether it is signed with the key that the provider shows.
    own_key: bool,
}

struct Provider {
    url: String,
    keys: [EcdsaKeyPair; 2],
    word: Mutex<Word>,
    /// How often it was asked for its description.
    described: AtomicUsize,
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
    let point = provider.keys[0].public_key().as_ref();
    let part = |range: std::ops::Range<usize>| BASE64.encode(&point[range]);
    Json(json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k",
        "x": part(1..33), "y": part(33..65)}]}))
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
    let signed = format!(
        "{}.{}",
        BASE64.encode(json!({"alg": "ES256", "kid": "k"}).to_string()),
        BASE64.encode(claims.to_string())
    );
    let key = &provider.keys[usize::from(!word.own_key)];
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
    let token = format!("{signed}.{}", BASE64.encode(signature));
    Json(json!({"access_token": "nothing", "token_type": "Bearer", "id_token": token})).into_response()
}

async fn provider() -> Arc<Provider> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let word = Mutex::new(Word { claims: json!({}), own_key: true });
    let provider = Arc::new(Provider {
        url,
        keys: [key(), key()],
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

/// What a browser goes through: where it ends, and with which cookie.
async fn sign_in(server: &Server, spoil: impl Fn(&str, &str) -> (String, String)) -> reqwest::Response {
    let ask = async |url: &str, cookie: &str| {
        server.client.get(url).header(COOKIE, cookie).send().await.expect("an answer")
    };
    let to = |answer: &reqwest::Response| answer.headers()[LOCATION].to_str().expect("text").to_owned();
    let begun = ask(&format!("{}/console/oidc/begin?next=%2Fconsole%2Fsites", server.url), "").await;
    let cookie = begun.headers()[SET_COOKIE].to_str().expect("text").to_owned();
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    assert!(cookie.starts_with("cdm-oidc="), "{cookie}");
    let back = to(&ask(&to(&begun), "").await);
    // The public address is one that only browsers know.
    let (_, path) = back.split_once("/console/").expect("the callback");
    let (url, cookie) = spoil(&format!("{}/console/{path}", server.url), &cookie);
    ask(&url, &cookie).await
}

fn as_it_is(url: &str, cookie: &str) -> (String, String) {
    (url.to_owned(), cookie.to_owned())
}

#[tokio::test]
async fn a_provider_vouches_for_a_name_and_for_nothing_else() {
    let (dir, provider) = (directory(), provider().await);
    let secret = dir.path().join("client-secret");
    std::fs::write(&secret, "a secret of the client").expect("a file");
    let configuration = format!(
        "{QUICK}\n[oidc]\nissuer = '{}'\nclient_id = 'cdm'\nclient_secret_file = '{}'\npublic_url = 'https://cdm.example.com/'\n",
        provider.url,
        secret.display()
    );
    let server = Server::start_with(dir.path(), &configuration);
    let says = |claims: Value, own_key: bool| *provider.word.lock().expect("free") = Word { claims, own_key };
    let page = server.client.get(format!("{}/console/sign-in", server.url)).send().await.expect("an answer");
    assert!(page.text().await.expect("a page").contains("Sign in with your organisation"));
    let grace = json!({"name": "grace@example.com", "role": "operator"});
    assert_eq!(server.ask(Method::POST, "/users", Some(&grace)).await.0, StatusCode::CREATED);
    let vouched = json!({"email": "Grace@example.com", "email_verified": true});

    says(vouched.clone(), true);
    let answer = sign_in(&server, as_it_is).await;
    assert_eq!(
        (answer.status(), answer.headers()[LOCATION].to_str().ok()),
        (StatusCode::SEE_OTHER, Some("/console/sites"))
    );
    let cookies: Vec<&str> =
        answer.headers().get_all(SET_COOKIE).iter().filter_map(|one| one.to_str().ok()).collect();
    let session = cookies.iter().find(|one| one.starts_with("cdm=cdm_session_")).expect("a session");
    assert!(
        cookies.iter().any(|one| one.starts_with("cdm-oidc=;") && one.contains("Max-Age=0")),
        "{cookies:?}"
    );
    let page =
        server.client.get(format!("{}/console/account", server.url)).header(COOKIE, *session).send().await;
    assert!(page.expect("an answer").text().await.expect("a page").contains("grace@example.com"));

    // What the provider does not vouch for, or does not sign for us, for now and for this browser.
    let with = |name: &str, value: Value| {
        let mut claims = vouched.clone();
        claims["sub"] = json!("2");
        claims[name] = value;
        claims
    };
    for (claims, own_key, code) in [
        (with("email_verified", json!(false)), true, "oidc_refused"),
        (with("email", json!("nobody@example.com")), true, "oidc_refused"),
        (with("email", json!("<script>@example.com")), true, "oidc_refused"),
        (with("sub", json!("2")), true, "oidc_refused"),
        (with("aud", json!("another")), true, "oidc_failed"),
        (with("iss", json!("https://evil.example")), true, "oidc_failed"),
        (with("exp", json!(1)), true, "oidc_failed"),
        (with("nonce", json!("of another")), true, "oidc_failed"),
        (vouched.clone(), false, "oidc_failed"),
    ] {
        says(claims.clone(), own_key);
        let answer = sign_in(&server, as_it_is).await;
        let expected = if code == "oidc_refused" { StatusCode::FORBIDDEN } else { StatusCode::BAD_GATEWAY };
        assert_eq!((answer.status(), answer.headers().get(SET_COOKIE)), (expected, None), "{claims}");
    }
    // Her account is hers, whatever it is called; another one is hers only once an administrator has unbound the first.
    says(json!({"email": "grace.hopper@example.com", "email_verified": true}), true);
    assert_eq!(sign_in(&server, as_it_is).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(server.get("/users").await["items"][0]["identity"], "bound");
    let unbound = json!({"identity": "none"});
    let (_, grace) = server.ask(Method::PUT, "/users/grace@example.com", Some(&unbound)).await;
    assert_eq!((&grace["identity"], &grace["sessions"]), (&json!("none"), &json!([])));
    says(with("sub", json!("2")), true);
    assert_eq!(sign_in(&server, as_it_is).await.status(), StatusCode::SEE_OTHER);
    says(vouched.clone(), true);
    assert_eq!(sign_in(&server, as_it_is).await.status(), StatusCode::FORBIDDEN, "the former account");
    says(with("sub", json!("2")), true);
    assert_eq!(provider.described.load(Ordering::SeqCst), 1, "what it says of itself is kept");
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
    let refused = entries.find(|entry| entry["target"] == "nobody@example.com").expect("an entry");
    assert_eq!((&refused["actor"], &refused["outcome"]), (&json!("console"), &json!("invalid")));
    let mut begun = Vec::new();
    for _ in 0..40 {
        let url = format!("{}/console/oidc/begin", server.url);
        begun.push(server.client.get(url).send().await.expect("an answer").status());
    }
    assert_eq!(begun.last(), Some(&StatusCode::TOO_MANY_REQUESTS), "an address begins so often");
    let log = server.log.lock().expect("the log").clone();
    assert!(!log.contains("a secret of the client") && !log.contains("cdm_session_"), "{log}");
}

#[tokio::test]
async fn passwords_can_be_switched_off_beside_a_provider() {
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
    let page = server.client.get(format!("{}/console/sign-in", server.url)).send().await.expect("an answer");
    let page = page.text().await.expect("a page");
    assert!(page.contains("Sign in with your organisation") && !page.contains("type=\"password\""), "{page}");
    let form = server.client.post(format!("{}/console/sign-in", server.url));
    let form = form.header("sec-fetch-site", "same-origin").body("name=ada&password=correct+horse+battery");
    let refused = form.send().await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(refused.text().await.expect("a page").contains("switched off"));
}

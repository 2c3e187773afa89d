//! The scene with people and programs: users with passwords, second factors and sessions, tokens, webhooks, freezes,
//! idempotency records, and audit entries of requests that were accepted and refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use cdm_core::domain::{Role, TokenHash, UserName};
use cdm_core::engine::WebhookDispatcher;
use cdm_core::manager::{self, Proven, SignIn};
use cdm_core::ports::DeliveryError;
use cdm_testkit::fakes::{FakeWebhookSender, ReceiverBehavior};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use super::make::{deploy, digest, live};
use super::stage::{Answer, Stage};

const PASSWORD: &str = "lantern-orbit-quilt";
/// Requests with an idempotency key.
pub(crate) const KEYED: [(&str, &str); 4] = [
    ("key-provision", "POST /sites/keyed/provision"),
    ("key-freeze", "POST /freezes"),
    ("key-webhook", "POST /webhooks"),
    ("key-mark", "POST /services/history/DIGEST"),
];
const RECEIVERS: [&str; 3] =
    ["https://active.example/hook", "https://failing.example/hook", "https://gone.example/hook"];

/// The body of a request with an idempotency key.
pub(crate) fn keyed(key: &str) -> (String, Option<Value>) {
    let line =
        KEYED.iter().find(|(known, _)| *known == key).expect("a key").1.replace("DIGEST", &digest('a'));
    let body = match key {
        "key-freeze" => Some(json!({"reason": "an audit", "sites": ["keyed"]})),
        "key-webhook" => Some(json!({"url": "https://keyed.example/hook", "events": ["rollout.halted"]})),
        "key-mark" => Some(json!({"verdict": "bad", "reason": "the checkout page is blank"})),
        _ => None,
    };
    (line, body)
}

/// Brings the platform there, and returns the secrets that were made.
pub(crate) async fn all(stage: &Stage) -> BTreeMap<String, String> {
    let mut secrets = BTreeMap::new();
    users(stage, &mut secrets).await;
    tokens(stage, &mut secrets).await;
    for url in &RECEIVERS[..] {
        stage.done("POST /webhooks", Some(json!({"url": url, "events": ["operation.succeeded"]}))).await;
    }
    deploy(stage, "green", 'a').await;
    live(stage, &["s1"], "blue").await;
    super::make::create(stage, "keyed", "blue").await;
    stage.run().await;
    deliver(stage).await;
    for (key, _) in KEYED {
        let (line, body) = keyed(key);
        let (status, answer) = stage.ask_with(&line, body, Some(key)).await;
        assert!(status.is_success(), "{key}: {status} {answer}");
    }
    stage.run().await;
    for freeze in [
        json!({"reason": "an audit", "sites": ["s1"], "expiresAt": "2099-12-31T00:00:00Z"}),
        json!({"reason": "a busy week"}),
    ] {
        stage.done("POST /freezes", Some(freeze)).await;
    }
    refused(stage).await;
    secrets
}

/// A request with a session of the console.
async fn sign_in(stage: &Stage, name: &str) -> Answer {
    stage.page("/console/sign-in", "", &[("name", name), ("password", PASSWORD)]).await
}

/// Users: an administrator with a session, one with a second factor, one of a provider of OpenID Connect, one whose
/// password was changed, and one who was removed.
async fn users(stage: &Stage, secrets: &mut BTreeMap<String, String>) {
    for (name, role) in [("ada", "admin"), ("bob", "operator"), ("vic", "viewer"), ("rem", "viewer")] {
        stage.done("POST /users", Some(json!({"name": name, "role": role, "password": PASSWORD}))).await;
    }
    stage.done("POST /users", Some(json!({"name": "grace@example.com", "role": "viewer"}))).await;
    assert_eq!(sign_in(stage, "ada").await.status, StatusCode::SEE_OTHER);
    stage.done("PUT /users/vic", Some(json!({"role": "operator", "password": "harbor-velvet-onyx"}))).await;
    stage.done("DELETE /users/rem", None).await;
    // Grace's identity is bound at the first sign-in.
    let name = UserName::parse("grace@example.com").expect("a user name");
    let request = manager::Request::by(name.actor(), Role::Viewer);
    let sign = SignIn { name, proven: Proven::Identity(TokenHash([7; 32])), from: None, former: None };
    stage.process.manager().open_session(&request, &sign).await.expect("a session");
    // Bob sets a second factor up.
    let session = sign_in(stage, "bob").await.cookies();
    let page = stage.page("/console/account/second-factor", &session, &[]).await;
    let key = page.after("<code id=\"secret\">");
    let (csrf, sealed) = (page.after("name=\"csrf\" value=\""), page.after("name=\"sealed\" value=\""));
    let code = code(&key);
    let fields = [("csrf", csrf.as_str()), ("sealed", &sealed), ("code", &code), ("old", PASSWORD)];
    let done = stage.page("/console/account/second-factor", &session, &fields).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    for (number, code) in done.text.split("<li><code>").skip(1).enumerate() {
        let code = code.split('<').next().unwrap_or_default().to_owned();
        secrets.insert(format!("recovery code {number}"), code);
    }
    secrets.insert("one-time key".to_owned(), key);
    secrets.insert("password".to_owned(), PASSWORD.to_owned());
    // One recovery code is used up.
    let signed = second(stage, &secrets["recovery code 0"]).await;
    assert_eq!(signed.status, StatusCode::SEE_OTHER, "{}", signed.text);
}

/// The code of a key as an authenticator app shows it now.
fn code(key: &str) -> String {
    let secret = Secret::try_from_base32(key.replace(' ', "")).expect("a key");
    let now = u64::try_from(jiff::Timestamp::now().as_second()).expect("a time after 1970");
    Builder::new().with_secret(secret).build().expect("a key").generate(now).to_string()
}

/// Bob signs in with a password and a code.
async fn second(stage: &Stage, code: &str) -> Answer {
    let page = sign_in(stage, "bob").await;
    assert_eq!((page.status, page.cookies().as_str()), (StatusCode::OK, ""), "{}", page.text);
    let ticket = page.after("name=\"ticket\" value=\"");
    let fields = [("name", "bob"), ("ticket", &ticket), ("code", code), ("next", "/console/sites")];
    stage.page("/console/sign-in/code", "", &fields).await
}

async fn tokens(stage: &Stage, secrets: &mut BTreeMap<String, String>) {
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    for (name, role, expires) in [
        ("plain", "admin", "never".to_owned()),
        ("revoked", "operator", "2099-12-31T00:00:00Z".to_owned()),
        ("expired", "viewer", soon.to_string()),
    ] {
        let token = json!({"name": name, "role": role, "expiresAt": expires});
        let made = stage.done("POST /tokens", Some(token)).await;
        let text = made["token"].as_str().expect("a token");
        secrets.insert(format!("token {name}"), text.to_owned());
        if name == "revoked" {
            stage.done(&format!("DELETE /tokens/{}", made["id"].as_str().expect("an id")), None).await;
        }
    }
}

/// Delivers events: one receiver takes them, one answers 500, and one answers 410, which stops its webhook.
async fn deliver(stage: &Stage) {
    let receivers = FakeWebhookSender::default();
    for (url, status) in [(RECEIVERS[1], 500), (RECEIVERS[2], 410)] {
        let answered = DeliveryError::Rejected { status, retry_after: None };
        receivers.set_receiver(url, Some(ReceiverBehavior::Rejects(answered)));
    }
    let worker = Arc::new(stage.healthy_worker());
    WebhookDispatcher::new(worker, Arc::new(receivers.clone())).run_once().await;
    assert!(receivers.sent(RECEIVERS[0]).len() > 1, "messages");
    let webhooks = stage.get("/webhooks").await;
    let states: Vec<&Value> =
        webhooks["items"].as_array().expect("a list").iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["active", "failing", "stopped"], "{webhooks}");
}

/// Requests that are refused, and leave audit entries.
async fn refused(stage: &Stage) {
    for (line, body, code) in [
        ("POST /sites/none/provision", None, "not_found"),
        ("PUT /services", Some(json!({"promote": true, "scope": "inactive"})), "frozen"),
        ("POST /users", Some(json!({"name": "ada", "role": "viewer"})), "user_exists"),
        ("PUT /sites/s1/promote", None, "frozen"),
    ] {
        let (status, answer) = stage.ask(line, body).await;
        assert_eq!((answer["code"].as_str(), status.is_success()), (Some(code), false), "{line}: {answer}");
    }
    let wrong =
        stage.page("/console/sign-in", "", &[("name", "ada"), ("password", "a guess at random")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
}

/// Demands that the secrets of a scene serve as they did.
pub(crate) async fn check(stage: &Stage, stored: &Path) {
    let Ok(text) = std::fs::read_to_string(stored.join("secrets.json")) else {
        return assert!(!stored.ends_with("people"), "{} has no secrets", stored.display());
    };
    let secrets: BTreeMap<String, String> = serde_json::from_str(&text).expect("secrets");
    for (name, wanted) in [
        ("plain", StatusCode::OK),
        ("revoked", StatusCode::UNAUTHORIZED),
        ("expired", StatusCode::UNAUTHORIZED),
    ] {
        let status = stage.status_with_token("/sites", &secrets[&format!("token {name}")]).await;
        assert_eq!(status, wanted, "{name}");
    }
    let users = stage.process.ports().store.users().await.expect("users");
    let sessions: Vec<&str> = users.sessions.iter().map(|session| session.user.as_str()).collect();
    assert_eq!(sessions, ["ada", "grace@example.com", "bob", "bob"], "sessions");
    assert_eq!(sign_in(stage, "ada").await.status, StatusCode::SEE_OTHER, "a password");
    let used = second(stage, &secrets["recovery code 0"]).await;
    assert_eq!(used.status, StatusCode::UNPROCESSABLE_ENTITY, "a used recovery code");
    let fresh = second(stage, &secrets["recovery code 1"]).await;
    assert_eq!(fresh.status, StatusCode::SEE_OTHER, "a recovery code");
    let code = code(&secrets["one-time key"]);
    assert_eq!(second(stage, &code).await.status, StatusCode::SEE_OTHER, "a one-time code");
}

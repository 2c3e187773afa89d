//! Tokens: their expiry, their names, and which token of the configuration is valid.

use axum::body::Body;
use axum::http::Request;
use cdm_core::domain::{Actor, Role};
use cdm_core::manager::{self, Admitted};
use secrecy::SecretString;

use crate::support::TestEnv;

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

async fn is_valid(env: &TestEnv, text: &str) -> bool {
    let request = Request::get("/sites").header("authorization", format!("Bearer {text}"));
    env.send(request.body(Body::empty()).expect("a request")).await.status == 200
}

#[tokio::test]
async fn a_token_is_valid_for_90_days_by_default() {
    let env = TestEnv::new().await;
    let made = async |body: &str| {
        let response = env.ask("POST /tokens", Some(body)).await;
        assert_eq!(response.status, 201, "{}", response.text);
        let moment = |name: &str| response.json()[name].as_str().map(str::to_owned);
        (moment("createdAt").expect("a moment"), moment("expiresAt"))
    };
    let (at, usual) = made(r#"{"name":"usual","role":"viewer"}"#).await;
    let days = |text: &str| {
        let date = text.split('T').next().expect("a date").to_owned();
        let parts: Vec<i64> = date.split('-').map(|part| part.parse().expect("a number")).collect();
        // Days since the epoch: https://howardhinnant.github.io/date_algorithms.html#days_from_civil
        let (year, month, day) = (parts[0] - i64::from(parts[1] <= 2), parts[1], parts[2]);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        year * 365 + year / 4 - year / 100 + year / 400 + of_year
    };
    assert_eq!(days(&usual.expect("an end")) - days(&at), 90);
    assert_eq!(made(r#"{"name":"never","role":"viewer","expiresAt":"never"}"#).await.1, None);
    let (_, until) = made(r#"{"name":"until","role":"viewer","expiresAt":"2099-12-31T00:00:00Z"}"#).await;
    assert!(until.expect("an end").starts_with("2099-12-31T00:00:00"));
    for end in ["\"2001-01-01T00:00:00Z\"", "\"always\"", "\"\""] {
        let body = format!(r#"{{"name":"wrong","role":"viewer","expiresAt":{end}}}"#);
        let refused = env.ask("POST /tokens", Some(&body)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, "invalid"), "{end}");
    }
}

#[tokio::test]
async fn reserved_actor_names_are_rejected() {
    let env = TestEnv::new().await;
    for name in ["console", "Local", "BOOTSTRAP", "bootstrap-6ad44831", "User:ada", "anonymous"] {
        let body = serde_json::json!({"name": name, "role": "viewer"}).to_string();
        let refused = env.ask("POST /tokens", Some(&body)).await;
        assert_eq!(refused.status, 422, "{name}");
        assert_eq!(refused.json()["errors"][0]["field"], "name", "{name}");
        let new = manager::NewToken {
            name: Actor::parse(name).expect("an actor"),
            role: Role::Viewer,
            expiry: manager::Expiry::Usual,
        };
        let request = manager::Request::by(Actor::parse("library").expect("an actor"), Role::Admin);
        let refused = env.app.access.create(&request, &new).await.map(drop);
        assert_eq!(refused.map_err(|error| error.code()), Err("invalid"), "{name} through the library");
    }
}

const FIRST: &str = "the first administrator's token, 0123456789";
const SECOND: &str = "the second administrator's token, 9876543210";

#[tokio::test]
async fn a_new_token_of_the_configuration_replaces_only_the_previous_one() {
    let env = TestEnv::new().await;
    let access = &env.app.access;
    let made = env.ask("POST /tokens", Some(r#"{"name":"persons","role":"admin"}"#)).await;
    let user_token = made.json()["token"].as_str().expect("a token").to_owned();
    assert!(matches!(access.admit_admin(&secret(FIRST)).await, Ok(Admitted::Serves(_))));
    assert!(matches!(access.admit_admin(&secret(FIRST)).await, Ok(Admitted::Serves(_))), "idempotent");
    assert!(is_valid(&env, FIRST).await);

    assert!(matches!(access.admit_admin(&secret(SECOND)).await, Ok(Admitted::Serves(_))));
    assert!(is_valid(&env, SECOND).await && !is_valid(&env, FIRST).await);
    assert!(is_valid(&env, &user_token).await, "a user's token is not affected by the configuration");

    // A replica with the previous text starts once more, and changes nothing.
    assert_eq!(access.admit_admin(&secret(FIRST)).await, Ok(Admitted::Replaced));
    assert!(is_valid(&env, SECOND).await && !is_valid(&env, FIRST).await);

    let audit = env.ask("GET /audit?actor=bootstrap", None).await.json();
    let did: Vec<_> = audit["items"].as_array().expect("entries").iter().collect();
    let actions: Vec<_> = did.iter().map(|entry| entry["action"].as_str().expect("an action")).collect();
    assert_eq!(actions, ["token.revoke", "token.create", "token.create"], "newest first");

    // A token that a user has revoked is not restored by a start.
    let tokens = env.ask("GET /tokens", None).await.json();
    let second =
        tokens["items"].as_array().expect("tokens").iter().rfind(|token| token["revokedAt"].is_null());
    let id = second.expect("the second").get("id").and_then(|id| id.as_str()).expect("an id").to_owned();
    assert_eq!(env.ask(&format!("DELETE /tokens/{id}"), None).await.status, 200);
    let refused = access.admit_admin(&secret(SECOND)).await.map(drop);
    assert_eq!(refused.map_err(|error| error.code()), Err("invalid"));
}

/// A rolling update: the replicas start in any order, with either text, repeatedly. The text that appeared last for
/// the first time is valid, independent of the order.
#[tokio::test]
async fn the_newer_of_two_configured_tokens_wins() {
    for order in
        [[FIRST, SECOND, FIRST, SECOND], [FIRST, SECOND, SECOND, FIRST], [FIRST, FIRST, SECOND, FIRST]]
    {
        let env = TestEnv::new().await;
        for text in order {
            env.app.access.admit_admin(&secret(text)).await.expect("a start");
        }
        assert!(is_valid(&env, SECOND).await && !is_valid(&env, FIRST).await, "{order:?}");
    }
}

#[tokio::test]
async fn a_configured_token_does_not_revoke_the_first_token() {
    let env = TestEnv::new().await;
    let stays = env.app.access.first_admin().await.expect("a response of the store");
    assert!(stays.is_none(), "tokens exist already");
    for weak in ["short", &"a".repeat(32), &"abcd1234".repeat(5)] {
        let refused = env.app.access.admit_admin(&secret(weak)).await.map(drop);
        assert_eq!(refused.map_err(|error| error.code()), Err("invalid"), "{weak}");
    }
}

/// The same key with another password is another request, and is rejected; with the same password, the first response
/// is returned.
#[tokio::test]
async fn a_key_does_not_replay_a_request_with_another_password() {
    let env = TestEnv::with_stopped_clock(cdm_http::HttpSettings::default()).await;
    let keyed = async |line: &str, key: &str, body: serde_json::Value| {
        let mut request = env.request(Role::Admin, line, Some(&body.to_string()));
        request.headers_mut().insert("idempotency-key", key.parse().expect("a value"));
        let response = env.send(request).await;
        (response.status.as_u16(), response.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    let vic = |password: &str| serde_json::json!({"name": "vic", "role": "viewer", "password": password});
    let reused = (422, "idempotency_key_reused".to_owned());
    assert_eq!(keyed("POST /users", "one", vic("quiet rivers run deep")).await.0, 201);
    assert_eq!(keyed("POST /users", "one", vic("quiet rivers run deep")).await.0, 201, "a repetition");
    assert_eq!(keyed("POST /users", "one", vic("loud rivers run shallow")).await, reused);
    let change = |password: &str| serde_json::json!({"password": password});
    assert_eq!(keyed("PUT /users/vic", "two", change("a second quiet sentence")).await.0, 200);
    assert_eq!(
        keyed("PUT /users/vic", "two", change("a second quiet sentence")).await.0,
        200,
        "a repetition"
    );
    assert_eq!(keyed("PUT /users/vic", "two", change("a third quiet sentence")).await, reused);
    let role = serde_json::json!({"role": "operator"});
    assert_eq!(
        keyed("PUT /users/vic", "two", role).await,
        reused,
        "a request without a password differs as well"
    );
}

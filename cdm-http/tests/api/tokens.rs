//! Tokens: until when they serve, what they are called, and which one of the configuration serves.

use axum::body::Body;
use axum::http::Request;
use cdm_core::domain::{Actor, Role};
use cdm_core::manager::{self, Admitted};
use secrecy::SecretString;

use crate::support::Bed;

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

async fn serves(bed: &Bed, text: &str) -> bool {
    let request = Request::get("/sites").header("authorization", format!("Bearer {text}"));
    bed.send(request.body(Body::empty()).expect("a request")).await.status == 200
}

#[tokio::test]
async fn a_token_serves_for_90_days_unless_its_maker_says_otherwise() {
    let bed = Bed::new().await;
    let made = async |body: &str| {
        let answer = bed.ask("POST /tokens", Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let moment = |name: &str| answer.json()[name].as_str().map(str::to_owned);
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
        let refused = bed.ask("POST /tokens", Some(&body)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, "invalid"), "{end}");
    }
}

#[tokio::test]
async fn the_names_of_the_audits_own_actors_are_refused() {
    let bed = Bed::new().await;
    for name in ["console", "Local", "BOOTSTRAP", "bootstrap-6ad44831", "User:ada", "anonymous"] {
        let body = serde_json::json!({"name": name, "role": "viewer"}).to_string();
        let refused = bed.ask("POST /tokens", Some(&body)).await;
        assert_eq!(refused.status, 422, "{name}");
        assert_eq!(refused.json()["errors"][0]["field"], "name", "{name}");
        let new = manager::NewToken {
            name: Actor::parse(name).expect("an actor"),
            role: Role::Viewer,
            expiry: manager::Expiry::Usual,
        };
        let request = manager::Request::by(Actor::parse("library").expect("an actor"), Role::Admin);
        let refused = bed.app.access.create(&request, &new).await.map(drop);
        assert_eq!(refused.map_err(|error| error.code()), Err("invalid"), "{name} through the library");
    }
}

const FIRST: &str = "the first administrator's token, 0123456789";
const SECOND: &str = "the second administrator's token, 9876543210";

#[tokio::test]
async fn a_new_token_of_the_configuration_ends_the_one_before_and_no_other() {
    let bed = Bed::new().await;
    let access = &bed.app.access;
    let made = bed.ask("POST /tokens", Some(r#"{"name":"persons","role":"admin"}"#)).await;
    let persons = made.json()["token"].as_str().expect("a token").to_owned();
    assert!(matches!(access.admit_admin(&secret(FIRST)).await, Ok(Admitted::Serves(_))));
    assert!(matches!(access.admit_admin(&secret(FIRST)).await, Ok(Admitted::Serves(_))), "idempotent");
    assert!(serves(&bed, FIRST).await);

    assert!(matches!(access.admit_admin(&secret(SECOND)).await, Ok(Admitted::Serves(_))));
    assert!(serves(&bed, SECOND).await && !serves(&bed, FIRST).await);
    assert!(serves(&bed, &persons).await, "a person's token is none of the configuration's");

    // A replica that still has the text of before starts once more: it changes nothing.
    assert_eq!(access.admit_admin(&secret(FIRST)).await, Ok(Admitted::Replaced));
    assert!(serves(&bed, SECOND).await && !serves(&bed, FIRST).await);

    let audit = bed.ask("GET /audit?actor=bootstrap", None).await.json();
    let did: Vec<_> = audit["items"].as_array().expect("entries").iter().collect();
    let actions: Vec<_> = did.iter().map(|entry| entry["action"].as_str().expect("an action")).collect();
    assert_eq!(actions, ["token.revoke", "token.create", "token.create"], "newest first");

    // One that a person has revoked is not brought back by a start.
    let tokens = bed.ask("GET /tokens", None).await.json();
    let second =
        tokens["items"].as_array().expect("tokens").iter().rfind(|token| token["revokedAt"].is_null());
    let id = second.expect("the second").get("id").and_then(|id| id.as_str()).expect("an id").to_owned();
    assert_eq!(bed.ask(&format!("DELETE /tokens/{id}"), None).await.status, 200);
    let refused = access.admit_admin(&secret(SECOND)).await.map(drop);
    assert_eq!(refused.map_err(|error| error.code()), Err("invalid"));
}

/// A rolling change: the replicas start in any order, with either text, again and again. The text that was seen last
/// for the first time serves, whatever the order.
#[tokio::test]
async fn of_two_replicas_with_different_tokens_the_newer_configuration_wins() {
    for order in
        [[FIRST, SECOND, FIRST, SECOND], [FIRST, SECOND, SECOND, FIRST], [FIRST, FIRST, SECOND, FIRST]]
    {
        let bed = Bed::new().await;
        for text in order {
            bed.app.access.admit_admin(&secret(text)).await.expect("a start");
        }
        assert!(serves(&bed, SECOND).await && !serves(&bed, FIRST).await, "{order:?}");
    }
}

#[tokio::test]
async fn the_first_starts_token_outlives_one_of_the_configuration() {
    let bed = Bed::new().await;
    let stays = bed.app.access.first_admin().await.expect("the store answers");
    assert!(stays.is_none(), "there are tokens already");
    for weak in ["short", &"a".repeat(32), &"abcd1234".repeat(5)] {
        let refused = bed.app.access.admit_admin(&secret(weak)).await.map(drop);
        assert_eq!(refused.map_err(|error| error.code()), Err("invalid"), "{weak}");
    }
}

/// The same key with another password is another request, and is refused; with the same password it repeats the first.
#[tokio::test]
async fn a_key_does_not_replay_over_another_password() {
    let bed = Bed::still(cdm_http::HttpSettings::default()).await;
    let keyed = async |line: &str, key: &str, body: serde_json::Value| {
        let mut request = bed.request(Role::Admin, line, Some(&body.to_string()));
        request.headers_mut().insert("idempotency-key", key.parse().expect("a value"));
        let answer = bed.send(request).await;
        (answer.status.as_u16(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
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
    assert_eq!(keyed("PUT /users/vic", "two", role).await, reused, "without a password it is another, too");
}

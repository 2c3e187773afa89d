//! The record of the users and their sessions.

use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::mirror;
use super::text::{Millis, Text};
use crate::domain::user::{PasswordHash, RecoveryHash, SecondFactor, Session, User, Users};
use crate::domain::{Actor, Role, Timestamp, TokenHash, Uid, UserName};

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Users", rename_all = "camelCase")]
pub(crate) struct UsersDef {
    #[serde_as(as = "Vec<UserDef>")]
    list: Vec<User>,
    #[serde_as(as = "Vec<SessionDef>")]
    sessions: Vec<Session>,
    version: u64,
}
mirror!(UsersDef, Users);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "User", rename_all = "camelCase")]
struct UserDef {
    #[serde_as(as = "DisplayFromStr")]
    name: UserName,
    #[serde_as(as = "Text")]
    role: Role,
    #[serde_as(as = "Text")]
    password: PasswordHash,
    #[serde_as(as = "Option<SecondFactorDef>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<SecondFactor>,
    #[serde_as(as = "Option<Text>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<TokenHash>,
    #[serde_as(as = "DisplayFromStr")]
    by: Actor,
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde_as(as = "Option<Millis>")]
    removed: Option<Timestamp>,
}
mirror!(UserDef, User);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "SecondFactor", rename_all = "camelCase")]
struct SecondFactorDef {
    sealed: String,
    #[serde_as(as = "Millis")]
    at: Timestamp,
    step: u64,
    #[serde_as(as = "Vec<Text>")]
    recovery: Vec<RecoveryHash>,
}
mirror!(SecondFactorDef, SecondFactor);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Session", rename_all = "camelCase")]
struct SessionDef {
    #[serde_as(as = "DisplayFromStr")]
    id: Uid,
    #[serde_as(as = "DisplayFromStr")]
    user: UserName,
    #[serde_as(as = "Text")]
    hash: TokenHash,
    from: Option<String>,
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde_as(as = "Millis")]
    until: Timestamp,
    #[serde_as(as = "Option<Millis>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<Timestamp>,
}
mirror!(SessionDef, Session);

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    fn longest(number: usize) -> UserName {
        UserName::parse(&format!("{number:0>64}")).expect("a user name")
    }

    fn user(number: usize) -> User {
        let second = SecondFactor {
            sealed: "f".repeat(160),
            at: Timestamp::from_millis(u64::MAX / 2),
            step: u64::MAX / 2,
            recovery: vec![RecoveryHash([255; 16]); SecondFactor::RECOVERY_CODES],
        };
        User {
            name: longest(number),
            role: Role::Operator,
            password: PasswordHash::new("p".repeat(100)),
            second: Some(second),
            identity: Some(TokenHash([255; 32])),
            by: longest(number).actor(),
            at: Timestamp::from_millis(u64::MAX / 2),
            removed: None,
        }
    }

    fn session(user: usize, number: u64) -> Session {
        Session {
            id: Uid::from_parts(number, 0),
            user: longest(user),
            hash: TokenHash([255; 32]),
            from: Some("2001:0db8:ffff:ffff:ffff:ffff:255.255.255.255".to_owned()),
            at: Timestamp::from_millis(u64::MAX / 2),
            until: Timestamp::from_millis(u64::MAX / 2 + 10),
            used: Some(Timestamp::from_millis(u64::MAX / 2)),
        }
    }

    /// The maximum number of users and sessions, each of maximum size, and removed users of many years.
    #[test]
    fn the_largest_record_fits_in_an_item() {
        let mut users = Users::default();
        let mut number = 0;
        while users.add(user(number)).is_ok() {
            number += 1;
            if number > Users::MOST {
                users.list[number - Users::MOST].remove(Timestamp::from_millis(u64::MAX / 2));
            } else if number == Users::MOST {
                users.list[0].remove(Timestamp::from_millis(u64::MAX / 2));
            }
        }
        assert!(users.list.len() > 2 * Users::MOST, "{}", users.list.len());
        let now = Timestamp::from_millis(u64::MAX / 2 + 1);
        for number in 0..2_000 {
            let of = users.list.len() - 1 - number % Users::MOST;
            users.open(session(of, number as u64), now);
        }
        let document = encode(&users).expect("a document");
        assert!(document.len() <= users.weight(), "{} of {}", document.len(), users.weight());
        assert!(users.weight() <= Users::MOST_BYTES && Users::MOST_BYTES < 400 * 1024);
        assert!(users.sessions.len() >= 100, "{}", users.sessions.len());
        assert_eq!(decode::<Users>(&document).expect("a record"), users);

        // With users of usual size, a thousand sessions fit.
        let mut users = Users::default();
        for number in 0..100 {
            let name = UserName::parse(&format!("person{number}@example.com")).expect("a user name");
            users.add(User { name, second: None, ..user(number) }).expect("a place");
        }
        for number in 0..2_000 {
            let user = users.list[number % 100].name.clone();
            users.open(Session { user, ..session(0, number as u64) }, now);
        }
        assert_eq!(users.sessions.len(), Users::MOST_SESSIONS);
        assert_eq!(users.sessions.last().map(|last| last.id), Some(Uid::from_parts(1_999, 0)));
        assert!(encode(&users).expect("a document").len() <= users.weight());
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let before = r#"{"format":1,"record":{"list":[{"name":"ada","role":"admin","password":"$argon2id$x","by":"ops",
            "at":1,"removed":null}],"sessions":[{"id":"UID","user":"ada","hash":"HASH","from":null,"at":1,"until":2}],
            "version":3}}"#;
        let uid = Uid::from_parts(1, 1);
        let before = before.replace("UID", &uid.to_string()).replace("HASH", &"07".repeat(32));
        let users = decode::<Users>(&before).expect("a record");
        assert_eq!((&users.list[0].second, users.list[0].identity), (&None, None));
        assert_eq!((users.sessions[0].id, users.sessions[0].used), (uid, None));
        let again = encode(&users).expect("a document");
        for new in ["second", "identity", "used"] {
            assert!(!again.contains(new), "an older server reads a record without new fields: {again}");
        }
    }
}

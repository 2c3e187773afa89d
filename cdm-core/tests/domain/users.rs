//! Users and their sessions: who may sign in, and what ends a session.

use cdm_core::domain::user::{PasswordHash, RecoveryHash, SecondFactor, SecondProof, Session, User, Users};
use cdm_core::domain::{Actor, Role, Timestamp, Token, TokenHash, Uid, UserName};

fn name(text: &str) -> UserName {
    UserName::parse(text).expect("a user name")
}

fn user(text: &str) -> User {
    User {
        name: name(text),
        role: Role::Viewer,
        password: PasswordHash::new("hash".to_owned()),
        second: None,
        identity: None,
        by: Actor::parse("ops").expect("an actor"),
        at: Timestamp::from_millis(1),
        removed: None,
    }
}

fn session(user: &str, number: u8, until: u64) -> Session {
    Session {
        id: Uid::from_parts(u64::from(number), 0),
        user: name(user),
        hash: TokenHash([number; 32]),
        from: None,
        at: Timestamp::from_millis(1),
        until: Timestamp::from_millis(until),
        used: None,
    }
}

#[test]
fn user_names_are_distinct_from_other_actors() {
    for text in ["", "-ada", "ada.", "Ada", "a b", "a:b", &"a".repeat(65)] {
        assert!(UserName::parse(text).is_err(), "{text}");
    }
    for text in ["a", "7", "ada.b@example.com", "a--b", &"a".repeat(64)] {
        let actor = name(text).actor();
        assert!(actor.is_person() && Actor::parse(actor.as_str()).is_ok(), "{text}");
        assert!(Token::name(actor.as_str()).is_err(), "no token is called {actor}");
    }
    assert!(Token::name("user-of-the-api").is_ok());
}

#[test]
fn a_removed_user_has_no_session_and_the_name_stays_reserved() {
    let mut users = Users::default();
    users.add(user("ada")).expect("below the limit of users");
    let now = Timestamp::from_millis(10);
    users.open(session("ada", 1, 100), now);
    assert!(users.session(&TokenHash([1; 32]), now).is_some());
    assert!(users.session(&TokenHash([2; 32]), now).is_none(), "the session of another user");
    assert!(
        users.session(&TokenHash([1; 32]), Timestamp::from_millis(100)).is_none(),
        "the session has expired"
    );
    users.of_mut(&name("ada")).expect("there").remove(now);
    assert!(
        users.session(&TokenHash([1; 32]), now).is_none(),
        "a removed user has no session, even if it was not closed"
    );
    assert!(users.of(&name("ada")).is_none() && users.has_ever_had(&name("ada")));
}

#[test]
fn sessions_are_limited_and_end_individually_or_together() {
    let mut users = Users::default();
    for one in ["ada", "bob"] {
        users.add(user(one)).expect("below the limit of users");
    }
    let now = Timestamp::from_millis(10);
    users.open(session("bob", 200, 100), now);
    users.open(session("ada", 0, 11), now);
    let later = Timestamp::from_millis(11);
    for number in 1..=12 {
        users.open(session("ada", number, 100), later);
    }
    let of_ada = |users: &Users| users.sessions.iter().filter(|one| one.user == name("ada")).count();
    assert_eq!(of_ada(&users), Session::MOST);
    assert!(users.session(&TokenHash([2; 32]), later).is_none(), "the oldest session was removed");
    assert!(users.session(&TokenHash([3; 32]), later).is_some());
    assert_eq!(
        users.close(&name("bob"), Some(Uid::from_parts(3, 0))),
        0,
        "the session of another user cannot be closed"
    );
    assert_eq!(users.close(&name("ada"), Some(Uid::from_parts(3, 0))), 1);
    assert_eq!(users.close(&name("ada"), None), Session::MOST - 1);
    assert_eq!(users.sessions.len(), 1, "the session of bob");
}

#[test]
fn the_number_of_users_is_limited() {
    let mut users = Users::default();
    for number in 0..Users::MOST {
        users.add(user(&format!("u{number}"))).expect("below the limit of users");
    }
    assert!(users.add(user("one-more")).is_err());
    users.of_mut(&name("u0")).expect("there").removed = Some(Timestamp::from_millis(1));
    assert!(users.add(user("one-more")).is_ok(), "removing a user frees a place");
    assert!(!format!("{users:?}").contains("hash\""), "hashes are not shown");
}

#[test]
fn an_unused_session_expires() {
    let mut users = Users::default();
    users.add(user("ada")).expect("below the limit of users");
    let start = Timestamp::from_millis(1);
    let until = start.after(Session::LASTS);
    users.open(session("ada", 1, until.millis()), start);
    let (hash, id) = (TokenHash([1; 32]), Uid::from_parts(1, 0));
    let lasts = |users: &Users, now| users.session(&hash, now).is_some();
    let idle = start.after(Session::IDLE);
    assert!(lasts(&users, Timestamp::from_millis(idle.millis() - 1)));
    assert!(!lasts(&users, idle));
    // A session in use lasts until its own expiry.
    let mut now = start;
    while now < until {
        assert!(lasts(&users, now) && users.touch(id, now), "{now}");
        assert!(!users.sessions[0].is_stale(now) && users.sessions[0].is_stale(now.after(Session::TOUCH)));
        now = now.after(Session::IDLE / 2);
    }
    assert!(!lasts(&users, until));
    assert!(!users.touch(Uid::from_parts(2, 0), now), "an unknown session");
}

#[test]
fn a_second_factor_is_used_once() {
    let (one, two) = (RecoveryHash([1; 16]), RecoveryHash([2; 16]));
    let mut second = SecondFactor {
        sealed: "sealed".to_owned(),
        at: Timestamp::from_millis(1),
        step: 100,
        recovery: vec![one, two],
    };
    assert!(!second.accept(SecondProof::Code(99)) && !second.accept(SecondProof::Code(100)), "used before");
    assert!(second.accept(SecondProof::Code(101)) && !second.accept(SecondProof::Code(101)));
    assert!(second.accept(SecondProof::Recovery(one)) && !second.accept(SecondProof::Recovery(one)));
    assert_eq!(second.recovery, [two]);
    assert!(!format!("{second:?}").contains("sealed\""), "{second:?}");
}

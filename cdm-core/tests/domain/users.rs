//! Who may sign in, and what ends it.

use cdm_core::domain::user::{PasswordHash, Session, User, Users};
use cdm_core::domain::{Actor, Role, Timestamp, Token, TokenHash, Uid, UserName};

fn name(text: &str) -> UserName {
    UserName::parse(text).expect("a user name")
}

fn user(text: &str) -> User {
    User {
        name: name(text),
        role: Role::Viewer,
        password: PasswordHash::new("hash".to_owned()),
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
    }
}

#[test]
fn a_user_is_nobody_elses_actor() {
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
fn who_is_removed_has_no_session_and_leaves_the_name_taken() {
    let mut users = Users::default();
    users.add(user("ada")).expect("room");
    let now = Timestamp::from_millis(10);
    users.open(session("ada", 1, 100), now);
    assert!(users.session(&TokenHash([1; 32]), now).is_some());
    assert!(users.session(&TokenHash([2; 32]), now).is_none(), "another one's");
    assert!(users.session(&TokenHash([1; 32]), Timestamp::from_millis(100)).is_none(), "it has ended");
    users.of_mut(&name("ada")).expect("there").removed = Some(now);
    assert!(users.session(&TokenHash([1; 32]), now).is_none(), "whether its sessions were closed or not");
    assert!(users.of(&name("ada")).is_none() && users.knew(&name("ada")));
}

#[test]
fn sessions_are_so_many_and_end_one_by_one_or_all() {
    let mut users = Users::default();
    for one in ["ada", "bob"] {
        users.add(user(one)).expect("room");
    }
    let now = Timestamp::from_millis(10);
    users.open(session("bob", 200, 100), now);
    users.open(session("ada", 0, 11), now);
    let later = Timestamp::from_millis(11);
    for number in 1..=12 {
        users.open(session("ada", number, 100), later);
    }
    let hers = |users: &Users| users.sessions.iter().filter(|one| one.user == name("ada")).count();
    assert_eq!(hers(&users), Session::MOST);
    assert!(users.session(&TokenHash([2; 32]), later).is_none(), "the oldest made room");
    assert!(users.session(&TokenHash([3; 32]), later).is_some());
    assert_eq!(users.close(&name("bob"), Some(Uid::from_parts(3, 0))), 0, "nobody ends another one's");
    assert_eq!(users.close(&name("ada"), Some(Uid::from_parts(3, 0))), 1);
    assert_eq!(users.close(&name("ada"), None), Session::MOST - 1);
    assert_eq!(users.sessions.len(), 1, "of bob");
}

#[test]
fn there_are_so_many_and_no_more() {
    let mut users = Users::default();
    for number in 0..Users::MOST {
        users.add(user(&format!("u{number}"))).expect("room");
    }
    assert!(users.add(user("one-more")).is_err());
    users.of_mut(&name("u0")).expect("there").removed = Some(Timestamp::from_millis(1));
    assert!(users.add(user("one-more")).is_ok(), "who is removed makes room");
    assert!(!format!("{users:?}").contains("hash\""), "hashes are not shown");
}

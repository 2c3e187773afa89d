//! People who sign in: their names, roles, password hashes and sessions. One record, because there are few of them and
//! because whoever is removed, or gets another password, loses the sessions in the same write.

use std::fmt;
use std::time::Duration;

use super::name::NameError;
use super::{Actor, Role, Timestamp, TokenHash, Uid, UserName};

/// Everyone who may sign in, or ever might, and who has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// In the order of their making, removed ones too.
    pub list: Vec<User>,
    /// Oldest first; some may have ended.
    pub sessions: Vec<Session>,
    /// Raised by every write.
    pub version: u64,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Never given to another, so that an audit entry means one person.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// What their password is recognised by.
    pub password: PasswordHash,
    /// Who made them.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// Since when they may not sign in any more.
    pub removed: Option<Timestamp>,
}

/// A password's hash as the frontend made it, with its salt and its cost; nothing in here looks inside.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Wraps what the frontend made.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// What the frontend made.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Someone who has signed in, in one browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names it.
    pub id: Uid,
    /// Whose.
    pub user: UserName,
    /// What it is recognised by.
    pub hash: TokenHash,
    /// From which address they signed in, where that is known.
    pub from: Option<String>,
    /// When.
    pub at: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
}

impl Session {
    /// How long one lasts.
    pub const LASTS: Duration = Duration::from_hours(12);
    /// How many one person may have; a further one ends the oldest.
    pub const MOST: usize = 10;
}

impl Users {
    /// How many there may be; removed ones do not count.
    pub const MOST: usize = 200;
    /// How many names are ever given. A record has to fit into 400 KB.
    pub const MOST_NAMES: usize = 1_000;

    /// The person of that name, unless they were removed.
    pub fn of(&self, name: &UserName) -> Option<&User> {
        self.present().find(|user| user.name == *name)
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, name: &UserName) -> Option<&mut User> {
        self.list.iter_mut().find(|user| user.name == *name && user.removed.is_none())
    }

    /// Those who may sign in.
    pub fn present(&self) -> impl Iterator<Item = &User> {
        self.list.iter().filter(|user| user.removed.is_none())
    }

    /// Whether the name was ever given.
    pub fn knew(&self, name: &UserName) -> bool {
        self.list.iter().any(|user| user.name == *name)
    }

    /// Adds a person, whose name is new.
    ///
    /// # Errors
    /// More than [`Users::MOST`], or than [`Users::MOST_NAMES`] over the years.
    pub fn add(&mut self, user: User) -> Result<(), NameError> {
        if self.present().count() >= Self::MOST || self.list.len() >= Self::MOST_NAMES {
            let rule = "at most 200 users at once, and 1000 over the years";
            return Err(NameError::new("a user", rule, user.name.as_str()));
        }
        self.list.push(user);
        Ok(())
    }

    /// Ends what a person has open: one session, or all. How many ended.
    pub fn close(&mut self, name: &UserName, id: Option<Uid>) -> usize {
        let before = self.sessions.len();
        self.sessions.retain(|session| session.user != *name || id.is_some_and(|id| session.id != id));
        before - self.sessions.len()
    }

    /// Opens a session; those that have ended are left out from now on.
    pub fn open(&mut self, session: Session, now: Timestamp) {
        self.sessions.retain(|session| session.until > now);
        let of_user = |known: &&Session| known.user == session.user;
        let surplus = (self.sessions.iter().filter(of_user).count() + 1).saturating_sub(Session::MOST);
        let oldest: Vec<Uid> =
            self.sessions.iter().filter(of_user).take(surplus).map(|session| session.id).collect();
        self.sessions.retain(|session| !oldest.contains(&session.id));
        self.sessions.push(session);
    }

    /// Whose session it is, while it lasts.
    pub fn session(&self, hash: &TokenHash, now: Timestamp) -> Option<(&User, &Session)> {
        let session = self.sessions.iter().find(|session| session.hash == *hash && session.until > now)?;
        Some((self.of(&session.user)?, session))
    }
}

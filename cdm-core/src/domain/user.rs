//! Users who sign in: names, roles, password hashes and sessions. All users share one record, because they are few,
//! and because removing a user or changing a password ends the user's sessions in the same write.

use std::fmt;
use std::time::Duration;

use super::name::NameError;
use super::{Actor, Role, Timestamp, TokenHash, Uid, UserName};

/// All users, including removed users, and their sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// The users in the order of creation, including removed users.
    pub list: Vec<User>,
    /// The sessions, oldest first. Some may have ended.
    pub sessions: Vec<Session>,
    /// The version of the record, raised by every write.
    pub version: u64,
}

/// A user who signs in with a password or through an identity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's name. A name is never reused, so that an audit entry identifies one user.
    pub name: UserName,
    /// The user's role, which limits every request.
    pub role: Role,
    /// The hash of the password, in the frontend's format; `none` after the removal of the user.
    pub password: PasswordHash,
    /// The second factor, if the user has set one up.
    pub second: Option<SecondFactor>,
    /// The linked account of an OpenID Connect provider: a hash of issuer and subject, set at the first sign-in
    /// through the provider.
    pub identity: Option<TokenHash>,
    /// The actor that created the user.
    pub by: Actor,
    /// When the user was created.
    pub at: Timestamp,
    /// When the user was removed; `None` if the user may sign in.
    pub removed: Option<Timestamp>,
}

/// The hash of a password in the frontend's format, including salt and cost. This crate does not interpret it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Wraps the frontend's text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the frontend's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A time-based one-time password (RFC 6238) that the user has set up.
#[derive(Clone, PartialEq, Eq)]
pub struct SecondFactor {
    /// The shared secret, encrypted by the frontend. This crate does not interpret it.
    pub sealed: String,
    /// When the second factor was set up.
    pub at: Timestamp,
    /// The time step of the last accepted code. Codes of this and earlier steps are rejected.
    pub step: u64,
    /// The hashes of the recovery codes that are not used yet.
    pub recovery: Vec<RecoveryHash>,
}

impl fmt::Debug for SecondFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondFactor").field("at", &self.at).field("step", &self.step).finish_non_exhaustive()
    }
}

/// The hash of a recovery code: the first half of the SHA-256 of a code of 120 random bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecoveryHash(pub [u8; 16]);

impl fmt::Debug for RecoveryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryHash(…)")
    }
}

/// The proof of the second factor that a sign-in presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondProof {
    /// The one-time code of this time step.
    Code(u64),
    /// The hash of a recovery code.
    Recovery(RecoveryHash),
}

impl SecondFactor {
    /// The number of recovery codes of a new second factor.
    pub const RECOVERY_CODES: usize = 8;
    /// The maximum length of an encrypted secret in characters.
    pub const LONGEST_SEAL: usize = 160;

    /// Accepts a proof once. Returns whether the proof is valid and was not used before.
    pub fn accept(&mut self, proof: SecondProof) -> bool {
        match proof {
            SecondProof::Code(step) if step > self.step => {
                self.step = step;
                true
            }
            SecondProof::Code(_) => false,
            SecondProof::Recovery(hash) => {
                let before = self.recovery.len();
                self.recovery.retain(|unused| *unused != hash);
                self.recovery.len() < before
            }
        }
    }
}

/// A signed-in user's session in one browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session's id, which users see; it does not authenticate a request.
    pub id: Uid,
    /// The user who signed in.
    pub user: UserName,
    /// The hash of the session's secret text.
    pub hash: TokenHash,
    /// The address that the user signed in from, if it is known.
    pub from: Option<String>,
    /// When the session began.
    pub at: Timestamp,
    /// When the session expires at the latest.
    pub until: Timestamp,
    /// The last recorded use; see [`Session::TOUCH`]. `None` if no use was recorded.
    pub used: Option<Timestamp>,
}

impl Session {
    /// The maximum lifetime of a session.
    pub const LASTS: Duration = Duration::from_hours(12);
    /// The lifetime of an unused session.
    pub const IDLE: Duration = Duration::from_hours(2);
    /// The minimum time between two recorded uses, so that not every request causes a write.
    pub const TOUCH: Duration = Duration::from_mins(5);
    /// The maximum number of sessions of one user. A further session ends the oldest.
    pub const MOST: usize = 10;

    /// Returns whether the session has not expired at `now`.
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.until > now && now.since(self.last_used()) < Self::IDLE
    }

    /// Returns whether the next use has to be recorded.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        now.since(self.last_used()) >= Self::TOUCH
    }

    fn last_used(&self) -> Timestamp {
        self.used.unwrap_or(self.at)
    }

    /// Returns an upper bound of the session's size in the record, in bytes.
    fn weight(&self) -> usize {
        215 + self.user.as_str().len() + self.from.as_ref().map_or(0, String::len)
    }
}

impl User {
    /// The maximum size of a second factor and a linked identity, in bytes.
    const RESERVED_BYTES: usize = 180 + SecondFactor::LONGEST_SEAL + 36 * SecondFactor::RECOVERY_CODES;

    /// Removes the user's permissions and credentials. The name stays, because the audit log refers to it.
    pub fn remove(&mut self, now: Timestamp) {
        self.removed = Some(now);
        self.password = PasswordHash::new("none".to_owned());
        self.second = None;
        self.identity = None;
    }

    /// Returns an upper bound of the user's size in the record, in bytes.
    fn weight(&self) -> usize {
        let texts = self.name.as_str().len() + self.by.as_str().len() + self.password.as_str().len();
        // A user may later set up a second factor and link an account of an identity provider.
        let later = if self.removed.is_none() { Self::RESERVED_BYTES } else { 0 };
        120 + texts + later
    }
}

impl Users {
    /// The maximum number of users, without removed users.
    pub const MOST: usize = 200;
    /// The maximum number of names that are ever given.
    pub const MOST_NAMES: usize = 1_000;
    /// The maximum number of sessions of all users. A further session ends the oldest.
    pub const MOST_SESSIONS: usize = 1_000;
    /// The maximum size of the record in bytes. DynamoDB limits an item to 400 KB (1 KB is 1,024 bytes), including
    /// the names of attributes. The oldest sessions end before the record exceeds the limit.
    pub const MOST_BYTES: usize = 390_000;
    /// The maximum size of the users without their sessions, in bytes.
    pub const MOST_BYTES_OF_USERS: usize = 330_000;

    /// Returns the user with this name, unless the user was removed.
    pub fn of(&self, name: &UserName) -> Option<&User> {
        self.present().find(|user| user.name == *name)
    }

    /// Returns the user with this name for modification, unless the user was removed.
    pub fn of_mut(&mut self, name: &UserName) -> Option<&mut User> {
        self.list.iter_mut().find(|user| user.name == *name && user.removed.is_none())
    }

    /// Returns the users who may sign in.
    pub fn present(&self) -> impl Iterator<Item = &User> {
        self.list.iter().filter(|user| user.removed.is_none())
    }

    /// Returns whether a user has, or had, this name.
    pub fn has_ever_had(&self, name: &UserName) -> bool {
        self.list.iter().any(|user| user.name == *name)
    }

    /// Adds a user with an unused name.
    ///
    /// # Errors
    /// Returns an error if the users exceed [`Users::MOST`], [`Users::MOST_NAMES`] including removed ones, or
    /// [`Users::MOST_BYTES_OF_USERS`].
    pub fn add(&mut self, user: User) -> Result<(), NameError> {
        let full = self.list.len() >= Self::MOST_NAMES
            || self.list.iter().map(User::weight).sum::<usize>() + user.weight() > Self::MOST_BYTES_OF_USERS;
        if self.present().count() >= Self::MOST || full {
            let rule = "a platform has at most 200 users at the same time, and 1000 names in total";
            return Err(NameError::new("a user", rule, user.name.as_str()));
        }
        self.list.push(user);
        Ok(())
    }

    /// Ends one session of a user, or all of them if `id` is `None`. Returns how many ended.
    pub fn close(&mut self, name: &UserName, id: Option<Uid>) -> usize {
        let before = self.sessions.len();
        self.sessions.retain(|session| session.user != *name || id.is_some_and(|id| session.id != id));
        before - self.sessions.len()
    }

    /// Adds a session. Removes sessions that have ended, and the oldest ones beyond the limits.
    pub fn open(&mut self, session: Session, now: Timestamp) {
        self.sessions.retain(|session| session.lasts(now));
        let of_user = |other: &&Session| other.user == session.user;
        let surplus = (self.sessions.iter().filter(of_user).count() + 1).saturating_sub(Session::MOST);
        let oldest: Vec<Uid> =
            self.sessions.iter().filter(of_user).take(surplus).map(|session| session.id).collect();
        self.sessions.retain(|session| !oldest.contains(&session.id));
        self.sessions.push(session);
        let (mut bytes, mut surplus) = (self.weight(), 0);
        for session in &self.sessions {
            if bytes <= Self::MOST_BYTES && self.sessions.len() - surplus <= Self::MOST_SESSIONS {
                break;
            }
            bytes -= session.weight();
            surplus += 1;
        }
        self.sessions.drain(..surplus);
    }

    /// Returns an upper bound of the record's size in bytes.
    pub fn weight(&self) -> usize {
        let users: usize = self.list.iter().map(User::weight).sum();
        let sessions: usize = self.sessions.iter().map(Session::weight).sum();
        100 + users + sessions
    }

    /// Ends the session whose secret text has this hash, whichever user it belongs to.
    pub fn close_by_hash(&mut self, hash: &TokenHash) {
        self.sessions.retain(|session| session.hash != *hash);
    }

    /// Records that a session is in use. Returns whether the session exists.
    pub fn touch(&mut self, id: Uid, now: Timestamp) -> bool {
        let session = self.sessions.iter_mut().find(|session| session.id == id);
        session.map(|session| session.used = Some(now)).is_some()
    }

    /// Returns the user to whom an account of an identity provider is linked.
    pub fn identified(&self, identity: &TokenHash) -> Option<&User> {
        self.present().find(|user| user.identity.as_ref() == Some(identity))
    }

    /// Returns the session with this hash and its user, if the session has not expired at `now`.
    pub fn session(&self, hash: &TokenHash, now: Timestamp) -> Option<(&User, &Session)> {
        let session = self.sessions.iter().find(|session| session.hash == *hash && session.lasts(now))?;
        Some((self.of(&session.user)?, session))
    }
}

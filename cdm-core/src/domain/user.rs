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
    /// What they prove beside the password, where they have set it up.
    pub second: Option<SecondFactor>,
    /// Which account of a provider of OpenID Connect is theirs: a hash of issuer and subject, bound at its first sign-in.
    pub identity: Option<TokenHash>,
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

/// One-time codes by time (RFC 6238), set up by a person for themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct SecondFactor {
    /// The shared secret as the frontend sealed it; nothing in here looks inside.
    pub sealed: String,
    /// Since when.
    pub at: Timestamp,
    /// The last time step of which a code was used; neither it nor an earlier one is accepted again.
    pub step: u64,
    /// The recovery codes that are left, as hashes.
    pub recovery: Vec<RecoveryHash>,
}

impl fmt::Debug for SecondFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondFactor").field("at", &self.at).field("step", &self.step).finish_non_exhaustive()
    }
}

/// A recovery code's hash: the first half of a SHA-256, of a code of 120 random bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecoveryHash(pub [u8; 16]);

impl fmt::Debug for RecoveryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryHash(…)")
    }
}

/// What somebody has shown of their second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondProof {
    /// The code of that time step.
    Code(u64),
    /// A recovery code.
    Recovery(RecoveryHash),
}

impl SecondFactor {
    /// How many recovery codes there are at first.
    pub const RECOVERY_CODES: usize = 8;
    /// How many characters a sealed secret has at most.
    pub const LONGEST_SEAL: usize = 160;

    /// Uses a proof up: whether it is one that was not used before.
    pub fn accept(&mut self, proof: SecondProof) -> bool {
        match proof {
            SecondProof::Code(step) if step > self.step => {
                self.step = step;
                true
            }
            SecondProof::Code(_) => false,
            SecondProof::Recovery(hash) => {
                let before = self.recovery.len();
                self.recovery.retain(|known| *known != hash);
                self.recovery.len() < before
            }
        }
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
    /// When it was last used, as far as that was written; see [`Session::TOUCH`].
    pub used: Option<Timestamp>,
}

impl Session {
    /// How long one lasts.
    pub const LASTS: Duration = Duration::from_hours(12);
    /// How long one lasts that is not used.
    pub const IDLE: Duration = Duration::from_hours(2);
    /// How much time passes before another use is written: no write for each request.
    pub const TOUCH: Duration = Duration::from_mins(5);
    /// How many one person may have; a further one ends the oldest.
    pub const MOST: usize = 10;

    /// Whether it lasts still.
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.until > now && now.since(self.last_used()) < Self::IDLE
    }

    /// Whether its last use is to be written again.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        now.since(self.last_used()) >= Self::TOUCH
    }

    fn last_used(&self) -> Timestamp {
        self.used.unwrap_or(self.at)
    }

    /// More bytes than it takes in the record.
    fn weight(&self) -> usize {
        215 + self.user.as_str().len() + self.from.as_ref().map_or(0, String::len)
    }
}

impl User {
    /// How many bytes a second factor and an identity take at most.
    const LATER: usize = 180 + SecondFactor::LONGEST_SEAL + 36 * SecondFactor::RECOVERY_CODES;

    /// Ends what they may do. Only what the audit needs is kept: who had the name.
    pub fn remove(&mut self, now: Timestamp) {
        self.removed = Some(now);
        self.password = PasswordHash::new("none".to_owned());
        self.second = None;
        self.identity = None;
    }

    /// More bytes than they take in the record.
    fn weight(&self) -> usize {
        let texts = self.name.as_str().len() + self.by.as_str().len() + self.password.as_str().len();
        // There is room for what they set up later, a second factor and an account of a provider.
        let later = if self.removed.is_none() { Self::LATER } else { 0 };
        120 + texts + later
    }
}

impl Users {
    /// How many there may be; removed ones do not count.
    pub const MOST: usize = 200;
    /// How many names are ever given.
    pub const MOST_NAMES: usize = 1_000;
    /// How many sessions there may be of all people together; a further one ends the oldest.
    pub const MOST_SESSIONS: usize = 1_000;
    /// How many bytes the record may have: DynamoDB takes items of 400 KB (1 KB is 1,024 bytes), names of attributes
    /// included. Sessions end, oldest first, before it grows beyond that,
    pub const MOST_BYTES: usize = 390_000;
    /// and people are left so much of it at most.
    pub const MOST_BYTES_OF_PEOPLE: usize = 330_000;

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
    /// More than [`Users::MOST`], or than [`Users::MOST_NAMES`] over the years, or than the record has bytes for.
    pub fn add(&mut self, user: User) -> Result<(), NameError> {
        let full = self.list.len() >= Self::MOST_NAMES
            || self.list.iter().map(User::weight).sum::<usize>() + user.weight() > Self::MOST_BYTES_OF_PEOPLE;
        if self.present().count() >= Self::MOST || full {
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
        self.sessions.retain(|session| session.lasts(now));
        let of_user = |known: &&Session| known.user == session.user;
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

    /// More bytes than the record takes.
    pub fn weight(&self) -> usize {
        let people: usize = self.list.iter().map(User::weight).sum();
        let sessions: usize = self.sessions.iter().map(Session::weight).sum();
        100 + people + sessions
    }

    /// Ends the session that is recognised by `hash`, whose ever it is.
    pub fn close_known(&mut self, hash: &TokenHash) {
        self.sessions.retain(|session| session.hash != *hash);
    }

    /// Notes that a session was used; whether there is one.
    pub fn touch(&mut self, id: Uid, now: Timestamp) -> bool {
        let session = self.sessions.iter_mut().find(|session| session.id == id);
        session.map(|session| session.used = Some(now)).is_some()
    }

    /// Whose account of a provider that is.
    pub fn identified(&self, identity: &TokenHash) -> Option<&User> {
        self.present().find(|user| user.identity.as_ref() == Some(identity))
    }

    /// Whose session it is, while it lasts.
    pub fn session(&self, hash: &TokenHash, now: Timestamp) -> Option<(&User, &Session)> {
        let session = self.sessions.iter().find(|session| session.hash == *hash && session.lasts(now))?;
        Some((self.of(&session.user)?, session))
    }
}

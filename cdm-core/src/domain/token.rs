//! Tokens: who may ask, and for what.

use std::fmt;

use super::name::NameError;
use super::{Actor, Timestamp, Uid};

/// What a caller may do; each role may do everything that the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Creates, provisions, upgrades, promotes, rolls out, retries and cancels.
    Operator,
    /// Everything: also selects, deploys, rolls back, terminates, marks, and keeps tokens and users.
    Admin,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Parses `viewer`, `operator` or `admin`.
    ///
    /// # Errors
    /// Any other text, upper case included.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| NameError::new("a role", "a role is `viewer`, `operator` or `admin`", text))
    }

    /// `viewer`, `operator` or `admin`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The SHA-256 of a token: what is kept of it. A token is 192 random bits, so one round of hashing is enough.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// A token's record. The token itself is shown once, when it is made, and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Names the record.
    pub id: Uid,
    /// Who asks with it. Never given to another token, so that an audit entry and an idempotency key mean one caller.
    pub name: Actor,
    /// What it may do.
    pub role: Role,
    /// What it is recognised by.
    pub hash: TokenHash,
    /// Whether it serves callers on this machine only: so does one that was made up at the first start.
    pub loopback_only: bool,
    /// Who made it.
    pub created_by: Actor,
    /// When.
    pub created_at: Timestamp,
    /// Until when it serves; `None` for ever.
    pub expires_at: Option<Timestamp>,
    /// Since when it serves no more.
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// Parses the name of a new token.
    ///
    /// # Errors
    /// What is no [`Actor`], and the names of people who sign in.
    pub fn name(text: &str) -> Result<Actor, NameError> {
        let name = Actor::parse(text)?;
        if name.is_person() {
            let rule = "the name of a token does not begin with `user:`; people who sign in are called so";
            return Err(NameError::new("a token's name", rule, text));
        }
        Ok(name)
    }

    /// Whether it serves at `now`.
    pub fn serves(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

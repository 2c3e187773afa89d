//! Tokens: who may ask, and for what.

use std::fmt;
use std::time::Duration;

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

impl TokenHash {
    /// The name of the bootstrap token of this hash.
    pub fn bootstrap_name(&self) -> String {
        let of_hash: String = self.0.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("bootstrap-{of_hash}")
    }
}

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

/// The names of the audit's own actors, in lower case: nobody who has proven who they are, a server's start, a command
/// with `--local`, and the console before somebody has signed in.
const RESERVED: [&str; 4] = ["anonymous", "bootstrap", "console", "local"];

impl Token {
    /// How long a token serves whose maker says nothing else: 90 days.
    pub const LASTS: Duration = Duration::from_hours(90 * 24);

    /// Parses the name of a new token.
    ///
    /// # Errors
    /// What is not an [`Actor`], and, in upper or lower case, the names of the audit's own actors: `anonymous`,
    /// `bootstrap`, `bootstrap-…`, `console`, `local` and `user:…`.
    pub fn name(text: &str) -> Result<Actor, NameError> {
        let name = Actor::parse(text)?;
        let folded = text.to_ascii_lowercase();
        let begins = ["bootstrap-", Actor::PERSON].iter().any(|reserved| folded.starts_with(reserved));
        if begins || RESERVED.contains(&folded.as_str()) {
            let rule = "the names `anonymous`, `bootstrap`, `console` and `local`, and those that begin with \
                        `bootstrap-` or `user:`, are reserved for the audit; choose another";
            return Err(NameError::new("a token's name", rule, text));
        }
        Ok(name)
    }

    /// Whether it was made from the configuration, or at the first start.
    pub fn is_bootstrap(&self) -> bool {
        self.created_by == Actor::bootstrap() && self.name.as_str() == self.hash.bootstrap_name()
    }

    /// Whether it serves at `now`.
    pub fn serves(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Judges the text of a configured administrator's token: at least 32 characters, at least 8 different ones, and not the
/// same piece again and again. A text from a source of chance keeps these rules; they catch placeholders.
///
/// # Errors
/// The rule that is broken, without the text.
pub fn judge_bootstrap(text: &str) -> Result<(), NameError> {
    let refuse = |rule| Err(NameError::new("an administrator's token", rule, "…"));
    let characters: Vec<char> = text.chars().collect();
    if characters.len() < 32 {
        return refuse("it has at least 32 characters");
    }
    let mut different = characters.clone();
    different.sort_unstable();
    different.dedup();
    if different.len() < 8 {
        return refuse("it has at least 8 different characters; make one with: openssl rand -hex 32");
    }
    let repeats =
        |period: usize| characters.iter().skip(period).eq(characters.iter().take(characters.len() - period));
    if (1..=characters.len() / 2).any(repeats) {
        return refuse("it does not repeat one piece; make one with: openssl rand -hex 32");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_no_administrators_token() {
        for (text, kept) in [
            ("a".repeat(32), false),
            ("short".to_owned(), false),
            ("password".repeat(4), false),
            ("abcdefgh-12345678".repeat(2), false),
            (format!("{}abc", "abcdefghijkl".repeat(3)), false),
            ("0123456".repeat(8), false),
            ("3f9c0b7e51d24a86f0c1e2d3b4a59687".to_owned(), true),
            ("correct horse battery staple, said the administrator".to_owned(), true),
        ] {
            let judged = judge_bootstrap(&text);
            assert_eq!(judged.is_ok(), kept, "{text}");
            if let Err(error) = judged {
                assert!(!error.to_string().contains(&text), "{error}");
            }
        }
    }

    #[test]
    fn names_of_the_audits_own_actors_are_reserved() {
        for name in [
            "console",
            "Console",
            "LOCAL",
            "local",
            "bootstrap",
            "Bootstrap",
            "bootstrap-6ad44831",
            "BOOTSTRAP-x",
            "user:ada",
            "User:ada",
            "anonymous",
        ] {
            assert!(Token::name(name).is_err(), "{name}");
        }
        for name in ["console-2", "localhost", "bootstrapper", "users", "ci"] {
            assert!(Token::name(name).is_ok(), "{name}");
        }
    }
}

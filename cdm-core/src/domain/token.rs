//! API tokens and the roles of callers.

use std::fmt;
use std::time::Duration;

use super::name::NameError;
use super::{Actor, Timestamp, Uid};

/// The permission level of a caller. Each role includes the permissions of the roles before it.
///
/// ```
/// use cdm_core::domain::Role;
///
/// assert_eq!(Role::parse("operator")?, Role::Operator);
/// assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
/// # Ok::<(), cdm_core::domain::NameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads everything except tokens, users and webhooks.
    Viewer,
    /// Also creates, provisions, upgrades and promotes sites, runs rollouts, and retries and cancels operations.
    Operator,
    /// Also selects, deploys, rolls back, terminates, marks digests, freezes moves, and manages tokens, users and
    /// webhooks.
    Admin,
}

impl Role {
    /// Every role, from the fewest permissions to the most.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Parses `viewer`, `operator` or `admin`.
    ///
    /// # Errors
    /// Returns an error for any other text, including uppercase spellings.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| NameError::new("a role", "a role is `viewer`, `operator` or `admin`", text))
    }

    /// Returns `viewer`, `operator` or `admin`.
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

/// The SHA-256 of a token, which is stored instead of the token. A token has 192 random bits, so one round of hashing
/// is sufficient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// Returns the name of a bootstrap token with this hash: `bootstrap-` and the first 8 hexadecimal digits.
    pub fn bootstrap_name(&self) -> String {
        format!("bootstrap-{}", hex::encode(&self.0[..4]))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// A token's record. The token itself is shown once, at its creation, and is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The id by which the API lists and revokes the token. It is not a secret.
    pub id: Uid,
    /// The actor of requests with this token. A name is never reused, so that an audit entry and an idempotency key
    /// identify one caller.
    pub name: Actor,
    /// The role of requests with this token.
    pub role: Role,
    /// The hash by which a request's token is found.
    pub hash: TokenHash,
    /// Whether the token is valid for callers on the same machine only. A token that the first start generates is.
    pub loopback_only: bool,
    /// The actor that created the token.
    pub created_by: Actor,
    /// When the token was created.
    pub created_at: Timestamp,
    /// When the token expires; `None` if it never expires.
    pub expires_at: Option<Timestamp>,
    /// When the token was revoked; `None` if it was not.
    pub revoked_at: Option<Timestamp>,
}

/// The actors that the audit log uses itself, in lowercase: an unauthenticated caller, a server's start, a command
/// with `--local`, and the console before sign-in.
const RESERVED: [&str; 4] = ["anonymous", "bootstrap", "console", "local"];

impl Token {
    /// The default lifetime of a token: 90 days.
    pub const LASTS: Duration = Duration::from_hours(90 * 24);

    /// Parses the name of a new token.
    ///
    /// # Errors
    /// Returns an error for a text that is not an [`Actor`], and, in any case, for the actors that the audit log uses
    /// itself: `anonymous`, `bootstrap`, `bootstrap-…`, `console`, `local` and `user:…`.
    pub fn name(text: &str) -> Result<Actor, NameError> {
        let name = Actor::parse(text)?;
        let folded = text.to_ascii_lowercase();
        let begins = ["bootstrap-", Actor::USER_PREFIX].iter().any(|reserved| folded.starts_with(reserved));
        if begins || RESERVED.contains(&folded.as_str()) {
            let rule = "the names `anonymous`, `bootstrap`, `console` and `local`, and those that begin with \
                        `bootstrap-` or `user:`, are reserved for the audit log; choose another name";
            return Err(NameError::new("a token's name", rule, text));
        }
        Ok(name)
    }

    /// Returns whether the token was created from the configuration or at the first start.
    pub fn is_bootstrap(&self) -> bool {
        self.created_by == Actor::bootstrap() && self.name.as_str() == self.hash.bootstrap_name()
    }

    /// Returns whether the token is neither revoked nor expired at `now`.
    pub fn serves(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Checks the text of a configured administrator's token: at least 32 characters, at least 8 different ones, and not
/// one repeated piece. Randomly generated texts pass; the rules catch placeholders.
///
/// # Errors
/// Returns the broken rule, without the text.
pub fn judge_bootstrap(text: &str) -> Result<(), NameError> {
    let refuse = |rule| Err(NameError::new("an administrator's token", rule, "…"));
    let characters: Vec<char> = text.chars().collect();
    if characters.len() < 32 {
        return refuse("it must have at least 32 characters");
    }
    let mut different = characters.clone();
    different.sort_unstable();
    different.dedup();
    if different.len() < 8 {
        return refuse("it must have at least 8 different characters; make one with: openssl rand -hex 32");
    }
    let repeats =
        |period: usize| characters.iter().skip(period).eq(characters.iter().take(characters.len() - period));
    if (1..=characters.len() / 2).any(repeats) {
        return refuse("it must not be a repetition of a shorter text; make one with: openssl rand -hex 32");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_rejected_as_administrators_tokens() {
        for (text, valid) in [
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
            assert_eq!(judged.is_ok(), valid, "{text}");
            if let Err(error) = judged {
                assert!(!error.to_string().contains(&text), "{error}");
            }
        }
    }

    #[test]
    fn actors_of_the_audit_log_are_reserved() {
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

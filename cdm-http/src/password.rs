//! Passwords: which may be set, and how they are hashed and compared on threads of their own.

use argon2::password_hash::phc;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use cdm_core::domain::PasswordHash;
use secrecy::{ExposeSecret, SecretString};

use crate::error::Refusal;
use crate::hashing::{Busy, HashPool, Requester};

/// The hash of a password that nobody knows.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2R5\
                      $9d8d7JdMCAh0eNXWn0rOpDkGm2LfKf1c0Q8xW3y9xgQ";

/// What is said of a password that is too short or too long.
pub(crate) const RULE: &str = "a password has 12 to 128 characters";

/// Whether a password may be set. Length is what makes one hard to guess; the upper end keeps hashing cheap.
pub(crate) fn fits(password: &SecretString) -> bool {
    (12..=128).contains(&password.expose_secret().chars().count())
}

/// What no password is recognised by.
pub(crate) fn none() -> PasswordHash {
    PasswordHash::new("none".to_owned())
}

/// Hashes and compares passwords.
#[derive(Debug, Default)]
pub(crate) struct Passwords(HashPool);

impl Passwords {
    /// The hash of a password: argon2id with 19 MiB and two passes, the least that OWASP's password storage cheat sheet
    /// takes.
    ///
    /// # Errors
    /// `busy` at once when too many hashes are waited for.
    pub(crate) async fn hash(
        &self,
        requester: Requester,
        password: SecretString,
    ) -> Result<PasswordHash, Refusal> {
        let made = self.apart(requester, move || {
            let hash: Result<phc::PasswordHash, _> =
                Argon2::default().hash_password(password.expose_secret().as_bytes());
            hash.ok().map(|hash| PasswordHash::new(hash.to_string()))
        });
        made.await?.ok_or_else(Refusal::internal)
    }

    /// Whether it is the password of `known`. Where there is nobody, it takes as long to say no.
    ///
    /// # Errors
    /// As [`Passwords::hash`].
    pub(crate) async fn proves(
        &self,
        requester: Requester,
        password: SecretString,
        known: Option<&PasswordHash>,
    ) -> Result<bool, Refusal> {
        let known = known.filter(|known| **known != none());
        let (somebody, hash) = (known.is_some(), known.map_or(NOBODY, PasswordHash::as_str).to_owned());
        let same = self.apart(requester, move || {
            let hash = phc::PasswordHash::new(&hash).ok()?;
            Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).ok()
        });
        Ok(same.await?.is_some() && somebody)
    }

    async fn apart<T: Send + 'static>(
        &self,
        requester: Requester,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let result = self.0.submit(requester, work).map_err(|Busy| Refusal::busy())?;
        // The channel closes when the work panicked.
        result.await.map_err(|_| Refusal::internal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[tokio::test]
    async fn a_password_proves_itself_and_no_other() {
        let passwords = Passwords::default();
        let hash =
            async |text: &str| passwords.hash(Requester::Loopback, secret(text)).await.expect("a hash");
        let proves = async |text: &str, known: Option<&PasswordHash>| {
            passwords.proves(Requester::Loopback, secret(text), known).await.expect("a verdict")
        };
        let (one, two) = (hash("correct horse").await, hash("correct horse").await);
        assert_ne!(one, two, "each hash has its own salt");
        assert!(one.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", one.as_str());
        assert!(proves("correct horse", Some(&one)).await);
        assert!(!proves("correct horse ", Some(&one)).await);
        assert!(!proves("correct horse", None).await);
        assert!(!proves("none", Some(&none())).await, "who has none proves nothing by one");
        assert!(phc::PasswordHash::new(NOBODY).is_ok(), "nobody takes as long as somebody");
    }

    #[test]
    fn length_is_the_rule() {
        for (text, fit) in [("eleven char", false), ("twelve chars", true), ("zwölf Zeiche", true)] {
            assert_eq!(fits(&secret(text)), fit, "{text}");
        }
        assert!(!fits(&SecretString::from("x".repeat(129))));
    }
}

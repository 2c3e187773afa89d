//! Passwords: hashed and compared, apart from the threads that serve, two at a time.

use argon2::password_hash::phc;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use cdm_core::domain::PasswordHash;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::error::Refusal;

/// Each takes 19 MiB for as long as it runs.
static TURNS: Semaphore = Semaphore::const_new(2);

/// The hash of a password that nobody knows.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2R5\
                      $9d8d7JdMCAh0eNXWn0rOpDkGm2LfKf1c0Q8xW3y9xgQ";

/// What is said of a password that is too short or too long.
pub(crate) const RULE: &str = "a password has 12 to 128 characters";

/// Whether a password may be set. Length is what makes one hard to guess; the upper end keeps hashing cheap.
pub(crate) fn fits(password: &SecretString) -> bool {
    (12..=128).contains(&password.expose_secret().chars().count())
}

/// The hash of a password: argon2id with 19 MiB and two passes, the least that OWASP's password storage cheat sheet takes.
pub(crate) async fn hash(password: SecretString) -> Result<PasswordHash, Refusal> {
    let made = apart(move || {
        let hash: Result<phc::PasswordHash, _> =
            Argon2::default().hash_password(password.expose_secret().as_bytes());
        hash.ok().map(|hash| PasswordHash::new(hash.to_string()))
    });
    made.await.flatten().ok_or_else(Refusal::internal)
}

/// What no password is recognised by.
pub(crate) fn none() -> PasswordHash {
    PasswordHash::new("none".to_owned())
}

/// Whether it is the password of `known`. Where there is nobody, it takes as long to say no.
pub(crate) async fn proves(password: SecretString, known: Option<&PasswordHash>) -> bool {
    let known = known.filter(|known| **known != none());
    let (somebody, hash) = (known.is_some(), known.map_or(NOBODY, PasswordHash::as_str).to_owned());
    let same = apart(move || {
        let hash = phc::PasswordHash::new(&hash).ok()?;
        Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).ok()
    });
    same.await.flatten().is_some() && somebody
}

/// Runs something that takes long on a thread of its own; `None` when it did not come to its end.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let _turn = TURNS.acquire().await.ok()?;
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[tokio::test]
    async fn a_password_proves_itself_and_no_other() {
        let (one, two) = (hash(secret("correct horse")).await, hash(secret("correct horse")).await);
        let (one, two) = (one.expect("a hash"), two.expect("a hash"));
        assert_ne!(one, two, "each hash has its own salt");
        assert!(one.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", one.as_str());
        assert!(proves(secret("correct horse"), Some(&one)).await);
        assert!(!proves(secret("correct horse "), Some(&one)).await);
        assert!(!proves(secret("correct horse"), None).await);
        assert!(!proves(secret("none"), Some(&none())).await, "who has none proves nothing by one");
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

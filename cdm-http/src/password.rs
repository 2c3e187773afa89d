//! Passwords: which may be set, and how they are hashed and compared on threads of their own.

use argon2::password_hash::phc;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use cdm_core::domain::PasswordHash;
use cdm_core::manager;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::error::Refusal;
use crate::hashing::{Busy, HashPool, Requester};

/// The hash of a password that nobody knows.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2R5\
                      $9d8d7JdMCAh0eNXWn0rOpDkGm2LfKf1c0Q8xW3y9xgQ";

/// What is said of a password that is too short or too long.
pub(crate) const RULE: &str = "a password has 12 to 128 characters";

/// What is said of a password that many others have, or that follows from what everybody knows.
pub(crate) const COMMON: &str = "the password is too common or too easy to guess; use several words that do not belong \
                                 together";

/// Whether a password may be set for that user.
///
/// Length is what makes one hard to guess; the upper end keeps hashing cheap. Beyond that it is estimated by zxcvbn, which
/// knows 30,000 common passwords and 60,000 words and names, and how people vary and join them: fewer than 10^8 guesses are too few.
/// It is estimated in lower case and in one form of Unicode, so that neither makes a common password another one.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn judge(password: &SecretString, name: &str) -> Result<(), &'static str> {
    let text = password.expose_secret();
    if !(12..=128).contains(&text.chars().count()) {
        return Err(RULE);
    }
    let plain = Zeroizing::new(text.nfkc().collect::<String>().to_lowercase());
    let known = [name, "cdm", "cloud", "deployment", "manager", "wordpress", "kubernetes"];
    let guesses = zxcvbn::zxcvbn(&plain, &known);
    if guesses.score() < zxcvbn::Score::Three { Err(COMMON) } else { Ok(()) }
}

/// The form in which passwords are hashed: keyboards and systems write the same letters differently (NFKC).
fn normalized(password: &SecretString) -> SecretString {
    SecretString::from(password.expose_secret().nfkc().collect::<String>())
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
        let password = normalized(&password);
        let made = self.apart(requester, move || {
            let hash: Result<phc::PasswordHash, _> =
                Argon2::default().hash_password(password.expose_secret().as_bytes());
            hash.ok().map(|hash| PasswordHash::new(hash.to_string()))
        });
        made.await?.ok_or_else(Refusal::internal)
    }

    /// The same under a salt that follows from who asks and from the request's key, so that every replica recognizes a
    /// repetition of a request by its password, and a reader of the store guesses no faster than at the stored hash.
    /// `None` where the request has no key.
    ///
    /// # Errors
    /// As [`Passwords::hash`].
    pub(crate) async fn repeatable(
        &self,
        requester: Requester,
        password: SecretString,
        request: &manager::Request,
    ) -> Result<Option<PasswordHash>, Refusal> {
        let Some(key) = &request.key else { return Ok(None) };
        let salt = Sha256::new()
            .chain_update("cdm repetition\0")
            .chain_update(request.actor.as_str())
            .chain_update("\0")
            .chain_update(key.as_str())
            .finalize();
        let password = normalized(&password);
        let made = self.apart(requester, move || {
            let mut hash = [0; 32];
            let password = password.expose_secret().as_bytes();
            let made = Argon2::default().hash_password_into(password, &salt, &mut hash);
            let text = || hash.iter().map(|byte| format!("{byte:02x}")).collect();
            made.ok().map(|()| PasswordHash::new(text()))
        });
        made.await?.map(Some).ok_or_else(Refusal::internal)
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
            let is = |password: &SecretString| {
                Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).ok()
            };
            // Hashes of before were made of what was typed.
            let normalized = normalized(&password);
            let other = normalized.expose_secret() != password.expose_secret();
            is(&normalized).or_else(|| other.then(|| is(&password)).flatten())
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
            assert_eq!(judge(&secret(text), "ada") != Err(RULE), fit, "{text}");
        }
        assert_eq!(judge(&SecretString::from("x".repeat(129)), "ada"), Err(RULE));
    }

    #[test]
    fn common_passwords_are_refused() {
        for text in [
            "password1234",
            "Password1234!",
            "PASSWORDPASSWORD",
            "qwertyuiopas",
            "123456789012",
            "000000000000",
            "iloveyouiloveyou",
            "letmeinletmein",
            "administrator",
            "ada.lovelace1",
            "wordpress2026",
            "\u{ff50}\u{ff41}\u{ff53}\u{ff53}word1234",
        ] {
            assert_eq!(judge(&secret(text), "ada.lovelace"), Err(COMMON), "{text}");
        }
        for text in [
            "correct horse battery",
            "another horse battery",
            "a long sentence that nobody says",
            "another sentence that nobody says",
            "kL8#vQ2!mZ9x",
            "Zwölf Boxkämpfer jagen",
        ] {
            assert_eq!(judge(&secret(text), "ada.lovelace"), Ok(()), "{text}");
        }
    }

    /// One keyboard sends `ü` as one character, another as two; and what was hashed before as it was typed still serves.
    #[tokio::test]
    async fn the_form_of_unicode_makes_no_other_password() {
        let passwords = Passwords::default();
        let (one, two) = ("zw\u{f6}lf Boxk\u{e4}mpfer", "zwo\u{308}lf Boxka\u{308}mpfer");
        let proves = async |text: &str, known: &PasswordHash| {
            passwords.proves(Requester::Loopback, secret(text), Some(known)).await.expect("a verdict")
        };
        let hash = passwords.hash(Requester::Loopback, secret(two)).await.expect("a hash");
        assert!(proves(one, &hash).await && proves(two, &hash).await);
        let before: phc::PasswordHash = Argon2::default().hash_password(two.as_bytes()).expect("a hash");
        assert!(proves(two, &PasswordHash::new(before.to_string())).await, "as it was typed");
    }
}

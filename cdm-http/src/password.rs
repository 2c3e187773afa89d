//! Passwords: strength rules, and hashing and verification on separate threads.

use argon2::password_hash::phc;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use cdm_core::domain::PasswordHash;
use cdm_core::manager;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::error::ApiError;
use crate::hashing::{Busy, HashPool, Requester};

/// A hash without a known password, which is verified for users that do not exist.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2R5\
                      $9d8d7JdMCAh0eNXWn0rOpDkGm2LfKf1c0Q8xW3y9xgQ";

/// The error for a password that is too short or too long.
pub(crate) const RULE: &str = "the password must have 12 to 128 characters";

/// The error for a password that is common or can be derived from known words.
pub(crate) const COMMON: &str =
    "the password is too common or too easy to guess; use several unrelated words";

/// Checks whether a user may have a password.
///
/// The minimum length makes a password hard to guess; the maximum length keeps hashing cheap. In addition, zxcvbn estimates
/// the number of guesses, from 30,000 common passwords, 60,000 words and names, and the ways in which people vary and
/// combine them: fewer than 10^8 guesses are rejected. The estimate uses the password in lower case and in NFKC, so neither
/// the case nor the Unicode form makes a common password acceptable.
///
/// # Errors
/// The rule that the password breaks.
pub(crate) fn check_strength(password: &SecretString, name: &str) -> Result<(), &'static str> {
    let text = password.expose_secret();
    if !(12..=128).contains(&text.chars().count()) {
        return Err(RULE);
    }
    let plain = Zeroizing::new(text.nfkc().collect::<String>().to_lowercase());
    let related_words = [name, "cdm", "cloud", "deployment", "manager", "wordpress", "kubernetes"];
    let guesses = zxcvbn::zxcvbn(&plain, &related_words);
    if guesses.score() < zxcvbn::Score::Three { Err(COMMON) } else { Ok(()) }
}

/// Returns the password in NFKC, in which it is hashed, since keyboards and systems encode the same letters differently.
fn normalized(password: &SecretString) -> SecretString {
    SecretString::from(password.expose_secret().nfkc().collect::<String>())
}

/// Returns the hash of a user without a password, which no password matches.
pub(crate) fn unusable() -> PasswordHash {
    PasswordHash::new("none".to_owned())
}

/// Hashes and verifies passwords.
#[derive(Debug, Default)]
pub(crate) struct Passwords(HashPool);

impl Passwords {
    /// Hashes a password with argon2id, 19 MiB and two passes: the minimum of the OWASP Password Storage Cheat Sheet.
    ///
    /// # Errors
    /// `busy` if the queue of hashes is full.
    pub(crate) async fn hash(
        &self,
        requester: Requester,
        password: SecretString,
    ) -> Result<PasswordHash, ApiError> {
        let password = normalized(&password);
        let made = self.run(requester, move || {
            let hash: Result<phc::PasswordHash, _> =
                Argon2::default().hash_password(password.expose_secret().as_bytes());
            hash.ok().map(|hash| PasswordHash::new(hash.to_string()))
        });
        made.await?.ok_or_else(ApiError::internal)
    }

    /// Hashes a password with a salt that is derived from the actor and the idempotency key, so that every replica can
    /// compare the password of a repeated request, and a reader of the store cannot guess the password faster than from the
    /// stored hash. Returns `None` if the request has no key.
    ///
    /// # Errors
    /// See [`Passwords::hash`].
    pub(crate) async fn fingerprint(
        &self,
        requester: Requester,
        password: SecretString,
        request: &manager::Request,
    ) -> Result<Option<PasswordHash>, ApiError> {
        let Some(key) = &request.key else { return Ok(None) };
        let salt = Sha256::new()
            .chain_update("cdm repetition\0")
            .chain_update(request.actor.as_str())
            .chain_update("\0")
            .chain_update(key.as_str())
            .finalize();
        let password = normalized(&password);
        let made = self.run(requester, move || {
            let mut hash = [0; 32];
            let password = password.expose_secret().as_bytes();
            let made = Argon2::default().hash_password_into(password, &salt, &mut hash);
            made.ok().map(|()| PasswordHash::new(hex::encode(hash)))
        });
        made.await?.map(Some).ok_or_else(ApiError::internal)
    }

    /// Returns whether `known` is the hash of the password. Without a hash the check takes equally long, so the duration does
    /// not reveal whether a user exists.
    ///
    /// # Errors
    /// See [`Passwords::hash`].
    pub(crate) async fn verify(
        &self,
        requester: Requester,
        password: SecretString,
        known: Option<&PasswordHash>,
    ) -> Result<bool, ApiError> {
        let known = known.filter(|known| **known != unusable());
        let (has_hash, hash) = (known.is_some(), known.map_or(DUMMY_HASH, PasswordHash::as_str).to_owned());
        let matching = self.run(requester, move || {
            let hash = phc::PasswordHash::new(&hash).ok()?;
            let verify = |password: &SecretString| {
                Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).ok()
            };
            // Earlier versions hashed passwords without normalization.
            let normalized = normalized(&password);
            let differs = normalized.expose_secret() != password.expose_secret();
            verify(&normalized).or_else(|| differs.then(|| verify(&password)).flatten())
        });
        Ok(matching.await?.is_some() && has_hash)
    }

    async fn run<T: Send + 'static>(
        &self,
        requester: Requester,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let result = self.0.submit(requester, work).map_err(|Busy| ApiError::busy())?;
        // The channel closes if the work panics.
        result.await.map_err(|_| ApiError::internal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[tokio::test]
    async fn only_the_hashed_password_is_accepted() {
        let passwords = Passwords::default();
        let hash =
            async |text: &str| passwords.hash(Requester::Loopback, secret(text)).await.expect("a hash");
        let verify = async |text: &str, known: Option<&PasswordHash>| {
            passwords.verify(Requester::Loopback, secret(text), known).await.expect("a verdict")
        };
        let (one, two) = (hash("correct horse").await, hash("correct horse").await);
        assert_ne!(one, two, "each hash has its own salt");
        assert!(one.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", one.as_str());
        assert!(verify("correct horse", Some(&one)).await);
        assert!(!verify("correct horse ", Some(&one)).await);
        assert!(!verify("correct horse", None).await);
        assert!(!verify("none", Some(&unusable())).await, "no password matches the unusable hash");
        assert!(
            phc::PasswordHash::new(DUMMY_HASH).is_ok(),
            "the dummy hash is valid, so its verification takes equally long"
        );
    }

    #[test]
    fn passwords_have_a_minimum_and_a_maximum_length() {
        for (text, accepted) in [("eleven char", false), ("twelve chars", true), ("zwölf Zeiche", true)] {
            assert_eq!(check_strength(&secret(text), "ada") != Err(RULE), accepted, "{text}");
        }
        assert_eq!(check_strength(&SecretString::from("x".repeat(129)), "ada"), Err(RULE));
    }

    #[test]
    fn common_passwords_are_rejected() {
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
            assert_eq!(check_strength(&secret(text), "ada.lovelace"), Err(COMMON), "{text}");
        }
        for text in [
            "correct horse battery",
            "another horse battery",
            "a long sentence that no one says",
            "another sentence that no one says",
            "kL8#vQ2!mZ9x",
            "Zwölf Boxkämpfer jagen",
        ] {
            assert_eq!(check_strength(&secret(text), "ada.lovelace"), Ok(()), "{text}");
        }
    }

    /// Some keyboards send `ü` as one character, others as two. Hashes of passwords without normalization stay valid.
    #[tokio::test]
    async fn equivalent_unicode_forms_are_the_same_password() {
        let passwords = Passwords::default();
        let (one, two) = ("zw\u{f6}lf Boxk\u{e4}mpfer", "zwo\u{308}lf Boxka\u{308}mpfer");
        let verify = async |text: &str, known: &PasswordHash| {
            passwords.verify(Requester::Loopback, secret(text), Some(known)).await.expect("a verdict")
        };
        let hash = passwords.hash(Requester::Loopback, secret(two)).await.expect("a hash");
        assert!(verify(one, &hash).await && verify(two, &hash).await);
        let before: phc::PasswordHash = Argon2::default().hash_password(two.as_bytes()).expect("a hash");
        assert!(verify(two, &PasswordHash::new(before.to_string())).await, "without normalization");
    }
}

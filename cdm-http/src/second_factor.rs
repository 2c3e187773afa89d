//! Time-based one-time codes (RFC 6238), recovery codes, and the encryption of their secrets.
//!
//! The shared secret of a user is stored in the record of users, sealed with a key from the secret store; a page shows it
//! once, during the setup. The data that a browser stores between two pages (an unconfirmed secret, a verified password) is
//! sealed too, for one purpose, one user and a few minutes.

use std::fmt;

use cdm_core::domain::user::{RecoveryHash, SecondFactor};
use cdm_core::domain::{Timestamp, UserName};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use qrcode::QrCode;
use qrcode::render::svg;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use totp_rs::{Builder, Secret, Totp};

use crate::extract::unhex_bytes;

/// The issuer that authenticator apps show next to the user name.
const ISSUER: &str = "Cloud Deployment Manager";
/// The length of a shared secret in bytes, as RFC 4226 recommends.
const SECRET: usize = 20;
/// The length of a recovery code in bytes: 24 letters and digits.
const RECOVERY: usize = 15;
const NONCE: usize = 24;

/// The purpose of a sealed text; it cannot be unsealed for another purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A shared secret in the record of users.
    Kept,
    /// A shared secret that the user has not confirmed yet.
    Pending,
    /// The proof that the password was verified.
    Password,
}

impl Purpose {
    const fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Pending => "pending",
            Self::Password => "password",
        }
    }
}

/// Encrypts texts with the key of this platform.
pub(crate) struct Sealer(XChaCha20Poly1305);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update("\0"));
    hash.finalize().into()
}

/// Derives `N` random bytes from `fresh`, which has 192 random bits.
fn bytes_of<const N: usize>(purpose: &str, fresh: &SecretString) -> [u8; N] {
    let digest = digest(&[purpose, fresh.expose_secret()]);
    let mut bytes = [0; N];
    bytes.copy_from_slice(&digest[..N]);
    bytes
}

impl Sealer {
    pub(crate) fn new(key: &SecretString) -> Self {
        Self(XChaCha20Poly1305::new((&digest(&["second factor", key.expose_secret()])).into()))
    }

    /// Seals `text` for a purpose and a user; `fresh` is a random text, from which the nonce is derived.
    pub(crate) fn seal(
        &self,
        (purpose, name): (Purpose, &UserName),
        text: &str,
        fresh: &SecretString,
    ) -> Option<String> {
        let nonce: [u8; NONCE] = bytes_of("nonce", fresh);
        let aad = format!("{}\0{name}", purpose.label());
        let payload = Payload { msg: text.as_bytes(), aad: aad.as_bytes() };
        let sealed = self.0.encrypt(XNonce::from_slice(&nonce), payload).ok()?;
        Some(hex::encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Unseals a text; `None` if it was not sealed for this purpose and user.
    pub(crate) fn unseal(&self, (purpose, name): (Purpose, &UserName), sealed: &str) -> Option<String> {
        let bytes = unhex_bytes(sealed)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let aad = format!("{}\0{name}", purpose.label());
        let payload = Payload { msg: sealed, aad: aad.as_bytes() };
        String::from_utf8(self.0.decrypt(XNonce::from_slice(nonce), payload).ok()?).ok()
    }

    /// Seals a text that expires at `until`.
    pub(crate) fn seal_until(
        &self,
        purpose: (Purpose, &UserName),
        (text, until): (&str, Timestamp),
        fresh: &SecretString,
    ) -> Option<String> {
        self.seal(purpose, &format!("{}.{text}", until.millis()), fresh)
    }

    /// Unseals a text of [`Self::seal_until`]; `None` if it has expired or was not sealed for this purpose and user.
    pub(crate) fn unseal_in_time(
        &self,
        purpose: (Purpose, &UserName),
        sealed: &str,
        now: Timestamp,
    ) -> Option<String> {
        let text = self.unseal(purpose, sealed)?;
        let (until, text) = text.split_once('.')?;
        (until.parse::<u64>().ok()? > now.millis()).then(|| text.to_owned())
    }
}

/// A secret that an authenticator app shares with this server.
pub(crate) struct SharedSecret {
    totp: Totp,
    /// The secret as hexadecimal text.
    pub(crate) text: String,
}

impl SharedSecret {
    /// Generates a secret from the random text `fresh`.
    pub(crate) fn fresh(name: &UserName, fresh: &SecretString) -> Option<Self> {
        Self::of(name, &hex::encode(bytes_of::<SECRET>("shared secret", fresh)))
    }

    /// Parses a secret from hexadecimal text.
    pub(crate) fn of(name: &UserName, text: &str) -> Option<Self> {
        let bytes = <[u8; SECRET]>::try_from(unhex_bytes(text)?).ok()?;
        let totp = Builder::new().with_secret(Secret::new_stack(bytes)).with_issuer(Some(ISSUER));
        let totp = totp.with_account_name(name.as_str()).build().ok()?;
        Some(Self { totp, text: text.to_owned() })
    }

    /// Returns the secret in Base32, in groups of four characters, for users who type it into an app.
    pub(crate) fn typed(&self) -> String {
        let text = self.totp.secret().to_base32();
        let groups: Vec<&str> =
            text.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        groups.join(" ")
    }

    /// Returns the `otpauth:` URI of the secret.
    pub(crate) fn uri(&self) -> Option<String> {
        self.totp.to_url().ok()
    }

    /// Returns the QR code of the URI as an SVG element.
    pub(crate) fn qr_svg(&self) -> Option<String> {
        let code = QrCode::new(self.uri()?).ok()?;
        let svg = code.render::<svg::Color<'_>>().module_dimensions(4, 4).build();
        svg.find("<svg").and_then(|start| svg.get(start..)).map(str::to_owned)
    }

    /// Returns the time step of a code; accepts codes of one step earlier or later.
    pub(crate) fn step(&self, code: &str, now: Timestamp) -> Option<u64> {
        self.totp.check(&plain(code), now.millis() / 1_000)
    }
}

/// Returns the letters and digits of a code, without spaces and hyphens, in lower case.
fn plain(code: &str) -> String {
    code.chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

/// Generates recovery codes, each with 120 random bits.
pub(crate) fn recovery_codes(fresh: impl Fn() -> SecretString) -> Vec<String> {
    let code = |_| {
        let text = Secret::new(Box::new(bytes_of::<RECOVERY>("recovery", &fresh()))).to_base32();
        let text = text.to_ascii_lowercase();
        let groups: Vec<&str> =
            text.as_bytes().chunks(6).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        groups.join("-")
    };
    (0..SecondFactor::RECOVERY_CODES).map(code).collect()
}

/// Returns the hash of a recovery code; `None` if the text is not a recovery code, such as a code of six digits.
pub(crate) fn recovery_hash(code: &str) -> Option<RecoveryHash> {
    let code = plain(code);
    let digest = digest(&["recovery code", &code]);
    let half = digest.first_chunk::<16>()?;
    (code.len() == RECOVERY * 8 / 5).then_some(RecoveryHash(*half))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UserName {
        UserName::parse(text).expect("a user name")
    }

    fn fresh(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[test]
    fn a_sealed_text_is_bound_to_purpose_user_and_expiry() {
        let (sealer, ada) = (Sealer::new(&fresh("key")), name("ada"));
        let sealed = sealer.seal((Purpose::Kept, &ada), "a secret", &fresh("1")).expect("sealed");
        assert!(!sealed.contains("secret"));
        assert_eq!(sealer.unseal((Purpose::Kept, &ada), &sealed).as_deref(), Some("a secret"));
        assert_eq!(sealer.unseal((Purpose::Pending, &ada), &sealed), None);
        assert_eq!(sealer.unseal((Purpose::Kept, &name("bob")), &sealed), None);
        assert_eq!(Sealer::new(&fresh("another")).unseal((Purpose::Kept, &ada), &sealed), None);
        assert_eq!(sealer.unseal((Purpose::Kept, &ada), &sealed.replacen('0', "1", 1)), None);
        for broken in ["", "0", "zz", "00"] {
            assert_eq!(sealer.unseal((Purpose::Kept, &ada), broken), None, "{broken}");
        }
        let until = Timestamp::from_millis(10);
        let sealed =
            sealer.seal_until((Purpose::Password, &ada), ("x.y", until), &fresh("2")).expect("sealed");
        let at = |now| sealer.unseal_in_time((Purpose::Password, &ada), &sealed, Timestamp::from_millis(now));
        assert_eq!((at(9).as_deref(), at(10)), (Some("x.y"), None));
    }

    /// The codes of RFC 6238, appendix B, shortened to the six digits that authenticator apps show.
    #[test]
    fn codes_match_the_rfc() {
        let shared =
            SharedSecret::of(&name("ada"), "3132333435363738393031323334353637383930").expect("a secret");
        for (second, code) in [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")] {
            let now = Timestamp::from_millis(second * 1_000);
            assert_eq!(shared.step(code, now), Some(second / 30), "{second}");
            assert_eq!(shared.step(&format!(" {} {} ", &code[..3], &code[3..]), now), Some(second / 30));
            assert_eq!(shared.step(code, now.after(std::time::Duration::from_secs(30))), Some(second / 30));
            assert_eq!(shared.step(code, now.after(std::time::Duration::from_secs(90))), None);
        }
        assert_eq!(shared.typed(), "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ");
        let uri = shared.uri().expect("a URI");
        assert!(uri.starts_with("otpauth://totp/") && uri.contains("secret=GEZDGNBVGY3TQOJQ"), "{uri}");
        let svg = shared.qr_svg().expect("a QR code");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>") && !svg.contains("style"));
    }

    #[test]
    fn recovery_codes_differ_from_time_based_codes() {
        let number = std::cell::Cell::new(0);
        let codes = recovery_codes(|| {
            number.set(number.get() + 1);
            fresh(&number.get().to_string())
        });
        assert_eq!(codes.len(), SecondFactor::RECOVERY_CODES);
        for code in &codes {
            assert_eq!((code.len(), code.split('-').count()), (27, 4), "{code}");
            let hash = recovery_hash(code).expect("a recovery code");
            assert_eq!(recovery_hash(&format!(" {} ", code.to_uppercase())), Some(hash));
            assert_eq!(codes.iter().filter(|other| recovery_hash(other) == Some(hash)).count(), 1);
        }
        assert_eq!((recovery_hash("123456"), recovery_hash("")), (None, None));
    }
}

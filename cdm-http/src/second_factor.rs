//! One-time codes by time (RFC 6238) and recovery codes, and what is sealed for them.
//!
//! A shared secret is kept in the users' record, sealed by a key that lies in the store of secrets; in a page it stands
//! once, while somebody sets it up. What a browser keeps between two pages (a secret that is not confirmed yet, a password
//! that was right) is sealed too, for one purpose, one person and a few minutes.

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

use crate::input::{hex_bytes, unhex_bytes};

/// What authenticator apps show beside the name.
const ISSUER: &str = "Cloud Deployment Manager";
/// Bytes of a shared secret, as RFC 4226 recommends, and of what makes a recovery code: 24 letters and digits.
const SECRET: usize = 20;
const RECOVERY: usize = 15;
const NONCE: usize = 24;

/// What a sealed text is for; it unseals for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A shared secret in the users' record.
    Kept,
    /// A shared secret that is not confirmed yet.
    Pending,
    /// A password that was right.
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

/// Seals texts under the key of this platform.
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

/// So many bytes of fresh random text, which has 192 random bits.
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

    /// Seals `text` for a purpose and a person; `fresh` is random.
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
        Some(hex_bytes(&[nonce.as_slice(), &sealed].concat()))
    }

    /// The text again; `None` for what was not sealed for that.
    pub(crate) fn unseal(&self, (purpose, name): (Purpose, &UserName), sealed: &str) -> Option<String> {
        let bytes = unhex_bytes(sealed)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let aad = format!("{}\0{name}", purpose.label());
        let payload = Payload { msg: sealed, aad: aad.as_bytes() };
        String::from_utf8(self.0.decrypt(XNonce::from_slice(nonce), payload).ok()?).ok()
    }

    /// The same, of what serves until a moment only.
    pub(crate) fn seal_until(
        &self,
        purpose: (Purpose, &UserName),
        (text, until): (&str, Timestamp),
        fresh: &SecretString,
    ) -> Option<String> {
        self.seal(purpose, &format!("{}.{text}", until.millis()), fresh)
    }

    /// The text again, unless it was too late.
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

/// A secret that an authenticator app shares with this server, as hexadecimal text.
pub(crate) struct Shared {
    totp: Totp,
    pub(crate) text: String,
}

impl Shared {
    /// One that nobody had before.
    pub(crate) fn fresh(name: &UserName, fresh: &SecretString) -> Option<Self> {
        Self::of(name, &hex_bytes(&bytes_of::<SECRET>("shared secret", fresh)))
    }

    /// The one that is written so.
    pub(crate) fn of(name: &UserName, text: &str) -> Option<Self> {
        let bytes = <[u8; SECRET]>::try_from(unhex_bytes(text)?).ok()?;
        let totp = Builder::new().with_secret(Secret::new_stack(bytes)).with_issuer(Some(ISSUER));
        let totp = totp.with_account_name(name.as_str()).build().ok()?;
        Some(Self { totp, text: text.to_owned() })
    }

    /// As it is typed into an app, in groups of four.
    pub(crate) fn typed(&self) -> String {
        let text = self.totp.secret().to_base32();
        let groups: Vec<&str> =
            text.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
        groups.join(" ")
    }

    /// As an app takes it from a picture.
    pub(crate) fn uri(&self) -> Option<String> {
        self.totp.to_url().ok()
    }

    /// That picture, to stand within a page.
    pub(crate) fn picture(&self) -> Option<String> {
        let code = QrCode::new(self.uri()?).ok()?;
        let picture = code.render::<svg::Color<'_>>().module_dimensions(4, 4).build();
        picture.find("<svg").and_then(|start| picture.get(start..)).map(str::to_owned)
    }

    /// Of which time step a code is; one step early or late will do.
    pub(crate) fn step(&self, code: &str, now: Timestamp) -> Option<u64> {
        self.totp.check(&plain(code), now.millis() / 1_000)
    }
}

/// A code without what people put between its parts.
fn plain(code: &str) -> String {
    code.chars()
        .filter(|letter| letter.is_ascii_alphanumeric())
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

/// Fresh recovery codes: each with 120 random bits.
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

/// What a recovery code is recognised by; `None` for what is none, such as a code of six digits.
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
    fn what_is_sealed_unseals_for_its_purpose_its_person_and_in_time() {
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

    /// The codes of RFC 6238, appendix B, of which authenticator apps show six digits.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let shared = Shared::of(&name("ada"), "3132333435363738393031323334353637383930").expect("a secret");
        for (second, code) in [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")] {
            let now = Timestamp::from_millis(second * 1_000);
            assert_eq!(shared.step(code, now), Some(second / 30), "{second}");
            assert_eq!(shared.step(&format!(" {} {} ", &code[..3], &code[3..]), now), Some(second / 30));
            assert_eq!(shared.step(code, now.after(std::time::Duration::from_secs(30))), Some(second / 30));
            assert_eq!(shared.step(code, now.after(std::time::Duration::from_secs(90))), None);
        }
        assert_eq!(shared.typed(), "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ");
        let uri = shared.uri().expect("an address");
        assert!(uri.starts_with("otpauth://totp/") && uri.contains("secret=GEZDGNBVGY3TQOJQ"), "{uri}");
        let picture = shared.picture().expect("a picture");
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>") && !picture.contains("style"));
    }

    #[test]
    fn recovery_codes_are_told_from_codes_by_time() {
        let number = std::cell::Cell::new(0);
        let codes = recovery_codes(|| {
            number.set(number.get() + 1);
            fresh(&number.get().to_string())
        });
        assert_eq!(codes.len(), SecondFactor::RECOVERY_CODES);
        for code in &codes {
            assert_eq!((code.len(), code.split('-').count()), (27, 4), "{code}");
            let hash = recovery_hash(code).expect("one");
            assert_eq!(recovery_hash(&format!(" {} ", code.to_uppercase())), Some(hash));
            assert_eq!(codes.iter().filter(|other| recovery_hash(other) == Some(hash)).count(), 1);
        }
        assert_eq!((recovery_hash("123456"), recovery_hash("")), (None, None));
    }
}

//! The digest of an image: what runs is named by content, never by a tag that can move.

use std::fmt;
use std::str::FromStr;

use super::name::{NameError, Rule, first_broken};

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits (OCI image specification,
/// "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    const ALGORITHM: &str = "sha256:";

    /// Judged on what follows the optional `sha256:`.
    const RULES: &[Rule] = &[
        (
            |hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
            "a digest is 64 hexadecimal digits, alone or after sha256:",
        ),
        (|hex| !hex.bytes().any(|b| b.is_ascii_uppercase()), "a digest is written in lower case"),
    ];

    /// Parses a digest with or without `sha256:` before it.
    ///
    /// # Errors
    ///
    /// Returns the first rule that `text` breaks. Upper case is refused, not folded: registries compare
    /// digests as text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let hex = text.strip_prefix(Self::ALGORITHM).unwrap_or(text);
        if let Some(rule) = first_broken(Self::RULES, hex) {
            return Err(NameError::new("a digest", rule, text));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, &digit| byte << 4 | nibble(digit));
        }
        Ok(Self(bytes))
    }

    /// Returns the first 12 hexadecimal digits, enough for a person to tell two images apart.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", Self::ALGORITHM, hex(&self.0)))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the value of one lower-case hexadecimal digit.
fn nibble(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 }
}

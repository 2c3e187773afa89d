//! A stable binary encoding of the content of a request, and hashes of the encoding.
//!
//! An idempotency key is compared by the hash of its request, also by another process and by a later version of this
//! crate. The encoding depends on field names and values alone, never on the names of Rust types or fields: a renamed
//! type keeps its fingerprints. A change of the encoding itself increases [`Fingerprint::VERSION`].

use std::fmt::{self, Display};

use sha2::{Digest as _, Sha256};

/// Named values in a fixed order, each prefixed with its length, so that no two different requests share an encoding.
///
/// ```
/// use cdm_core::domain::Canonical;
///
/// let split = Canonical::new().field("a", "b").field("c", "d");
/// let joined = Canonical::new().field("a", "bc").field("", "d");
/// assert_ne!(split, joined);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Canonical(Vec<u8>);

impl Canonical {
    /// Creates an encoding without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a named value, encoded as its `Display` text.
    #[must_use]
    pub fn field(self, name: &str, value: impl Display) -> Self {
        self.text(name).tag(1).text(&value.to_string())
    }

    /// Appends a value that can be absent. An absent value differs from an empty one.
    #[must_use]
    pub fn optional(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self.text(name).tag(0),
        }
    }

    /// Appends a list. The order of the values matters.
    #[must_use]
    pub fn list(self, name: &str, values: impl IntoIterator<Item: Display>) -> Self {
        let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
        let start = self.text(name).tag(2).length(values.len());
        values.iter().fold(start, |encoded, value| encoded.text(value))
    }

    /// Appends another encoding under a name.
    #[must_use]
    pub fn nested(mut self, name: &str, inner: &Self) -> Self {
        self = self.text(name).tag(3).length(inner.0.len());
        self.0.extend_from_slice(&inner.0);
        self
    }

    /// Returns the SHA-256 of the encoding in lower-case hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.0))
    }

    fn text(mut self, text: &str) -> Self {
        self = self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn length(mut self, length: usize) -> Self {
        self.0.extend_from_slice(&(length as u64).to_be_bytes());
        self
    }

    fn tag(mut self, tag: u8) -> Self {
        self.0.push(tag);
        self
    }
}

/// Shows only the length: an encoding may contain the hash of a password.
impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canonical({} bytes)", self.0.len())
    }
}

/// Identifies what a request with an idempotency key asked for.
///
/// Two requests are the same when action, target and content are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The version of the encoding, which every fingerprint begins with.
    pub const VERSION: &str = "v1";

    /// Computes the fingerprint of a request: `v1:` and 64 hexadecimal digits.
    pub fn of(action: &str, target: &str, content: &Canonical) -> Self {
        let request =
            Canonical::new().field("action", action).field("target", target).nested("content", content);
        Self(format!("{}:{}", Self::VERSION, request.sha256()))
    }

    /// Takes a stored fingerprint as it is. One of an unknown version equals no fingerprint of this version.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// Returns the text that is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_values_have_different_encodings() {
        let all = [
            Canonical::new(),
            Canonical::new().field("a", ""),
            Canonical::new().optional("a", None::<&str>),
            Canonical::new().list("a", [""]),
            Canonical::new().list("a", ["", ""]),
            Canonical::new().list("a", ["x"]).field("b", "y"),
            Canonical::new().list("a", ["x", "b", "y"]),
            Canonical::new().nested("a", &Canonical::new()),
            Canonical::new().nested("a", &Canonical::new().field("b", "")),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| other != one), "encoding {index} is not unique");
        }
    }

    #[test]
    fn a_fingerprint_is_pinned() {
        let content = Canonical::new().field("name", "Shop").optional("service", None::<&str>);
        let fingerprint = Fingerprint::of("site.create", "shop", &content);
        assert_eq!(
            fingerprint.as_str(),
            "v1:ebd8e8a14316ce210d36fa5ef95c22bb9c336e4a73083b68e29f864abea36fd1"
        );
    }

    #[test]
    fn a_stored_number_of_an_earlier_version_equals_no_fingerprint() {
        let stored = Fingerprint::stored("1234567890".to_owned());
        assert_ne!(stored, Fingerprint::of("site.create", "shop", &Canonical::new()));
    }
}

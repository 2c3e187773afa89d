//! Image digests. CDM identifies an image by its content, never by a tag, because a tag can move to another image.

use std::fmt;
use std::str::FromStr;

use super::name::{NameError, Rule, first_broken};

/// A SHA-256 digest, written `sha256:` and 64 lowercase hexadecimal digits (OCI image specification, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    const ALGORITHM: &str = "sha256:";

    const LENGTH: &str = "a digest must be 64 hexadecimal digits, alone or after sha256:";
    /// Applied to the text after the optional `sha256:`.
    const RULES: &[Rule] = &[
        (|digits| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()), Self::LENGTH),
        (|digits| !digits.bytes().any(|b| b.is_ascii_uppercase()), "a digest must be written in lower case"),
    ];

    /// Parses a digest, with or without the prefix `sha256:`.
    ///
    /// ```
    /// use cdm_core::domain::Digest;
    ///
    /// let digits = "0123456789abcdef".repeat(4);
    /// let digest = Digest::parse(&digits)?;
    /// assert_eq!(digest.to_string(), format!("sha256:{digits}"));
    /// assert!(Digest::parse(&digits.to_uppercase()).is_err());
    /// # Ok::<(), cdm_core::domain::NameError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the first rule that `text` breaks. Uppercase digits are rejected instead of converted, because
    /// registries compare digests as text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix(Self::ALGORITHM).unwrap_or(text);
        let invalid = |rule| NameError::new("a digest", rule, text);
        if let Some(rule) = first_broken(Self::RULES, digits) {
            return Err(invalid(rule));
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid(Self::LENGTH))?;
        Ok(Self(bytes))
    }

    /// Parses an image reference: a digest as [`Digest::parse`] accepts it, or `[repository][:tag]@sha256:…`. The tag
    /// is ignored, because the digest identifies the image. If `configured` names a repository, a reference to
    /// another repository is rejected.
    ///
    /// # Errors
    ///
    /// Returns an [`ImageError`] for a tag without a digest, another repository, or a digest that breaks a rule.
    pub fn of_image(text: &str, configured: Option<&str>) -> Result<Self, ImageError> {
        let Some((name, digest)) = text.rsplit_once('@') else {
            return Self::parse(text).map_err(|broken| match is_tagged(text) {
                true => ImageError::Tag,
                false => ImageError::Digest(broken),
            });
        };
        if !name.bytes().all(is_of_reference) {
            let rule = "before the `@` of an image reference, only ASCII letters, digits, dots, underscores, hyphens, \
                        slashes and colons are allowed";
            return Err(ImageError::Digest(NameError::new("an image", rule, text)));
        }
        let digest = match digest.starts_with(Self::ALGORITHM) {
            true => Self::parse(digest).map_err(ImageError::Digest)?,
            false => {
                let rule = "an image reference must end with `@sha256:` and 64 hexadecimal digits";
                return Err(ImageError::Digest(NameError::new("an image", rule, text)));
            }
        };
        let repository = without_tag(name);
        match configured {
            Some(configured) if !repository.is_empty() && repository != configured => {
                let given = NameError::new("an image", "it belongs to another repository", repository);
                Err(ImageError::Repository {
                    given: given.value().to_owned(),
                    configured: configured.to_owned(),
                })
            }
            Some(_) | None => Ok(digest),
        }
    }

    /// Returns the first 12 hexadecimal digits, enough for a user to distinguish two images.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", Self::ALGORITHM, hex::encode(self.0)))
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

/// Why a text does not identify an image that may be deployed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The text is a tag, which can move, without a digest.
    #[error(
        "a tag alone is not allowed, because it can move; name the image by its digest: 64 hexadecimal digits, or \
        `repository:tag@sha256:` and the digits"
    )]
    Tag,
    /// The repository is not the configured one.
    #[error(
        "the image belongs to the repository `{given}`, but this platform deploys only from `{configured}`"
    )]
    Repository {
        /// The repository of the request, escaped and shortened.
        given: String,
        /// The repository of the configuration.
        configured: String,
    },
    /// The digest breaks a rule.
    #[error("{}", .0.rule())]
    Digest(#[source] NameError),
}

/// Returns the repository of `repository:tag`. A colon before a `/` separates the registry's port.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        Some(_) | None => name,
    }
}

/// Returns whether a byte is allowed in the name and tag of a reference.
fn is_of_reference(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._/:-".contains(&byte)
}

/// Returns whether a text without a digest is a reference by tag or by name, such as `dev` or
/// `registry.example:5000/wp:6.8`.
fn is_tagged(text: &str) -> bool {
    let name = without_tag(text);
    let tag = text.get(name.len()..).unwrap_or_default().trim_start_matches(':');
    // A text of 64 characters is more likely a mistyped digest than a tag.
    let plausible = text.len() != 64 && text.len() <= 400 && tag.len() <= 128;
    let digest = text.starts_with("sha256:") || text.starts_with("sha512:");
    plausible
        && !digest
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(is_of_reference)
}

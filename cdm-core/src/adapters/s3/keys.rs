//! The port's keys, which identify a version, a delete marker or an unfinished upload of an object, and S3's encoding
//! of keys.

use std::borrow::Cow;
use std::fmt;

use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

const VERSION: &str = "?versionId=";
const UPLOAD: &str = "?uploadId=";
/// The version ID of an object in a bucket without versioning.
pub(super) const NULL: &str = "null";

/// The entry that a key of the port identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// An object, in any version.
    Object(&'a str),
    /// A version of an object, or a delete marker.
    Version(&'a str, &'a str),
    /// A multipart upload that was neither completed nor aborted.
    Upload(&'a str, &'a str),
}

impl<'a> Entry<'a> {
    /// Parses a key from its end, because an object's key may itself look like the key of a version.
    pub(super) fn parse(key: &'a str) -> Self {
        let version = key.rsplit_once(VERSION).filter(|(_, id)| is_id(id));
        let upload = key.rsplit_once(UPLOAD).filter(|(_, id)| is_id(id));
        match (version, upload) {
            (Some((key, id)), _) => Self::Version(key, id),
            (None, Some((key, id))) => Self::Upload(key, id),
            (None, None) => Self::Object(key),
        }
    }

    pub(super) const fn key(self) -> &'a str {
        match self {
            Self::Object(key) | Self::Version(key, _) | Self::Upload(key, _) => key,
        }
    }

    pub(super) fn version(self) -> Option<String> {
        match self {
            Self::Version(_, id) => Some(id.to_owned()),
            Self::Object(_) | Self::Upload(..) => None,
        }
    }

    /// Returns whether a request to delete several objects can contain the entry. Uploads need separate requests, and
    /// XML cannot represent every character of a key.
    pub(super) fn fits_in_list(&self) -> bool {
        let writable = |letter: char| match letter {
            '\t' | '\n' | '\r' => true,
            '\u{fffe}' | '\u{ffff}' => false,
            letter => letter >= ' ',
        };
        !matches!(self, Self::Upload(..)) && self.key().chars().all(writable)
    }
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(key) => f.write_str(key),
            Self::Version(key, id) => write!(f, "{key}{VERSION}{id}"),
            Self::Upload(key, id) => write!(f, "{key}{UPLOAD}{id}"),
        }
    }
}

/// Returns whether a text can be an ID. IDs contain no question marks and no slashes, in any store.
fn is_id(text: &str) -> bool {
    !text.is_empty() && !text.contains(['?', '/'])
}

/// Returns whether an error code means that the entry does not exist.
pub(super) fn is_missing(code: &str) -> bool {
    matches!(code, "NoSuchKey" | "NoSuchVersion" | "NoSuchUpload")
}

/// Returns a function that decodes the keys in a response with this encoding.
pub(super) fn decoder(encoding: Option<&EncodingType>) -> impl Fn(&str) -> String {
    let encoded = encoding == Some(&EncodingType::Url);
    move |key| if encoded { decoded(key) } else { key.to_owned() }
}

fn decoded(key: &str) -> String {
    let spaced = key.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map_or_else(|_| key.to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_parsed_from_its_end() {
        for entry in [
            Entry::Object("sites/u/a.jpg"),
            Entry::Object("sites/u/a?versionId="),
            Entry::Object("sites/u/a?versionId=b/c"),
            Entry::Version("sites/u/a.jpg", "null"),
            Entry::Version("sites/u/a?versionId=1", "3.L4k_qt"),
            Entry::Version("sites/u/a?uploadId=1", "2"),
            Entry::Upload("sites/u/a?versionId=1", "2~x-._"),
        ] {
            assert_eq!(Entry::parse(&entry.to_string()), entry);
        }
    }

    #[test]
    fn an_encoded_key_is_decoded() {
        let url = decoder(Some(&EncodingType::Url));
        for (encoded, plain) in [
            ("sites%2Fu/a+b%2Bc", "sites/u/a b+c"),
            ("caf%C3%A9%01", "café\u{1}"),
            ("100%25%2", "100%%2"),
            ("a%zz%+1", "a%zz% 1"),
        ] {
            assert_eq!(url(encoded), plain);
        }
        assert_eq!(decoder(None)("a+b%20"), "a+b%20");
    }

    #[test]
    fn keys_that_xml_cannot_represent_are_deleted_individually() {
        assert!(Entry::Version("sites/u/a\tb\r\n\u{e9}", "1").fits_in_list());
        for entry in [Entry::Version("a\u{1}", "1"), Entry::Object("\u{ffff}"), Entry::Upload("a", "1")] {
            assert!(!entry.fits_in_list(), "{entry}");
        }
    }
}

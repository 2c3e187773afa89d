//! The validation of a request, which reports all invalid fields at once.

use cdm_core::domain::NameError;
use serde::{Deserialize, Deserializer};

use super::problem::FieldError;

/// The errors of the fields of a request, of which there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidFields {
    /// The code of the problem document.
    pub code: &'static str,
    /// At least one error, in the order of the checks.
    pub errors: Vec<FieldError>,
}

impl InvalidFields {
    /// Returns the error of one field, with the code `invalid`.
    pub fn one(field: &str, message: impl Into<String>) -> Self {
        Self::coded("invalid", field, message)
    }

    /// Returns the error of one field, with a specific code.
    pub fn coded(code: &'static str, field: &str, message: impl Into<String>) -> Self {
        Self { code, errors: vec![FieldError { field: field.to_owned(), message: message.into() }] }
    }
}

/// Collects the errors of several fields, so that one response reports all of them.
#[derive(Debug, Default)]
pub struct Fields(Vec<FieldError>);

impl Fields {
    /// Returns the parsed value, or records the error of the field.
    pub fn parse<T>(&mut self, field: &str, parsed: Result<T, NameError>) -> Option<T> {
        parsed.map_err(|broken| self.reject(field, broken.rule())).ok()
    }

    /// Records the error of a field.
    pub fn reject(&mut self, field: &str, message: &str) {
        self.0.push(FieldError { field: field.to_owned(), message: message.to_owned() });
    }

    /// Returns the parsed value if no field was rejected.
    ///
    /// # Errors
    /// The recorded errors, with the code `invalid`.
    pub fn finish<T>(self, parsed: Option<T>) -> Result<T, InvalidFields> {
        match parsed {
            Some(parsed) if self.0.is_empty() => Ok(parsed),
            _ => Err(InvalidFields { code: "invalid", errors: self.0 }),
        }
    }
}

/// Deserializes an optional field that is either absent or has a value; rejects null.
pub(super) fn non_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

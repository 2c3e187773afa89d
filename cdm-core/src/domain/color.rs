//! The colors of the two shared services.

use std::fmt;

use super::NameError;

/// The color of one of the two shared services. The canary selector has a color as its value.
///
/// ```
/// use cdm_core::domain::Color;
///
/// assert_eq!(Color::parse("blue")?, Color::Blue);
/// assert_eq!(Color::Blue.other(), Color::Green);
/// assert!(Color::parse("Blue").is_err());
/// # Ok::<(), cdm_core::domain::NameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Color {
    /// The blue service, which is active on a new platform.
    Blue,
    /// The green service, which is inactive on a new platform.
    Green,
}

impl Color {
    /// Both colors, blue first.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// Parses `blue` or `green`.
    ///
    /// # Errors
    /// Returns an error for any other text, including uppercase spellings.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text {
            "blue" => Ok(Self::Blue),
            "green" => Ok(Self::Green),
            _ => Err(NameError::new("a color", "a color is `blue` or `green`", text)),
        }
    }

    /// Returns `blue` or `green`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// Returns the opposite color.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

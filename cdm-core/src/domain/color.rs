//! The two colours.

use std::fmt;

use super::NameError;

/// Which of the two shared services: the value of the canary selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Color {
    /// The blue service; a new platform starts on it.
    Blue,
    /// The green service.
    Green,
}

impl Color {
    /// Both, blue first.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// Parses `blue` or `green`.
    ///
    /// # Errors
    /// Any other text, upper case included.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text {
            "blue" => Ok(Self::Blue),
            "green" => Ok(Self::Green),
            _ => Err(NameError::new("a selector", "a selector is `blue` or `green`", text)),
        }
    }

    /// `blue` or `green`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// The other colour.
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

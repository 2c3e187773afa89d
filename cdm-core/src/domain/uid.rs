//! Unique ids that the platform generates. Ids are never reused and sort by creation time.

use std::fmt;
use std::str::FromStr;

use super::name::{NameError, Rule, first_broken};

/// A unique id: 48 bits of Unix time in milliseconds, followed by 80 random bits.
///
/// The text is 26 lowercase letters and digits: Crockford's base 32 in the layout of a ULID. Texts sort like values,
/// by time first. The text is lowercase because the names of databases, secrets and Kubernetes objects contain it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(u128);

impl Uid {
    const LENGTH: usize = 26;
    const RANDOM_BITS: u32 = 80;
    const MAX_MILLIS: u64 = (1 << 48) - 1;

    const RULES: &[Rule] = &[
        (|text| text.len() == Self::LENGTH, "a uid has exactly 26 characters"),
        (
            |text| text.bytes().all(|b| digit(b).is_some()),
            "a uid must contain only digits and lower-case letters other than i, l, o and u",
        ),
        (|text| text < "8", "a uid must begin with a digit from 0 to 7"),
    ];

    /// The uid with all bits zero, which is never generated.
    pub const NIL: Self = Self(0);

    /// Creates a uid from a time and random bits, of which the lowest 80 are used.
    ///
    /// A time after the year 10889, which 48 bits cannot represent, is replaced by the maximum.
    pub fn from_parts(unix_millis: u64, random: u128) -> Self {
        let time = u128::from(unix_millis.min(Self::MAX_MILLIS)) << Self::RANDOM_BITS;
        Self(time | random & ((1 << Self::RANDOM_BITS) - 1))
    }

    /// Parses the text of a uid.
    ///
    /// # Errors
    ///
    /// Returns the first rule that `text` breaks. The alternatives of Crockford's alphabet, such as uppercase letters
    /// or `o` for zero, are errors, so that a uid has one spelling.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Some(rule) = first_broken(Self::RULES, text) {
            return Err(NameError::new("a uid", rule, text));
        }
        Ok(Self(text.bytes().filter_map(digit).fold(0, |value, digit| value << 5 | digit)))
    }

    /// Returns the creation time in milliseconds since the Unix epoch.
    pub fn millis(self) -> u64 {
        (self.0 >> Self::RANDOM_BITS) as u64
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit_at = |place| ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        let text: String = (0..Self::LENGTH).rev().map(|place| char::from(digit_at(place))).collect();
        f.pad(&text)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({self})")
    }
}

impl FromStr for Uid {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// Crockford's base 32 in lowercase and in ASCII order, without `i`, `l`, `o` and `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn digit(letter: u8) -> Option<u128> {
    ALPHABET.iter().zip(0..).find_map(|(&symbol, value)| (symbol == letter).then_some(value))
}

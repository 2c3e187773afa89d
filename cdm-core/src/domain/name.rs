//! Names that users choose. A name is validated once, on input; a value of one of these types is always valid.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// An invalid name: the kind of name, the broken rule, and the rejected input in a form that is safe to print.
///
/// Invariant: the input is escaped, so that no control or direction character reaches a log or terminal, and
/// shortened to 80 characters; a shortened input ends with `…`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} \"{value}\"{} is refused: {rule}", NameError::item_number(.place))]
pub struct NameError {
    what: &'static str,
    rule: &'static str,
    value: String,
    place: Option<usize>,
}

impl NameError {
    /// The maximum number of characters of the rejected input that are kept, including the ellipsis.
    const SHOWN: usize = 80;

    pub(super) fn new(what: &'static str, rule: &'static str, input: &str) -> Self {
        Self { what, rule, value: Self::printable(input), place: None }
    }

    /// Returns the error for an item of a list; `index` counts from 0.
    #[must_use]
    pub(super) fn at(self, index: usize) -> Self {
        Self { place: Some(index), ..self }
    }

    fn item_number(place: &Option<usize>) -> String {
        place.map_or_else(String::new, |index| format!(" (number {})", index + 1))
    }

    /// Returns the kind of name, such as `a site id`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Returns the rule that was broken, such as `a site id must have at most 32 characters`.
    pub fn rule(&self) -> &'static str {
        self.rule
    }

    /// Returns the rejected input, escaped and shortened.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns the index of the item in a list, counted from 0; `None` if the input is not part of a list.
    pub fn place(&self) -> Option<usize> {
        self.place
    }

    /// Escapes `input` and shortens it between two characters, never inside an escape.
    fn printable(input: &str) -> String {
        let mut shown = String::new();
        let mut length = 0;
        let mut kept = 0;
        for character in input.chars() {
            let escaped = character.escape_debug();
            length += escaped.len();
            if length > Self::SHOWN {
                shown.truncate(kept);
                shown.push('…');
                break;
            }
            shown.extend(escaped);
            if length < Self::SHOWN {
                kept = shown.len();
            }
        }
        shown
    }
}

/// A rule for a kind of name: the check, and the text that describes the rule to users.
pub(super) type Rule = (fn(&str) -> bool, &'static str);

/// Returns the text of the first of `rules` that `text` breaks.
pub(super) fn first_broken(rules: &[Rule], text: &str) -> Option<&'static str> {
    rules.iter().find(|(keeps, _)| !keeps(text)).map(|&(_, rule)| rule)
}

/// Implements the methods that every parsed text has: access to the text, and parsing through [`FromStr`].
macro_rules! text_impls {
    ($name:ident) => {
        impl $name {
            /// Returns the accepted text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}
pub(super) use text_impls;

/// Defines a name that is kept exactly as written if it breaks none of the given rules.
macro_rules! verbatim_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rules:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            const RULES: &[Rule] = &$rules;

            #[doc = concat!("Parses ", $what, ", which is kept exactly as written.")]
            ///
            /// # Errors
            ///
            /// Returns the first rule that `text` breaks. The text is not trimmed and its case is not changed.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                match first_broken(Self::RULES, text) {
                    None => Ok(Self(text.into())),
                    Some(rule) => Err(NameError::new($what, rule, text)),
                }
            }
        }

        text_impls!($name);
    };
}

verbatim_name!(
    /// The id of a site, chosen by the user who creates the site: `^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$` without `--`.
    ///
    /// A site id is also a valid DNS label (RFC 1123) and a valid Kubernetes label value. Cloning is cheap.
    ///
    /// ```
    /// use cdm_core::domain::SiteId;
    ///
    /// assert_eq!(SiteId::parse("shop-2")?.as_str(), "shop-2");
    /// let error = SiteId::parse("Shop").unwrap_err();
    /// assert_eq!(error.rule(), "a site id must contain only lower-case ASCII letters, digits and hyphens");
    /// # Ok::<(), cdm_core::domain::NameError>(())
    /// ```
    SiteId,
    "a site id",
    [
        (|text| !text.is_empty(), "a site id must not be empty"),
        (|text| at_most(text, 32), "a site id must have at most 32 characters"),
        (
            |text| text.bytes().all(|b| is_lower_alphanumeric(b) || b == b'-'),
            "a site id must contain only lower-case ASCII letters, digits and hyphens",
        ),
        (
            |text| text.starts_with(|c: char| c.is_ascii_lowercase()),
            "a site id must begin with a letter",
        ),
        (|text| !text.ends_with('-'), "a site id must not end with a hyphen"),
        (|text| !text.contains("--"), "a site id must not have two hyphens in a row"),
    ]
);

verbatim_name!(
    /// The theme of a new site, named by its directory: `^[A-Za-z0-9_][A-Za-z0-9._-]*$`, at most 100 characters, with
    /// the case preserved.
    ///
    /// A theme is a single path segment, is not hidden, `.` or `..`, and cannot be read as a command-line option.
    /// Cloning is cheap.
    Theme,
    "a theme",
    [
        (|text| !text.is_empty(), "a theme must not be empty"),
        (|text| at_most(text, 100), "a theme must have at most 100 characters"),
        (
            |text| text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
            "a theme must be named like its directory: ASCII letters, digits, dots, underscores and hyphens",
        ),
        (
            |text| text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'),
            "a theme must begin with a letter, a digit or an underscore",
        ),
    ]
);

verbatim_name!(
    /// The display name of a site: 1 to 200 printable characters of any script.
    ///
    /// A character is printable if Unicode, in the version of the Rust toolchain, assigns it and does not classify it
    /// as control, format (direction marks and zero-width characters), private use or separator; U+0020 and the
    /// no-break spaces are allowed. Letters that have no visible glyph are rejected. A joiner (U+200C, U+200D) is
    /// allowed where it changes the rendering: in scripts that join their letters, and in emoji. Cloning is cheap.
    SiteName,
    "a site name",
    [
        (|text| !text.is_empty(), "a site name must not be empty"),
        (|text| at_most(text, 200), "a site name must have at most 200 characters"),
        (
            |text| text.trim().len() == text.len(),
            "a site name must neither begin nor end with white space",
        ),
        (
            |text| !text.starts_with(is_combining),
            "a site name must not begin with a combining mark",
        ),
        (
            |text| text.chars().all(|c| is_printable(c) || is_no_break_space(c) || is_joiner(c)),
            "a site name must contain only printable characters: no control, direction or zero-width characters, \
             and no space but U+0020 and the no-break spaces",
        ),
        (
            joiners_join,
            "a joiner (U+200C, U+200D) in a site name must be in a word of a script that needs it, or in an emoji",
        ),
    ]
);

verbatim_name!(
    /// The identity of a caller: 1 to 100 printable ASCII characters without leading or trailing spaces.
    ///
    /// An actor can be written to a log line, a journal entry and a header without escaping. Cloning is cheap.
    Actor,
    "an actor",
    [
        (|text| !text.is_empty(), "an actor must not be empty"),
        (|text| at_most(text, 100), "an actor must have at most 100 characters"),
        (
            |text| text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()),
            "an actor must contain only printable ASCII characters",
        ),
        (
            |text| text.trim().len() == text.len(),
            "an actor must neither begin nor end with white space",
        ),
    ]
);

impl Actor {
    /// The prefix of the actor of every user who signs in. Tokens cannot use it.
    pub(super) const USER_PREFIX: &str = "user:";

    /// Returns the actor of unauthenticated requests.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    /// Returns the actor of changes that a process makes at its start: tokens of the configuration, and the first
    /// token.
    pub fn bootstrap() -> Self {
        Self("bootstrap".into())
    }

    /// Returns whether the actor is a user who signs in.
    pub fn is_person(&self) -> bool {
        self.as_str().starts_with(Self::USER_PREFIX)
    }
}

verbatim_name!(
    /// The name of a user who signs in: `^[a-z0-9]([a-z0-9._@-]{0,62}[a-z0-9])?$`, which allows a lowercase email
    /// address. Cloning is cheap.
    UserName,
    "a user name",
    [
        (|text| !text.is_empty(), "a user name must not be empty"),
        (|text| at_most(text, 64), "a user name must have at most 64 characters"),
        (
            |text| text.bytes().all(|b| is_lower_alphanumeric(b) || b"._@-".contains(&b)),
            "a user name must contain only lower-case ASCII letters, digits, dots, underscores, hyphens and `@`",
        ),
        (
            |text| {
                let ends = [text.bytes().next(), text.bytes().next_back()];
                ends.iter().flatten().all(|end| is_lower_alphanumeric(*end))
            },
            "a user name must begin and end with a letter or a digit",
        ),
    ]
);

impl UserName {
    /// Returns the user's actor, which the audit log and all records use.
    pub fn actor(&self) -> Actor {
        Actor(format!("{}{self}", Actor::USER_PREFIX).into())
    }
}

verbatim_name!(
    /// The key under which a client repeats a request: 1 to 255 visible ASCII characters.
    ///
    /// The server compares the key byte by byte and does not interpret it. Cloning is cheap.
    IdempotencyKey,
    "an idempotency key",
    [
        (|text| !text.is_empty(), "an idempotency key must not be empty"),
        (|text| at_most(text, 255), "an idempotency key must have at most 255 characters"),
        (
            |text| text.bytes().all(|b| b.is_ascii_graphic()),
            "an idempotency key must contain only visible ASCII characters, and no space",
        ),
    ]
);

/// Characters that Unicode classifies as letters, marks or symbols although they have no visible glyph: fillers,
/// joiners and variation selectors of single scripts, and the empty Braille pattern. Two names that differ only in
/// such a character look the same.
const BLANK: [char; 14] = [
    '\u{034f}',
    '\u{115f}',
    '\u{1160}',
    '\u{17b4}',
    '\u{17b5}',
    '\u{180b}',
    '\u{180c}',
    '\u{180d}',
    '\u{180f}',
    '\u{2800}',
    '\u{3164}',
    '\u{ffa0}',
    '\u{1d159}',
    '\u{16fe4}',
];

/// Spaces at which no line may break. Typography uses them before `:` and `!` in French and between a number and its
/// unit.
fn is_no_break_space(character: char) -> bool {
    matches!(character, '\u{a0}' | '\u{2007}' | '\u{202f}')
}

const ZWNJ: char = '\u{200c}';
const ZWJ: char = '\u{200d}';

fn is_joiner(character: char) -> bool {
    matches!(character, ZWNJ | ZWJ)
}

/// Returns whether each joiner changes the rendering, so that no two different names look the same. A non-joiner is
/// allowed between two visible characters if one of them belongs to a script that joins its letters. A joiner is
/// allowed after such a character, or between two pictographs (UTS 51, emoji ZWJ sequences).
fn joiners_join(text: &str) -> bool {
    let characters: Vec<char> = text.chars().collect();
    let at = |index: Option<usize>| index.and_then(|index| characters.get(index)).copied();
    characters.iter().enumerate().filter(|(_, joiner)| is_joiner(**joiner)).all(|(index, joiner)| {
        let (before, after) = (at(index.checked_sub(1)), at(index.checked_add(1)));
        let Some(before) = before else { return false };
        let drawn = |character: char| !is_joiner(character) && !character.is_whitespace();
        match (*joiner, after) {
            (ZWNJ, Some(after)) => {
                drawn(before) && drawn(after) && (joins_letters(before) || joins_letters(after))
            }
            (ZWJ, Some(after)) if draws_emoji(before) => is_pictograph(after),
            (ZWJ, after) => joins_letters(before) && !after.is_some_and(is_joiner),
            (_, _) => false,
        }
    })
}

/// Returns whether a character belongs to a script whose letters change shape next to each other: Arabic and related
/// scripts, the Indic scripts, Khmer, Mongolian and Adlam. The check uses blocks, which avoids a dependency on
/// Unicode data.
fn joins_letters(character: char) -> bool {
    matches!(
        character,
        '\u{600}'..='\u{dff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{18af}'
            | '\u{1a20}'..='\u{1aaf}'
            | '\u{1b00}'..='\u{1c4f}'
            | '\u{a800}'..='\u{a82f}'
            | '\u{a840}'..='\u{a8df}'
            | '\u{a930}'..='\u{aadf}'
            | '\u{aae0}'..='\u{aaff}'
            | '\u{abc0}'..='\u{abff}'
            | '\u{fb50}'..='\u{fdff}'
            | '\u{fe70}'..='\u{fefc}'
            | '\u{10a00}'..='\u{11fff}'
            | '\u{1e900}'..='\u{1e95f}'
    )
}

/// Returns whether a joiner after this character combines it with the next one into one emoji: a pictograph, its skin
/// tone, or the selector of its color form.
fn draws_emoji(character: char) -> bool {
    is_pictograph(character) || character == '\u{fe0f}'
}

fn is_pictograph(character: char) -> bool {
    matches!(character, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

fn at_most(text: &str, characters: usize) -> bool {
    text.chars().nth(characters).is_none()
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Returns whether a character is printable by the table of the standard library that `{:?}` uses, which avoids a
/// dependency on Unicode data.
fn is_printable(character: char) -> bool {
    if BLANK.contains(&character) {
        return false;
    }
    // A combining mark is escaped only if no character precedes it, so a letter is put before it. Quotes and the
    // backslash are escaped only for syntax.
    let after_a_letter = ['a', character].iter().collect::<String>();
    matches!(character, '\'' | '"' | '\\') || after_a_letter.escape_debug().eq(['a', character])
}

/// Returns whether a character is escaped only because no character precedes it.
fn is_combining(character: char) -> bool {
    is_printable(character) && character.escape_debug().len() > 2
}

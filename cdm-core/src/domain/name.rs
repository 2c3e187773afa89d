//! Names that people choose, parsed once at the door: who holds one of these types need not check again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A name that breaks a rule: which kind of name, which rule, and the offending input made safe to print.
///
/// Invariant: the kept input is escaped, so that no control or direction character reaches a log or a
/// terminal, and holds at most 80 characters; a longer one is cut there and ends in `…`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} \"{value}\"{} is refused: {rule}", NameError::shown_place(.place))]
pub struct NameError {
    what: &'static str,
    rule: &'static str,
    value: String,
    place: Option<usize>,
}

impl NameError {
    /// Characters of the offending input that are kept, the sign of omission included.
    const SHOWN: usize = 80;

    pub(super) fn new(what: &'static str, rule: &'static str, input: &str) -> Self {
        Self { what, rule, value: Self::printable(input), place: None }
    }

    /// The same, of an item of a list; `index` counts from 0.
    #[must_use]
    pub(super) fn at(self, index: usize) -> Self {
        Self { place: Some(index), ..self }
    }

    fn shown_place(place: &Option<usize>) -> String {
        place.map_or_else(String::new, |index| format!(" (number {})", index + 1))
    }

    /// Returns the kind of name, such as `a site id`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Returns the rule that was broken, such as `a site id has at most 32 characters`.
    pub fn rule(&self) -> &'static str {
        self.rule
    }

    /// Returns the offending input, escaped and cut.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns which item of a list it is, counted from 0; `None` where there is no list.
    pub fn place(&self) -> Option<usize> {
        self.place
    }

    /// Escapes `input` and cuts it between two characters, never inside an escape.
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

/// One rule of a kind of name: whether a text keeps it, and how it reads to whoever broke it.
pub(super) type Rule = (fn(&str) -> bool, &'static str);

/// Returns the first of `rules` that `text` breaks.
pub(super) fn first_broken(rules: &[Rule], text: &str) -> Option<&'static str> {
    rules.iter().find(|(keeps, _)| !keeps(text)).map(|&(_, rule)| rule)
}

/// Implements what every parsed text offers: its text back, and parsing through [`FromStr`].
macro_rules! text_impls {
    ($name:ident) => {
        impl $name {
            /// Returns the text that was accepted.
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

/// Defines a name that is kept exactly as written once it breaks none of the given rules.
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
            /// Returns the first rule that `text` breaks. Nothing is trimmed or folded to make it fit.
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
    /// The id of a site, chosen by whoever creates it: `^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$` without `--`.
    ///
    /// Such an id is also a DNS label (RFC 1123) and a Kubernetes label value. Cloning is cheap.
    SiteId,
    "a site id",
    [
        (|text| !text.is_empty(), "a site id is not empty"),
        (|text| at_most(text, 32), "a site id has at most 32 characters"),
        (
            |text| text.bytes().all(|b| is_lower_alphanumeric(b) || b == b'-'),
            "a site id holds only lower-case ASCII letters, digits and hyphens",
        ),
        (
            |text| text.starts_with(|c: char| c.is_ascii_lowercase()),
            "a site id begins with a letter",
        ),
        (|text| !text.ends_with('-'), "a site id does not end with a hyphen"),
        (|text| !text.contains("--"), "a site id has no two hyphens in a row"),
    ]
);

verbatim_name!(
    /// The theme a site is created with, named as its directory is: `^[A-Za-z0-9_][A-Za-z0-9._-]*$`, at most 100
    /// characters, case kept.
    ///
    /// It is one path segment, neither hidden nor `.` or `..`, and never an option of a command line. Cloning is cheap.
    Theme,
    "a theme",
    [
        (|text| !text.is_empty(), "a theme is not empty"),
        (|text| at_most(text, 100), "a theme has at most 100 characters"),
        (
            |text| text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
            "a theme is named as its directory is: ASCII letters, digits, dots, underscores and hyphens",
        ),
        (
            |text| text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'),
            "a theme begins with a letter, a digit or an underscore",
        ),
    ]
);

verbatim_name!(
    /// The name of a site as people read it: 1 to 200 printable characters of any script.
    ///
    /// Printable is what Unicode, in the version of the Rust toolchain, neither leaves unassigned nor calls
    /// control, format (direction marks and zero-width characters), private use or a separator other than U+0020 and
    /// the no-break spaces; characters that are letters on paper but draw nothing are refused too. A joiner (U+200C,
    /// U+200D) is printable where it changes what is drawn: in the scripts that join their letters, and in emoji.
    /// Cloning is cheap.
    SiteName,
    "a site name",
    [
        (|text| !text.is_empty(), "a site name is not empty"),
        (|text| at_most(text, 200), "a site name has at most 200 characters"),
        (
            |text| text.trim().len() == text.len(),
            "a site name neither begins nor ends with white space",
        ),
        (
            |text| !text.starts_with(is_combining),
            "a site name does not begin with a combining mark",
        ),
        (
            |text| text.chars().all(|c| is_printable(c) || is_no_break_space(c) || is_joiner(c)),
            "a site name holds only printable characters: no control, direction or zero-width ones, \
             and no space but U+0020 and the no-break spaces",
        ),
        (
            joiners_join,
            "a joiner (U+200C, U+200D) in a site name stands within a word of a script that needs it, or within an emoji",
        ),
    ]
);

verbatim_name!(
    /// Who asked for something: 1 to 100 printable ASCII characters, with no space at either end.
    ///
    /// It fits a log line, a journal entry and a header as it is. Cloning is cheap.
    Actor,
    "an actor",
    [
        (|text| !text.is_empty(), "an actor is not empty"),
        (|text| at_most(text, 100), "an actor has at most 100 characters"),
        (
            |text| text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()),
            "an actor holds only printable ASCII characters",
        ),
        (
            |text| text.trim().len() == text.len(),
            "an actor neither begins nor ends with white space",
        ),
    ]
);

impl Actor {
    /// What the actor of every person who signs in begins with, and of nobody else.
    pub(super) const PERSON: &str = "user:";

    /// Who is named where nobody has proven who they are.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    /// Who is named for what a process does at its start: tokens of the configuration, and the first one.
    pub fn bootstrap() -> Self {
        Self("bootstrap".into())
    }

    /// Whether it is a person who signs in.
    pub fn is_person(&self) -> bool {
        self.as_str().starts_with(Self::PERSON)
    }
}

verbatim_name!(
    /// The name that a person signs in with: `^[a-z0-9]([a-z0-9._@-]{0,62}[a-z0-9])?$`, so that an e-mail address in
    /// lower case is one. Cloning is cheap.
    UserName,
    "a user name",
    [
        (|text| !text.is_empty(), "a user name is not empty"),
        (|text| at_most(text, 64), "a user name has at most 64 characters"),
        (
            |text| text.bytes().all(|b| is_lower_alphanumeric(b) || b"._@-".contains(&b)),
            "a user name holds only lower-case ASCII letters, digits, dots, underscores, hyphens and `@`",
        ),
        (
            |text| {
                let ends = [text.bytes().next(), text.bytes().next_back()];
                ends.iter().flatten().all(|end| is_lower_alphanumeric(*end))
            },
            "a user name begins and ends with a letter or a digit",
        ),
    ]
);

impl UserName {
    /// Who they are in the audit and everywhere else.
    pub fn actor(&self) -> Actor {
        Actor(format!("{}{self}", Actor::PERSON).into())
    }
}

verbatim_name!(
    /// The key under which a client repeats one request: 1 to 255 visible ASCII characters.
    ///
    /// Its meaning is the client's own; it is compared byte by byte. Cloning is cheap.
    IdempotencyKey,
    "an idempotency key",
    [
        (|text| !text.is_empty(), "an idempotency key is not empty"),
        (|text| at_most(text, 255), "an idempotency key has at most 255 characters"),
        (
            |text| text.bytes().all(|b| b.is_ascii_graphic()),
            "an idempotency key holds only visible ASCII characters, and no space",
        ),
    ]
);

/// Characters that are letters, marks or symbols to Unicode and yet draw nothing: fillers, joiners and
/// variation selectors of single scripts, and the empty Braille pattern. Two names that differ by one of them
/// look the same.
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

/// Spaces at which no line ends, as typography of several languages wants them: before `:` and `!` in French, between a
/// number and its unit.
fn is_no_break_space(character: char) -> bool {
    matches!(character, '\u{a0}' | '\u{2007}' | '\u{202f}')
}

const ZWNJ: char = '\u{200c}';
const ZWJ: char = '\u{200d}';

fn is_joiner(character: char) -> bool {
    matches!(character, ZWNJ | ZWJ)
}

/// Whether each joiner stands where it changes what is drawn, so that no two names look the same and differ: a
/// non-joiner between two visible characters, one of them of a script that joins its letters; a joiner after such a
/// character, or between two pictographs (UTS 51, emoji ZWJ sequences).
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

/// Whether a character is of a script whose letters take other shapes beside each other: Arabic and its relatives, the
/// Indic scripts, Khmer, Mongolian, Adlam. By blocks, which spares a dependency on Unicode data.
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

/// Whether a joiner after this character makes one picture of it and of what follows: a pictograph, its skin tone, or
/// the mark that asks for its coloured form.
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

/// Tells by the standard library's own table, the one behind `{:?}`, which spares a dependency on Unicode
/// data.
fn is_printable(character: char) -> bool {
    if BLANK.contains(&character) {
        return false;
    }
    // A combining mark is escaped only where nothing stands before it, hence the letter; quotes and the
    // backslash are escaped for the sake of syntax.
    let after_a_letter = ['a', character].iter().collect::<String>();
    matches!(character, '\'' | '"' | '\\') || after_a_letter.escape_debug().eq(['a', character])
}

/// Tells whether a character is escaped only because nothing stands before it.
fn is_combining(character: char) -> bool {
    is_printable(character) && character.escape_debug().len() > 2
}

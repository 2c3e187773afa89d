//! Quoting: the only place where text becomes part of a statement. All values that cannot be bound (names, hosts,
//! passwords, patterns) are quoted here.

/// How the server parses quoted text, which depends on its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoting {
    /// The meaning of a backslash in a string.
    pub(super) backslash: Backslash,
    /// The meaning of `_` and `%` in a granted name.
    pub(super) wildcards: Wildcards,
}

/// The meaning of a backslash in a string, which the SQL mode `NO_BACKSLASH_ESCAPES` determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backslash {
    /// Starts an escape sequence.
    Escape,
    /// A character without a special meaning.
    Literal,
}

/// The meaning of `_` and `%` in a granted name, which MySQL's `partial_revokes` determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wildcards {
    /// Match any character and any text. A preceding backslash makes them ordinary.
    Match,
    /// Characters without a special meaning.
    Literal,
}

/// The error of a text that no statement can contain, because the text has a NUL character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unquotable;

impl Quoting {
    /// Returns the text as a quoted string literal.
    pub(super) fn string(self, text: &str) -> Result<String, Unquotable> {
        let escaped = match self.backslash {
            Backslash::Escape => text.replace('\\', "\\\\"),
            Backslash::Literal => text.to_owned(),
        };
        quoted(&escaped, '\'')
    }

    /// Quotes the name of a database or table.
    pub(super) fn name(self, text: &str) -> Result<String, Unquotable> {
        quoted(text, '`')
    }

    /// Quotes an account: a user at a host.
    pub(super) fn account(self, user: &str, host: &str) -> Result<String, Unquotable> {
        Ok(format!("{}@{}", self.string(user)?, self.string(host)?))
    }

    /// Quotes the pattern that matches exactly one database.
    pub(super) fn grant(self, database: &str) -> Result<String, Unquotable> {
        self.name(&self.pattern(database))
    }

    /// Returns the pattern that matches exactly one database, as the server stores it.
    pub(super) fn pattern(self, database: &str) -> String {
        match self.wildcards {
            Wildcards::Match => {
                let escaped = |character| matches!(character, '\\' | '_' | '%').then_some('\\');
                database
                    .chars()
                    .flat_map(|character| escaped(character).into_iter().chain([character]))
                    .collect()
            }
            Wildcards::Literal => database.to_owned(),
        }
    }
}

/// Encloses a text in quotation marks, doubling each mark in it.
fn quoted(text: &str, quote_char: char) -> Result<String, Unquotable> {
    if text.contains('\0') {
        return Err(Unquotable);
    }
    let doubled = text.replace(quote_char, &format!("{quote_char}{quote_char}"));
    Ok(format!("{quote_char}{doubled}{quote_char}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses a quoted text as the server does; `None` if it ends early or not at all.
    fn read(quoted: &str, quote_char: char, backslash: Backslash) -> Option<String> {
        let mut characters = quoted.strip_prefix(quote_char)?.chars().peekable();
        let mut text = String::new();
        while let Some(character) = characters.next() {
            match character {
                '\\' if backslash == Backslash::Escape => match characters.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    '0' => text.push('\0'),
                    other => text.push(other),
                },
                character if character == quote_char => {
                    if characters.peek().is_none() {
                        return Some(text);
                    }
                    characters.next_if_eq(&quote_char)?;
                    text.push(quote_char);
                }
                character => text.push(character),
            }
        }
        None
    }

    /// Returns whether a granted pattern matches a name by the server's rules.
    fn matches(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['\\', literal, rest @ ..], [first, name @ ..]) => literal == first && matches(rest, name),
            (['%', rest @ ..], name) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
            (['_', rest @ ..], [_, name @ ..]) => matches(rest, name),
            ([literal, rest @ ..], [first, name @ ..]) => literal == first && matches(rest, name),
            (_, _) => false,
        }
    }

    fn quotings() -> impl Strategy<Value = Quoting> {
        let backslash = prop_oneof![Just(Backslash::Escape), Just(Backslash::Literal)];
        let wildcards = prop_oneof![Just(Wildcards::Match), Just(Wildcards::Literal)];
        (backslash, wildcards).prop_map(|(backslash, wildcards)| Quoting { backslash, wildcards })
    }

    /// Texts with many characters that could end a quotation.
    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof!["[\\\\'\"`%_;a\\n-]{0,24}", "[^\\x00]{0,24}"]
    }

    proptest! {
        #[test]
        fn a_string_is_parsed_as_it_was(quoting in quotings(), text in hostile()) {
            let quoted = quoting.string(&text).expect("no NUL");
            prop_assert_eq!(read(&quoted, '\'', quoting.backslash), Some(text));
        }

        #[test]
        fn a_name_is_parsed_as_it_was(quoting in quotings(), text in hostile()) {
            let quoted = quoting.name(&text).expect("no NUL");
            prop_assert_eq!(read(&quoted, '`', Backslash::Literal), Some(text));
        }

        #[test]
        fn a_grant_matches_only_its_database(name in "[a_%\\\\]{0,8}", other in "[ab_%\\\\]{0,8}") {
            let quoting = Quoting { backslash: Backslash::Escape, wildcards: Wildcards::Match };
            let pattern: Vec<char> = quoting.pattern(&name).chars().collect();
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert!(matches(&pattern, &characters(&name)));
            prop_assert_eq!(matches(&pattern, &characters(&other)), name == other);
        }

        #[test]
        fn a_nul_is_rejected(quoting in quotings(), before in hostile(), after in hostile()) {
            let text = format!("{before}\0{after}");
            prop_assert_eq!(quoting.string(&text), Err(Unquotable));
            prop_assert_eq!(quoting.name(&text), Err(Unquotable));
        }
    }

    #[test]
    fn known_texts() {
        let quoting = Quoting { backslash: Backslash::Escape, wildcards: Wildcards::Match };
        assert_eq!(quoting.string(r"a'b\").as_deref(), Ok(r"'a''b\\'"));
        assert_eq!(quoting.grant("site_a").as_deref(), Ok(r"`site\_a`"));
        assert_eq!(quoting.account("site_a", "%").as_deref(), Ok("'site_a'@'%'"));
        let other = Quoting { backslash: Backslash::Literal, wildcards: Wildcards::Literal };
        assert_eq!(other.string(r"a'b\").as_deref(), Ok(r"'a''b\'"));
        assert_eq!(other.grant("site_a").as_deref(), Ok("`site_a`"));
    }
}

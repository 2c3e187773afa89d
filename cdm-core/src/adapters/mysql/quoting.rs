//! The one place where text becomes part of a statement. What cannot be bound (names, hosts, passwords, patterns) goes
//! through here and nowhere else.

/// How a server reads what is quoted, which depends on settings of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoting {
    /// What a backslash in a string is.
    pub(super) backslash: Backslash,
    /// What `_` and `%` in a granted name are.
    pub(super) wildcards: Wildcards,
}

/// What a backslash in a string is: the sql mode `NO_BACKSLASH_ESCAPES` decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backslash {
    /// The beginning of an escape.
    Escape,
    /// A character like others.
    Literal,
}

/// What `_` and `%` in a granted name are: MySQL's `partial_revokes` decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wildcards {
    /// Any character, and any text; a backslash before them makes them literal.
    Match,
    /// Characters like others.
    Literal,
}

/// A text that no statement can hold: it has a NUL in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unquotable;

impl Quoting {
    /// A string.
    pub(super) fn string(self, text: &str) -> Result<String, Unquotable> {
        let escaped = match self.backslash {
            Backslash::Escape => text.replace('\\', "\\\\"),
            Backslash::Literal => text.to_owned(),
        };
        quoted(&escaped, '\'')
    }

    /// The name of a database or table.
    pub(super) fn name(self, text: &str) -> Result<String, Unquotable> {
        quoted(text, '`')
    }

    /// An account: a user at a host.
    pub(super) fn account(self, user: &str, host: &str) -> Result<String, Unquotable> {
        Ok(format!("{}@{}", self.string(user)?, self.string(host)?))
    }

    /// The pattern that matches one database and no other.
    pub(super) fn claim_token(self, database: &str) -> Result<String, Unquotable> {
        self.name(&self.pattern(database))
    }

    /// That pattern as the server keeps it.
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

/// The text between two marks; a mark in it stands doubled.
fn quoted(text: &str, mark: char) -> Result<String, Unquotable> {
    if text.contains('\0') {
        return Err(Unquotable);
    }
    let doubled = text.replace(mark, &format!("{mark}{mark}"));
    Ok(format!("{mark}{doubled}{mark}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads what stands between two marks as a server does; `None` where it ends early or not at all.
    fn read(quoted: &str, mark: char, backslash: Backslash) -> Option<String> {
        let mut characters = quoted.strip_prefix(mark)?.chars().peekable();
        let mut text = String::new();
        while let Some(character) = characters.next() {
            match character {
                '\\' if backslash == Backslash::Escape => match characters.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    '0' => text.push('\0'),
                    other => text.push(other),
                },
                character if character == mark => {
                    if characters.peek().is_none() {
                        return Some(text);
                    }
                    characters.next_if_eq(&mark)?;
                    text.push(mark);
                }
                character => text.push(character),
            }
        }
        None
    }

    /// Whether a granted pattern matches a name, by the server's rules.
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

    /// Texts in which what could end a quotation is frequent.
    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof!["[\\\\'\"`%_;a\\n-]{0,24}", "[^\\x00]{0,24}"]
    }

    proptest! {
        #[test]
        fn a_string_is_read_as_it_was(quoting in quotings(), text in hostile()) {
            let quoted = quoting.string(&text).expect("no NUL");
            prop_assert_eq!(read(&quoted, '\'', quoting.backslash), Some(text));
        }

        #[test]
        fn a_name_is_read_as_it_was(quoting in quotings(), text in hostile()) {
            let quoted = quoting.name(&text).expect("no NUL");
            prop_assert_eq!(read(&quoted, '`', Backslash::Literal), Some(text));
        }

        #[test]
        fn a_grant_matches_its_database_alone(name in "[a_%\\\\]{0,8}", other in "[ab_%\\\\]{0,8}") {
            let quoting = Quoting { backslash: Backslash::Escape, wildcards: Wildcards::Match };
            let pattern: Vec<char> = quoting.pattern(&name).chars().collect();
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert!(matches(&pattern, &characters(&name)));
            prop_assert_eq!(matches(&pattern, &characters(&other)), name == other);
        }

        #[test]
        fn a_nul_is_refused(quoting in quotings(), before in hostile(), after in hostile()) {
            let text = format!("{before}\0{after}");
            prop_assert_eq!(quoting.string(&text), Err(Unquotable));
            prop_assert_eq!(quoting.name(&text), Err(Unquotable));
        }
    }

    #[test]
    fn known_texts() {
        let quoting = Quoting { backslash: Backslash::Escape, wildcards: Wildcards::Match };
        assert_eq!(quoting.string(r"a'b\").as_deref(), Ok(r"'a''b\\'"));
        assert_eq!(quoting.claim_token("site_a").as_deref(), Ok(r"`site\_a`"));
        assert_eq!(quoting.account("site_a", "%").as_deref(), Ok("'site_a'@'%'"));
        let other = Quoting { backslash: Backslash::Literal, wildcards: Wildcards::Literal };
        assert_eq!(other.string(r"a'b\").as_deref(), Ok(r"'a''b\'"));
        assert_eq!(other.claim_token("site_a").as_deref(), Ok("`site_a`"));
    }
}

//! Reads settings from their sources: an environment variable overrides the configuration file.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use secrecy::SecretString;
use serde::Deserialize;

/// An error of the configuration. Its text has the form `` `<key>`: <message> ``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The environment variable or the key of the file, as the user set it; the path of a file that cannot be read or
    /// parsed.
    pub key: String,
    /// What is wrong with the value, and what is expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.message)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    pub(super) fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), message: message.into() }
    }

    /// Creates the error of a setting that has to be set. `expected` completes the sentence "set it to …".
    pub(super) fn missing(key: &str, expected: &str) -> Self {
        Self::new(key, format!("is not set; set it to {expected}"))
    }
}

/// Returns the value of an environment variable. A function, so that only the `main` of a program reads the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Returns the value of an environment variable. An empty variable counts as unset.
fn non_empty(environment: Environment<'_>, variable: &str) -> Option<String> {
    environment(variable).filter(|value| !value.is_empty())
}

/// Declares one table of the configuration file. Every key is optional; an unknown key is an error.
///
/// Each key of the first block is a setting: `key: Type as "VARIABLE"`, or `key: Type` without a variable. It has a
/// method of its name, which returns the [`Setting`] with the names and the values of both sources. The keys of the
/// block `plain` are fields with their own types. `VARIABLES` lists the variables.
macro_rules! keys {
    (
        $(#[$meta:meta])*
        $name:ident in $table:literal {
            $($(#[$key_meta:meta])* $key:ident: $type:ty $(as $variable:literal)?,)*
        }
        $(plain { $($(#[$plain_meta:meta])* $plain:ident: $plain_type:ty,)* })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$key_meta])* $key: Option<$type>,)*
            $($($(#[$plain_meta])* pub(super) $plain: $plain_type,)*)?
        }

        impl $name {
            /// The environment variables of the table.
            pub(super) const VARIABLES: &[&str] = &[$($($variable,)?)*];

            $($(#[$key_meta])*
            pub(super) fn $key(
                &self,
                environment: $crate::wiring::Environment<'_>,
            ) -> $crate::wiring::sources::Setting {
                $crate::wiring::sources::Setting::read(
                    environment,
                    [$($variable)?].as_slice().first().copied(),
                    concat!($table, stringify!($key)),
                    self.$key.as_ref().map(ToString::to_string),
                )
            })*
        }
    };
}
pub(super) use keys;

/// A list in the file, which is a text with commas in the environment.
#[derive(Debug, Deserialize)]
pub(super) struct List(Vec<String>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// A setting with its values as text, each with the name under which it is set.
#[derive(Debug)]
pub(super) struct Setting {
    /// The name for errors if no value is set: the variable, or the key without a variable.
    unset: &'static str,
    from_environment: Option<(&'static str, String)>,
    from_file: Option<(&'static str, String)>,
}

impl Setting {
    /// Reads the variable of a setting.
    pub(super) fn read(
        environment: Environment<'_>,
        variable: Option<&'static str>,
        key: &'static str,
        from_file: Option<String>,
    ) -> Self {
        Self {
            unset: variable.unwrap_or(key),
            from_environment: variable.and_then(|name| Some((name, non_empty(environment, name)?))),
            from_file: from_file.map(|value| (key, value)),
        }
    }

    fn set(&self) -> Option<&(&'static str, String)> {
        self.from_environment.as_ref().or(self.from_file.as_ref())
    }

    /// Returns the name under which the setting is set, or can be set.
    pub(super) fn name(&self) -> &'static str {
        self.set().map_or(self.unset, |(name, _)| name)
    }

    /// Returns the value, if the setting is set.
    pub(super) fn text(&self) -> Option<String> {
        self.set().map(|(_, value)| value.clone())
    }

    /// Returns the value, or else the default.
    pub(super) fn text_or(&self, default: &str) -> String {
        self.text().unwrap_or_else(|| default.to_owned())
    }

    /// Creates an error that names the setting.
    pub(super) fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.name(), message)
    }

    /// Creates the error of a setting that has to be set. `expected` completes the sentence "set it to …".
    pub(super) fn missing(&self, expected: &str) -> ConfigError {
        ConfigError::missing(self.name(), expected)
    }

    /// Returns the result of `parse` for the value, if the setting is set.
    ///
    /// # Errors
    /// The error of `parse`.
    pub(super) fn parsed_by<T, E: ToString>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let parsed = self.text().map(|text| parse(&text)).transpose();
        parsed.map_err(|error| self.error(error.to_string()))
    }

    /// Returns the value, if the setting is set and the value passes a rule.
    ///
    /// # Errors
    /// The error of `rule`.
    pub(super) fn checked_by<E: ToString>(
        &self,
        rule: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<Option<String>, ConfigError> {
        self.parsed_by(|text| rule(text).map(|()| text.to_owned()))
    }

    /// Parses the value, or else the default.
    ///
    /// # Errors
    /// The value does not parse, or `is_valid` rejects it. `rule` completes the sentence "`<value>` is not …".
    pub(super) fn parsed<T: FromStr>(
        &self,
        default: &str,
        rule: &str,
        is_valid: impl FnOnce(&T) -> bool,
    ) -> Result<T, ConfigError> {
        let text = self.text_or(default);
        let value = text.trim().parse().ok().filter(is_valid);
        value.ok_or_else(|| self.error(format!("`{text}` is not {rule}")))
    }

    /// Parses `true` or `false`, or else returns the default.
    ///
    /// # Errors
    /// The value is another text.
    pub(super) fn flag(&self, default: bool) -> Result<bool, ConfigError> {
        self.parsed(&default.to_string(), "`true` or `false`", |_| true)
    }

    /// Parses the entries of a list; an empty list if the setting is not set.
    ///
    /// # Errors
    /// The error of `parse` for an entry.
    pub(super) fn list<T, E: ToString>(
        &self,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, ConfigError> {
        let entries = |text: &str| {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            entries.map(&parse).collect()
        };
        Ok(self.parsed_by(entries)?.unwrap_or_default())
    }

    /// Returns this setting with the values of `other` for the sources in which only `other` is set.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            unset: other.unset,
            from_environment: self.from_environment.or(other.from_environment),
            from_file: self.from_file.or(other.from_file),
        }
    }

    /// Returns this setting, or the values that are set under its earlier name.
    ///
    /// # Errors
    /// Both variables are set, or both keys.
    pub(super) fn renamed_from(self, earlier: Self) -> Result<Self, ConfigError> {
        let variables = (&self.from_environment, &earlier.from_environment);
        for names in [variables, (&self.from_file, &earlier.from_file)] {
            if let (Some((current, _)), Some((earlier, _))) = names {
                let message =
                    format!("is set together with `{earlier}`, its earlier name; remove `{earlier}`");
                return Err(ConfigError::new(current, message));
            }
        }
        Ok(earlier.or(self))
    }

    /// Returns a secret, whose file this setting names: the value of the variable without [`FILE`], or else the content of
    /// the file, without its trailing line breaks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn secret(&self, environment: Environment<'_>) -> Result<Secret, ConfigError> {
        let variable = self.unset.strip_suffix(FILE).unwrap_or(self.unset);
        if let Some(text) = non_empty(environment, variable) {
            return Ok(Secret { name: variable, value: Some(SecretString::from(text)) });
        }
        let Some(path) = self.text() else { return Ok(Secret { name: variable, value: None }) };
        let text = std::fs::read_to_string(Path::new(&path))
            .map_err(|error| self.error(format!("`{path}` cannot be read: {error}")))?;
        let value = SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned());
        Ok(Secret { name: self.name(), value: Some(value) })
    }
}

/// The end of a variable that names the file of a secret. The variable without it has the secret itself.
pub(super) const FILE: &str = "_FILE";

/// A secret, with the name under which it is set or can be set.
#[derive(Debug)]
pub(super) struct Secret {
    pub(super) name: &'static str,
    pub(super) value: Option<SecretString>,
}

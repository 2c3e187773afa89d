//! Reads settings from their sources: an environment variable overrides the configuration file.

use std::path::Path;
use std::str::FromStr;

use secrecy::SecretString;

use super::config::{ConfigError, Environment};

/// The variable or key under which a value is set, and the value.
pub(super) type Setting = (String, String);

/// Returns the value of an environment variable. An empty variable counts as unset.
fn non_empty(environment: Environment<'_>, variable: &str) -> Option<String> {
    environment(variable).filter(|value| !value.is_empty())
}

/// Returns the value of `variable`, or else the file's value of `key`.
pub(super) fn pick(
    environment: Environment<'_>,
    variable: &str,
    key: &str,
    from_file: Option<String>,
) -> Option<Setting> {
    match non_empty(environment, variable) {
        Some(value) => Some((variable.to_owned(), value)),
        None => from_file.map(|value| (key.to_owned(), value)),
    }
}

/// Returns the value of a setting that has an earlier name, as [`pick`] does. In each array the current name or its value
/// is first, the earlier one second.
///
/// # Errors
/// Both variables are set, or both keys.
pub(super) fn pick_renamed(
    environment: Environment<'_>,
    variables: [&str; 2],
    keys: [&str; 2],
    from_file: [Option<String>; 2],
) -> Result<Option<Setting>, ConfigError> {
    let from_environment = only_one(variables, variables.map(|name| non_empty(environment, name)))?;
    let from_file = only_one(keys, from_file)?;
    Ok(from_environment.or(from_file))
}

/// Returns the value that is set under one of two names, the current or the earlier one, with that name.
///
/// # Errors
/// Both names are set.
pub(super) fn only_one<T>(
    [current, earlier]: [&str; 2],
    values: [Option<T>; 2],
) -> Result<Option<(String, T)>, ConfigError> {
    match values {
        [Some(_), Some(_)] => Err(ConfigError {
            key: current.to_owned(),
            message: format!("is set together with `{earlier}`, its earlier name; remove `{earlier}`"),
        }),
        [Some(value), None] => Ok(Some((current.to_owned(), value))),
        [None, Some(value)] => Ok(Some((earlier.to_owned(), value))),
        [None, None] => Ok(None),
    }
}

/// Returns the value of a text setting, or the default.
pub(super) fn text(
    environment: Environment<'_>,
    variable: &str,
    key: &str,
    from_file: Option<String>,
    default: &str,
) -> String {
    pick(environment, variable, key, from_file).map_or_else(|| default.to_owned(), |(_, value)| value)
}

/// Parses the value of a setting, or else the default.
///
/// # Errors
/// The value does not parse, or `is_valid` rejects it. `rule` completes the sentence "`<value>` is not …".
pub(super) fn parsed<T: FromStr>(
    setting: Option<Setting>,
    default: &str,
    rule: &str,
    is_valid: impl Fn(&T) -> bool,
) -> Result<T, ConfigError> {
    let (key, text) = setting.unwrap_or_else(|| (String::new(), default.to_owned()));
    let value = text.trim().parse().ok().filter(is_valid);
    value.ok_or_else(|| ConfigError { key, message: format!("`{text}` is not {rule}") })
}

/// Returns a secret with the name under which it is set: the variable, or else the content of the file that
/// `<variable>_FILE` names, or else of the file that the configuration file names. Trailing line breaks of a file are
/// removed.
///
/// # Errors
/// The file cannot be read.
pub(super) fn secret(
    environment: Environment<'_>,
    variable: &str,
    from_file: Option<(&str, String)>,
) -> Result<Option<(String, SecretString)>, ConfigError> {
    if let Some(text) = non_empty(environment, variable) {
        return Ok(Some((variable.to_owned(), SecretString::from(text))));
    }
    let file_variable = format!("{variable}_FILE");
    let path = non_empty(environment, &file_variable).map(|path| (file_variable, path));
    let Some((key, path)) = path.or_else(|| from_file.map(|(key, path)| (key.to_owned(), path))) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(Path::new(&path)).map_err(|error| ConfigError {
        key: key.clone(),
        message: format!("`{path}` cannot be read: {error}"),
    })?;
    Ok(Some((key, SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))))
}

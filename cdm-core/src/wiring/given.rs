//! What was given for a key: by the environment, else by the file.

use std::path::Path;
use std::str::FromStr;

use secrecy::SecretString;

use super::config::{ConfigError, Environment};

/// A text with the variable or key it was given under.
pub(super) type Named = (String, String);

/// The environment's word for `variable`, else the file's for `key`. An empty variable says nothing.
pub(super) fn pick(
    environment: Environment<'_>,
    variable: &str,
    key: &str,
    of_file: Option<String>,
) -> Option<Named> {
    match environment(variable).filter(|value| !value.is_empty()) {
        Some(value) => Some((variable.to_owned(), value)),
        None => of_file.map(|value| (key.to_owned(), value)),
    }
}

/// The text that was given, or the default.
pub(super) fn text(
    environment: Environment<'_>,
    variable: &str,
    key: &str,
    of_file: Option<String>,
    default: &str,
) -> String {
    pick(environment, variable, key, of_file).map_or_else(|| default.to_owned(), |(_, value)| value)
}

/// What was given under a key, or the default.
pub(super) fn parsed<T: FromStr>(
    given: Option<Named>,
    default: &str,
    rule: &str,
    fits: impl Fn(&T) -> bool,
) -> Result<T, ConfigError> {
    let (key, text) = given.unwrap_or_else(|| (String::new(), default.to_owned()));
    let value = text.trim().parse().ok().filter(fits);
    value.ok_or_else(|| ConfigError { key, message: format!("\"{text}\" is not {rule}") })
}

/// A secret: the variable, else the file that `<variable>_FILE` names, else the file that the configuration names; and
/// under which name it was found.
pub(super) fn secret(
    environment: Environment<'_>,
    variable: &str,
    of_file: Option<(&str, String)>,
) -> Result<Option<(String, SecretString)>, ConfigError> {
    let ask = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(text) = ask(variable) {
        return Ok(Some((variable.to_owned(), SecretString::from(text))));
    }
    let file = format!("{variable}_FILE");
    let path = ask(&file).map(|path| (file, path));
    let Some((key, path)) = path.or_else(|| of_file.map(|(key, path)| (key.to_owned(), path))) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(Path::new(&path)).map_err(|error| ConfigError {
        key: key.clone(),
        message: format!("`{path}` cannot be read: {error}"),
    })?;
    Ok(Some((key, SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))))
}

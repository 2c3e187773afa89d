//! How users sign in to the console: passwords and second factors.

use super::config::{ConfigError, Environment};
use super::sources::pick;

/// The keys of a configuration file for sign-in. They are at the top level of the file.
#[derive(Debug, Default)]
pub(super) struct RawSignIn {
    pub(super) passwords: Option<String>,
    pub(super) second_factor: Option<String>,
}

/// How users sign in to the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignInConfig {
    /// Whether users may sign in with passwords; by default `true`. `false` requires an OpenID Connect provider.
    /// `CDM_PASSWORDS` (`on` or `off`), `passwords`.
    pub passwords: bool,
    /// Whether sign-in with a password requires a second factor; by default optional. `required` protects accounts
    /// whose password has leaked; each user must then set up a second factor. `CDM_SECOND_FACTOR` (`off`, `optional` or
    /// `required`), `second_factor`.
    pub second_factor: SecondFactorRule,
}

/// Whether users who sign in with a password also need a second factor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondFactorRule {
    /// Users cannot set up a second factor. Users who have one still need it.
    Off,
    /// Only users who have set up a second factor need it.
    #[default]
    Optional,
    /// Every user needs a second factor. A user without one must set it up before any other page opens.
    Required,
}

impl Default for SignInConfig {
    fn default() -> Self {
        Self { passwords: true, second_factor: SecondFactorRule::default() }
    }
}

impl SignInConfig {
    /// Reads how users sign in. `has_provider` is whether an OpenID Connect provider is configured.
    pub(super) fn resolve(
        environment: Environment<'_>,
        raw: RawSignIn,
        has_provider: bool,
    ) -> Result<Self, ConfigError> {
        let invalid = |key: String, value: &str, rule: &str| {
            Err(ConfigError { key, message: format!("`{value}` is not {rule}") })
        };
        let passwords = match pick(environment, "CDM_PASSWORDS", "passwords", raw.passwords) {
            None => true,
            Some((_, value)) if value == "on" => true,
            Some((_, value)) if value == "off" && has_provider => false,
            Some((key, value)) if value == "off" => {
                let message = "`off` leaves no way to sign in; set `CDM_OIDC_ISSUER`, or remove this setting"
                    .to_owned();
                return Err(ConfigError { key, message });
            }
            Some((key, value)) => return invalid(key, &value, "`on` or `off`"),
        };
        let rule = pick(environment, "CDM_SECOND_FACTOR", "second_factor", raw.second_factor);
        let second_factor = match rule {
            None => SecondFactorRule::default(),
            Some((key, value)) => match value.as_str() {
                "off" => SecondFactorRule::Off,
                "optional" => SecondFactorRule::Optional,
                "required" => SecondFactorRule::Required,
                _ => return invalid(key, &value, "`off`, `optional` or `required`"),
            },
        };
        Ok(Self { passwords, second_factor })
    }
}

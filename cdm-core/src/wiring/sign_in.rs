//! How users sign in to the console: passwords and second factors.

use super::file::RawConfig;
use super::sources::{ConfigError, Environment};

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
        raw: &RawConfig,
        has_provider: bool,
    ) -> Result<Self, ConfigError> {
        let passwords =
            raw.passwords(environment).parsed_by(|value| match value {
                "on" => Ok(true),
                "off" if has_provider => Ok(false),
                "off" => Err("`off` leaves no way to sign in; set `CDM_OIDC_ISSUER`, or remove this setting"
                    .to_owned()),
                _ => Err(format!("`{value}` is not `on` or `off`")),
            })?;
        let second_factor = raw.second_factor(environment).parsed_by(|value| match value {
            "off" => Ok(SecondFactorRule::Off),
            "optional" => Ok(SecondFactorRule::Optional),
            "required" => Ok(SecondFactorRule::Required),
            _ => Err(format!("`{value}` is not `off`, `optional` or `required`")),
        })?;
        Ok(Self { passwords: passwords.unwrap_or(true), second_factor: second_factor.unwrap_or_default() })
    }
}

//! By what people prove who they are.

use super::config::{ConfigError, Environment};
use super::given::pick;

/// What a configuration file may say about it; the keys are at the top level.
#[derive(Debug, Default)]
pub(super) struct RawSignIn {
    pub(super) passwords: Option<String>,
    pub(super) second_factor: Option<String>,
}

/// By what people prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignInConfig {
    /// Whether they may sign in by passwords. `CDM_PASSWORDS` (`on` or `off`), `passwords`.
    pub passwords: bool,
    /// Whether they prove more than a password. `CDM_SECOND_FACTOR`, `second_factor`.
    pub second_factor: SecondFactorRule,
}

/// Whether people who sign in by a password prove more than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondFactorRule {
    /// Nobody sets one up; those who have one are still asked for it.
    Off,
    /// Those who have set one up.
    #[default]
    Optional,
    /// Everyone: those who have none set one up before they see anything.
    Required,
}

impl Default for SignInConfig {
    fn default() -> Self {
        Self { passwords: true, second_factor: SecondFactorRule::default() }
    }
}

impl SignInConfig {
    /// `oidc`: whether there is another way to sign in.
    pub(super) fn of(environment: Environment<'_>, raw: RawSignIn, oidc: bool) -> Result<Self, ConfigError> {
        let refuse = |key: String, value: &str, rule: &str| {
            Err(ConfigError { key, message: format!("\"{value}\" is not {rule}") })
        };
        let passwords = match pick(environment, "CDM_PASSWORDS", "passwords", raw.passwords) {
            None => true,
            Some((_, value)) if value == "on" => true,
            Some((_, value)) if value == "off" && oidc => false,
            Some((key, value)) if value == "off" => {
                let message =
                    "`off` leaves no way to sign in; set `CDM_OIDC_ISSUER`, or leave this out".to_owned();
                return Err(ConfigError { key, message });
            }
            Some((key, value)) => return refuse(key, &value, "`on` or `off`"),
        };
        let rule = pick(environment, "CDM_SECOND_FACTOR", "second_factor", raw.second_factor);
        let second_factor = match rule {
            None => SecondFactorRule::default(),
            Some((key, value)) => match value.as_str() {
                "off" => SecondFactorRule::Off,
                "optional" => SecondFactorRule::Optional,
                "required" => SecondFactorRule::Required,
                _ => return refuse(key, &value, "`off`, `optional` or `required`"),
            },
        };
        Ok(Self { passwords, second_factor })
    }
}

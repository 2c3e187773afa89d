//! Where people prove who they are besides passwords: a provider of OpenID Connect.

use secrecy::SecretString;
use serde::Deserialize;

use super::config::{ConfigError, Environment};
use super::given::{pick, secret, text};

/// `[oidc]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOidc {
    issuer: Option<String>,
    client_id: Option<String>,
    client_secret_file: Option<String>,
    claim: Option<String>,
    pub(super) public_url: Option<String>,
}

/// A provider of OpenID Connect, and what it knows this server as.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// The provider. `CDM_OIDC_ISSUER`, `oidc.issuer`.
    pub issuer: String,
    /// What it calls this server. `CDM_OIDC_CLIENT_ID`, `oidc.client_id`.
    pub client_id: String,
    /// What this server proves that by. `CDM_OIDC_CLIENT_SECRET`, `CDM_OIDC_CLIENT_SECRET_FILE`,
    /// `oidc.client_secret_file`.
    pub client_secret: Option<SecretString>,
    /// Which of its claims is the user's name here. `CDM_OIDC_CLAIM`, `oidc.claim`.
    pub claim: String,
    /// How browsers reach this server. `CDM_PUBLIC_URL`, `oidc.public_url`.
    pub public_url: String,
}

impl OidcConfig {
    /// What was given, or nothing where no issuer is.
    pub(super) fn of(
        environment: Environment<'_>,
        raw: Option<RawOidc>,
    ) -> Result<Option<Self>, ConfigError> {
        let raw = raw.unwrap_or_default();
        let Some((key, issuer)) = pick(environment, "CDM_OIDC_ISSUER", "oidc.issuer", raw.issuer) else {
            return Ok(None);
        };
        let loopback = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
        let safe = |url: &str| url.starts_with("https://") || loopback.iter().any(|one| url.starts_with(one));
        let unsafe_url = |key: &str| ConfigError {
            key: key.to_owned(),
            message: "is to begin with https://, or be a loopback address with its port".to_owned(),
        };
        if !safe(&issuer) {
            return Err(unsafe_url(&key));
        }
        let needed = |variable: &str, key: &str, of_file| {
            let missing = || ConfigError {
                key: variable.to_owned(),
                message: "is not set; OpenID Connect wants it".to_owned(),
            };
            pick(environment, variable, key, of_file).map(|(_, value)| value).ok_or_else(missing)
        };
        let public_url = needed("CDM_PUBLIC_URL", "oidc.public_url", raw.public_url)?;
        if !safe(&public_url) {
            return Err(unsafe_url("CDM_PUBLIC_URL"));
        }
        let claim = text(environment, "CDM_OIDC_CLAIM", "oidc.claim", raw.claim, "email");
        if !["email", "preferred_username", "sub"].contains(&claim.as_str()) {
            let message = format!("\"{claim}\" is not `email`, `preferred_username` or `sub`");
            return Err(ConfigError { key: "CDM_OIDC_CLAIM".to_owned(), message });
        }
        let of_file = raw.client_secret_file.map(|path| ("oidc.client_secret_file", path));
        Ok(Some(Self {
            issuer,
            client_id: needed("CDM_OIDC_CLIENT_ID", "oidc.client_id", raw.client_id)?,
            client_secret: secret(environment, "CDM_OIDC_CLIENT_SECRET", of_file)?.map(|(_, secret)| secret),
            claim,
            public_url: public_url.trim_end_matches('/').to_owned(),
        }))
    }
}

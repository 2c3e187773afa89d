//! The OpenID Connect provider for sign-in to the console.

use secrecy::SecretString;
use serde::Deserialize;

use super::config::{ConfigError, Environment};
use super::sources::{pick, secret, text};

/// `[oidc]`: the OpenID Connect provider.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOidc {
    issuer: Option<String>,
    client_id: Option<String>,
    client_secret_file: Option<String>,
    claim: Option<String>,
    pub(super) public_url: Option<String>,
}

/// An OpenID Connect provider, and the client that this server is registered as.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// The issuer URL of the provider. `CDM_OIDC_ISSUER`, `oidc.issuer`.
    pub issuer: String,
    /// The client id of this server at the provider. `CDM_OIDC_CLIENT_ID`, `oidc.client_id`.
    pub client_id: String,
    /// The client secret; `None`: a public client. `CDM_OIDC_CLIENT_SECRET`, `CDM_OIDC_CLIENT_SECRET_FILE`,
    /// `oidc.client_secret_file`.
    pub client_secret: Option<SecretString>,
    /// The claim that is the user name: `email`, `preferred_username` or `sub`, by default `email`. `CDM_OIDC_CLAIM`,
    /// `oidc.claim`.
    pub claim: String,
    /// The URL by which browsers reach this server, without a trailing `/`. `CDM_PUBLIC_URL`, `oidc.public_url`.
    pub public_url: String,
}

impl OidcConfig {
    /// Reads the provider; `None` if no issuer is configured.
    pub(super) fn resolve(
        environment: Environment<'_>,
        raw: Option<RawOidc>,
    ) -> Result<Option<Self>, ConfigError> {
        let raw = raw.unwrap_or_default();
        let Some((key, issuer)) = pick(environment, "CDM_OIDC_ISSUER", "oidc.issuer", raw.issuer) else {
            return Ok(None);
        };
        let loopback = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
        let safe =
            |url: &str| url.starts_with("https://") || loopback.iter().any(|prefix| url.starts_with(prefix));
        let unsafe_url = |key: &str| ConfigError {
            key: key.to_owned(),
            message: "must begin with `https://`, or be a loopback address with a port, such as \
                      `http://127.0.0.1:8080`"
                .to_owned(),
        };
        if !safe(&issuer) {
            return Err(unsafe_url(&key));
        }
        let required = |variable: &str, key: &str, from_file| {
            let missing = || ConfigError {
                key: variable.to_owned(),
                message: "is not set; OpenID Connect requires it".to_owned(),
            };
            pick(environment, variable, key, from_file).map(|(_, value)| value).ok_or_else(missing)
        };
        let public_url = required("CDM_PUBLIC_URL", "oidc.public_url", raw.public_url)?;
        if !safe(&public_url) {
            return Err(unsafe_url("CDM_PUBLIC_URL"));
        }
        let claim = text(environment, "CDM_OIDC_CLAIM", "oidc.claim", raw.claim, "email");
        if !["email", "preferred_username", "sub"].contains(&claim.as_str()) {
            let message = format!("`{claim}` is not `email`, `preferred_username` or `sub`");
            return Err(ConfigError { key: "CDM_OIDC_CLAIM".to_owned(), message });
        }
        let from_file = raw.client_secret_file.map(|path| ("oidc.client_secret_file", path));
        Ok(Some(Self {
            issuer,
            client_id: required("CDM_OIDC_CLIENT_ID", "oidc.client_id", raw.client_id)?,
            client_secret: secret(environment, "CDM_OIDC_CLIENT_SECRET", from_file)?
                .map(|(_, secret)| secret),
            claim,
            public_url: public_url.trim_end_matches('/').to_owned(),
        }))
    }
}

//! The OpenID Connect provider for sign-in to the console.

use secrecy::SecretString;

use super::sources::{ConfigError, Environment, Setting, keys};

keys! {
    /// `[oidc]`: the OpenID Connect provider.
    RawOidc in "oidc." {
        issuer: String as "CDM_OIDC_ISSUER",
        client_id: String as "CDM_OIDC_CLIENT_ID",
        client_secret_file: String as "CDM_OIDC_CLIENT_SECRET_FILE",
        claim: String as "CDM_OIDC_CLAIM",
        public_url: String,
    }
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
    /// Reads the provider; `None` if no issuer is configured. `public_url` is `public_url` or `oidc.public_url`.
    pub(super) fn resolve(
        environment: Environment<'_>,
        raw: &RawOidc,
        public_url: &Setting,
    ) -> Result<Option<Self>, ConfigError> {
        let loopback = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
        let safe = |url: &str| {
            if url.starts_with("https://") || loopback.iter().any(|prefix| url.starts_with(prefix)) {
                return Ok(());
            }
            Err(
                "must begin with `https://`, or be a loopback address with a port, such as `http://127.0.0.1:8080`",
            )
        };
        let missing = |setting: &Setting| setting.error("is not set; OpenID Connect requires it");
        let Some(issuer) = raw.issuer(environment).checked_by(safe)? else { return Ok(None) };
        let url = public_url.checked_by(safe)?.ok_or_else(|| missing(public_url))?;
        let claim = raw.claim(environment).checked_by(|claim| match claim {
            "email" | "preferred_username" | "sub" => Ok(()),
            _ => Err(format!("`{claim}` is not `email`, `preferred_username` or `sub`")),
        })?;
        let client_id = raw.client_id(environment);
        Ok(Some(Self {
            issuer,
            client_id: client_id.text().ok_or_else(|| missing(&client_id))?,
            client_secret: raw.client_secret_file(environment).secret(environment)?.value,
            claim: claim.unwrap_or_else(|| "email".to_owned()),
            public_url: url.trim_end_matches('/').to_owned(),
        }))
    }
}

//! Sign-in through an OpenID Connect provider: the authorization code flow with PKCE. The provider proves the account;
//! the users' record defines the user and the role.
//!
//! The state of a sign-in is in a cookie until the browser returns, so any replica can complete the sign-in.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use cdm_core::domain::{Role, TokenHash, UserName};
use cdm_core::manager::Proven;
use cdm_core::wiring::OidcConfig;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreIdTokenClaims, CoreProviderMetadata, CoreTokenResponse,
};
use openidconnect::{
    AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse,
    IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, SignatureVerificationError,
    TokenResponse,
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Filter;
use super::form::Form;
use super::open_session::{NextQuery, anonymous_actor, open_session, safe_next};
use super::session;
use crate::app::{AppState, SharedState};
use crate::client::Client as Caller;
use crate::error::ApiError;
use crate::extract::unhex;
use crate::oidc_metadata::CachedMetadata;
use crate::request_id::RequestId;

/// The path to which the provider redirects browsers.
const CALLBACK: &str = "/console/oidc/callback";
/// How long a user may take to sign in at the provider, and how long one response of the provider may take.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(600);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A client with the provider's endpoints and a redirect URL.
type Client = CoreClient<
    openidconnect::EndpointSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointMaybeSet,
    openidconnect::EndpointMaybeSet,
>;

fn configured(server: &AppState) -> Result<&OidcConfig, ApiError> {
    server.app.settings.oidc.as_ref().ok_or_else(|| ApiError::not_found("the page"))
}

fn failed(what: &str, error: &dyn std::error::Error) -> ApiError {
    tracing::warn!(what, error = %error, "the OpenID Connect provider failed");
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "oidc_failed",
        format!("the OpenID Connect provider failed: {what}; the server's log has the details"),
    )
}

/// Sends one request to the provider, and does not follow redirects.
async fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    // An error means that a provider is installed already, which is the same one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REQUEST_TIMEOUT)
        .build()?;
    let received = client.execute(request.try_into()?).await?;
    let mut response = HttpResponse::default();
    *response.status_mut() = received.status();
    *response.headers_mut() = received.headers().clone();
    *response.body_mut() = received.bytes().await?.to_vec();
    Ok(response)
}

/// How long the provider's metadata and keys are cached; the shortest interval between two requests for an unknown key;
/// and the interval after a failure.
const METADATA_LIFETIME: Duration = Duration::from_hours(1);
const MIN_REFETCH_INTERVAL: Duration = Duration::from_mins(1);
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The age of the metadata that a request accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MaxAge {
    /// At most [`METADATA_LIFETIME`].
    Usual,
    /// At most [`MIN_REFETCH_INTERVAL`], because the provider may have new keys.
    Recent,
}

/// Returns the provider's metadata, from the cache if it is recent enough.
async fn metadata(server: &AppState, age: MaxAge) -> Result<CoreProviderMetadata, ApiError> {
    let mut cached = server.provider.0.lock().await;
    let now = server.app.clock.monotonic();
    if let Some(cached) = cached.as_ref() {
        let lifetime = match (&cached.metadata, age) {
            (Err(_), _) => RETRY_INTERVAL,
            (Ok(_), MaxAge::Usual) => METADATA_LIFETIME,
            (Ok(_), MaxAge::Recent) => MIN_REFETCH_INTERVAL,
        };
        if now.since(cached.fetched_at) < lifetime {
            return cached.metadata.clone();
        }
    }
    let issuer = configured(server)?.issuer.clone();
    let issuer = IssuerUrl::new(issuer).map_err(|error| failed("the issuer's URL is invalid", &error))?;
    let metadata = CoreProviderMetadata::discover_async(issuer, &send).await;
    let metadata = metadata.map_err(|error| failed("the provider's metadata", &error));
    *cached = Some(CachedMetadata { fetched_at: server.app.clock.monotonic(), metadata: metadata.clone() });
    metadata
}

async fn client(server: &AppState, age: MaxAge) -> Result<Client, ApiError> {
    let config = configured(server)?;
    let provider = metadata(server, age).await?;
    let secret =
        config.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
    let redirect = RedirectUrl::new(format!("{}{CALLBACK}", config.public_url));
    let redirect = redirect.map_err(|error| failed("this server's public URL is invalid", &error))?;
    let id = ClientId::new(config.client_id.clone());
    Ok(CoreClient::from_provider_metadata(provider, id, secret).set_redirect_uri(redirect))
}

/// Returns the cookie with the state of a sign-in; without a value, the cookie that removes it.
fn state_cookie(headers: &HeaderMap, caller: Caller, value: Option<String>) -> CookieJar {
    let plain = session::is_plain(headers, caller);
    let name = if plain { "cdm-oidc" } else { "__Host-cdm-oidc" };
    let has_value = value.is_some();
    let mut cookie = Cookie::build((name, value.unwrap_or_default()))
        .path("/")
        .http_only(true)
        .secure(!plain)
        .same_site(SameSite::Lax)
        .build();
    if !has_value {
        cookie.make_removal();
    }
    CookieJar::new().add(cookie)
}

/// Redirects to the provider.
pub(crate) async fn begin(
    State(server): State<SharedState>,
    caller: Caller,
    headers: HeaderMap,
    Filter(next): Filter<NextQuery>,
) -> Result<Response, ApiError> {
    server.limits.begin(caller.address).map_err(ApiError::too_many)?;
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let client = client(&server, MaxAge::Usual).await?;
    let authorization = client
        .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
        .set_pkce_challenge(challenge)
        .add_scope(Scope::new("email".to_owned()))
        .add_scope(Scope::new("profile".to_owned()));
    let (url, state, nonce) = authorization.url();
    let next = next.next.unwrap_or_default();
    let next = hex::encode(safe_next(&next));
    let until = server.app.clock.wall().after(SIGN_IN_TIMEOUT).millis();
    let value = format!("{}.{}.{}.{next}.{until}", state.secret(), nonce.secret(), verifier.secret());
    Ok((state_cookie(&headers, caller, Some(value)), Redirect::to(url.as_str())).into_response())
}

/// The query of the provider's redirect.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct CallbackQuery {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// Completes a sign-in: verifies the provider's claims, and opens a session for the user to whom the account belongs.
pub(crate) async fn callback(
    State(server): State<SharedState>,
    caller: Caller,
    headers: HeaderMap,
    id: Option<axum::Extension<RequestId>>,
    Filter(query): Filter<CallbackQuery>,
) -> Result<Response, ApiError> {
    let config = configured(&server)?;
    let rejected = |detail: &str| ApiError::new(StatusCode::FORBIDDEN, "oidc_refused", detail.to_owned());
    let cookies = CookieJar::from_headers(&headers);
    let value = state_cookie(&headers, caller, None)
        .iter()
        .find_map(|own| cookies.get(own.name()).map(|cookie| cookie.value().to_owned()));
    let value = value.unwrap_or_default();
    let parts: Vec<&str> = value.split('.').collect();
    let [state, nonce, verifier, next, until] = parts.as_slice() else {
        return Err(rejected(
            "this browser did not start the sign-in, or the sign-in took too long; start again",
        ));
    };
    let is_expired = until.parse::<u64>().map_or(true, |until| until <= server.app.clock.wall().millis());
    if is_expired || query.state.as_deref() != Some(*state) {
        return Err(rejected(
            "the sign-in has expired, or it is not the one that this browser started; start again",
        ));
    }
    let Some(code) = query.code.filter(|_| query.error.is_none()) else {
        return Err(rejected("the OpenID Connect provider rejected the sign-in"));
    };
    let nonce = Nonce::new((*nonce).to_owned());
    let claims = verified_claims(&server, code, (verifier, &nonce)).await;
    // Each guessed code costs a request to the provider, so guesses are counted like those of passwords.
    let claims = match claims {
        Ok(claims) => claims,
        Err(error) => {
            server.limits.failure(caller.address).map_err(ApiError::too_many)?;
            return Err(error);
        }
    };
    let identity = identity(config, &claims);
    let users = server.app.manager.users().await?;
    let form = Form::empty(headers.clone(), caller, id.map(|id| id.0.0));
    // A bound account identifies its user, even if the account's name has changed. A user is bound to the first account
    // that signs in with the user's name.
    let user = match users.identified(&identity) {
        Some(user) => user,
        None => {
            let name = name(config, &claims).ok_or_else(|| {
                rejected("the OpenID Connect provider sent no verified claim that is a valid user name")
            })?;
            match users.of(&name) {
                Some(user) if user.identity.is_none() => user,
                other => {
                    let anonymous = form.request_as(anonymous_actor()?, Role::Viewer);
                    server.app.manager.refuse_session(&anonymous, name.as_str()).await;
                    let detail = match other {
                        Some(_) => format!(
                            "`{name}` is bound to another account of the OpenID Connect provider; if the account has \
                             changed, an administrator can unbind it: cdm user unbind {name}"
                        ),
                        None => format!(
                            "there is no user `{name}`; an administrator can create it: cdm user create {name} \
                             --no-password"
                        ),
                    };
                    return Err(rejected(&detail));
                }
            }
        }
    };
    let next = unhex(next);
    let proven = Proven::Identity(identity);
    let session = open_session(&server, &form, (user, proven), safe_next(&next.unwrap_or_default())).await?;
    Ok((state_cookie(&headers, caller, None), session).into_response())
}

/// Exchanges a code for an ID token, and returns its verified claims.
async fn verified_claims(
    server: &AppState,
    code: String,
    (verifier, nonce): (&str, &Nonce),
) -> Result<CoreIdTokenClaims, ApiError> {
    let current = client(server, MaxAge::Usual).await?;
    let token = exchange_code(&current, code, verifier).await?;
    let missing = "the OpenID Connect provider sent no ID token";
    let missing = || ApiError::new(StatusCode::FORBIDDEN, "oidc_refused", missing);
    let id_token = token.id_token().ok_or_else(missing)?;
    let failed = |error| failed("the ID token is invalid", &error);
    let unknown_key =
        ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey);
    match id_token.claims(&current.id_token_verifier(), nonce) {
        Err(error) if error.to_string() == unknown_key.to_string() => {
            let recent = client(server, MaxAge::Recent).await?;
            id_token.claims(&recent.id_token_verifier(), nonce).cloned().map_err(failed)
        }
        claims => claims.cloned().map_err(failed),
    }
}

async fn exchange_code(client: &Client, code: String, verifier: &str) -> Result<CoreTokenResponse, ApiError> {
    let exchange = client.exchange_code(AuthorizationCode::new(code));
    let exchange = exchange.map_err(|error| failed("the provider's metadata", &error))?;
    let exchange = exchange.set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()));
    exchange
        .request_async(&send)
        .await
        .map_err(|error| failed("the exchange of the authorization code", &error))
}

/// Returns a hash of the account at the provider: of its issuer and subject, which together are unique and never change
/// (OpenID Connect Core 1.0, section 5.7).
fn identity(config: &OidcConfig, claims: &CoreIdTokenClaims) -> TokenHash {
    let hash = Sha256::new().chain_update(&config.issuer).chain_update("\0");
    TokenHash(hash.chain_update(claims.subject().as_str()).finalize().into())
}

/// Returns the user name in the configured claim; `None` if the claim is missing, not verified or not a valid user
/// name.
fn name(config: &OidcConfig, claims: &CoreIdTokenClaims) -> Option<UserName> {
    let text = match config.claim.as_str() {
        "email" => {
            claims.email().filter(|_| claims.email_verified() == Some(true)).map(|email| email.as_str())
        }
        "preferred_username" => claims.preferred_username().map(|name| name.as_str()),
        _ => Some(claims.subject().as_str()),
    };
    UserName::parse(&text?.to_lowercase()).ok()
}

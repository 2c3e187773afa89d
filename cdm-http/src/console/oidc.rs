//! Signing in by a provider of OpenID Connect: authorization code with PKCE. It proves a name; who that is here, and what
//! they may do, is the users' record's to say.
//!
//! What is to be remembered until the browser comes back is in a cookie of its own, so that any replica can take it up.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use cdm_core::domain::{MonotonicTime, Role, TokenHash, UserName};
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
use tokio::sync::Mutex;

use super::Filter;
use super::form::Form;
use super::guard;
use super::sign_in::{Next, nobody, opened, within};
use crate::app::{Server, Shared};
use crate::client::Client as Caller;
use crate::error::Refusal;
use crate::input::{hex, unhex};
use crate::request::RequestId;

/// Where the provider sends browsers back to.
const CALLBACK: &str = "/console/oidc/callback";
/// How long somebody may take to prove who they are, and how long the provider for an answer.
const MOST: Duration = Duration::from_secs(600);
const ANSWER: Duration = Duration::from_secs(10);

/// The way to the provider and back.
type Client = CoreClient<
    openidconnect::EndpointSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointMaybeSet,
    openidconnect::EndpointMaybeSet,
>;

fn configured(server: &Server) -> Result<&OidcConfig, Refusal> {
    server.app.settings.oidc.as_ref().ok_or_else(|| Refusal::not_found("the page"))
}

fn failed(what: &str, error: &dyn std::error::Error) -> Refusal {
    tracing::warn!(what, error = %error, "OpenID Connect");
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        "oidc_failed",
        format!("the provider of OpenID Connect failed: {what}; it is in the log"),
    )
}

/// Sends one request to the provider; a redirect of its is an answer like another.
async fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    // Another part of the process may have been first; then it has chosen the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(ANSWER).build()?;
    let answer = client.execute(request.try_into()?).await?;
    let mut response = HttpResponse::default();
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    *response.body_mut() = answer.bytes().await?.to_vec();
    Ok(response)
}

/// How long the provider's description and keys serve; how soon they are asked for again when a key is unknown; and when
/// it did not answer.
const KNOWN: Duration = Duration::from_hours(1);
const ROTATED: Duration = Duration::from_mins(1);
const FAILED: Duration = Duration::from_secs(5);

/// What the provider says of itself: asked for by one request at a time, and seldom, whatever browsers do.
#[derive(Debug, Default)]
pub(crate) struct Provider(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    at: MonotonicTime,
    metadata: Result<CoreProviderMetadata, Refusal>,
}

/// Which description will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// One of the last hour.
    Usual,
    /// One of the last minute: the provider may have other keys by now.
    Recent,
}

impl Provider {
    async fn metadata(&self, server: &Server, age: Age) -> Result<CoreProviderMetadata, Refusal> {
        let mut known = self.0.lock().await;
        let now = server.app.clock.monotonic();
        if let Some(known) = known.as_ref() {
            let lasts = match (&known.metadata, age) {
                (Err(_), _) => FAILED,
                (Ok(_), Age::Usual) => KNOWN,
                (Ok(_), Age::Recent) => ROTATED,
            };
            if now.since(known.at) < lasts {
                return known.metadata.clone();
            }
        }
        let issuer = configured(server)?.issuer.clone();
        let issuer = IssuerUrl::new(issuer).map_err(|error| failed("its address", &error))?;
        let metadata = CoreProviderMetadata::discover_async(issuer, &send).await;
        let metadata = metadata.map_err(|error| failed("its description", &error));
        *known = Some(Known { at: server.app.clock.monotonic(), metadata: metadata.clone() });
        metadata
    }
}

async fn client(server: &Server, age: Age) -> Result<Client, Refusal> {
    let config = configured(server)?;
    let provider = server.provider.metadata(server, age).await?;
    let secret =
        config.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
    let back = RedirectUrl::new(format!("{}{CALLBACK}", config.public_url));
    let back = back.map_err(|error| failed("this server's own address", &error))?;
    let id = ClientId::new(config.client_id.clone());
    Ok(CoreClient::from_provider_metadata(provider, id, secret).set_redirect_uri(back))
}

/// What is kept in the browser meanwhile.
fn jar(headers: &HeaderMap, caller: Caller, value: Option<String>) -> CookieJar {
    let plain = guard::is_plain(headers, caller);
    let name = if plain { "cdm-oidc" } else { "__Host-cdm-oidc" };
    let kept = value.is_some();
    let mut cookie = Cookie::build((name, value.unwrap_or_default()))
        .path("/")
        .http_only(true)
        .secure(!plain)
        .same_site(SameSite::Lax)
        .build();
    if !kept {
        cookie.make_removal();
    }
    CookieJar::new().add(cookie)
}

/// Leads to the provider.
pub(crate) async fn begin(
    State(server): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    Filter(next): Filter<Next>,
) -> Result<Response, Refusal> {
    server.limits.begin(caller.address).map_err(Refusal::too_many)?;
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let client = client(&server, Age::Usual).await?;
    let asked = client
        .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
        .set_pkce_challenge(challenge)
        .add_scope(Scope::new("email".to_owned()))
        .add_scope(Scope::new("profile".to_owned()));
    let (url, state, nonce) = asked.url();
    let next = next.next.unwrap_or_default();
    let next = hex(within(&next));
    let until = server.app.clock.wall().after(MOST).millis();
    let kept = format!("{}.{}.{}.{next}.{until}", state.secret(), nonce.secret(), verifier.secret());
    Ok((jar(&headers, caller, Some(kept)), Redirect::to(url.as_str())).into_response())
}

/// What the provider says by way of the browser.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Said {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// Takes the provider's word for a name, and opens a session for whoever has it here.
pub(crate) async fn end(
    State(server): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    id: Option<axum::Extension<RequestId>>,
    Filter(said): Filter<Said>,
) -> Result<Response, Refusal> {
    let config = configured(&server)?;
    let refuse = |why: &str| Refusal::new(StatusCode::FORBIDDEN, "oidc_refused", why.to_owned());
    let held = CookieJar::from_headers(&headers);
    let kept = jar(&headers, caller, None)
        .iter()
        .find_map(|own| held.get(own.name()).map(|kept| kept.value().to_owned()));
    let kept = kept.unwrap_or_default();
    let parts: Vec<&str> = kept.split('.').collect();
    let [state, nonce, verifier, next, until] = parts.as_slice() else {
        return Err(refuse("this browser did not begin to sign in, or took too long; begin again"));
    };
    let late = until.parse::<u64>().map_or(true, |until| until <= server.app.clock.wall().millis());
    if late || said.state.as_deref() != Some(*state) {
        return Err(refuse("this browser did not begin to sign in like that; begin again"));
    }
    let Some(code) = said.code.filter(|_| said.error.is_none()) else {
        return Err(refuse("the provider of OpenID Connect did not let you in"));
    };
    let nonce = Nonce::new((*nonce).to_owned());
    let claims = vouched(&server, code, (verifier, &nonce)).await;
    // A guess costs the provider a request, so guesses are counted as those of passwords are.
    let claims = match claims {
        Ok(claims) => claims,
        Err(refusal) => {
            server.limits.failure(caller.address).map_err(Refusal::too_many)?;
            return Err(refusal);
        }
    };
    let identity = identity(config, &claims);
    let users = server.app.manager.users().await?;
    let form = Form::bare(headers.clone(), caller, id.map(|id| id.0.0));
    // An account that is bound to somebody is theirs, whatever it is called by now; a name binds one account, the first.
    let user = match users.identified(&identity) {
        Some(user) => user,
        None => {
            let name = name(config, &claims)
                .ok_or_else(|| refuse("the provider does not vouch for a name that a user has here"))?;
            match users.of(&name) {
                Some(user) if user.identity.is_none() => user,
                other => {
                    let nobody = form.request_of(nobody()?, Role::Viewer);
                    server.app.manager.refuse_session(&nobody, name.as_str()).await;
                    let why = match other {
                        Some(_) => format!(
                            "`{name}` is bound to another account of the provider; if that has changed, an \
                             administrator unbinds it: cdm user unbind {name}"
                        ),
                        None => format!(
                            "`{name}` is no user here; an administrator makes one: cdm user create {name} \
                             --no-password"
                        ),
                    };
                    return Err(refuse(&why));
                }
            }
        }
    };
    let next = unhex(next);
    let proven = Proven::Identity(identity);
    let opened = opened(&server, &form, (user, proven), within(&next.unwrap_or_default())).await?;
    Ok((jar(&headers, caller, None), opened).into_response())
}

/// What the provider vouches for, in exchange for a code.
async fn vouched(
    server: &Server,
    code: String,
    (verifier, nonce): (&str, &Nonce),
) -> Result<CoreIdTokenClaims, Refusal> {
    let known = client(server, Age::Usual).await?;
    let token = exchanged(&known, code, verifier).await?;
    let silent = "the provider says nothing of who you are";
    let silent = || Refusal::new(StatusCode::FORBIDDEN, "oidc_refused", silent);
    let told = token.id_token().ok_or_else(silent)?;
    let failed = |error| failed("its word for who you are", &error);
    let unknown_key =
        ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey);
    match told.claims(&known.id_token_verifier(), nonce) {
        Err(error) if error.to_string() == unknown_key.to_string() => {
            let known = client(server, Age::Recent).await?;
            told.claims(&known.id_token_verifier(), nonce).cloned().map_err(failed)
        }
        told => told.cloned().map_err(failed),
    }
}

async fn exchanged(client: &Client, code: String, verifier: &str) -> Result<CoreTokenResponse, Refusal> {
    let exchange = client.exchange_code(AuthorizationCode::new(code));
    let exchange = exchange.map_err(|error| failed("its description", &error))?;
    let exchange = exchange.set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()));
    exchange.request_async(&send).await.map_err(|error| failed("the exchange of its code", &error))
}

/// The account at the provider: issuer and subject, which never change and are given to nobody else (OpenID Connect Core
/// 1.0, section 5.7).
fn identity(config: &OidcConfig, claims: &CoreIdTokenClaims) -> TokenHash {
    let hash = Sha256::new().chain_update(&config.issuer).chain_update("\0");
    TokenHash(hash.chain_update(claims.subject().as_str()).finalize().into())
}

/// The name that the configured claim is, where the provider vouches for it.
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

//! Creates, lists, revokes and verifies API tokens.
//!
//! A token from the configuration is a *bootstrap token*: its name is derived from its text, and its creator is the
//! actor `bootstrap`, a name that no other token can have. For this reason, the record alone identifies a bootstrap
//! token.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use super::refusals::{Refusals, Span};
use super::{Action, ManagerError, Request};
use crate::domain::token::{Role, Token, TokenHash, judge_bootstrap};
use crate::domain::{Actor, AuditEntry, Fence, Timestamp, Uid};
use crate::ports::{CallContext, ErrorKind, Outcome, PortError, Ports, TokenStore, WriteBatch};

/// The maximum number of attempts of a store call without a definite result.
const TRIES: u32 = 4;

/// Manages API tokens for frontends.
#[derive(Debug)]
pub struct Access {
    tokens: Arc<dyn TokenStore>,
    ports: Ports,
    call: std::time::Duration,
    refusals: Refusals,
}

/// The expiry of a new token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// After the default lifetime, [`Token::LASTS`].
    #[default]
    Usual,
    /// At this time, which has to be in the future.
    At(Timestamp),
    /// Never; the token is valid until it is revoked.
    Never,
}

/// The attributes of a token to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// The actor of requests with the token. No earlier token may have had this name.
    pub name: Actor,
    /// The role of requests with the token.
    pub role: Role,
    /// When the token expires.
    pub expiry: Expiry,
}

/// The result of admitting a configured administrator's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The token is valid.
    Serves(Token),
    /// The token was replaced by a text that was configured later.
    Replaced,
}

impl Access {
    /// Creates the token manager. It stores tokens in `tokens` and uses audit log, clocks and randomness of `ports`.
    /// `call` limits the duration of each store call.
    pub fn new(tokens: Arc<dyn TokenStore>, ports: Ports, call: std::time::Duration) -> Self {
        Self { tokens, ports, call, refusals: Refusals::default() }
    }

    /// Returns the record of a token; `None` if the token is unknown, revoked or expired.
    ///
    /// # Errors
    /// Returns an error only if the store is unavailable. A frontend must not reject the caller as unauthenticated in
    /// that case.
    pub async fn identify(&self, token: &SecretString) -> Result<Option<Token>, ManagerError> {
        let found = self.recognize(token).await?;
        Ok(found.filter(|token| self.serves(token)))
    }

    /// Returns the record of a token even if it is revoked or expired, so that the audit log can name the owner of a
    /// rejected token.
    ///
    /// # Errors
    /// Returns an error only if the store is unavailable.
    pub async fn recognize(&self, token: &SecretString) -> Result<Option<Token>, ManagerError> {
        Ok(self.tokens.by_hash(&hash(token)).await?)
    }

    /// Returns whether a token is valid now.
    pub fn serves(&self, token: &Token) -> bool {
        token.serves(self.ports.clock.wall())
    }

    /// Creates a token. The returned text is shown to the user once and not stored.
    ///
    /// # Errors
    /// Returns [`ManagerError::Forbidden`], [`ManagerError::TokenExists`] if a token has, or ever had, the name, and
    /// [`ManagerError::Invalid`] for a reserved name or an expiry in the past.
    pub async fn create(
        &self,
        request: &Request,
        new: &NewToken,
    ) -> Result<(Token, SecretString), ManagerError> {
        let password = self.ports.entropy.password();
        let text = SecretString::from(format!("cdm_{}", password.expose_secret()));
        let now = self.ports.clock.wall();
        let expires_at = match new.expiry {
            Expiry::Usual => Some(now.after(Token::LASTS)),
            Expiry::At(end) => Some(end),
            Expiry::Never => None,
        };
        let allowed = request.may(Action::CreateToken).and_then(|()| {
            Token::name(new.name.as_str())?;
            if expires_at.is_some_and(|end| end <= now) {
                return Err(ManagerError::Invalid("the expiry of a token must be in the future".to_owned()));
            }
            Ok(())
        });
        let result = match allowed {
            Ok(()) => {
                let token = self.record(&text, new, &request.actor, (now, expires_at));
                self.store(token).await
            }
            Err(error) => Err(error),
        };
        self.audit(request, Action::CreateToken, new.name.as_str(), &result).await;
        Ok((result?, text))
    }

    /// Makes the configured administrator's token valid and revokes the bootstrap tokens that were configured before
    /// it. The text that was configured last wins: a process that restarts with an earlier text, while others use a
    /// newer one, changes nothing. The call is idempotent. The audit log attributes changes to the actor `bootstrap`.
    ///
    /// # Errors
    /// Returns [`ManagerError::Invalid`] for a text that [`judge_bootstrap`] rejects, and for a token that a user has
    /// revoked.
    pub async fn admit_admin(&self, text: &SecretString) -> Result<Admitted, ManagerError> {
        judge_bootstrap(text.expose_secret())?;
        let known = self.tokens.by_hash(&hash(text)).await?;
        let mut others = self.tokens.tokens().await?;
        others.retain(|token| token.is_bootstrap() && !token.loopback_only && token.hash != hash(text));
        let newest = others.iter().map(|token| token.created_at).max();
        let token = match known {
            Some(token) if self.serves(&token) => token,
            Some(token) if others.iter().any(|other| other.id > token.id && self.serves(other)) => {
                return Ok(Admitted::Replaced);
            }
            Some(_) => {
                let revoked = "this administrator's token was revoked; configure another one";
                return Err(ManagerError::Invalid(revoked.to_owned()));
            }
            // Later than every earlier token, even if the clock of this machine is behind.
            None => {
                let after = newest.map(|newest| newest.after(std::time::Duration::from_millis(1)));
                self.bootstrap(text, false, after).await?
            }
        };
        // The process itself revokes the earlier tokens, so the actor is `bootstrap`.
        let request = Request::by(Actor::bootstrap(), Role::Admin);
        for old in others.iter().filter(|old| old.id < token.id && self.serves(old)) {
            self.revoke(&request, old.id).await?;
        }
        Ok(Admitted::Serves(token))
    }

    /// Returns whether a token that callers on other machines may use is valid now.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn serves_other_machines(&self) -> Result<bool, ManagerError> {
        let tokens = self.tokens.tokens().await?;
        Ok(tokens.iter().any(|token| !token.loopback_only && self.serves(token)))
    }

    /// Returns the valid tokens whose names are reserved for the audit log today. An audit entry with such an actor
    /// can refer to the token.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn with_reserved_names(&self) -> Result<Vec<Token>, ManagerError> {
        let mut tokens = self.tokens.tokens().await?;
        let reserved = |token: &Token| !token.is_bootstrap() && Token::name(token.name.as_str()).is_err();
        tokens.retain(|token| reserved(token) && self.serves(token));
        Ok(tokens)
    }

    /// Creates an administrator's token for callers on this machine, unless a token was ever created. Returns the
    /// token's text.
    pub async fn first_admin(&self) -> Result<Option<SecretString>, ManagerError> {
        if !self.tokens.tokens().await?.is_empty() {
            return Ok(None);
        }
        let password = self.ports.entropy.password();
        let text = SecretString::from(format!("cdm_{}", password.expose_secret()));
        self.bootstrap(&text, true, None).await?;
        Ok(Some(text))
    }

    async fn bootstrap(
        &self,
        text: &SecretString,
        loopback_only: bool,
        after: Option<Timestamp>,
    ) -> Result<Token, ManagerError> {
        let now = self.ports.clock.wall();
        let at = after.map_or(now, |after| after.max(now));
        let name = Actor::parse(&hash(text).bootstrap_name())?;
        let new = NewToken { name, role: Role::Admin, expiry: Expiry::Never };
        let by = Actor::bootstrap();
        let token = Token { loopback_only, ..self.record(text, &new, &by, (at, None)) };
        let result = self.store(token).await;
        let request = Request::by(by, Role::Admin);
        self.audit(&request, Action::CreateToken, new.name.as_str(), &result).await;
        result
    }

    fn record(
        &self,
        text: &SecretString,
        new: &NewToken,
        by: &Actor,
        (at, expires_at): (Timestamp, Option<Timestamp>),
    ) -> Token {
        Token {
            id: self.ports.entropy.uid(at),
            name: new.name.clone(),
            role: new.role,
            hash: hash(text),
            loopback_only: false,
            created_by: by.clone(),
            created_at: at,
            expires_at,
            revoked_at: None,
        }
    }

    async fn store(&self, token: Token) -> Result<Token, ManagerError> {
        let mut call = self.call();
        for _ in 0..TRIES {
            match self.tokens.create(&call, &token).await {
                Outcome::Applied(()) => return Ok(token),
                Outcome::NotApplied(error) if error.kind == ErrorKind::Exists => {
                    return Err(ManagerError::TokenExists(token.name));
                }
                Outcome::NotApplied(error) if !error.is_retryable() => return Err(error.into()),
                Outcome::NotApplied(error) | Outcome::Unknown(error) if error.kind == ErrorKind::Full => {
                    return Err(error.into());
                }
                Outcome::NotApplied(_) | Outcome::Unknown(_) => {}
            }
            call = CallContext { write: call.write, ..self.call() };
        }
        Err(ManagerError::Unknown)
    }

    /// Returns every token in the order of creation, including revoked tokens.
    ///
    /// # Errors
    /// Returns [`ManagerError::Forbidden`], or an error if the store is unavailable.
    pub async fn tokens(&self, request: &Request) -> Result<Vec<Token>, ManagerError> {
        if let Err(error) = request.may(Action::ReadTokens) {
            self.audit(request, Action::ReadTokens, "tokens", &Err(error.clone())).await;
            return Err(error);
        }
        Ok(self.tokens.tokens().await?)
    }

    /// Revokes a token; the next request with it is rejected. The call is idempotent.
    ///
    /// # Errors
    /// Returns [`ManagerError::Forbidden`], or [`ManagerError::NotFound`] for an unknown id.
    pub async fn revoke(&self, request: &Request, id: Uid) -> Result<Token, ManagerError> {
        let result = match request.may(Action::RevokeToken) {
            Ok(()) => self.mark_revoked(id).await,
            Err(error) => Err(error),
        };
        self.audit(request, Action::RevokeToken, &id.to_string(), &result).await;
        result
    }

    async fn mark_revoked(&self, id: Uid) -> Result<Token, ManagerError> {
        for _ in 0..TRIES {
            match self.tokens.revoke(&self.call(), id, self.ports.clock.wall()).await {
                Outcome::Applied(token) => return Ok(token),
                Outcome::NotApplied(PortError { kind: ErrorKind::NotFound, .. }) => {
                    return Err(ManagerError::NotFound { what: format!("the token `{id}`") });
                }
                Outcome::NotApplied(error) if !error.is_retryable() => return Err(error.into()),
                Outcome::NotApplied(error) | Outcome::Unknown(error) if error.kind == ErrorKind::Full => {
                    return Err(error.into());
                }
                Outcome::NotApplied(_) | Outcome::Unknown(_) => {}
            }
        }
        Err(ManagerError::Unknown)
    }

    /// Writes the number of rejected requests that have no audit entry yet; see [`super::Manager::count_refusals`].
    pub async fn count_refusals(&self, span: Span) {
        let due = self.refusals.flush(span, self.ports.clock.monotonic());
        self.write_entries(due).await;
    }

    async fn write_entries(&self, entries: Vec<AuditEntry>) {
        for entry in entries {
            // The result of the request does not depend on its audit entry.
            let batch = WriteBatch { audit: Some(entry), ..WriteBatch::default() };
            let _ = self.ports.store.write(&self.call(), &batch).await;
        }
    }

    async fn audit(
        &self,
        request: &Request,
        action: Action,
        target: &str,
        result: &Result<Token, ManagerError>,
    ) {
        let outcome = result.as_ref().map_or_else(ManagerError::code, |_| "accepted");
        let entry = AuditEntry {
            at: self.ports.clock.wall(),
            actor: request.actor.clone(),
            action: action.as_str().into(),
            target: target.to_owned(),
            request_id: request.id.clone(),
            outcome: outcome.into(),
            operation: None,
            rollout: None,
            address: request.address,
            count: 1,
        };
        let due = match result {
            Ok(_) => vec![entry],
            Err(_) => self.refusals.record(entry, self.ports.clock.monotonic()),
        };
        self.write_entries(due).await;
    }

    fn call(&self) -> CallContext {
        let deadline = self.ports.clock.monotonic().after(self.call);
        CallContext { deadline, write: self.ports.entropy.write(), fence: Fence::default() }
    }
}

pub(super) fn hash(text: &SecretString) -> TokenHash {
    TokenHash(Sha256::digest(text.expose_secret().as_bytes()).into())
}

//! Who may ask: tokens are made, listed, revoked and recognised here.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use super::{Request, ServiceError};
use crate::domain::token::{Role, Token, TokenHash};
use crate::domain::{Actor, AuditEntry, Fence, Timestamp, Uid};
use crate::ports::{Batch, Call, ErrorKind, Outcome, PortError, Ports, TokenStore};

/// How often a call without an answer is made.
const TRIES: u32 = 4;

/// Tokens, as frontends see them.
#[derive(Debug)]
pub struct Access {
    tokens: Arc<dyn TokenStore>,
    ports: Ports,
    call: std::time::Duration,
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Who will ask with it; not the name of any token before.
    pub name: Actor,
    /// What it may do.
    pub role: Role,
    /// Until when it serves; `None` for ever.
    pub expires_at: Option<Timestamp>,
}

impl Access {
    /// Tokens kept in `tokens`; audit, time and chance are those of `ports`. A call may take `call`.
    pub const fn new(tokens: Arc<dyn TokenStore>, ports: Ports, call: std::time::Duration) -> Self {
        Self { tokens, ports, call }
    }

    /// Who asks with this token; `None` when it is unknown, revoked or expired.
    ///
    /// # Errors
    /// Only when the store does not answer: a caller is not refused for that.
    pub async fn identify(&self, token: &SecretString) -> Result<Option<Token>, ServiceError> {
        let found = self.tokens.by_hash(&hash(token)).await?;
        Ok(found.filter(|token| token.serves(self.ports.clock.wall())))
    }

    /// Makes a token; the text that comes with it is shown once and kept nowhere.
    ///
    /// # Errors
    /// [`ServiceError::TokenExists`] when a token has, or ever had, that name; [`ServiceError::Invalid`] for one of those
    /// that people who sign in have.
    pub async fn create(
        &self,
        request: &Request,
        new: &NewToken,
    ) -> Result<(Token, SecretString), ServiceError> {
        let password = self.ports.ids.password();
        let text = SecretString::from(format!("cdm_{}", password.expose_secret()));
        let result = match Token::name(new.name.as_str()) {
            Ok(_) => self.keep(&text, new, &request.actor, false).await,
            Err(error) => Err(error.into()),
        };
        self.audit(request, "token.create", new.name.as_str(), &result).await;
        Ok((result?, text))
    }

    /// Sees to it that an administrator's token from the configuration serves. Idempotent; an earlier one of another
    /// text goes on serving until it is revoked.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`] for one that was revoked or is shorter than 32 characters.
    pub async fn admit_admin(&self, text: &SecretString) -> Result<Token, ServiceError> {
        if text.expose_secret().len() < 32 {
            let rule = "an administrator's token has at least 32 characters";
            return Err(ServiceError::Invalid(rule.to_owned()));
        }
        if let Some(token) = self.tokens.by_hash(&hash(text)).await? {
            let now = self.ports.clock.wall();
            let revoked = || ServiceError::Invalid("this administrator's token was revoked".to_owned());
            return Some(token).filter(|token| token.serves(now)).ok_or_else(revoked);
        }
        self.bootstrap(text, false).await
    }

    /// Makes an administrator's token up that serves this machine only, unless some token was ever made.
    pub async fn first_admin(&self) -> Result<Option<SecretString>, ServiceError> {
        if !self.tokens.tokens().await?.is_empty() {
            return Ok(None);
        }
        let password = self.ports.ids.password();
        let text = SecretString::from(format!("cdm_{}", password.expose_secret()));
        self.bootstrap(&text, true).await?;
        Ok(Some(text))
    }

    async fn bootstrap(&self, text: &SecretString, loopback_only: bool) -> Result<Token, ServiceError> {
        let actor = |text: &str| Actor::parse(text).map_err(ServiceError::from);
        let of_hash: String = hash(text).0.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let name = actor(&format!("bootstrap-{of_hash}"))?;
        let new = NewToken { name, role: Role::Admin, expires_at: None };
        self.keep(text, &new, &actor("bootstrap")?, loopback_only).await
    }

    async fn keep(
        &self,
        text: &SecretString,
        new: &NewToken,
        by: &Actor,
        loopback_only: bool,
    ) -> Result<Token, ServiceError> {
        let now = self.ports.clock.wall();
        let token = Token {
            id: self.ports.ids.uid(now),
            name: new.name.clone(),
            role: new.role,
            hash: hash(text),
            loopback_only,
            created_by: by.clone(),
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
        };
        let mut call = self.call();
        for _ in 0..TRIES {
            match self.tokens.create(&call, &token).await {
                Outcome::Applied(()) => return Ok(token),
                Outcome::NotApplied(error) if error.kind == ErrorKind::Exists => {
                    return Err(ServiceError::TokenExists(new.name.clone()));
                }
                Outcome::NotApplied(error) if !error.is_retryable() => return Err(error.into()),
                Outcome::NotApplied(error) | Outcome::Unknown(error) if error.kind == ErrorKind::Full => {
                    return Err(error.into());
                }
                Outcome::NotApplied(_) | Outcome::Unknown(_) => {}
            }
            call = Call { write: call.write, ..self.call() };
        }
        Err(ServiceError::Unknown)
    }

    /// Every token, in the order of their birth, revoked ones too.
    pub async fn tokens(&self) -> Result<Vec<Token>, ServiceError> {
        Ok(self.tokens.tokens().await?)
    }

    /// Ends a token's service, from the next request on. Idempotent.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for an unknown id.
    pub async fn revoke(&self, request: &Request, id: Uid) -> Result<Token, ServiceError> {
        let mut result = Err(ServiceError::Unknown);
        for _ in 0..TRIES {
            match self.tokens.revoke(&self.call(), id, self.ports.clock.wall()).await {
                Outcome::Applied(token) => {
                    result = Ok(token);
                    break;
                }
                Outcome::NotApplied(PortError { kind: ErrorKind::NotFound, .. }) => {
                    result = Err(ServiceError::NotFound { what: format!("the token `{id}`") });
                    break;
                }
                Outcome::NotApplied(error) if !error.is_retryable() => {
                    result = Err(error.into());
                    break;
                }
                Outcome::NotApplied(error) | Outcome::Unknown(error) if error.kind == ErrorKind::Full => {
                    result = Err(error.into());
                    break;
                }
                Outcome::NotApplied(_) | Outcome::Unknown(_) => {}
            }
        }
        self.audit(request, "token.revoke", &id.to_string(), &result).await;
        result
    }

    async fn audit(
        &self,
        request: &Request,
        action: &'static str,
        target: &str,
        result: &Result<Token, ServiceError>,
    ) {
        let outcome = result.as_ref().map_or_else(ServiceError::code, |_| "accepted");
        let entry = AuditEntry {
            at: self.ports.clock.wall(),
            actor: request.actor.clone(),
            action: action.into(),
            target: target.to_owned(),
            request_id: request.id.clone(),
            outcome: outcome.into(),
            operation: None,
            rollout: None,
        };
        // What was done stands whether or not its entry can be written.
        let batch = Batch { audit: Some(entry), ..Batch::default() };
        let _ = self.ports.store.write(&self.call(), &batch).await;
    }

    fn call(&self) -> Call {
        let deadline = self.ports.clock.monotonic().after(self.call);
        Call { deadline, write: self.ports.ids.write(), fence: Fence::default() }
    }
}

pub(super) fn hash(text: &SecretString) -> TokenHash {
    TokenHash(Sha256::digest(text.expose_secret().as_bytes()).into())
}

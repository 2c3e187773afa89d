//! Who may ask: tokens are made, listed, revoked and recognised here.
//!
//! The token of the configuration is a *bootstrap token*: its name follows from its text, and it was made by the actor
//! `bootstrap`, which is never the name of a token that a person makes. So its record alone tells what it is.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use super::refusals::{Refusals, Span};
use super::{Action, ManagerError, Request};
use crate::domain::token::{Role, Token, TokenHash, judge_bootstrap};
use crate::domain::{Actor, AuditEntry, Fence, Timestamp, Uid};
use crate::ports::{CallContext, ErrorKind, Outcome, PortError, Ports, TokenStore, WriteBatch};

/// How often a call without an answer is made.
const TRIES: u32 = 4;

/// Tokens, as frontends see them.
#[derive(Debug)]
pub struct Access {
    tokens: Arc<dyn TokenStore>,
    ports: Ports,
    call: std::time::Duration,
    refusals: Refusals,
}

/// Until when a new token serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// For [`Token::LASTS`].
    #[default]
    Usual,
    /// Until that moment.
    At(Timestamp),
    /// Until it is revoked.
    Never,
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Who will ask with it; not the name of any token before.
    pub name: Actor,
    /// What it may do.
    pub role: Role,
    /// Until when it serves.
    pub expiry: Expiry,
}

/// What became of the token of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It serves.
    Serves(Token),
    /// A text that was configured later serves instead.
    Replaced,
}

impl Access {
    /// Tokens kept in `tokens`; audit, time and chance are those of `ports`. A call may take `call`.
    pub fn new(tokens: Arc<dyn TokenStore>, ports: Ports, call: std::time::Duration) -> Self {
        Self { tokens, ports, call, refusals: Refusals::default() }
    }

    /// Who asks with this token; `None` when it is unknown, revoked or expired.
    ///
    /// # Errors
    /// Only when the store does not answer: a caller is not refused for that.
    pub async fn identify(&self, token: &SecretString) -> Result<Option<Token>, ManagerError> {
        let found = self.recognize(token).await?;
        Ok(found.filter(|token| self.serves(token)))
    }

    /// The record of this token, whether or not it serves any more: to name in the audit whose token was refused.
    ///
    /// # Errors
    /// Only when the store does not answer.
    pub async fn recognize(&self, token: &SecretString) -> Result<Option<Token>, ManagerError> {
        Ok(self.tokens.by_hash(&hash(token)).await?)
    }

    /// Whether a token serves now.
    pub fn serves(&self, token: &Token) -> bool {
        token.serves(self.ports.clock.wall())
    }

    /// Makes a token; the text that comes with it is shown once and kept nowhere.
    ///
    /// # Errors
    /// [`ManagerError::Forbidden`]; [`ManagerError::TokenExists`] when a token has, or ever had, that name;
    /// [`ManagerError::Invalid`] for a reserved one, and for an end that has passed.
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
        let judged = request.may(Action::CreateToken).and_then(|()| {
            Token::name(new.name.as_str())?;
            if expires_at.is_some_and(|end| end <= now) {
                return Err(ManagerError::Invalid("the end of a token is a moment in the future".to_owned()));
            }
            Ok(())
        });
        let result = match judged {
            Ok(()) => {
                let token = self.record(&text, new, &request.actor, (now, expires_at));
                self.keep(token).await
            }
            Err(refused) => Err(refused),
        };
        self.audit(request, Action::CreateToken, new.name.as_str(), &result).await;
        Ok((result?, text))
    }

    /// Sees to it that an administrator's token from the configuration serves, and that every bootstrap token before it
    /// serves no more. The one whose text was configured last is the one that serves: a process that starts once more
    /// with an earlier text, while others already have a newer one, changes nothing. Idempotent. What it changes is in
    /// the audit, of the actor `bootstrap`.
    ///
    /// # Errors
    /// [`ManagerError::Invalid`] for a text that [`judge_bootstrap`] refuses, and for one that a person has revoked.
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
                let revoked = "this administrator's token was revoked; configure another text";
                return Err(ManagerError::Invalid(revoked.to_owned()));
            }
            // Later than every one before, also where this machine's clock is behind.
            None => {
                let after = newest.map(|newest| newest.after(std::time::Duration::from_millis(1)));
                self.bootstrap(text, false, after).await?
            }
        };
        // From a record: the name is the same, the request has none.
        let request = Request::by(Actor::bootstrap(), Role::Admin);
        for old in others.iter().filter(|old| old.id < token.id && self.serves(old)) {
            self.revoke(&request, old.id).await?;
        }
        Ok(Admitted::Serves(token))
    }

    /// Whether some token that callers on other machines may use serves now.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn serves_other_machines(&self) -> Result<bool, ManagerError> {
        let tokens = self.tokens.tokens().await?;
        Ok(tokens.iter().any(|token| !token.loopback_only && self.serves(token)))
    }

    /// The tokens that serve under names which no new token may have: such names are those of the audit's own actors, so
    /// an entry of theirs may be the token's.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn with_reserved_names(&self) -> Result<Vec<Token>, ManagerError> {
        let mut tokens = self.tokens.tokens().await?;
        let reserved = |token: &Token| !token.is_bootstrap() && Token::name(token.name.as_str()).is_err();
        tokens.retain(|token| reserved(token) && self.serves(token));
        Ok(tokens)
    }

    /// Makes an administrator's token up that serves this machine only, unless some token was ever made.
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
        let result = self.keep(token).await;
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

    async fn keep(&self, token: Token) -> Result<Token, ManagerError> {
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

    /// Every token, in the order of their birth, revoked ones too.
    ///
    /// # Errors
    /// [`ManagerError::Forbidden`]; when the store does not answer.
    pub async fn tokens(&self, request: &Request) -> Result<Vec<Token>, ManagerError> {
        let judged = request.may(Action::ReadTokens);
        if let Err(refused) = judged {
            self.audit(request, Action::ReadTokens, "tokens", &Err(refused.clone())).await;
            return Err(refused);
        }
        Ok(self.tokens.tokens().await?)
    }

    /// Ends a token's service, from the next request on. Idempotent.
    ///
    /// # Errors
    /// [`ManagerError::Forbidden`]; [`ManagerError::NotFound`] for an unknown id.
    pub async fn revoke(&self, request: &Request, id: Uid) -> Result<Token, ManagerError> {
        let result = match request.may(Action::RevokeToken) {
            Ok(()) => self.end(id).await,
            Err(refused) => Err(refused),
        };
        self.audit(request, Action::RevokeToken, &id.to_string(), &result).await;
        result
    }

    async fn end(&self, id: Uid) -> Result<Token, ManagerError> {
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

    /// Writes how many refusals had no entry of their own; see [`super::Manager::count_refusals`].
    pub async fn count_refusals(&self, span: Span) {
        let due = self.refusals.due(span, self.ports.clock.monotonic());
        self.write_entries(due).await;
    }

    async fn write_entries(&self, entries: Vec<AuditEntry>) {
        for entry in entries {
            // What was done stands whether or not its entry can be written.
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
            Err(_) => self.refusals.note(entry, self.ports.clock.monotonic()),
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

//! An in-memory token store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cdm_core::domain::{Timestamp, Token, TokenHash, Uid};
use cdm_core::ports::{CallContext, ErrorKind, Outcome, PortError, TokenStore};

const PORT: &str = "tokens";

/// Tokens, in memory. Clones share one store.
#[derive(Clone, Debug, Default)]
pub struct FakeTokens(Arc<Mutex<BTreeMap<Uid, Token>>>);

impl FakeTokens {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uid, Token>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TokenStore for FakeTokens {
    async fn create(&self, _call: &CallContext, token: &Token) -> Outcome<()> {
        let mut tokens = self.lock();
        if tokens.get(&token.id) == Some(token) {
            return Outcome::Applied(());
        }
        if tokens.values().any(|existing| existing.name == token.name || existing.hash == token.hash) {
            let message = "another token has, or had, this name or hash";
            return Outcome::NotApplied(PortError::new(PORT, ErrorKind::Exists, message));
        }
        tokens.insert(token.id, token.clone());
        Outcome::Applied(())
    }

    async fn by_hash(&self, hash: &TokenHash) -> Result<Option<Token>, PortError> {
        Ok(self.lock().values().find(|token| token.hash == *hash).cloned())
    }

    async fn tokens(&self) -> Result<Vec<Token>, PortError> {
        Ok(self.lock().values().cloned().collect())
    }

    async fn revoke(&self, _call: &CallContext, id: Uid, at: Timestamp) -> Outcome<Token> {
        let mut tokens = self.lock();
        let Some(token) = tokens.get_mut(&id) else {
            return Outcome::NotApplied(PortError::new(
                PORT,
                ErrorKind::NotFound,
                "the token does not exist",
            ));
        };
        token.revoked_at = token.revoked_at.or(Some(at));
        Outcome::Applied(token.clone())
    }
}

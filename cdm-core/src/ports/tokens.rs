//! Records of API tokens.

use std::fmt;

use async_trait::async_trait;

use super::{CallContext, Outcome, PortError};
use crate::domain::token::{Token, TokenHash};
use crate::domain::{Timestamp, Uid};

/// Stores the records of tokens. Implementations may assume some dozens of tokens.
#[async_trait]
pub trait TokenStore: Send + Sync + fmt::Debug + 'static {
    /// Stores a new token. A repetition of an applied create returns `Applied`.
    ///
    /// # Errors
    /// Returns `Exists` if another token has, or ever had, the same name or hash.
    async fn create(&self, call: &CallContext, token: &Token) -> Outcome<()>;

    /// Returns the token with this hash, including revoked tokens. The result includes every write that was applied
    /// before.
    async fn by_hash(&self, hash: &TokenHash) -> Result<Option<Token>, PortError>;

    /// Returns every token in the order of creation, including revoked tokens.
    async fn tokens(&self) -> Result<Vec<Token>, PortError>;

    /// Revokes a token and returns it. The call is idempotent: a revoked token keeps its earlier time.
    ///
    /// # Errors
    /// Returns `NotFound` if no token has this id.
    async fn revoke(&self, call: &CallContext, id: Uid, at: Timestamp) -> Outcome<Token>;
}

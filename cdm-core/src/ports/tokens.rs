//! Tokens.

use std::fmt;

use async_trait::async_trait;

use super::{CallContext, Outcome, PortError};
use crate::domain::token::{Token, TokenHash};
use crate::domain::{Timestamp, Uid};

/// Keeps the records of tokens. There are few: some dozens.
#[async_trait]
pub trait TokenStore: Send + Sync + fmt::Debug + 'static {
    /// Keeps a new token. A repetition of a create that was applied answers `Applied`.
    ///
    /// # Errors
    /// `Exists` when another token has, or ever had, the name or the hash.
    async fn create(&self, call: &CallContext, token: &Token) -> Outcome<()>;

    /// The token of that hash, revoked or not. Sees every write that was applied before.
    async fn by_hash(&self, hash: &TokenHash) -> Result<Option<Token>, PortError>;

    /// Every token, in the order of their birth, revoked ones too.
    async fn tokens(&self) -> Result<Vec<Token>, PortError>;

    /// Ends a token's service; one that ended before keeps the earlier moment. Idempotent.
    ///
    /// # Errors
    /// `NotFound` when there is none of that id.
    async fn revoke(&self, call: &CallContext, id: Uid, at: Timestamp) -> Outcome<Token>;
}

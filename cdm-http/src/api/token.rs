//! Tokens in API requests and responses. Only the response to the creation contains the text of a token.

use cdm_core::domain::{Role, Timestamp};
use cdm_core::manager::{Expiry, NewToken};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::enums::RoleName;
use super::{moment, time};
use crate::error::ApiError;
use crate::extract::Fields;

/// A token, without its text.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// The id of the token.
    pub id: String,
    /// The name of the token, which the audit log records as the actor.
    pub name: String,
    /// The role of the token.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// Whether the token is valid only for callers on the server's machine.
    pub loopback_only: bool,
    /// The actor who created the token.
    pub created_by: String,
    /// When the token was created.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When the token expires; null if it is valid until it is revoked.
    #[schema(required = true, format = DateTime)]
    pub expires_at: Option<String>,
    /// When the token was revoked; null if it was not revoked.
    #[schema(required = true, format = DateTime)]
    pub revoked_at: Option<String>,
}

impl From<&cdm_core::domain::Token> for Token {
    fn from(token: &cdm_core::domain::Token) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.to_string(),
            role: token.role.to_string(),
            loopback_only: token.loopback_only,
            created_by: token.created_by.to_string(),
            created_at: time(token.created_at),
            expires_at: token.expires_at.map(time),
            revoked_at: token.revoked_at.map(time),
        }
    }
}

/// A new token with its text.
#[derive(Clone, Serialize, ToSchema)]
pub struct MadeToken {
    /// The token without its text.
    #[serde(flatten)]
    pub record: Token,
    /// The text of the token; no other response contains it.
    pub token: String,
}

impl std::fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A request to create a token.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateToken {
    /// The name of the token, in printable ASCII. It must not be the name of another token, also of a revoked one, or a
    /// reserved name: `anonymous`, `bootstrap`, `bootstrap-…`, `console`, `local`, `user:…`.
    #[schema(pattern = "^[!-~]([ -~]{0,98}[!-~])?$", min_length = 1, max_length = 100)]
    pub name: String,
    /// The role of the token.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// When the token expires: a time in the future in RFC 3339, or `never` for a token that is valid until it is revoked.
    /// Default: after 90 days.
    #[schema(
        pattern = "^(never|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))$"
    )]
    pub expires_at: Option<String>,
}

impl CreateToken {
    pub(crate) fn parse(&self, now: Timestamp) -> Result<NewToken, ApiError> {
        let mut fields = Fields::default();
        let name = fields.parse("name", cdm_core::domain::Token::name(&self.name));
        let role = fields.parse("role", Role::parse(&self.role));
        let expiry = match self.expires_at.as_deref() {
            None => Expiry::Usual,
            Some("never") => Expiry::Never,
            Some(text) => match moment(text).filter(|end| *end > now) {
                Some(end) => Expiry::At(end),
                None => {
                    let rule = "the time must be in the future, in RFC 3339; or `never`";
                    fields.reject("expiresAt", rule);
                    Expiry::Usual
                }
            },
        };
        let parsed = name.zip(role).map(|(name, role)| NewToken { name, role, expiry });
        fields.finish(parsed)
    }
}

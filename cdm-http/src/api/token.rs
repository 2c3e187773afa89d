//! Tokens in API requests and responses. Only the response to the creation contains the text of a token.

use cdm_core::domain::{self, Timestamp};
use cdm_core::manager::{Expiry, NewToken};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ActorName, Fields, InvalidFields, Time, TokenId, wire_enum};

wire_enum! {
    /// The role of a token or a user; each role includes the permissions of the roles before it.
    pub enum Role from domain::Role {
        /// Reads sites, services, operations, rollouts, freezes, the audit log, events and metrics.
        Viewer = "viewer" (domain::Role::Viewer),
        /// Also works on sites and starts rollouts.
        Operator = "operator" (domain::Role::Operator),
        /// Every action, including deploys, tokens and users.
        Admin = "admin" (domain::Role::Admin),
    }
}

/// A token, without its text.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// The id of the token.
    pub id: TokenId,
    /// The name of the token, which the audit log records as the actor.
    pub name: String,
    /// The role of the token.
    pub role: Role,
    /// Whether the token is valid only for callers on the server's machine.
    pub loopback_only: bool,
    /// The actor who created the token.
    pub created_by: ActorName,
    /// When the token was created.
    pub created_at: Time,
    /// When the token expires; null if it is valid until it is revoked.
    #[schema(required = true)]
    pub expires_at: Option<Time>,
    /// When the token was revoked; null if it was not revoked.
    #[schema(required = true)]
    pub revoked_at: Option<Time>,
}

impl From<&domain::Token> for Token {
    fn from(token: &domain::Token) -> Self {
        Self {
            id: TokenId::from(&token.id),
            name: token.name.to_string(),
            role: token.role.into(),
            loopback_only: token.loopback_only,
            created_by: ActorName::from(&token.created_by),
            created_at: token.created_at.into(),
            expires_at: token.expires_at.map(Time),
            revoked_at: token.revoked_at.map(Time),
        }
    }
}

/// A new token with its text.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateToken {
    /// The name of the token, in printable ASCII. It must not be the name of another token, also of a revoked one, or a
    /// reserved name: `anonymous`, `bootstrap`, `bootstrap-…`, `console`, `local`, `user:…`.
    #[schema(pattern = "^[!-~]([ -~]{0,98}[!-~])?$", min_length = 1, max_length = 100)]
    pub name: String,
    /// The role of the token.
    pub role: Role,
    /// When the token expires: a time in the future in RFC 3339, or `never` for a token that is valid until it is revoked.
    /// Default: after 90 days.
    #[schema(
        pattern = "^(never|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))$"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl CreateToken {
    /// Validates the request.
    ///
    /// # Errors
    /// The errors of all invalid fields.
    pub fn parse(&self, now: Timestamp) -> Result<NewToken, InvalidFields> {
        let mut fields = Fields::default();
        let name = fields.parse("name", domain::Token::name(&self.name));
        let role = fields.parse("role", domain::Role::parse(self.role.as_str()));
        let expiry = match self.expires_at.as_deref() {
            None => Expiry::Usual,
            Some("never") => Expiry::Never,
            Some(text) => match Time::parse(text).map(|time| time.0).filter(|end| *end > now) {
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

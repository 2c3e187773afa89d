//! A token on the wire; its text only once, when it is made.

use cdm_core::domain::{Role, Timestamp};
use cdm_core::manager::{Expiry, NewToken};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::RoleName;
use super::{moment, time};
use crate::error::Refusal;
use crate::input::Fields;

/// A token.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Names it.
    pub id: String,
    /// Who asks with it.
    pub name: String,
    /// What it may do.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// Whether it serves callers on the server's machine only.
    pub loopback_only: bool,
    /// Who made it.
    pub created_by: String,
    /// When.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Until when it serves; null until it is revoked.
    #[schema(required = true, format = DateTime)]
    pub expires_at: Option<String>,
    /// Since when it serves no more.
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

/// A token that was just made.
#[derive(Clone, Serialize, ToSchema)]
pub struct MadeToken {
    /// Its record.
    #[serde(flatten)]
    pub record: Token,
    /// Its text, which is shown this once.
    pub token: String,
}

impl std::fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A token to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateToken {
    /// Who will ask with it: printable ASCII; never the name of a token before, nor one that is reserved for the audit:
    /// `anonymous`, `bootstrap`, `bootstrap-…`, `console`, `local`, `user:…`.
    #[schema(pattern = "^[!-~]([ -~]{0,98}[!-~])?$", min_length = 1, max_length = 100)]
    pub name: String,
    /// What it may do.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// Until when it serves: RFC 3339, in the future, or `never` for a token that serves until it is revoked; 90 days
    /// where it is left out.
    #[schema(
        pattern = "^(never|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))$"
    )]
    pub expires_at: Option<String>,
}

impl CreateToken {
    pub(crate) fn parse(&self, now: Timestamp) -> Result<NewToken, Refusal> {
        let mut fields = Fields::default();
        let name = fields.take("name", cdm_core::domain::Token::name(&self.name));
        let role = fields.take("role", Role::parse(&self.role));
        let expiry = match self.expires_at.as_deref() {
            None => Expiry::Usual,
            Some("never") => Expiry::Never,
            Some(text) => match moment(text).filter(|end| *end > now) {
                Some(end) => Expiry::At(end),
                None => {
                    let rule = "the end of a token is a moment in the future, in RFC 3339, or `never`";
                    fields.refuse("expiresAt", rule);
                    Expiry::Usual
                }
            },
        };
        let taken = name.zip(role).map(|(name, role)| NewToken { name, role, expiry });
        fields.end(taken)
    }
}

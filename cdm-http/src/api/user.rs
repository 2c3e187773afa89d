//! Users in API requests and responses. No response contains a password or its hash.

use cdm_core::domain::{Role, UserName, user};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::enums::RoleName;
use super::time;
use crate::error::ApiError;
use crate::extract::Fields;
use crate::password;

/// A user of the console.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The name of the user, which is also the sign-in name.
    pub name: String,
    /// The user's name in the audit log.
    pub actor: String,
    /// The role of the user.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// The actor who created the user.
    pub created_by: String,
    /// When the user was created.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When the user was removed; null if they may sign in.
    #[schema(required = true, format = DateTime)]
    pub removed_at: Option<String>,
    /// The second factor of the user.
    #[schema(value_type = SecondFactorName)]
    pub second_factor: String,
    /// Whether an OpenID Connect account is bound to the user.
    #[schema(value_type = IdentityName)]
    pub identity: String,
    /// The valid sessions of the user.
    pub sessions: Vec<Session>,
}

/// The second factor of a user.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only the OpenAPI document uses the type")]
pub enum SecondFactorName {
    /// The user has no second factor.
    None,
    /// Time-based one-time codes (TOTP, RFC 6238).
    Totp,
}

/// Whether an OpenID Connect account is bound to a user.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only the OpenAPI document uses the type")]
pub enum IdentityName {
    /// No account is bound; the first account with the name of the user will be.
    None,
    /// One account is bound, and other accounts are rejected.
    Bound,
}

/// The value that removes a property of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// Removes the second factor, or unbinds the OpenID Connect account.
    None,
}

/// A session: a browser in which a user is signed in.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The id of the session.
    pub id: String,
    /// The address from which the user signed in.
    #[schema(required = true)]
    pub from: Option<String>,
    /// When the user signed in.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When the session expires.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

impl User {
    pub(crate) fn new(user: &user::User, users: &user::Users, now: cdm_core::domain::Timestamp) -> Self {
        let is_valid = |session: &&user::Session| session.user == user.name && session.lasts(now);
        Self {
            name: user.name.to_string(),
            actor: user.name.actor().to_string(),
            role: user.role.to_string(),
            created_by: user.by.to_string(),
            created_at: time(user.at),
            removed_at: user.removed.map(time),
            second_factor: if user.second.is_some() { "totp" } else { "none" }.to_owned(),
            identity: if user.identity.is_some() { "bound" } else { "none" }.to_owned(),
            sessions: users.sessions.iter().filter(is_valid).map(Session::from).collect(),
        }
    }
}

impl From<&user::Session> for Session {
    fn from(session: &user::Session) -> Self {
        Self {
            id: session.id.to_string(),
            from: session.from.clone(),
            created_at: time(session.at),
            expires_at: time(session.until),
        }
    }
}

/// A request to create a user.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// The sign-in name, for example an e-mail address in lower case. It must not be the name of another user, also of a
    /// removed one.
    #[schema(pattern = "^[a-z0-9]([a-z0-9._@-]{0,62}[a-z0-9])?$", min_length = 1, max_length = 64)]
    pub name: String,
    /// The role of the user.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// The password. A user without a password signs in with OpenID Connect.
    #[schema(value_type = Option<String>, min_length = 12, max_length = 128, nullable = false)]
    #[serde(default, deserialize_with = "non_null")]
    pub password: Option<SecretString>,
}

/// A request to change a user; at least one field is required.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(min_properties = 1)]
pub struct ChangeUser {
    /// The new role, which applies from the next request on.
    #[schema(value_type = Option<RoleName>, nullable = false)]
    #[serde(default, deserialize_with = "non_null")]
    pub role: Option<String>,
    /// The new password. The user is signed out everywhere.
    #[schema(value_type = Option<String>, min_length = 12, max_length = 128, nullable = false)]
    #[serde(default, deserialize_with = "non_null")]
    pub password: Option<SecretString>,
    /// `none` removes the second factor, so that the user can set up a new one. The user is signed out everywhere.
    #[schema(value_type = Option<Absent>, nullable = false)]
    #[serde(default, deserialize_with = "non_null")]
    pub second_factor: Option<Absent>,
    /// `none` unbinds the OpenID Connect account; the next account with the name of the user is bound. The user is signed
    /// out everywhere.
    #[schema(value_type = Option<Absent>, nullable = false)]
    #[serde(default, deserialize_with = "non_null")]
    pub identity: Option<Absent>,
}

/// Rejects null: a field is either absent or has a value.
fn non_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn check_password(fields: &mut Fields, password: &SecretString, (name, passwords): (&str, bool)) {
    if !passwords {
        fields.reject("password", "passwords are disabled on this server; leave the field out");
    } else if let Err(problem) = password::check_strength(password, name) {
        fields.reject("password", problem);
    }
}

impl CreateUser {
    /// Parses the request; `passwords` is whether users may have passwords.
    pub(crate) fn parse(&self, passwords: bool) -> Result<(UserName, Role), ApiError> {
        let mut fields = Fields::default();
        let name = fields.parse("name", UserName::parse(&self.name));
        let role = fields.parse("role", Role::parse(&self.role));
        if let Some(password) = &self.password {
            check_password(&mut fields, password, (&self.name, passwords));
        }
        fields.finish(name.zip(role))
    }
}

impl ChangeUser {
    /// Parses the request for the user `name`, and returns the new role; `passwords` is whether users may have passwords.
    pub(crate) fn parse(&self, name: &str, passwords: bool) -> Result<Option<Role>, ApiError> {
        let mut fields = Fields::default();
        let role = self.role.as_deref().map(|role| fields.parse("role", Role::parse(role)));
        if let Some(password) = &self.password {
            check_password(&mut fields, password, (name, passwords));
        }
        let other = self.second_factor.is_some() || self.identity.is_some();
        if self.role.is_none() && self.password.is_none() && !other {
            fields.reject(
                "role",
                "at least one of `role`, `password`, `secondFactor` and `identity` is required",
            );
        }
        fields.finish(Some(role.flatten()))
    }
}

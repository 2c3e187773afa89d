//! Users in API requests and responses. No response contains a password or its hash.

use cdm_core::domain::{self, user};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::fields::non_null;
use super::token::Role;
use super::{ActorName, Fields, InvalidFields, SessionId, Time, UserName, wire_enum};

wire_enum! {
    /// The second factor of a user.
    pub enum SecondFactor {
        /// The user has no second factor.
        None = "none",
        /// Time-based one-time codes (TOTP, RFC 6238).
        Totp = "totp",
    }
}

wire_enum! {
    /// Whether an OpenID Connect account is bound to a user.
    pub enum Identity {
        /// No account is bound; the first account with the name of the user will be.
        None = "none",
        /// One account is bound, and other accounts are rejected.
        Bound = "bound",
    }
}

/// A user of the console.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The name of the user, which is also the sign-in name.
    pub name: UserName,
    /// The user's name in the audit log.
    pub actor: ActorName,
    /// The role of the user.
    pub role: Role,
    /// The actor who created the user.
    pub created_by: ActorName,
    /// When the user was created.
    pub created_at: Time,
    /// When the user was removed; null if they may sign in.
    #[schema(required = true)]
    pub removed_at: Option<Time>,
    /// The second factor of the user.
    pub second_factor: SecondFactor,
    /// Whether an OpenID Connect account is bound to the user.
    pub identity: Identity,
    /// The valid sessions of the user.
    pub sessions: Vec<Session>,
}

/// The value that removes a property of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// Removes the second factor, or unbinds the OpenID Connect account.
    None,
}

/// A session: a browser in which a user is signed in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The id of the session.
    pub id: SessionId,
    /// The address from which the user signed in.
    #[schema(required = true)]
    pub from: Option<String>,
    /// When the user signed in.
    pub created_at: Time,
    /// When the session expires.
    pub expires_at: Time,
}

impl User {
    /// Returns a user as the API shows it, with the sessions that are valid `now`.
    pub fn new(user: &user::User, users: &user::Users, now: domain::Timestamp) -> Self {
        let is_valid = |session: &&user::Session| session.user == user.name && session.lasts(now);
        Self {
            name: UserName::from(&user.name),
            actor: ActorName::from(&user.name.actor()),
            role: user.role.into(),
            created_by: ActorName::from(&user.by),
            created_at: user.at.into(),
            removed_at: user.removed.map(Time),
            second_factor: if user.second.is_some() { SecondFactor::Totp } else { SecondFactor::None },
            identity: if user.identity.is_some() { Identity::Bound } else { Identity::None },
            sessions: users.sessions.iter().filter(is_valid).map(Session::from).collect(),
        }
    }
}

impl From<&user::Session> for Session {
    fn from(session: &user::Session) -> Self {
        Self {
            id: SessionId::from(&session.id),
            from: session.from.clone(),
            created_at: session.at.into(),
            expires_at: session.until.into(),
        }
    }
}

/// A request to create a user.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// The sign-in name, for example an email address in lower case. It must not be the name of another user, also of a
    /// removed one.
    #[schema(pattern = "^[a-z0-9]([a-z0-9._@-]{0,62}[a-z0-9])?$", min_length = 1, max_length = 64)]
    pub name: String,
    /// The role of the user.
    pub role: Role,
    /// The password. A user without a password signs in with OpenID Connect.
    #[schema(value_type = Option<String>, min_length = 12, max_length = 128, nullable = false)]
    #[serde(
        default,
        deserialize_with = "non_null",
        serialize_with = "exposed",
        skip_serializing_if = "Option::is_none"
    )]
    pub password: Option<SecretString>,
}

/// A request to change a user; at least one field is required.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(min_properties = 1)]
pub struct ChangeUser {
    /// The new role, which applies from the next request on.
    #[schema(nullable = false)]
    #[serde(default, deserialize_with = "non_null", skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The new password. The user is signed out everywhere.
    #[schema(value_type = Option<String>, min_length = 12, max_length = 128, nullable = false)]
    #[serde(
        default,
        deserialize_with = "non_null",
        serialize_with = "exposed",
        skip_serializing_if = "Option::is_none"
    )]
    pub password: Option<SecretString>,
    /// `none` removes the second factor, so that the user can set up a new one. The user is signed out everywhere.
    #[schema(value_type = Option<Absent>, nullable = false)]
    #[serde(default, deserialize_with = "non_null", skip_serializing_if = "Option::is_none")]
    pub second_factor: Option<Absent>,
    /// `none` unbinds the OpenID Connect account; the next account with the name of the user is bound. The user is signed
    /// out everywhere.
    #[schema(value_type = Option<Absent>, nullable = false)]
    #[serde(default, deserialize_with = "non_null", skip_serializing_if = "Option::is_none")]
    pub identity: Option<Absent>,
}

/// Serializes the password of a request, which is sent to the server.
fn exposed<S: Serializer>(password: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    password.as_ref().map(ExposeSecret::expose_secret).serialize(to)
}

impl CreateUser {
    /// Validates the request; `check` returns the rule that a password breaks.
    ///
    /// # Errors
    /// The errors of all invalid fields.
    pub fn parse(
        &self,
        check: impl Fn(&SecretString, &str) -> Result<(), &'static str>,
    ) -> Result<(domain::UserName, domain::Role), InvalidFields> {
        let mut fields = Fields::default();
        let name = fields.parse("name", domain::UserName::parse(&self.name));
        let role = fields.parse("role", domain::Role::parse(self.role.as_str()));
        if let Some(Err(problem)) = self.password.as_ref().map(|password| check(password, &self.name)) {
            fields.reject("password", problem);
        }
        fields.finish(name.zip(role))
    }
}

impl ChangeUser {
    /// Validates the request for the user `name`, and returns the new role; `check` returns the rule that a password breaks.
    ///
    /// # Errors
    /// The errors of all invalid fields.
    pub fn parse(
        &self,
        name: &str,
        check: impl Fn(&SecretString, &str) -> Result<(), &'static str>,
    ) -> Result<Option<domain::Role>, InvalidFields> {
        let mut fields = Fields::default();
        let role = self.role.as_ref().map(|role| fields.parse("role", domain::Role::parse(role.as_str())));
        if let Some(Err(problem)) = self.password.as_ref().map(|password| check(password, name)) {
            fields.reject("password", problem);
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

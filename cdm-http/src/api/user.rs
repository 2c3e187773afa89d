//! A person who signs in, on the wire; never their password, nor its hash.

use cdm_core::domain::{Role, UserName, user};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::time;
use super::words::RoleName;
use crate::error::Refusal;
use crate::input::Fields;
use crate::password;

/// A person who signs in to the console.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Names them.
    pub name: String,
    /// Who they are in the audit.
    pub actor: String,
    /// What they may do.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// Who made them.
    pub created_by: String,
    /// When.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Since when they may not sign in any more.
    #[schema(required = true, format = DateTime)]
    pub removed_at: Option<String>,
    /// Where they are signed in.
    pub sessions: Vec<Session>,
}

/// A browser in which somebody is signed in.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Names it.
    pub id: String,
    /// The address that they signed in from.
    #[schema(required = true)]
    pub from: Option<String>,
    /// When they did.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it ends by itself.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

impl User {
    pub(crate) fn new(user: &user::User, users: &user::Users, now: cdm_core::domain::Timestamp) -> Self {
        let theirs = |session: &&user::Session| session.user == user.name && session.until > now;
        Self {
            name: user.name.to_string(),
            actor: user.name.actor().to_string(),
            role: user.role.to_string(),
            created_by: user.by.to_string(),
            created_at: time(user.at),
            removed_at: user.removed.map(time),
            sessions: users.sessions.iter().filter(theirs).map(Session::from).collect(),
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

/// A person who may sign in from now on.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// What they sign in as; an e-mail address in lower case will do. Never a name that was given before.
    #[schema(pattern = "^[a-z0-9]([a-z0-9._@-]{0,62}[a-z0-9])?$", min_length = 1, max_length = 64)]
    pub name: String,
    /// What they may do.
    #[schema(value_type = RoleName)]
    pub role: String,
    /// What they prove it by; left out, a provider of OpenID Connect has to.
    #[schema(value_type = Option<String>, min_length = 12, max_length = 128, nullable = false)]
    #[serde(default, deserialize_with = "given")]
    pub password: Option<SecretString>,
}

/// What is to be different about a person; at least one of them.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub struct ChangeUser {
    /// What they may do, from their next request on.
    #[schema(value_type = Option<RoleName>, nullable = false)]
    #[serde(default, deserialize_with = "given")]
    pub role: Option<String>,
    /// What they prove it by; they are signed out everywhere.
    #[schema(value_type = Option<String>, min_length = 12, max_length = 128, nullable = false)]
    #[serde(default, deserialize_with = "given")]
    pub password: Option<SecretString>,
}

/// What is there is a value: null is none.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn judge(fields: &mut Fields, password: &SecretString) {
    if !password::fits(password) {
        fields.refuse("password", password::RULE);
    }
}

impl CreateUser {
    pub(crate) fn parse(&self) -> Result<(UserName, Role), Refusal> {
        let mut fields = Fields::default();
        let name = fields.take("name", UserName::parse(&self.name));
        let role = fields.take("role", Role::parse(&self.role));
        if let Some(password) = &self.password {
            judge(&mut fields, password);
        }
        fields.end(name.zip(role))
    }
}

impl ChangeUser {
    pub(crate) fn parse(&self) -> Result<Option<Role>, Refusal> {
        let mut fields = Fields::default();
        let role = self.role.as_deref().map(|role| fields.take("role", Role::parse(role)));
        if let Some(password) = &self.password {
            judge(&mut fields, password);
        }
        if self.role.is_none() && self.password.is_none() {
            fields.refuse("role", "a role or a password is needed");
        }
        fields.end(Some(role.flatten()))
    }
}

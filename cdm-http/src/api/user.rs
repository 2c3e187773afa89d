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
    /// What they prove besides the password.
    #[schema(value_type = SecondFactorName)]
    pub second_factor: String,
    /// Whether an account of the provider of OpenID Connect is theirs.
    #[schema(value_type = IdentityName)]
    pub identity: String,
    /// Where they are signed in.
    pub sessions: Vec<Session>,
}

/// What somebody proves besides the password.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "it stands in the document alone")]
pub enum SecondFactorName {
    /// Nothing.
    None,
    /// One-time codes by time, RFC 6238.
    Totp,
}

/// Whether an account of the provider of OpenID Connect is bound to somebody.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "it stands in the document alone")]
pub enum IdentityName {
    /// None yet; the first that is vouched for by their name will be.
    None,
    /// One, and no other.
    Bound,
}

/// What of a person can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Absent {
    /// It goes.
    None,
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
        let theirs = |session: &&user::Session| session.user == user.name && session.lasts(now);
        Self {
            name: user.name.to_string(),
            actor: user.name.actor().to_string(),
            role: user.role.to_string(),
            created_by: user.by.to_string(),
            created_at: time(user.at),
            removed_at: user.removed.map(time),
            second_factor: if user.second.is_some() { "totp" } else { "none" }.to_owned(),
            identity: if user.identity.is_some() { "bound" } else { "none" }.to_owned(),
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
#[serde(deny_unknown_fields, rename_all = "camelCase")]
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
    /// `none` takes their second factor away, so that they set up another one; they are signed out everywhere.
    #[schema(value_type = Option<Absent>, nullable = false)]
    #[serde(default, deserialize_with = "given")]
    pub second_factor: Option<Absent>,
    /// `none` unbinds their account of the provider of OpenID Connect: the next one that is vouched for by their name is
    /// bound. They are signed out everywhere.
    #[schema(value_type = Option<Absent>, nullable = false)]
    #[serde(default, deserialize_with = "given")]
    pub identity: Option<Absent>,
}

/// What is there is a value: null is none.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn judge(fields: &mut Fields, password: &SecretString, (name, passwords): (&str, bool)) {
    if !passwords {
        fields.refuse("password", "passwords are switched off on this server; leave it out");
    } else if let Err(problem) = password::judge(password, name) {
        fields.refuse("password", problem);
    }
}

impl CreateUser {
    /// `passwords`: whether any may be set.
    pub(crate) fn parse(&self, passwords: bool) -> Result<(UserName, Role), Refusal> {
        let mut fields = Fields::default();
        let name = fields.take("name", UserName::parse(&self.name));
        let role = fields.take("role", Role::parse(&self.role));
        if let Some(password) = &self.password {
            judge(&mut fields, password, (&self.name, passwords));
        }
        fields.end(name.zip(role))
    }
}

impl ChangeUser {
    /// For the person of that name; `passwords`: whether any may be set.
    pub(crate) fn parse(&self, name: &str, passwords: bool) -> Result<Option<Role>, Refusal> {
        let mut fields = Fields::default();
        let role = self.role.as_deref().map(|role| fields.take("role", Role::parse(role)));
        if let Some(password) = &self.password {
            judge(&mut fields, password, (name, passwords));
        }
        let other = self.second_factor.is_some() || self.identity.is_some();
        if self.role.is_none() && self.password.is_none() && !other {
            fields.refuse("role", "a role, a password, or what is to go is needed");
        }
        fields.end(Some(role.flatten()))
    }
}

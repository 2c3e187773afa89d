//! What may be asked of people who sign in, and their signing in itself. Passwords are the frontend's: here they are
//! hashes that it made and compared.

use secrecy::{ExposeSecret, SecretString};

use super::access::hash;
use super::admit::Decision;
use super::{Accepted, Request, ServiceError, Services};
use crate::domain::user::{PasswordHash, Session, User, Users};
use crate::domain::{Role, Uid, UserName};
use crate::ports::{Batch, Write};

/// A person who may sign in from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// Never given before.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// What their password is recognised by.
    pub password: PasswordHash,
}

/// What is to be different about a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// What they may do, from their next request on.
    pub role: Option<Role>,
    /// What their password is recognised by; their sessions end.
    pub password: Option<PasswordHash>,
}

impl Services {
    /// Lets a person sign in from now on.
    ///
    /// # Errors
    /// `user_exists` when the name was ever given; `invalid` for one user too many.
    pub async fn create_user(&self, request: &Request, new: &NewUser) -> Result<User, ServiceError> {
        self.keep_user(request, new, false).await
    }

    /// The same, as long as nobody may sign in: the first one makes themselves.
    ///
    /// # Errors
    /// `invalid` once there is somebody.
    pub async fn create_first_user(&self, request: &Request, new: &NewUser) -> Result<User, ServiceError> {
        self.keep_user(request, new, true).await
    }

    async fn keep_user(&self, request: &Request, new: &NewUser, first: bool) -> Result<User, ServiceError> {
        // The password is left out: even a short hash of it would help whoever guesses.
        self.admit(request, "user.create", new.name.as_str(), new.role.as_str(), || async {
            let mut users = self.ports.store.users().await?;
            if first && users.present().next().is_some() {
                return Err(ServiceError::Invalid("somebody may sign in already; ask them".to_owned()));
            }
            if users.knew(&new.name) {
                return Err(ServiceError::UserExists(new.name.clone()));
            }
            let NewUser { name, role, password } = new.clone();
            let (by, at) = (request.actor.clone(), self.now());
            users.add(User { name, role, password, by, at, removed: None })?;
            Ok(written(users))
        })
        .await?;
        self.user(&new.name).await
    }

    /// Changes a person's role or password.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn change_user(
        &self,
        request: &Request,
        name: &UserName,
        change: &UserChange,
    ) -> Result<User, ServiceError> {
        let body = format!("{:?} {}", change.role, change.password.is_some());
        self.admit(request, "user.change", name.as_str(), &body, || async {
            let mut users = self.ports.store.users().await?;
            let user = users.of_mut(name).ok_or_else(|| no_user(name))?;
            user.role = change.role.unwrap_or(user.role);
            if let Some(password) = &change.password {
                user.password = password.clone();
                users.close(name, None);
            }
            Ok(written(users))
        })
        .await?;
        self.user(name).await
    }

    /// Ends what a person may do, from their next request on.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn remove_user(&self, request: &Request, name: &UserName) -> Result<Accepted, ServiceError> {
        self.admit(request, "user.remove", name.as_str(), "", || async {
            let mut users = self.ports.store.users().await?;
            let now = self.now();
            users.of_mut(name).ok_or_else(|| no_user(name))?.removed = Some(now);
            users.close(name, None);
            Ok(written(users))
        })
        .await
    }

    /// Everyone who may sign in or ever might, and the sessions.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn users(&self) -> Result<Users, ServiceError> {
        Ok(self.ports.store.users().await?)
    }

    async fn user(&self, name: &UserName) -> Result<User, ServiceError> {
        self.users().await?.of(name).cloned().ok_or_else(|| no_user(name))
    }

    /// Opens a session for someone whose password was compared with `proven`. The text that recognises it is answered
    /// this once and kept nowhere.
    ///
    /// # Errors
    /// `invalid` when the person was removed, or got another password, meanwhile.
    pub async fn open_session(
        &self,
        request: &Request,
        name: &UserName,
        proven: &PasswordHash,
        from: Option<String>,
    ) -> Result<(Session, SecretString), ServiceError> {
        let now = self.now();
        let text = SecretString::from(format!("cdm_session_{}", self.ports.ids.password().expose_secret()));
        let until = now.after(Session::LASTS);
        let session = Session {
            id: self.ports.ids.uid(now),
            user: name.clone(),
            hash: hash(&text),
            from,
            at: now,
            until,
        };
        self.admit(request, "session.open", name.as_str(), "", || async {
            let mut users = self.ports.store.users().await?;
            if users.of(name).is_none_or(|user| user.password != *proven) {
                return Err(not_proven());
            }
            users.open(session.clone(), now);
            Ok(written(users))
        })
        .await?;
        Ok((session, text))
    }

    /// Keeps in the audit that someone wanted to sign in and could not; answers why.
    pub async fn refuse_session(&self, request: &Request, name: &str) -> ServiceError {
        let refused = self.admit(request, "session.open", name, "", || async { Err(not_proven()) }).await;
        refused.err().unwrap_or_else(not_proven)
    }

    /// Ends a session of a person, or all of theirs.
    ///
    /// # Errors
    /// `not_found` for a session that there is not.
    pub async fn close_session(
        &self,
        request: &Request,
        name: &UserName,
        id: Option<Uid>,
    ) -> Result<Accepted, ServiceError> {
        let body = id.map_or_else(String::new, |id| id.to_string());
        self.admit(request, "session.close", name.as_str(), &body, || async {
            let mut users = self.ports.store.users().await?;
            users.of(name).ok_or_else(|| no_user(name))?;
            if users.close(name, id) == 0 && id.is_some() {
                return Err(ServiceError::NotFound { what: "the session".to_owned() });
            }
            Ok(written(users))
        })
        .await
    }

    /// Whose session that is, while it lasts.
    ///
    /// # Errors
    /// Only when the store does not answer: nobody is signed out for that.
    pub async fn session(&self, text: &SecretString) -> Result<Option<(User, Session)>, ServiceError> {
        let users = self.users().await?;
        let found = users.session(&hash(text), self.now());
        Ok(found.map(|(user, session)| (user.clone(), session.clone())))
    }
}

fn written(users: Users) -> Decision {
    let batch = Batch::of(vec![Write::Users(Box::new(users))]);
    Decision { batch, accepted: Accepted::Done }
}

fn no_user(name: &UserName) -> ServiceError {
    ServiceError::NotFound { what: format!("the user `{name}`") }
}

fn not_proven() -> ServiceError {
    ServiceError::Invalid("the name or the password is wrong".to_owned())
}

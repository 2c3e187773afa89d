//! Creates, changes and removes users and their sessions. The frontend hashes and compares passwords; this module
//! handles only the hashes.

use secrecy::{ExposeSecret, SecretString};

use super::access::hash;
use super::submit::Decision;
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::user::{PasswordHash, SecondFactor, SecondProof, Session, User, Users};
use crate::domain::{Canonical, Role, TokenHash, Uid, UserName};
use crate::ports::{Mutation, WriteBatch};

/// A user to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// The name of the user, which no user may have had before.
    pub name: UserName,
    /// The role, which limits every request of the user.
    pub role: Role,
    /// The hash of the initial password, in the frontend's format.
    pub password: PasswordHash,
}

/// Changes to a user. A field that is `None` or `false` changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// The new role, which applies from the user's next request on.
    pub role: Option<Role>,
    /// The hash of the new password. The user's sessions end.
    pub password: Option<PasswordHash>,
    /// Whether to remove the second factor, so that the user can set up another one. The user's sessions end.
    pub reset_second_factor: bool,
    /// Whether to unlink the account of the OpenID Connect provider. The next account that the provider vouches for
    /// is linked. The user's sessions end.
    pub unbind_identity: bool,
}

/// The proof of identity that the frontend has verified. The manager checks in the same write that the proof is still
/// valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proven {
    /// The password with this hash, of a user without a second factor.
    Password(PasswordHash),
    /// The password with this hash and the second factor.
    Both(PasswordHash, SecondProof),
    /// A session that ended because its user has just changed the password to the one with this hash.
    Renewed(PasswordHash),
    /// The account of an OpenID Connect provider, which is linked to the user if the user has none.
    Identity(TokenHash),
}

/// A session to open.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// The name of the user.
    pub name: UserName,
    /// The proof of the user's identity.
    pub proven: Proven,
    /// The address that the user signs in from, if it is known.
    pub from: Option<String>,
    /// The secret text of the browser's previous session, which ends.
    pub former: Option<SecretString>,
}

impl Manager {
    /// Creates a user, who may sign in immediately.
    ///
    /// # Errors
    /// Returns `user_exists` if a user has, or ever had, the name, and `invalid` if there are too many users.
    pub async fn create_user(&self, request: &Request, new: &NewUser) -> Result<User, ManagerError> {
        self.store_user(request, new, false).await
    }

    /// Creates the first user. The method is for a platform on which no user may sign in.
    ///
    /// # Errors
    /// Returns `invalid` if a user may sign in already.
    pub async fn create_first_user(&self, request: &Request, new: &NewUser) -> Result<User, ManagerError> {
        self.store_user(request, new, true).await
    }

    async fn store_user(&self, request: &Request, new: &NewUser, first: bool) -> Result<User, ManagerError> {
        let action = if first { Action::CreateFirstUser } else { Action::CreateUser };
        let content = Canonical::new()
            .field("role", new.role)
            .field("password", password_content(request, Some(&new.password)));
        self.submit(request, action, new.name.as_str(), &content, || async {
            let mut users = self.ports.store.users().await?;
            if first && users.present().next().is_some() {
                return Err(ManagerError::Invalid(
                    "the first user already exists; ask that user for access".to_owned(),
                ));
            }
            if users.has_ever_had(&new.name) {
                return Err(ManagerError::UserExists(new.name.clone()));
            }
            let NewUser { name, role, password } = new.clone();
            let (by, at) = (request.actor.clone(), self.now());
            users.add(User { name, role, password, second: None, identity: None, by, at, removed: None })?;
            Ok(users_decision(users))
        })
        .await?;
        self.user(&new.name).await
    }

    /// Changes a user's role or credentials.
    ///
    /// # Errors
    /// Returns `not_found` if the user does not exist.
    pub async fn change_user(
        &self,
        request: &Request,
        name: &UserName,
        change: &UserChange,
    ) -> Result<User, ManagerError> {
        let UserChange { role, password, reset_second_factor, unbind_identity } = change;
        let content = Canonical::new()
            .optional("role", *role)
            .optional("password", password.as_ref().map(|password| password_content(request, Some(password))))
            .field("resetSecondFactor", reset_second_factor)
            .field("unbindIdentity", unbind_identity);
        let password_alone = role.is_none() && !*reset_second_factor && !*unbind_identity;
        let own = request.actor == name.actor() && password_alone;
        let action = if own { Action::ChangeOwnPassword } else { Action::ChangeUser };
        self.submit(request, action, name.as_str(), &content, || async {
            let mut users = self.ports.store.users().await?;
            let user = users.of_mut(name).ok_or_else(|| no_user(name))?;
            user.role = change.role.unwrap_or(user.role);
            if let Some(password) = &change.password {
                user.password = password.clone();
            }
            if *reset_second_factor {
                user.second = None;
            }
            if *unbind_identity {
                user.identity = None;
            }
            if change.password.is_some() || *reset_second_factor || *unbind_identity {
                users.close(name, None);
            }
            Ok(users_decision(users))
        })
        .await?;
        self.user(name).await
    }

    /// Sets up or removes a user's second factor. All sessions of the user except `kept` end.
    ///
    /// # Errors
    /// Returns `not_found` if the user does not exist, and `invalid` if a second factor was set up in the meantime.
    pub async fn change_second_factor(
        &self,
        request: &Request,
        name: &UserName,
        kept: Uid,
        second: Option<&SecondFactor>,
    ) -> Result<User, ManagerError> {
        let own = request.actor == name.actor();
        let action = match (second.is_some(), own) {
            (true, true) => Action::EnrollSecondFactor,
            (false, true) => Action::RemoveOwnSecondFactor,
            (_, false) => Action::ChangeUser,
        };
        self.submit(request, action, name.as_str(), &Canonical::new(), || async {
            let mut users = self.ports.store.users().await?;
            let user = users.of_mut(name).ok_or_else(|| no_user(name))?;
            if second.is_some() && user.second.is_some() {
                return Err(ManagerError::Invalid("a second factor is already set up".to_owned()));
            }
            user.second = second.cloned();
            users.sessions.retain(|session| session.user != *name || session.id == kept);
            Ok(users_decision(users))
        })
        .await?;
        self.user(name).await
    }

    /// Removes a user. The user's next request is rejected.
    ///
    /// # Errors
    /// Returns `not_found` if the user does not exist.
    pub async fn remove_user(&self, request: &Request, name: &UserName) -> Result<Accepted, ManagerError> {
        self.submit(request, Action::RemoveUser, name.as_str(), &Canonical::new(), || async {
            let mut users = self.ports.store.users().await?;
            let now = self.now();
            users.of_mut(name).ok_or_else(|| no_user(name))?.remove(now);
            users.close(name, None);
            Ok(users_decision(users))
        })
        .await
    }

    /// Returns the users' record to a caller who may read it.
    ///
    /// # Errors
    /// Returns `forbidden`, or an error if the store is unavailable.
    pub async fn list_users(&self, request: &Request) -> Result<Users, ManagerError> {
        self.authorize(request, Action::ReadUsers, "users").await?;
        self.users().await
    }

    /// Returns the users' record without a permission check. Frontends use it to verify sign-ins.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn users(&self) -> Result<Users, ManagerError> {
        Ok(self.ports.store.users().await?)
    }

    async fn user(&self, name: &UserName) -> Result<User, ManagerError> {
        self.users().await?.of(name).cloned().ok_or_else(|| no_user(name))
    }

    /// Opens a session for an authenticated user and returns the session's secret text, which is not stored. The
    /// browser's previous session ends.
    ///
    /// # Errors
    /// Returns `invalid` if the proof is no longer valid: the user was removed or has another password, the code was
    /// already used, or another account is linked to the user.
    pub async fn open_session(
        &self,
        request: &Request,
        sign_in: &SignIn,
    ) -> Result<(Session, SecretString), ManagerError> {
        let (now, name) = (self.now(), &sign_in.name);
        let text = self.fresh_secret("cdm_session_");
        let until = now.after(Session::LASTS);
        let session = Session {
            id: self.ports.entropy.uid(now),
            user: name.clone(),
            hash: hash(&text),
            from: sign_in.from.clone(),
            at: now,
            until,
            used: None,
        };
        let action = match sign_in.proven {
            Proven::Both(_, SecondProof::Recovery(_)) => Action::Recover,
            _ => Action::SignIn,
        };
        self.submit(request, action, name.as_str(), &Canonical::new(), || async {
            let mut users = self.ports.store.users().await?;
            let user = users.of_mut(name).ok_or_else(sign_in_failed)?;
            if !accept_proof(user, &sign_in.proven) {
                return Err(sign_in_failed());
            }
            if let Some(former) = &sign_in.former {
                users.close_by_hash(&hash(former));
            }
            users.open(session.clone(), now);
            Ok(users_decision(users))
        })
        .await?;
        Ok((session, text))
    }

    /// Records that a session is in use, at most once every [`Session::TOUCH`]. If another write changes the record
    /// at the same time, the use is not recorded.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn touch_session(&self, session: &Session) -> Result<(), ManagerError> {
        let now = self.now();
        if !session.is_stale(now) {
            return Ok(());
        }
        let mut users = self.ports.store.users().await?;
        if users.touch(session.id, now) {
            self.write(&WriteBatch::of(vec![Mutation::Users(Box::new(users))])).await?;
        }
        Ok(())
    }

    /// Returns an unguessable random text with a prefix that names its purpose.
    pub fn fresh_secret(&self, prefix: &str) -> SecretString {
        SecretString::from(format!("{prefix}{}", self.ports.entropy.password().expose_secret()))
    }

    /// Records a failed sign-in in the audit log. Returns the error for the user.
    pub async fn refuse_session(&self, request: &Request, name: &str) -> ManagerError {
        let refused = self
            .submit(request, Action::SignIn, name, &Canonical::new(), || async { Err(sign_in_failed()) })
            .await;
        refused.err().unwrap_or_else(sign_in_failed)
    }

    /// Records an attempt in the audit log that was rejected because of a rate limit.
    pub async fn refuse_attempt(&self, request: &Request, action: Action, name: &str) {
        self.refused(request, action, name, "rate_limited").await;
    }

    /// Ends one session of a user, or all of them if `id` is `None`.
    ///
    /// # Errors
    /// Returns `not_found` if the user or the session does not exist.
    pub async fn close_session(
        &self,
        request: &Request,
        name: &UserName,
        id: Option<Uid>,
    ) -> Result<Accepted, ManagerError> {
        let content = Canonical::new().optional("session", id);
        let own = request.actor == name.actor();
        let action = if own { Action::EndOwnSessions } else { Action::EndSessions };
        self.submit(request, action, name.as_str(), &content, || async {
            let mut users = self.ports.store.users().await?;
            users.of(name).ok_or_else(|| no_user(name))?;
            if users.close(name, id) == 0 && id.is_some() {
                return Err(ManagerError::NotFound { what: "the session".to_owned() });
            }
            Ok(users_decision(users))
        })
        .await
    }

    /// Returns the session with this secret text and its user; `None` if no such session exists or it has expired.
    ///
    /// # Errors
    /// Returns an error only if the store is unavailable. A frontend must not sign the user out in that case.
    pub async fn session(&self, text: &SecretString) -> Result<Option<(User, Session)>, ManagerError> {
        let users = self.users().await?;
        let found = users.session(&hash(text), self.now());
        Ok(found.map(|(user, session)| (user.clone(), session.clone())))
    }
}

/// Returns whether a proof is still valid for the user, and uses up a one-time proof.
fn accept_proof(user: &mut User, proven: &Proven) -> bool {
    match proven {
        Proven::Password(hash) => user.password == *hash && user.second.is_none(),
        Proven::Both(hash, proof) => {
            user.password == *hash && user.second.as_mut().is_some_and(|second| second.accept(*proof))
        }
        Proven::Renewed(hash) => user.password == *hash,
        Proven::Identity(identity) => *user.identity.get_or_insert(*identity) == *identity,
    }
}

/// Returns the part of a password that a request's fingerprint includes. A fast hash would make the password easier
/// to guess. If the frontend supplies no hash that a repetition reproduces, the repetition has another fingerprint,
/// so its key is rejected and the password does not stay unchanged unnoticed.
fn password_content<'a>(request: &'a Request, password: Option<&'a PasswordHash>) -> &'a str {
    let Some(password) = password.filter(|_| request.key.is_some()) else { return "" };
    request.secret.as_ref().unwrap_or(password).as_str()
}

fn users_decision(users: Users) -> Decision {
    let batch = WriteBatch::of(vec![Mutation::Users(Box::new(users))]);
    Decision { batch, accepted: Accepted::Done }
}

fn no_user(name: &UserName) -> ManagerError {
    ManagerError::NotFound { what: format!("the user `{name}`") }
}

fn sign_in_failed() -> ManagerError {
    ManagerError::Invalid("the name or the password is wrong".to_owned())
}

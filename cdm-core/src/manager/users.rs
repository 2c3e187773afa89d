//! What may be asked of people who sign in, and their signing in itself. Passwords are the frontend's: here they are
//! hashes that it made and compared.

use secrecy::{ExposeSecret, SecretString};

use super::access::hash;
use super::submit::Decision;
use super::{Accepted, Action, Manager, ManagerError, Request};
use crate::domain::user::{PasswordHash, SecondFactor, SecondProof, Session, User, Users};
use crate::domain::{Canonical, Role, TokenHash, Uid, UserName};
use crate::ports::{Mutation, WriteBatch};

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
    /// Whether their second factor goes: they set up another one. Their sessions end.
    pub reset_second_factor: bool,
    /// Whether their account at a provider of OpenID Connect goes: the next one that is vouched for is theirs.
    pub unbind_identity: bool,
}

/// By what somebody has proven who they are, as the frontend has seen; whether it still holds is decided with the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proven {
    /// The password of that hash, of someone without a second factor.
    Password(PasswordHash),
    /// The password of that hash, and the second factor.
    Both(PasswordHash, SecondProof),
    /// A session that ended with the password that its person has just changed to this one.
    Renewed(PasswordHash),
    /// The account of a provider of OpenID Connect; bound to the person where none is yet.
    Identity(TokenHash),
}

/// A session to be opened.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// Whose.
    pub name: UserName,
    /// By what.
    pub proven: Proven,
    /// From which address, where that is known.
    pub from: Option<String>,
    /// The text of the session that this browser had before; it ends.
    pub former: Option<SecretString>,
}

impl Manager {
    /// Lets a person sign in from now on.
    ///
    /// # Errors
    /// `user_exists` when the name was ever given; `invalid` for one user too many.
    pub async fn create_user(&self, request: &Request, new: &NewUser) -> Result<User, ManagerError> {
        self.keep_user(request, new, false).await
    }

    /// The same, as long as nobody may sign in: the first one makes themselves.
    ///
    /// # Errors
    /// `invalid` once there is somebody.
    pub async fn create_first_user(&self, request: &Request, new: &NewUser) -> Result<User, ManagerError> {
        self.keep_user(request, new, true).await
    }

    async fn keep_user(&self, request: &Request, new: &NewUser, first: bool) -> Result<User, ManagerError> {
        let action = if first { Action::CreateFirstUser } else { Action::CreateUser };
        let content =
            Canonical::new().field("role", new.role).field("password", secret(request, Some(&new.password)));
        self.submit(request, action, new.name.as_str(), &content, || async {
            let mut users = self.ports.store.users().await?;
            if first && users.present().next().is_some() {
                return Err(ManagerError::Invalid("somebody may sign in already; ask them".to_owned()));
            }
            if users.knew(&new.name) {
                return Err(ManagerError::UserExists(new.name.clone()));
            }
            let NewUser { name, role, password } = new.clone();
            let (by, at) = (request.actor.clone(), self.now());
            users.add(User { name, role, password, second: None, identity: None, by, at, removed: None })?;
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
    ) -> Result<User, ManagerError> {
        let UserChange { role, password, reset_second_factor, unbind_identity } = change;
        let content = Canonical::new()
            .optional("role", *role)
            .optional("password", password.as_ref().map(|password| secret(request, Some(password))))
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
            Ok(written(users))
        })
        .await?;
        self.user(name).await
    }

    /// Sets a person's second factor up, or takes it away; their other sessions end.
    ///
    /// # Errors
    /// `not_found`; `invalid` where one was set up meanwhile.
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
                return Err(ManagerError::Invalid("a second factor is set up already".to_owned()));
            }
            user.second = second.cloned();
            users.sessions.retain(|session| session.user != *name || session.id == kept);
            Ok(written(users))
        })
        .await?;
        self.user(name).await
    }

    /// Ends what a person may do, from their next request on.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn remove_user(&self, request: &Request, name: &UserName) -> Result<Accepted, ManagerError> {
        self.submit(request, Action::RemoveUser, name.as_str(), &Canonical::new(), || async {
            let mut users = self.ports.store.users().await?;
            let now = self.now();
            users.of_mut(name).ok_or_else(|| no_user(name))?.remove(now);
            users.close(name, None);
            Ok(written(users))
        })
        .await
    }

    /// The records of people who sign in, for somebody who wants to see them.
    ///
    /// # Errors
    /// `forbidden`; when the store does not answer.
    pub async fn list_users(&self, request: &Request) -> Result<Users, ManagerError> {
        self.authorize(request, Action::ReadUsers, "users").await?;
        self.users().await
    }

    /// Everyone who may sign in or ever might, and the sessions: to judge who signs in, whatever their role.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn users(&self) -> Result<Users, ManagerError> {
        Ok(self.ports.store.users().await?)
    }

    async fn user(&self, name: &UserName) -> Result<User, ManagerError> {
        self.users().await?.of(name).cloned().ok_or_else(|| no_user(name))
    }

    /// Opens a session for someone who has proven who they are. The text that recognises it is answered this once and
    /// kept nowhere. The session that this browser had before ends.
    ///
    /// # Errors
    /// `invalid` when what was proven does not hold any more: the person was removed, got another password, has used that
    /// code already, or is bound to another account.
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
            let user = users.of_mut(name).ok_or_else(not_proven)?;
            if !holds(user, &sign_in.proven) {
                return Err(not_proven());
            }
            if let Some(former) = &sign_in.former {
                users.close_known(&hash(former));
            }
            users.open(session.clone(), now);
            Ok(written(users))
        })
        .await?;
        Ok((session, text))
    }

    /// Notes that a session is in use, at most every few minutes. Another write at the same time goes before this one.
    ///
    /// # Errors
    /// When the store does not answer.
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

    /// Random text that nobody can guess, after a prefix that says what it is.
    pub fn fresh_secret(&self, prefix: &str) -> SecretString {
        SecretString::from(format!("{prefix}{}", self.ports.entropy.password().expose_secret()))
    }

    /// Keeps in the audit that someone wanted to sign in and could not; answers why.
    pub async fn refuse_session(&self, request: &Request, name: &str) -> ManagerError {
        let refused = self
            .submit(request, Action::SignIn, name, &Canonical::new(), || async { Err(not_proven()) })
            .await;
        refused.err().unwrap_or_else(not_proven)
    }

    /// Keeps in the audit that attempts are refused because there were too many.
    pub async fn refuse_attempt(&self, request: &Request, action: Action, name: &str) {
        self.refused(request, action, name, "rate_limited").await;
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
            Ok(written(users))
        })
        .await
    }

    /// Whose session that is, while it lasts.
    ///
    /// # Errors
    /// Only when the store does not answer: nobody is signed out for that.
    pub async fn session(&self, text: &SecretString) -> Result<Option<(User, Session)>, ManagerError> {
        let users = self.users().await?;
        let found = users.session(&hash(text), self.now());
        Ok(found.map(|(user, session)| (user.clone(), session.clone())))
    }
}

/// Whether what was proven still holds; what can be used once is used up.
fn holds(user: &mut User, proven: &Proven) -> bool {
    match proven {
        Proven::Password(hash) => user.password == *hash && user.second.is_none(),
        Proven::Both(hash, proof) => {
            user.password == *hash && user.second.as_mut().is_some_and(|second| second.accept(*proof))
        }
        Proven::Renewed(hash) => user.password == *hash,
        Proven::Identity(identity) => *user.identity.get_or_insert(*identity) == *identity,
    }
}

/// What of a password goes into a request's fingerprint. A quick hash would help to guess it. Where the frontend gave
/// none that a repetition has too, no request repeats another: its key is refused, instead of leaving the password as
/// it was.
fn secret<'a>(request: &'a Request, password: Option<&'a PasswordHash>) -> &'a str {
    let Some(password) = password.filter(|_| request.key.is_some()) else { return "" };
    request.secret.as_ref().unwrap_or(password).as_str()
}

fn written(users: Users) -> Decision {
    let batch = WriteBatch::of(vec![Mutation::Users(Box::new(users))]);
    Decision { batch, accepted: Accepted::Done }
}

fn no_user(name: &UserName) -> ManagerError {
    ManagerError::NotFound { what: format!("the user `{name}`") }
}

fn not_proven() -> ManagerError {
    ManagerError::Invalid("the name or the password is wrong".to_owned())
}

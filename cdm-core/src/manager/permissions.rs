//! The role that each action requires. The manager, the REST server, the console and `cdm --local` share this table.

use super::{ManagerError, Request};
use crate::domain::{Digest, OperationKind, Role, Rollout};

/// The action of a request. The audit log stores its name.
///
/// ```
/// use cdm_core::domain::{OperationKind, Role};
/// use cdm_core::manager::{Action, Work};
///
/// assert_eq!(Action::Promote.role(), Role::Operator);
/// // A retry requires the role of the action that it repeats.
/// let terminate = Work::Operation(OperationKind::Terminate);
/// assert_eq!(Action::RetryOperation.role_on(terminate), Role::Admin);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Reads sites, services, operations, rollouts, freezes, the audit log, events or metrics.
    Read,
    /// Creates a site and claims its hostnames.
    CreateSite,
    /// Provisions a created site and makes it active.
    Provision,
    /// Assigns a site to the active canary service.
    Upgrade,
    /// Moves a site's route to the active canary service.
    Promote,
    /// Removes a site for good.
    Terminate,
    /// Makes a service the active canary.
    Select,
    /// Sets an image on a service.
    Deploy,
    /// Sets an earlier image on a service.
    RollBack,
    /// Sets the verdict on a digest.
    Mark,
    /// Retries an operation or continues a parked one; see [`Action::role_on`].
    RetryOperation,
    /// Cancels an operation; see [`Action::role_on`].
    CancelOperation,
    /// Starts or plans a rollout with the digest that the target runs.
    StartRollout,
    /// Starts or plans a rollout with a named digest, which is deployed if the target does not run it.
    StartRolloutWithImage,
    /// Pauses a rollout before its next move.
    PauseRollout,
    /// Continues a paused or halted rollout, or one that waits because its target runs another digest. The action
    /// deploys nothing; see [`Action::role_on`] for a bad digest.
    ResumeRollout,
    /// Stops a rollout permanently.
    AbortRollout,
    /// Starts a new rollout with the unfinished sites of an ended one; see [`Action::role_on`].
    RetryRollout,
    /// Creates a freeze, which stops moves.
    CreateFreeze,
    /// Ends a freeze before its time.
    RemoveFreeze,
    /// Reads the webhooks, whose URLs may contain secrets.
    ReadWebhooks,
    /// Adds a webhook and creates its signing key.
    CreateWebhook,
    /// Removes a webhook and its signing key.
    RemoveWebhook,
    /// Reads the records of API tokens.
    ReadTokens,
    /// Creates an API token.
    CreateToken,
    /// Revokes an API token.
    RevokeToken,
    /// Reads the records of users.
    ReadUsers,
    /// Adds a user who may sign in.
    CreateUser,
    /// Adds the first user, authorized by the code that the server printed at its start.
    CreateFirstUser,
    /// Changes a user's role or credentials.
    ChangeUser,
    /// Removes a user and ends the sessions.
    RemoveUser,
    /// Ends the sessions of another user.
    EndSessions,
    /// Opens a session for an authenticated user.
    SignIn,
    /// Opens a session with a recovery code, for a user who has lost the second factor.
    Recover,
    /// Sets up the caller's own second factor.
    EnrollSecondFactor,
    /// Removes the caller's own second factor.
    RemoveOwnSecondFactor,
    /// Changes the caller's own password.
    ChangeOwnPassword,
    /// Ends the caller's own sessions.
    EndOwnSessions,
}

/// The work that an action would repeat, stop or start, if the required role depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// An operation of this kind.
    Operation(OperationKind),
    /// Moves of sites to the digest that the target service runs.
    Moves,
    /// Moves of sites after the deploy of a digest that the target service does not run.
    MovesAfterDeploy,
    /// Moves of sites to a bad digest, whose verdict the caller overrides.
    MovesToBadDigest,
}

impl Action {
    /// Every action, in declaration order.
    pub const ALL: [Self; 38] = [
        Self::Read,
        Self::CreateSite,
        Self::Provision,
        Self::Upgrade,
        Self::Promote,
        Self::Terminate,
        Self::Select,
        Self::Deploy,
        Self::RollBack,
        Self::Mark,
        Self::RetryOperation,
        Self::CancelOperation,
        Self::StartRollout,
        Self::StartRolloutWithImage,
        Self::PauseRollout,
        Self::ResumeRollout,
        Self::AbortRollout,
        Self::RetryRollout,
        Self::CreateFreeze,
        Self::RemoveFreeze,
        Self::ReadWebhooks,
        Self::CreateWebhook,
        Self::RemoveWebhook,
        Self::ReadTokens,
        Self::CreateToken,
        Self::RevokeToken,
        Self::ReadUsers,
        Self::CreateUser,
        Self::CreateFirstUser,
        Self::ChangeUser,
        Self::RemoveUser,
        Self::EndSessions,
        Self::SignIn,
        Self::Recover,
        Self::EnrollSecondFactor,
        Self::RemoveOwnSecondFactor,
        Self::ChangeOwnPassword,
        Self::EndOwnSessions,
    ];

    /// Returns the least role that may request the action, regardless of its target. This `match` is the permission
    /// table.
    pub const fn role(self) -> Role {
        match self {
            // Reads, changes to the caller's own account, and sign-in.
            Self::Read
            | Self::CreateFirstUser
            | Self::SignIn
            | Self::Recover
            | Self::EnrollSecondFactor
            | Self::RemoveOwnSecondFactor
            | Self::ChangeOwnPassword
            | Self::EndOwnSessions => Role::Viewer,
            // Changes to one or many sites with the images that run.
            Self::CreateSite
            | Self::Provision
            | Self::Upgrade
            | Self::Promote
            | Self::RetryOperation
            | Self::CancelOperation
            | Self::StartRollout
            | Self::PauseRollout
            | Self::ResumeRollout
            | Self::AbortRollout
            | Self::RetryRollout => Role::Operator,
            // Images, irreversible changes, freezes, and access control.
            Self::Terminate
            | Self::Select
            | Self::Deploy
            | Self::RollBack
            | Self::Mark
            | Self::StartRolloutWithImage
            | Self::CreateFreeze
            | Self::RemoveFreeze
            | Self::ReadWebhooks
            | Self::CreateWebhook
            | Self::RemoveWebhook
            | Self::ReadTokens
            | Self::CreateToken
            | Self::RevokeToken
            | Self::ReadUsers
            | Self::CreateUser
            | Self::ChangeUser
            | Self::RemoveUser
            | Self::EndSessions => Role::Admin,
        }
    }

    /// Returns the least role that may request the action for this work. A retry or cancel requires the role of the
    /// action that it repeats or stops; a resume with a bad digest requires the role that may mark digests.
    pub fn role_on(self, work: Work) -> Role {
        self.role().max(work.role())
    }

    /// Returns the name of the action in the audit log, such as `site.promote`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::CreateSite => "site.create",
            Self::Provision => "site.provision",
            Self::Upgrade => "site.upgrade",
            Self::Promote => "site.promote",
            Self::Terminate => "site.delete",
            Self::Select => "services.select",
            Self::Deploy => "services.deploy",
            Self::RollBack => "services.rollback",
            Self::Mark => "services.mark",
            Self::RetryOperation => "operation.retry",
            Self::CancelOperation => "operation.cancel",
            Self::StartRollout | Self::StartRolloutWithImage => "rollout.start",
            Self::PauseRollout => "rollout.pause",
            Self::ResumeRollout => "rollout.resume",
            Self::AbortRollout => "rollout.abort",
            Self::RetryRollout => "rollout.retry",
            Self::CreateFreeze => "freeze.create",
            Self::RemoveFreeze => "freeze.remove",
            Self::ReadWebhooks => "webhook.read",
            Self::CreateWebhook => "webhook.create",
            Self::RemoveWebhook => "webhook.remove",
            Self::ReadTokens => "token.read",
            Self::CreateToken => "token.create",
            Self::RevokeToken => "token.revoke",
            Self::ReadUsers => "user.read",
            Self::CreateUser | Self::CreateFirstUser => "user.create",
            Self::ChangeUser | Self::ChangeOwnPassword => "user.change",
            Self::RemoveUser => "user.remove",
            Self::SignIn => "session.open",
            Self::Recover => "session.recover",
            Self::EnrollSecondFactor => "second-factor.enroll",
            Self::RemoveOwnSecondFactor => "second-factor.remove",
            Self::EndSessions | Self::EndOwnSessions => "session.close",
        }
    }

    /// Returns the action that starts an operation of this kind.
    const fn starting(kind: OperationKind) -> Self {
        match kind {
            OperationKind::Create => Self::CreateSite,
            OperationKind::Provision => Self::Provision,
            OperationKind::Upgrade => Self::Upgrade,
            OperationKind::Promote => Self::Promote,
            OperationKind::Terminate => Self::Terminate,
            OperationKind::Deploy => Self::Deploy,
            OperationKind::Select => Self::Select,
        }
    }
}

impl Work {
    /// Returns the work of a retry of a rollout whose target runs `running`.
    pub fn of_retry(rollout: &Rollout, running: Option<Digest>) -> Self {
        let runs = rollout.wanted().is_none_or(|digest| Some(digest) == running);
        if runs { Self::Moves } else { Self::MovesAfterDeploy }
    }

    /// Returns the role of the action that starts such work.
    const fn role(self) -> Role {
        match self {
            Self::Operation(kind) => Action::starting(kind).role(),
            Self::Moves => Action::StartRollout.role(),
            Self::MovesAfterDeploy => Action::StartRolloutWithImage.role(),
            // A caller who may mark digests may also override a verdict.
            Self::MovesToBadDigest => Action::Mark.role(),
        }
    }
}

impl Request {
    /// Checks that the caller's role permits an action.
    ///
    /// # Errors
    /// Returns [`ManagerError::Forbidden`], which names the required role.
    pub fn may(&self, action: Action) -> Result<(), ManagerError> {
        self.require(action.role())
    }

    /// Checks that the caller's role permits an action for this work; see [`Action::role_on`].
    ///
    /// # Errors
    /// Returns [`ManagerError::Forbidden`], which names the required role.
    pub fn may_on(&self, action: Action, work: Work) -> Result<(), ManagerError> {
        self.require(action.role_on(work))
    }

    fn require(&self, needed: Role) -> Result<(), ManagerError> {
        if self.role < needed { Err(ManagerError::Forbidden { needed, has: self.role }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_listed_once() {
        let mut all = Action::ALL.to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), Action::ALL.len());
    }

    #[test]
    fn a_retry_requires_the_role_of_the_repeated_action() {
        for (kind, role) in [
            (OperationKind::Create, Role::Operator),
            (OperationKind::Provision, Role::Operator),
            (OperationKind::Upgrade, Role::Operator),
            (OperationKind::Promote, Role::Operator),
            (OperationKind::Terminate, Role::Admin),
            (OperationKind::Deploy, Role::Admin),
            (OperationKind::Select, Role::Admin),
        ] {
            for action in [Action::RetryOperation, Action::CancelOperation] {
                assert_eq!(action.role_on(Work::Operation(kind)), role, "{action:?} of {kind}");
            }
        }
        assert_eq!(Action::RetryRollout.role_on(Work::Moves), Role::Operator);
        assert_eq!(Action::RetryRollout.role_on(Work::MovesAfterDeploy), Role::Admin);
        assert_eq!(Action::ResumeRollout.role_on(Work::Moves), Role::Operator);
        assert_eq!(Action::ResumeRollout.role_on(Work::MovesToBadDigest), Role::Admin);
    }
}

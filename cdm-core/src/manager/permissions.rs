//! Which role each action on each stored thing takes: the one table, which the services, the REST server, the console
//! and `cdm --local` ask.

use super::{ManagerError, Request};
use crate::domain::{Digest, OperationKind, Role, Rollout};

/// What a request asks for. Its word is the `action` of the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Reads sites, services, operations, rollouts, freezes, the audit, events or metrics.
    Read,
    /// Creates a site.
    CreateSite,
    /// Makes a created site live.
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
    /// Judges a digest.
    Mark,
    /// Repeats an operation, or lets a parked one go on; see [`Action::role_on`].
    RetryOperation,
    /// Stops an operation, likewise.
    CancelOperation,
    /// Starts a rollout to what the target runs, or plans one.
    StartRollout,
    /// The same, naming an image, which is deployed where the target does not run it.
    StartRolloutWithImage,
    /// Pauses a rollout.
    PauseRollout,
    /// Lets a paused or halted rollout go on, or one that waits for a word on the digest that runs. It deploys nothing; see
    /// [`Action::role_on`] for a digest that is bad.
    ResumeRollout,
    /// Stops a rollout for good.
    AbortRollout,
    /// Repeats an ended rollout; see [`Action::role_on`].
    RetryRollout,
    /// Stops moves.
    CreateFreeze,
    /// Ends a freeze.
    RemoveFreeze,
    /// Reads the webhooks, whose addresses may be secret.
    ReadWebhooks,
    /// Adds a webhook.
    CreateWebhook,
    /// Removes a webhook.
    RemoveWebhook,
    /// Reads the records of tokens.
    ReadTokens,
    /// Makes a token.
    CreateToken,
    /// Ends a token.
    RevokeToken,
    /// Reads the records of people who sign in.
    ReadUsers,
    /// Adds a person.
    CreateUser,
    /// Adds the first person, by the code that the server printed at its start.
    CreateFirstUser,
    /// Changes a person's role or password.
    ChangeUser,
    /// Removes a person.
    RemoveUser,
    /// Ends the sessions of a person.
    EndSessions,
    /// Opens a session for a person who has proven who they are.
    SignIn,
    /// The same, by one of the codes that were kept for when the second factor is lost.
    Recover,
    /// Sets up a second factor of the person who asks.
    EnrollSecondFactor,
    /// Takes it away.
    RemoveOwnSecondFactor,
    /// Changes the password of the person who asks.
    ChangeOwnPassword,
    /// Ends sessions of the person who asks.
    EndOwnSessions,
}

/// What an action would repeat, stop or begin, where the role that it takes depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// An operation of that kind.
    Operation(OperationKind),
    /// Moves of sites to what the target service runs.
    Moves,
    /// The same, after a deploy of a digest that the target service does not run.
    MovesAfterDeploy,
    /// Moves of sites to a digest that is bad, which a person insists on.
    MovesToBadDigest,
}

impl Action {
    /// All of them.
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

    /// Returns the least role that may ask for the action, whatever it is asked of. This `match` is the table.
    pub const fn role(self) -> Role {
        match self {
            // Reads, what people do about themselves, and how they prove who they are.
            Self::Read
            | Self::CreateFirstUser
            | Self::SignIn
            | Self::Recover
            | Self::EnrollSecondFactor
            | Self::RemoveOwnSecondFactor
            | Self::ChangeOwnPassword
            | Self::EndOwnSessions => Role::Viewer,
            // Sites, one or many, on the images that run.
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
            // Images, what cannot be undone, what stops others, and who may ask.
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

    /// Returns the least role that may ask for the action where it would do that work: a retry and a cancel take the
    /// role of what they repeat or stop, and a resume on a bad digest that of whoever judges digests.
    pub fn role_on(self, work: Work) -> Role {
        self.role().max(work.role())
    }

    /// Returns the word that the audit has, such as `site.promote`.
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

    /// Returns the action that begins an operation of a kind.
    const fn beginning(kind: OperationKind) -> Self {
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
    /// Returns what a retry of a rollout would do while its target runs that digest.
    pub fn of_retry(rollout: &Rollout, running: Option<Digest>) -> Self {
        let runs = rollout.wanted().is_none_or(|digest| Some(digest) == running);
        if runs { Self::Moves } else { Self::MovesAfterDeploy }
    }

    /// Returns the role of the action that begins such work.
    const fn role(self) -> Role {
        match self {
            Self::Operation(kind) => Action::beginning(kind).role(),
            Self::Moves => Action::StartRollout.role(),
            Self::MovesAfterDeploy => Action::StartRolloutWithImage.role(),
            // Whoever judges a digest may pass over its verdict.
            Self::MovesToBadDigest => Action::Mark.role(),
        }
    }
}

impl Request {
    /// Decides whether the caller's role suffices for an action.
    ///
    /// # Errors
    /// [`ManagerError::Forbidden`], naming the role that suffices.
    pub fn may(&self, action: Action) -> Result<(), ManagerError> {
        self.has(action.role())
    }

    /// Decides the same where the action would do that work.
    ///
    /// # Errors
    /// As [`Request::may`].
    pub fn may_on(&self, action: Action, work: Work) -> Result<(), ManagerError> {
        self.has(action.role_on(work))
    }

    fn has(&self, needed: Role) -> Result<(), ManagerError> {
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
    fn a_retry_takes_the_role_of_what_it_repeats() {
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

//! provision: `CreateDatabase`, `CreateObjects`, `Install`, `Ingress`, `ActivateTheme`.
//!
//! Nothing is undone: what a cancelled provision leaves is adopted by the next one, and removed by terminate.

use async_trait::async_trait;

use super::route::{Missing, point};
use super::{PipelineSettings, at_work, jobs, site};
use crate::domain::operation::{OperationState, Position};
use crate::domain::{
    Color, LockMode, OperationInput, OperationKind, ReasonCode, SecretKind, SecretName, Site,
};
use crate::engine::{Pipeline, StepContext, StepError, StepOutput};
use crate::ports::{Credentials, Database, JobFailure, JobKind, StoredSecret};

#[derive(Debug)]
pub(super) struct Provision {
    platform: PipelineSettings,
}

impl Provision {
    pub(super) const fn new(platform: PipelineSettings) -> Self {
        Self { platform }
    }
}

/// The stored credentials of the site's database, never ones that are only about to be stored.
async fn stored_credentials(context: &StepContext<'_>, site: &Site) -> Result<Database, StepError> {
    let name = SecretName { uid: site.uid, kind: SecretKind::Database };
    let Some(StoredSecret::Value(Credentials::Database(credentials))) =
        context.ports.secrets.read(&name).await?
    else {
        return Err(StepError::Park(
            ReasonCode::Invalid,
            format!("the secret `{name}` holds no database credentials"),
        ));
    };
    Ok(credentials)
}

async fn create_database(context: &StepContext<'_>, site: &Site) -> Result<StepOutput, StepError> {
    let credentials = stored_credentials(context, site).await?;
    #[cfg(feature = "seeded-bugs")]
    let credentials = {
        use crate::bugs::{Bug, planted};
        use secrecy::ExposeSecret;
        if planted(Bug::SecretInReason) {
            let message = format!("cannot connect with {}", credentials.password.expose_secret());
            return Err(StepError::Park(ReasonCode::Invalid, message));
        }
        let redrawn = planted(Bug::SecretRedrawn);
        let password = if redrawn { context.ports.entropy.password() } else { credentials.password.clone() };
        Database { password, ..credentials }
    };
    context.ports.databases.ensure(&context.call()?, site.uid, &credentials).await.applied()?;
    Ok(StepOutput::default())
}

/// Installs WordPress. What an installation that was cut short has left keeps every further one from its end, so the
/// database of a site that nobody can have used is made anew before the next job. In that of any other site may be
/// somebody's work: a person decides.
async fn install(
    context: &StepContext<'_>,
    platform: &PipelineSettings,
    site: &Site,
) -> Result<StepOutput, StepError> {
    let (hostnames, title) = (site.hostnames.clone(), site.name.clone());
    let kind = JobKind::Install { uid: site.uid, hostnames, title };
    let failed = match jobs::follow(context, platform, kind, site.service).await? {
        Ok(done) => return Ok(done),
        Err(failed) => failed,
    };
    match failed.cause {
        JobFailure::InstallIncomplete if site.is_unused() => {
            let credentials = stored_credentials(context, site).await?;
            context.still_owner().await?;
            context.ports.databases.renew(&context.call()?, site.uid, &credentials).await.applied()?;
            Err(jobs::again_or_park(context, platform, failed, ReasonCode::JobFailed))
        }
        cause if cause.may_pass() => {
            Err(jobs::again_or_park(context, platform, failed, ReasonCode::JobFailed))
        }
        _ => Err(jobs::park(context, failed, ReasonCode::JobFailed)),
    }
}

#[async_trait]
impl Pipeline for Provision {
    fn kind(&self) -> OperationKind {
        OperationKind::Provision
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["CreateDatabase", "CreateObjects", "Install", "Ingress", "ActivateTheme"]
    }

    fn undo(&self) -> &'static [&'static str] {
        &[]
    }

    fn cancellable(&self, _: usize) -> bool {
        true
    }

    fn lock(&self, operation: &OperationState) -> Option<(Color, LockMode)> {
        match (&operation.input, operation.position) {
            (OperationInput::Provision(service), Position::Forward(3)) if at_work(operation) => {
                Some((*service, LockMode::Shared))
            }
            _ => None,
        }
    }

    async fn attempt(&self, context: &StepContext<'_>, at: Position) -> Result<StepOutput, StepError> {
        let site = site(context)?;
        let Position::Forward(step) = at else { return Ok(StepOutput::default()) };
        match step {
            0 => create_database(context, site).await,
            1 => {
                context.ports.objects.put_marker(&context.call()?, &site.prefix()).await.applied()?;
                Ok(StepOutput::default())
            }
            2 => install(context, &self.platform, site).await,
            3 => point(context, &self.platform, site.service, Missing::Create).await,
            _ => {
                let kind = JobKind::ActivateTheme { uid: site.uid, theme: site.theme.clone() };
                jobs::job_step(context, &self.platform, kind, site.service, ReasonCode::JobFailed).await
            }
        }
    }
}

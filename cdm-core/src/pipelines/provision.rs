//! provision: makes a created site live.
//!
//! No step is undone: the next provision adopts what a canceled one leaves, and terminate removes it.

use super::route::{self, Missing};
use super::{jobs, site};
use crate::domain::{OperationInput, OperationKind, ReasonCode, SecretKind, SecretName, Site};
use crate::engine::{Cancel, Lock, Pipeline, Run, Step, StepContext, StepError, StepOutput, StepResult};
use crate::ports::{Credentials, Database, JobFailure, JobKind, StoredSecret};

pub(super) const PROVISION: Pipeline = Pipeline {
    kind: OperationKind::Provision,
    version: 1,
    steps: &[
        step("CreateDatabase", Run::new(|context| Box::pin(create_database(context)))),
        step("CreateObjects", Run::new(|context| Box::pin(create_objects(context)))),
        step("Install", Run::new(|context| Box::pin(install(context)))),
        Step {
            lock: Some(Lock::shared(|operation| match operation.input {
                OperationInput::Provision(service) => Some(service),
                _ => None,
            })),
            ..step("Ingress", Run::new(|context| Box::pin(create_route(context))))
        },
        step("ActivateTheme", Run::new(|context| Box::pin(activate_theme(context)))),
    ],
};

const fn step(name: &'static str, run: Run) -> Step {
    Step { name, run, undo: None, lock: None, cancel: Cancel::Allowed }
}

/// Reads the credentials of the site's database back from the secret store: a password that is not stored is never used.
async fn stored_credentials(context: &StepContext<'_>, site: &Site) -> Result<Database, StepError> {
    let name = SecretName { uid: site.uid, kind: SecretKind::Database };
    let Some(StoredSecret::Value(Credentials::Database(credentials))) =
        context.ports.secrets.read(&name).await?
    else {
        return Err(StepError::Park(
            ReasonCode::Invalid,
            format!("the secret `{name}` contains no database credentials"),
        ));
    };
    Ok(credentials)
}

async fn create_database(context: &StepContext<'_>) -> StepResult {
    let site = site(context)?;
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

async fn create_objects(context: &StepContext<'_>) -> StepResult {
    context.ports.objects.put_marker(&context.call()?, &site(context)?.prefix()).await.applied()?;
    Ok(StepOutput::default())
}

/// Installs WordPress.
///
/// The remains of an interrupted installation make every further one fail, so the database of a site that was never
/// active nor routed is renewed before the next job. The database of any other site may contain content of its users:
/// the operation is parked.
async fn install(context: &StepContext<'_>) -> StepResult {
    let site = site(context)?;
    let (hostnames, title) = (site.hostnames.clone(), site.name.clone());
    let kind = JobKind::Install { uid: site.uid, hostnames, title };
    let failed = match jobs::follow(context, kind, site.service).await? {
        Ok(done) => return Ok(done),
        Err(failed) => failed,
    };
    match failed.cause {
        JobFailure::InstallIncomplete if site.is_unused() => {
            let credentials = stored_credentials(context, site).await?;
            context.still_owner().await?;
            context.ports.databases.renew(&context.call()?, site.uid, &credentials).await.applied()?;
            Err(jobs::again_or_park(context, failed, ReasonCode::JobFailed))
        }
        cause if cause.may_pass() => Err(jobs::again_or_park(context, failed, ReasonCode::JobFailed)),
        _ => Err(jobs::park(context, failed, ReasonCode::JobFailed)),
    }
}

async fn create_route(context: &StepContext<'_>) -> StepResult {
    route::point(context, site(context)?.service, Missing::Create).await
}

async fn activate_theme(context: &StepContext<'_>) -> StepResult {
    let site = site(context)?;
    let kind = JobKind::ActivateTheme { uid: site.uid, theme: site.theme.clone() };
    jobs::job_step(context, kind, site.service, ReasonCode::JobFailed).await
}

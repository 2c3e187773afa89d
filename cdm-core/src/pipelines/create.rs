//! create: stores the credentials of a site. The request itself has stored the record and claimed its hostnames.

use super::site;
use crate::domain::administrator;
use crate::domain::{DatabaseName, OperationKind, ReasonCode, SecretKind, SecretName, Site};
use crate::engine::{Cancel, Pipeline, Run, Step, StepContext, StepError, StepOutput, StepResult, Undo};
use crate::ports::{Cms, Credentials, Database, ErrorKind, StoredSecret};

pub(super) const CREATE: Pipeline = Pipeline {
    kind: OperationKind::Create,
    version: 1,
    steps: &[Step {
        name: "CreateSecrets",
        run: Run::new(|context| Box::pin(create_secrets(context))),
        undo: Some(Undo {
            name: "DeleteSecrets",
            run: Run::new(|context| Box::pin(delete_secrets(context))),
            lock: None,
        }),
        lock: None,
        cancel: Cancel::Allowed,
    }],
};

async fn create_secrets(context: &StepContext<'_>) -> StepResult {
    let (site, secrets) = (site(context)?, &context.ports.secrets);
    for kind in SecretKind::OF_SITE {
        let name = SecretName { uid: site.uid, kind };
        match secrets.read(&name).await? {
            Some(StoredSecret::Value(_)) => {}
            Some(StoredSecret::Deleting) => {
                return Err(StepError::Park(
                    ReasonCode::Invalid,
                    format!("the secret `{name}` is scheduled for deletion"),
                ));
            }
            None => {
                let database = kind == SecretKind::Database;
                let value = if database { new_database(context, site) } else { new_cms(context)? };
                secrets.create(&context.call()?, &name, &value).await.applied_or(ErrorKind::Exists)?;
            }
        }
    }
    Ok(StepOutput::default())
}

/// Creates the administrator's credentials. A name or an address that WordPress would refuse later, or change without an
/// error, is not stored.
fn new_cms(context: &StepContext<'_>) -> Result<Credentials, StepError> {
    let (username, email) = (context.settings.admin_user.clone(), context.settings.admin_email.clone());
    let judged = administrator::judge_name(&username).and_then(|()| administrator::judge_email(&email));
    judged.map_err(|error| StepError::Park(ReasonCode::Invalid, error.to_string()))?;
    Ok(Credentials::Cms(Cms { username, password: context.ports.entropy.password(), email }))
}

fn new_database(context: &StepContext<'_>, site: &Site) -> Credentials {
    let (host, port) = context.ports.databases.address();
    let name = DatabaseName::of(site.uid).to_string();
    let password = context.ports.entropy.password();
    Credentials::Database(Database { host, port, dbname: name.clone(), username: name, password })
}

/// Schedules both secrets of the site for deletion, even if they were never stored, so that a late create is rejected.
pub(super) async fn delete_secrets(context: &StepContext<'_>) -> StepResult {
    let site = site(context)?;
    for kind in SecretKind::OF_SITE {
        let name = SecretName { uid: site.uid, kind };
        context.ports.secrets.schedule_delete(&context.call()?, &name).await.applied()?;
    }
    Ok(StepOutput::default())
}

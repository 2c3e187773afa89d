//! create: `CreateSecrets`. The record and its hostnames are claimed by the admission itself.

use async_trait::async_trait;

use super::{PipelineSettings, site};
use crate::domain::administrator;
use crate::domain::operation::{OperationState, Position};
use crate::domain::{Color, DatabaseName, LockMode, OperationKind, ReasonCode, SecretKind, SecretName, Site};
use crate::engine::{Pipeline, StepContext, StepError, StepOutput};
use crate::ports::{Cms, Credentials, Database, ErrorKind, StoredSecret};

#[derive(Debug)]
pub(super) struct Create {
    platform: PipelineSettings,
}

impl Create {
    pub(super) const fn new(platform: PipelineSettings) -> Self {
        Self { platform }
    }

    async fn create_secrets(&self, context: &StepContext<'_>, site: &Site) -> Result<StepOutput, StepError> {
        let secrets = &context.ports.secrets;
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
                    let value = if database { draw_database(context, site) } else { self.draw_cms(context)? };
                    secrets.create(&context.call()?, &name, &value).await.applied_or(ErrorKind::Exists)?;
                }
            }
        }
        Ok(StepOutput::default())
    }

    /// What WordPress would refuse later, or pass over in silence, is not stored.
    fn draw_cms(&self, context: &StepContext<'_>) -> Result<Credentials, StepError> {
        let (username, email) = (self.platform.admin_user.clone(), self.platform.admin_email.clone());
        let judged = administrator::judge_name(&username).and_then(|()| administrator::judge_email(&email));
        judged.map_err(|error| StepError::Park(ReasonCode::Invalid, error.to_string()))?;
        Ok(Credentials::Cms(Cms { username, password: context.ports.entropy.password(), email }))
    }
}

fn draw_database(context: &StepContext<'_>, site: &Site) -> Credentials {
    let (host, port) = context.ports.databases.address();
    let name = DatabaseName::of(site.uid).to_string();
    let password = context.ports.entropy.password();
    Credentials::Database(Database { host, port, dbname: name.clone(), username: name, password })
}

/// Schedules both secrets of the site for deletion; the last word on them, whether they had been stored or not.
pub(super) async fn delete_secrets(context: &StepContext<'_>) -> Result<StepOutput, StepError> {
    let site = site(context)?;
    for kind in SecretKind::OF_SITE {
        let name = SecretName { uid: site.uid, kind };
        context.ports.secrets.schedule_delete(&context.call()?, &name).await.applied()?;
    }
    Ok(StepOutput::default())
}

#[async_trait]
impl Pipeline for Create {
    fn kind(&self) -> OperationKind {
        OperationKind::Create
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["CreateSecrets"]
    }

    fn undo(&self) -> &'static [&'static str] {
        &["DeleteSecrets"]
    }

    fn cancellable(&self, _: usize) -> bool {
        true
    }

    fn lock(&self, _: &OperationState) -> Option<(Color, LockMode)> {
        None
    }

    async fn attempt(&self, context: &StepContext<'_>, at: Position) -> Result<StepOutput, StepError> {
        match at {
            Position::Forward(_) => self.create_secrets(context, site(context)?).await,
            Position::Undo(..) => delete_secrets(context).await,
        }
    }
}

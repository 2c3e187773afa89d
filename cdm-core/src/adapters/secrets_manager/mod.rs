//! Credentials in AWS Secrets Manager.
//!
//! A secret is named `<prefix>/<uid>/db` or `/cms` and carries two tags: `managed-by` and `cdm-uid`. What lacks them is
//! someone else's, and is neither read nor touched. A name that was closed before anything was stored gets a secret
//! without a value, which is tagged `cdm-closed` and scheduled for deletion at once. It keeps a late create out for the 7
//! days of its window; AWS itself refuses a request five minutes after it was signed.

mod seen;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::Tag;

use self::seen::Seen;
use super::aws::{Aws, AwsFailure, by, told};
use super::credentials;
use crate::domain::{MonotonicTime, SecretName};
use crate::ports::{
    CallContext, Clock, Credentials, ErrorKind, Outcome, PortError, SecretStore, StoredSecret,
};

const PORT: &str = "secrets";
/// The least that AWS allows.
const RECOVERY_WINDOW_DAYS: i64 = 7;
/// How long a read may take.
const READ: Duration = Duration::from_secs(10);
/// A secret's name has 512 characters at most; this leaves room for what follows the prefix.
const LONGEST_PREFIX: usize = 400;

/// Where secrets live. Plain values, judged by [`SecretsManager::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsManagerSettings {
    /// What the names of all secrets begin with, without the slash that follows it.
    pub prefix: String,
}

/// The prefix cannot begin a secret's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prefix of secrets is of letters, digits and `/_+=.@-` only, neither begins nor ends with a slash, \
     and has 1 to 400 characters"
)]
pub struct PrefixError;

/// Keeps credentials in AWS Secrets Manager; clones share its connections.
#[derive(Clone)]
pub struct SecretsManager {
    client: Client,
    prefix: Arc<str>,
    clock: Arc<dyn Clock>,
}

impl SecretsManager {
    /// Secrets of an account below a prefix. Does not connect; the first call does.
    ///
    /// # Errors
    /// When the prefix cannot begin a secret's name.
    pub fn new(
        aws: &Aws,
        settings: &SecretsManagerSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PrefixError> {
        let prefix = &settings.prefix;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
        let framed = prefix.starts_with('/') || prefix.ends_with('/');
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || framed || !prefix.bytes().all(plain) {
            return Err(PrefixError);
        }
        Ok(Self { client: Client::new(aws.config()), prefix: prefix.as_str().into(), clock })
    }

    /// Whether AWS answers for this prefix: it is asked for a secret that no site has.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer, `Denied` when it does not let CDM in.
    pub async fn check(&self) -> Result<(), PortError> {
        let id = format!("{}/check", self.prefix);
        let work = async {
            match self.client.describe_secret().secret_id(id).send().await {
                Ok(_) => Ok(()),
                Err(error) => match told(&error) {
                    told if told.kind == ErrorKind::NotFound => Ok(()),
                    told => Err(told.error(PORT)),
                },
            }
        };
        self.read_within(work).await
    }

    fn id(&self, name: &SecretName) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// What `name` holds, by its description alone.
    async fn look(&self, name: &SecretName) -> Result<Seen, AwsFailure> {
        match self.client.describe_secret().secret_id(self.id(name)).send().await {
            Ok(described) => Ok(seen::of(name, &described)),
            Err(error) => match told(&error) {
                told if told.kind == ErrorKind::NotFound => Ok(Seen::Nothing),
                told => Err(told),
            },
        }
    }

    async fn try_create(&self, call: &CallContext, name: &SecretName, value: String) -> Outcome<()> {
        let create = self.client.create_secret().name(self.id(name)).secret_string(value);
        let created = create.set_tags(Some(tags(name))).client_request_token(token(call)).send().await;
        let exists = match created.map_err(|error| told(&error)) {
            Ok(_) => false,
            Err(told) if is_taken(&told) => true,
            Err(told) => return told.outcome(PORT),
        };
        // Also after a success: a repetition of this write is a success to AWS while the secret stands.
        let seen = match self.look(name).await {
            Ok(seen) => seen,
            Err(_) if !exists => return Outcome::Applied(()),
            Err(told) => return Outcome::NotApplied(told.error(PORT)),
        };
        match seen {
            Seen::Held | Seen::Nothing if !exists => Outcome::Applied(()),
            Seen::Held => refused(name, ErrorKind::Exists, "holds a value"),
            Seen::Closing | Seen::Scheduled => refused(name, ErrorKind::Gone, "was scheduled for deletion"),
            Seen::Foreign => Outcome::NotApplied(foreign(name)),
            Seen::Nothing => refused(name, ErrorKind::Conflict, "is there and cannot be seen yet"),
        }
    }

    async fn try_read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError> {
        match self.look(name).await.map_err(|told| told.error(PORT))? {
            Seen::Nothing => return Ok(None),
            Seen::Closing | Seen::Scheduled => return Ok(Some(StoredSecret::Deleting)),
            Seen::Foreign => return Err(foreign(name)),
            Seen::Held => {}
        }
        let told = match self.client.get_secret_value().secret_id(self.id(name)).send().await {
            Ok(held) => {
                let value =
                    held.secret_string().and_then(|text| credentials::read(name.kind, text.as_bytes()));
                return value.map(|value| Some(StoredSecret::Value(value))).ok_or_else(|| foreign(name));
            }
            Err(error) => told(&error),
        };
        // It may have been scheduled for deletion in between; and a value may be seen later than its secret.
        match self.look(name).await {
            Ok(Seen::Closing | Seen::Scheduled) => Ok(Some(StoredSecret::Deleting)),
            _ if told.kind == ErrorKind::NotFound => Ok(None),
            _ => Err(told.error(PORT)),
        }
    }

    async fn try_close(&self, call: &CallContext, name: &SecretName) -> Outcome<()> {
        let mut seen = match self.look(name).await {
            Ok(seen) => seen,
            Err(told) => return Outcome::NotApplied(told.error(PORT)),
        };
        if seen == Seen::Nothing {
            let closed = Tag::builder().key(seen::CLOSED).value("true").build();
            let all = tags(name).into_iter().chain([closed]).collect();
            let create = self.client.create_secret().name(self.id(name)).set_tags(Some(all));
            seen = match create.client_request_token(token(call)).send().await.map_err(|error| told(&error)) {
                Ok(_) => Seen::Closing,
                // Somebody was quicker: whoever it was, what is there now decides.
                Err(told) if is_taken(&told) => match self.look(name).await {
                    Ok(seen) => seen,
                    Err(told) => return Outcome::NotApplied(told.error(PORT)),
                },
                Err(told) => return told.outcome(PORT),
            };
        }
        match seen {
            Seen::Scheduled => Outcome::Applied(()),
            Seen::Foreign => Outcome::NotApplied(foreign(name)),
            Seen::Nothing => refused(name, ErrorKind::Conflict, "is there and cannot be seen yet"),
            Seen::Held | Seen::Closing => self.schedule(name).await,
        }
    }

    async fn schedule(&self, name: &SecretName) -> Outcome<()> {
        let delete = self.client.delete_secret().secret_id(self.id(name));
        let told = match delete.recovery_window_in_days(RECOVERY_WINDOW_DAYS).send().await {
            Ok(_) => return Outcome::Applied(()),
            Err(error) => told(&error),
        };
        match self.look(name).await {
            // Two deletions met; either of them keeps the promise.
            Ok(Seen::Scheduled) => Outcome::Applied(()),
            // Made a moment ago, and not yet to be seen from everywhere.
            _ if told.kind == ErrorKind::NotFound => {
                refused(name, ErrorKind::Conflict, "is there and cannot be seen yet")
            }
            _ => told.outcome(PORT),
        }
    }

    async fn within<T>(&self, deadline: MonotonicTime, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        if self.clock.monotonic() >= deadline {
            return Outcome::NotApplied(late());
        }
        by(&*self.clock, deadline, work).await.unwrap_or_else(|| Outcome::Unknown(late()))
    }

    async fn read_within<T>(&self, work: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
        by(&*self.clock, self.clock.monotonic().after(READ), work).await.unwrap_or_else(|| Err(late()))
    }
}

#[async_trait]
impl SecretStore for SecretsManager {
    async fn create(&self, call: &CallContext, name: &SecretName, value: &Credentials) -> Outcome<()> {
        let plain = credentials::write(name.kind, value);
        let Some(text) = plain.and_then(|plain| String::from_utf8(plain.to_vec()).ok()) else {
            let message = "the credentials are not of the kind that the name says";
            return Outcome::NotApplied(PortError::new(PORT, ErrorKind::Invalid, message));
        };
        self.within(call.deadline, self.try_create(call, name, text)).await
    }

    async fn read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError> {
        self.read_within(self.try_read(name)).await
    }

    async fn schedule_delete(&self, call: &CallContext, name: &SecretName) -> Outcome<()> {
        self.within(call.deadline, self.try_close(call, name)).await
    }
}

impl fmt::Debug for SecretsManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsManager").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn tags(name: &SecretName) -> Vec<Tag> {
    seen::tags(name).map(|(key, value)| Tag::builder().key(key).value(value).build()).into()
}

/// By which AWS recognises a repetition of the same write; it asks for 32 characters at least.
fn token(call: &CallContext) -> String {
    format!("{:032x}", call.write.0)
}

/// Whether a create was refused for what the name holds: a secret, or one that is scheduled for deletion. AWS has the
/// latter's word for other things too; what is there is looked at anyway.
fn is_taken(told: &AwsFailure) -> bool {
    matches!(told.code.as_str(), "ResourceExistsException" | "InvalidRequestException")
}

fn refused<T>(name: &SecretName, kind: ErrorKind, what: &str) -> Outcome<T> {
    Outcome::NotApplied(PortError::new(PORT, kind, format!("the secret {name} {what}")))
}

fn foreign(name: &SecretName) -> PortError {
    PortError::new(PORT, ErrorKind::Foreign, format!("the secret {name} holds something of another owner"))
}

fn late() -> PortError {
    PortError::new(PORT, ErrorKind::Unavailable, "the call's deadline passed before it was done")
}

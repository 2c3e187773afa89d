//! Credentials in AWS Secrets Manager.
//!
//! A secret is named `<prefix>/<uid>/db` or `/cms` and has two tags: `managed-by` and `cdm-uid`. A secret without these
//! tags belongs to another owner, and is neither read nor changed. Closing a name that has no secret creates a secret
//! without a value, which is tagged `cdm-closed` and scheduled for deletion at once. It rejects a delayed create for
//! the 7 days of its recovery window; AWS itself rejects a request five minutes after it was signed.

mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::Tag;

use self::state::SecretState;
use super::aws::{Aws, AwsFailure, before_deadline, classify};
use super::credentials;
use crate::domain::{MonotonicTime, SecretName};
use crate::ports::{
    CallContext, Clock, Credentials, ErrorKind, Outcome, PortError, SecretStore, StoredSecret,
};

const PORT: &str = "secrets";
/// The recovery window in days; the minimum that AWS allows.
const RECOVERY_WINDOW_DAYS: i64 = 7;
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of the prefix. A secret's name has at most 512 characters, including what follows the prefix.
const MAX_PREFIX: usize = 400;

/// The settings of the secrets, checked by [`SecretsManager::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsManagerSettings {
    /// The prefix of the names of all secrets, without the slash that follows it. From 1 to 400 characters; no default.
    /// Installations in one AWS account need different prefixes.
    pub prefix: String,
}

/// The prefix is invalid in the name of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prefix of secrets must have 1 to 400 characters, only letters, digits and `/_+=.@-`, and must neither \
     begin nor end with a slash"
)]
pub struct PrefixError;

/// Stores credentials in AWS Secrets Manager. Clones share the connections.
#[derive(Clone)]
pub struct SecretsManager {
    client: Client,
    prefix: Arc<str>,
    clock: Arc<dyn Clock>,
}

impl SecretsManager {
    /// Creates a client for the secrets of an account with a prefix. Does not connect before the first call.
    ///
    /// # Errors
    /// When the prefix is invalid in the name of a secret.
    pub fn new(
        aws: &Aws,
        settings: &SecretsManagerSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PrefixError> {
        let prefix = &settings.prefix;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
        let has_outer_slash = prefix.starts_with('/') || prefix.ends_with('/');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || has_outer_slash || !prefix.bytes().all(plain) {
            return Err(PrefixError);
        }
        Ok(Self { client: Client::new(aws.config()), prefix: prefix.as_str().into(), clock })
    }

    /// Checks that AWS responds to a request for a secret with this prefix, which no site has.
    ///
    /// # Errors
    /// `Unavailable` when AWS does not respond, `Denied` when AWS rejects the request.
    pub async fn check(&self) -> Result<(), PortError> {
        let id = format!("{}/check", self.prefix);
        let work = async {
            match self.client.describe_secret().secret_id(id).send().await {
                Ok(_) => Ok(()),
                Err(error) => match classify(&error) {
                    failure if failure.kind == ErrorKind::NotFound => Ok(()),
                    failure => Err(failure.error(PORT)),
                },
            }
        };
        self.read_within(work).await
    }

    fn id(&self, name: &SecretName) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Returns the state of a secret, from its description.
    async fn describe(&self, name: &SecretName) -> Result<SecretState, AwsFailure> {
        match self.client.describe_secret().secret_id(self.id(name)).send().await {
            Ok(described) => Ok(state::of(name, &described)),
            Err(error) => match classify(&error) {
                failure if failure.kind == ErrorKind::NotFound => Ok(SecretState::Absent),
                failure => Err(failure),
            },
        }
    }

    async fn try_create(&self, call: &CallContext, name: &SecretName, value: String) -> Outcome<()> {
        let create = self.client.create_secret().name(self.id(name)).secret_string(value);
        let created = create.set_tags(Some(tags(name))).client_request_token(token(call)).send().await;
        let exists = match created.map_err(|error| classify(&error)) {
            Ok(_) => false,
            Err(failure) if is_name_taken(&failure) => true,
            Err(failure) => return failure.outcome(PORT),
        };
        // Also after a success: AWS reports success for a repetition of this write while the secret exists.
        let state = match self.describe(name).await {
            Ok(state) => state,
            Err(_) if !exists => return Outcome::Applied(()),
            Err(failure) => return Outcome::NotApplied(failure.error(PORT)),
        };
        match state {
            SecretState::Stored | SecretState::Absent if !exists => Outcome::Applied(()),
            SecretState::Stored => refused(name, ErrorKind::Exists, "already has a value"),
            SecretState::Closing | SecretState::Scheduled => {
                refused(name, ErrorKind::Gone, "was scheduled for deletion")
            }
            SecretState::Foreign => Outcome::NotApplied(foreign(name)),
            SecretState::Absent => refused(name, ErrorKind::Conflict, "exists but is not visible yet"),
        }
    }

    async fn try_read(&self, name: &SecretName) -> Result<Option<StoredSecret>, PortError> {
        match self.describe(name).await.map_err(|failure| failure.error(PORT))? {
            SecretState::Absent => return Ok(None),
            SecretState::Closing | SecretState::Scheduled => return Ok(Some(StoredSecret::Deleting)),
            SecretState::Foreign => return Err(foreign(name)),
            SecretState::Stored => {}
        }
        let failure = match self.client.get_secret_value().secret_id(self.id(name)).send().await {
            Ok(output) => {
                let value =
                    output.secret_string().and_then(|text| credentials::read(name.kind, text.as_bytes()));
                return value.map(|value| Some(StoredSecret::Value(value))).ok_or_else(|| foreign(name));
            }
            Err(error) => classify(&error),
        };
        // The secret may have been scheduled for deletion in between, and a value may become visible later than its
        // secret.
        match self.describe(name).await {
            Ok(SecretState::Closing | SecretState::Scheduled) => Ok(Some(StoredSecret::Deleting)),
            _ if failure.kind == ErrorKind::NotFound => Ok(None),
            _ => Err(failure.error(PORT)),
        }
    }

    async fn try_close(&self, call: &CallContext, name: &SecretName) -> Outcome<()> {
        let mut state = match self.describe(name).await {
            Ok(state) => state,
            Err(failure) => return Outcome::NotApplied(failure.error(PORT)),
        };
        if state == SecretState::Absent {
            let closed = Tag::builder().key(state::CLOSED).value("true").build();
            let all = tags(name).into_iter().chain([closed]).collect();
            let create = self.client.create_secret().name(self.id(name)).set_tags(Some(all));
            state =
                match create.client_request_token(token(call)).send().await.map_err(|error| classify(&error))
                {
                    Ok(_) => SecretState::Closing,
                    // Another call created the secret first. Its present state decides.
                    Err(failure) if is_name_taken(&failure) => match self.describe(name).await {
                        Ok(state) => state,
                        Err(failure) => return Outcome::NotApplied(failure.error(PORT)),
                    },
                    Err(failure) => return failure.outcome(PORT),
                };
        }
        match state {
            SecretState::Scheduled => Outcome::Applied(()),
            SecretState::Foreign => Outcome::NotApplied(foreign(name)),
            SecretState::Absent => refused(name, ErrorKind::Conflict, "exists but is not visible yet"),
            SecretState::Stored | SecretState::Closing => self.schedule(name).await,
        }
    }

    async fn schedule(&self, name: &SecretName) -> Outcome<()> {
        let delete = self.client.delete_secret().secret_id(self.id(name));
        let failure = match delete.recovery_window_in_days(RECOVERY_WINDOW_DAYS).send().await {
            Ok(_) => return Outcome::Applied(()),
            Err(error) => classify(&error),
        };
        match self.describe(name).await {
            // Two deletions ran at the same time; both have the same effect.
            Ok(SecretState::Scheduled) => Outcome::Applied(()),
            // The secret was created a moment ago and is not visible everywhere yet.
            _ if failure.kind == ErrorKind::NotFound => {
                refused(name, ErrorKind::Conflict, "exists but is not visible yet")
            }
            _ => failure.outcome(PORT),
        }
    }

    async fn within<T>(&self, deadline: MonotonicTime, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        if self.clock.monotonic() >= deadline {
            return Outcome::NotApplied(late());
        }
        before_deadline(&*self.clock, deadline, work).await.unwrap_or_else(|| Outcome::Unknown(late()))
    }

    async fn read_within<T>(&self, work: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
        before_deadline(&*self.clock, self.clock.monotonic().after(READ_TIMEOUT), work)
            .await
            .unwrap_or_else(|| Err(late()))
    }
}

#[async_trait]
impl SecretStore for SecretsManager {
    async fn create(&self, call: &CallContext, name: &SecretName, value: &Credentials) -> Outcome<()> {
        let plain = credentials::write(name.kind, value);
        let Some(text) = plain.and_then(|plain| String::from_utf8(plain.to_vec()).ok()) else {
            let message = "the credentials are not of the kind in the secret's name";
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
    state::tags(name).map(|(key, value)| Tag::builder().key(key).value(value).build()).into()
}

/// Returns the token by which AWS recognizes a repetition of the same write; AWS requires at least 32 characters.
fn token(call: &CallContext) -> String {
    format!("{:032x}", call.write.0)
}

/// Returns whether a create was rejected because the name has a secret, possibly scheduled for deletion. AWS uses the
/// second error code for other causes too, so the caller reads the secret's state in any case.
fn is_name_taken(failure: &AwsFailure) -> bool {
    matches!(failure.code.as_str(), "ResourceExistsException" | "InvalidRequestException")
}

fn refused<T>(name: &SecretName, kind: ErrorKind, what: &str) -> Outcome<T> {
    Outcome::NotApplied(PortError::new(PORT, kind, format!("the secret `{name}` {what}")))
}

fn foreign(name: &SecretName) -> PortError {
    PortError::new(PORT, ErrorKind::Foreign, format!("the secret `{name}` belongs to another owner"))
}

fn late() -> PortError {
    PortError::new(PORT, ErrorKind::Unavailable, "the deadline passed before the call completed")
}

//! The state of a secret: its owner, and whether its name is closed.

use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;

use crate::domain::SecretName;

/// The tag of a secret that closes its name and has never had a value.
pub(super) const CLOSED: &str = "cdm-closed";

/// The state of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretState {
    /// No secret, or a secret that is not visible yet.
    Absent,
    /// A secret of CDM with a value.
    Stored,
    /// A secret that closes the name, and is not scheduled for deletion yet.
    Closing,
    /// A secret of CDM in its recovery window.
    Scheduled,
    /// A secret of another owner.
    Foreign,
}

/// Returns the tags of every secret of CDM.
pub(super) fn tags(name: &SecretName) -> [(&'static str, String); 2] {
    [("managed-by", "cdm".to_owned()), ("cdm-uid", name.uid.to_string())]
}

pub(super) fn of(name: &SecretName, described: &DescribeSecretOutput) -> SecretState {
    let tagged = |key: &str, value: &str| {
        described.tags().iter().any(|tag| tag.key() == Some(key) && tag.value() == Some(value))
    };
    if !tags(name).iter().all(|(key, value)| tagged(key, value)) {
        return SecretState::Foreign;
    }
    match described.deleted_date() {
        Some(_) => SecretState::Scheduled,
        None if tagged(CLOSED, "true") => SecretState::Closing,
        None => SecretState::Stored,
    }
}

//! What a secret's description says of it: whose it is, and whether it is closed.

use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;

use crate::domain::SecretName;

/// The tag of a secret that closes its name and never held a value.
pub(super) const CLOSED: &str = "cdm-closed";

/// What a name holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing, or nothing that can be seen yet.
    Nothing,
    /// A value of ours.
    Held,
    /// A secret that closes the name, and has still to be scheduled for deletion.
    Closing,
    /// A secret of ours in its recovery window.
    Scheduled,
    /// Someone else's.
    Foreign,
}

/// The tags of every secret of ours.
pub(super) fn tags(name: &SecretName) -> [(&'static str, String); 2] {
    [("managed-by", "cdm".to_owned()), ("cdm-uid", name.uid.to_string())]
}

pub(super) fn of(name: &SecretName, described: &DescribeSecretOutput) -> Seen {
    let tagged = |key: &str, value: &str| {
        described.tags().iter().any(|tag| tag.key() == Some(key) && tag.value() == Some(value))
    };
    if !tags(name).iter().all(|(key, value)| tagged(key, value)) {
        return Seen::Foreign;
    }
    match described.deleted_date() {
        Some(_) => Seen::Scheduled,
        None if tagged(CLOSED, "true") => Seen::Closing,
        None => Seen::Held,
    }
}

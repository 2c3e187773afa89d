//! The ids of objects and the names of services. An id is opaque to a client: it is printed, compared and sent back as it
//! was received.

use std::fmt;

use cdm_core::domain::{self, Color};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire_enum;

wire_enum! {
    /// One of the two services.
    pub enum ServiceName from Color {
        /// One of the two services; the other is green.
        Blue = "blue" (Color::Blue),
        /// One of the two services; the other is blue.
        Green = "green" (Color::Green),
    }
}

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident $(from $($domain:path),+)?;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        $($(
            impl From<&$domain> for $name {
                fn from(id: &$domain) -> Self {
                    Self(id.to_string())
                }
            }
        )+)?
    )+};
}

ids! {
    /// The id of a site, which the user chose.
    SiteId from domain::SiteId;
    /// The unique id of a site, which is never reused.
    SiteUid from domain::Uid;
    /// The id of an operation.
    OperationId from domain::OperationId;
    /// The id of a rollout: `rollout-` and a number.
    RolloutId;
    /// The id of a freeze: `freeze-` and a number.
    FreezeId;
    /// The id of a webhook: `webhook-` and a number.
    WebhookId;
    /// The id of a token.
    TokenId from domain::Uid;
    /// The id of a session.
    SessionId from domain::Uid;
    /// The name of a user.
    UserName from domain::UserName;
    /// The name of an actor: the name of a token, `user:` with the name of a user, or a reserved name such as `anonymous`.
    ActorName from domain::Actor;
    /// The subject of an operation: `site-<id>`, `service-<selector>` or `fleet`.
    SubjectId from domain::Subject;
    /// The digest of an image, with `sha256:`.
    Digest from domain::Digest;
}

macro_rules! numbered {
    ($($name:ident: $prefix:literal;)+) => {$(
        impl $name {
            /// Returns the id with a number.
            pub fn from_number(number: u64) -> Self {
                Self(format!(concat!($prefix, "{}"), number))
            }

            /// Returns the number of the id; `None` if the id is not valid.
            pub fn number(&self) -> Option<u64> {
                let number = self.0.strip_prefix($prefix)?.parse().ok()?;
                (Self::from_number(number) == *self).then_some(number)
            }
        }
    )+};
}

numbered! {
    RolloutId: "rollout-";
    FreezeId: "freeze-";
    WebhookId: "webhook-";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_id_has_one_text() {
        assert_eq!(RolloutId::from_number(12).as_str(), "rollout-12");
        assert_eq!(RolloutId::from("rollout-12").number(), Some(12));
        for text in
            ["rollout-012", "rollout-+12", "rollout-", "12", "freeze-12", "rollout-99999999999999999999"]
        {
            assert_eq!(RolloutId::from(text).number(), None, "{text}");
        }
    }
}

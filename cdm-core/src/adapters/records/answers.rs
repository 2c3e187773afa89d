//! What a claim was answered, for a store that keeps it beside the site.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_with::{DisplayFromStr, serde_as};

use super::operations::MoveDef;
use super::rollouts::MemberOutcomeDef;
use super::sites::RoutedDef;
use super::{Record, mirror};
use crate::domain::Digest;
use crate::domain::operation::Move;
use crate::domain::rollout::MemberOutcome;
use crate::domain::site::{ClaimRefused, Claimed, Routed};

/// What a claim was answered, kept so that a repetition of it is answered the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer(pub(crate) Result<Claimed, ClaimRefused>);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum AnswerDef {
    Taken {
        #[serde_as(as = "MoveDef")]
        course: Move,
        #[serde_as(as = "Option<RoutedDef>")]
        route: Option<Routed>,
        epoch: u64,
        version: u64,
    },
    Barred,
    Gone,
    NotActive,
    Busy,
    Fenced,
    Settled(#[serde_as(as = "MemberOutcomeDef")] MemberOutcome),
    SettledOn {
        #[serde_as(as = "MemberOutcomeDef")]
        outcome: MemberOutcome,
        #[serde_as(as = "DisplayFromStr")]
        digest: Digest,
    },
}

impl AnswerDef {
    fn serialize<S: Serializer>(value: &Answer, to: S) -> Result<S::Ok, S::Error> {
        let mirror = match value.0 {
            Ok(Claimed::Taken { course, route, epoch, version }) => {
                Self::Taken { course, route, epoch, version }
            }
            Ok(Claimed::FencedOff) => Self::Barred,
            Err(ClaimRefused::Gone) => Self::Gone,
            Err(ClaimRefused::NotActive) => Self::NotActive,
            Err(ClaimRefused::Busy) => Self::Busy,
            Err(ClaimRefused::Fenced) => Self::Fenced,
            Err(ClaimRefused::AlreadyResolved(outcome, None)) => Self::Settled(outcome),
            Err(ClaimRefused::AlreadyResolved(outcome, Some(digest))) => Self::SettledOn { outcome, digest },
        };
        Serialize::serialize(&mirror, to)
    }

    fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Answer, D::Error> {
        let mirror: Self = Deserialize::deserialize(from)?;
        Ok(Answer(match mirror {
            Self::Taken { course, route, epoch, version } => {
                Ok(Claimed::Taken { course, route, epoch, version })
            }
            Self::Barred => Ok(Claimed::FencedOff),
            Self::Gone => Err(ClaimRefused::Gone),
            Self::NotActive => Err(ClaimRefused::NotActive),
            Self::Busy => Err(ClaimRefused::Busy),
            Self::Fenced => Err(ClaimRefused::Fenced),
            Self::Settled(outcome) => Err(ClaimRefused::AlreadyResolved(outcome, None)),
            Self::SettledOn { outcome, digest } => Err(ClaimRefused::AlreadyResolved(outcome, Some(digest))),
        }))
    }
}
mirror!(AnswerDef, Answer);

impl Record for Answer {
    type Mirror = AnswerDef;
}

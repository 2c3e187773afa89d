//! The response to a claim, for a store that keeps the response together with the site.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_with::{DisplayFromStr, FromInto, serde_as};

use super::operations::MoveDef;
use super::rollouts::MemberOutcomeDef;
use super::sites::RoutedDef;
use super::{Record, mirror};
use crate::domain::operation::Move;
use crate::domain::rollout::MemberOutcome;
use crate::domain::site::{ClaimRefused, Claimed, Routed};
use crate::domain::{Digest, Epoch};

/// The response to a claim, stored so that a repeated claim gets the same response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimResponse(pub(crate) Result<Claimed, ClaimRefused>);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ClaimResponseDef {
    Taken {
        #[serde_as(as = "MoveDef")]
        course: Move,
        #[serde_as(as = "Option<RoutedDef>")]
        route: Option<Routed>,
        #[serde_as(as = "FromInto<u64>")]
        epoch: Epoch,
        version: u64,
    },
    #[serde(rename = "barred")]
    FencedOff,
    Gone,
    NotActive,
    Busy,
    Fenced,
    #[serde(rename = "settled")]
    AlreadyResolved(#[serde_as(as = "MemberOutcomeDef")] MemberOutcome),
    #[serde(rename = "settledOn")]
    AlreadyResolvedOn {
        #[serde_as(as = "MemberOutcomeDef")]
        outcome: MemberOutcome,
        #[serde_as(as = "DisplayFromStr")]
        digest: Digest,
    },
}

impl ClaimResponseDef {
    fn serialize<S: Serializer>(value: &ClaimResponse, to: S) -> Result<S::Ok, S::Error> {
        let mirror = match value.0 {
            Ok(Claimed::Taken { course, route, epoch, version }) => {
                Self::Taken { course, route, epoch, version }
            }
            Ok(Claimed::FencedOff) => Self::FencedOff,
            Err(ClaimRefused::Gone) => Self::Gone,
            Err(ClaimRefused::NotActive) => Self::NotActive,
            Err(ClaimRefused::Busy) => Self::Busy,
            Err(ClaimRefused::Fenced) => Self::Fenced,
            Err(ClaimRefused::AlreadyResolved(outcome, None)) => Self::AlreadyResolved(outcome),
            Err(ClaimRefused::AlreadyResolved(outcome, Some(digest))) => {
                Self::AlreadyResolvedOn { outcome, digest }
            }
        };
        Serialize::serialize(&mirror, to)
    }

    fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ClaimResponse, D::Error> {
        let mirror: Self = Deserialize::deserialize(from)?;
        Ok(ClaimResponse(match mirror {
            Self::Taken { course, route, epoch, version } => {
                Ok(Claimed::Taken { course, route, epoch, version })
            }
            Self::FencedOff => Ok(Claimed::FencedOff),
            Self::Gone => Err(ClaimRefused::Gone),
            Self::NotActive => Err(ClaimRefused::NotActive),
            Self::Busy => Err(ClaimRefused::Busy),
            Self::Fenced => Err(ClaimRefused::Fenced),
            Self::AlreadyResolved(outcome) => Err(ClaimRefused::AlreadyResolved(outcome, None)),
            Self::AlreadyResolvedOn { outcome, digest } => {
                Err(ClaimRefused::AlreadyResolved(outcome, Some(digest)))
            }
        }))
    }
}
mirror!(ClaimResponseDef, ClaimResponse);

impl Record for ClaimResponse {
    type Mirror = ClaimResponseDef;
}

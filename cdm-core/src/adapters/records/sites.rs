//! Sites, services and the fleet.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_with::{DisplayFromStr, serde_as};

use super::mirror;
use super::operations::{FenceDef, OperationStateDef};
use super::rollouts::{ClaimTokenDef, DirectionDef, MemberOutcomeDef};
use super::text::{Millis, Text};
use crate::domain::lifecycle::Phase;
use crate::domain::operation::OperationState;
use crate::domain::rollout::MemberOutcome;
use crate::domain::service::{Fleet, Release, Service, ServiceLock, Verdict};
use crate::domain::site::{Activation, LastOutcome, Routed, Site};
use crate::domain::{
    Actor, ClaimToken, Color, Digest, Direction, Freeze, Hostnames, SiteId, SiteName, Theme, Timestamp, Uid,
};

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Site", rename_all = "camelCase")]
pub(crate) struct SiteDef {
    #[serde_as(as = "DisplayFromStr")]
    id: SiteId,
    #[serde_as(as = "DisplayFromStr")]
    uid: Uid,
    #[serde_as(as = "DisplayFromStr")]
    name: SiteName,
    #[serde_as(as = "DisplayFromStr")]
    theme: Theme,
    #[serde_as(as = "HostnamesDef")]
    hostnames: Hostnames,
    #[serde_as(as = "Text")]
    service: Color,
    #[serde_as(as = "Option<RoutedDef>")]
    route: Option<Routed>,
    #[serde_as(as = "PhaseDef")]
    phase: Phase,
    /// Missing in records of older versions.
    #[serde_as(as = "ActivationDef")]
    #[serde(default)]
    activation: Activation,
    #[serde_as(as = "Option<OperationStateDef>")]
    #[serde(rename = "slot")]
    operation: Option<OperationState>,
    #[serde_as(as = "ClaimTokenDef")]
    #[serde(rename = "grant")]
    claim_token: ClaimToken,
    #[serde_as(as = "Option<LastOutcomeDef>")]
    #[serde(rename = "settled")]
    last_outcome: Option<LastOutcome>,
    #[serde_as(as = "Millis")]
    created_at: Timestamp,
    #[serde_as(as = "Millis")]
    updated_at: Timestamp,
    version: u64,
}
mirror!(SiteDef, Site);

/// All hostnames in the given order, and the canonical one.
#[derive(Serialize, Deserialize)]
pub(crate) struct HostnamesDef {
    all: Vec<String>,
    canonical: String,
}

impl HostnamesDef {
    fn serialize<S: Serializer>(value: &Hostnames, to: S) -> Result<S::Ok, S::Error> {
        let all = value.all().iter().map(ToString::to_string).collect();
        Serialize::serialize(&Self { all, canonical: value.canonical().to_string() }, to)
    }

    fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Hostnames, D::Error> {
        let Self { all, canonical } = Deserialize::deserialize(from)?;
        Hostnames::parse(&all, &canonical).map_err(serde::de::Error::custom)
    }
}
mirror!(HostnamesDef, Hostnames);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Routed", rename_all = "camelCase")]
pub(crate) struct RoutedDef {
    #[serde_as(as = "Text")]
    service: Color,
    #[serde_as(as = "FenceDef")]
    fence: crate::domain::Fence,
}
mirror!(RoutedDef, Routed);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "LastOutcome", rename_all = "camelCase")]
pub(crate) struct LastOutcomeDef {
    rollout: u64,
    #[serde_as(as = "DirectionDef")]
    #[serde(rename = "leg")]
    direction: Direction,
    #[serde_as(as = "MemberOutcomeDef")]
    outcome: MemberOutcome,
    /// Missing in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde_as(as = "Option<DisplayFromStr>")]
    digest: Option<Digest>,
}
mirror!(LastOutcomeDef, LastOutcome);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Phase", rename_all = "camelCase")]
enum PhaseDef {
    New,
    Created,
    Active,
}
mirror!(PhaseDef, Phase);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Activation", rename_all = "camelCase")]
enum ActivationDef {
    Never,
    Ever,
    Unrecorded,
}
mirror!(ActivationDef, Activation);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Service", rename_all = "camelCase")]
pub(crate) struct ServiceDef {
    #[serde_as(as = "Text")]
    #[serde(rename = "selector")]
    color: Color,
    #[serde_as(as = "Option<OperationStateDef>")]
    #[serde(rename = "slot")]
    operation: Option<OperationState>,
    #[serde_as(as = "ServiceLockDef")]
    #[serde(rename = "hold")]
    lock: ServiceLock,
    #[serde_as(as = "Option<DisplayFromStr>")]
    running: Option<Digest>,
    #[serde_as(as = "Vec<ReleaseDef>")]
    releases: Vec<Release>,
    version: u64,
}
mirror!(ServiceDef, Service);

#[derive(Serialize, Deserialize)]
#[serde(remote = "ServiceLock", rename_all = "camelCase")]
struct ServiceLockDef {
    deploy: Option<u64>,
    moves: BTreeSet<u64>,
}
mirror!(ServiceLockDef, ServiceLock);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Release", rename_all = "camelCase")]
struct ReleaseDef {
    #[serde_as(as = "DisplayFromStr")]
    digest: Digest,
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde_as(as = "DisplayFromStr")]
    by: Actor,
    number: u64,
    #[serde_as(as = "VerdictDef")]
    verdict: Verdict,
    reason: Option<String>,
    #[serde_as(as = "Option<Millis>")]
    ready_at: Option<Timestamp>,
}
mirror!(ReleaseDef, Release);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Verdict", rename_all = "camelCase")]
enum VerdictDef {
    Unknown,
    Healthy,
    RolledBack,
    Bad,
}
mirror!(VerdictDef, Verdict);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Fleet", rename_all = "camelCase")]
pub(crate) struct FleetDef {
    #[serde_as(as = "Option<OperationStateDef>")]
    #[serde(rename = "slot")]
    operation: Option<OperationState>,
    rollout: Option<u64>,
    newest: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde_as(as = "Vec<FreezeDef>")]
    freezes: Vec<Freeze>,
    version: u64,
}
mirror!(FleetDef, Fleet);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Freeze", rename_all = "camelCase")]
struct FreezeDef {
    number: u64,
    #[serde_as(as = "Option<Vec<DisplayFromStr>>")]
    sites: Option<Vec<SiteId>>,
    reason: String,
    #[serde_as(as = "DisplayFromStr")]
    by: Actor,
    #[serde_as(as = "Millis")]
    at: Timestamp,
    #[serde_as(as = "Option<Millis>")]
    until: Option<Timestamp>,
}
mirror!(FreezeDef, Freeze);

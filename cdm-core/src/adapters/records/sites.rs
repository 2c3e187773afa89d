//! Sites, colours and the platform's record.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_with::{DisplayFromStr, serde_as};

use super::mirror;
use super::operations::{FenceDef, SlotDef};
use super::rollouts::{GrantDef, LegDef, OutcomeDef};
use super::text::{Millis, Text};
use crate::domain::colour::{Colour, Fleet, Hold, Release, Verdict};
use crate::domain::lifecycle::Phase;
use crate::domain::operation::Slot;
use crate::domain::rollout::Outcome;
use crate::domain::site::{Activation, Routed, Settled, Site};
use crate::domain::{
    Actor, Digest, Freeze, Grant, Hostnames, Leg, Selector, SiteId, SiteName, Theme, Timestamp, Uid,
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
    service: Selector,
    #[serde_as(as = "Option<RoutedDef>")]
    route: Option<Routed>,
    #[serde_as(as = "PhaseDef")]
    phase: Phase,
    /// Absent in records of before.
    #[serde_as(as = "ActivationDef")]
    #[serde(default)]
    activation: Activation,
    #[serde_as(as = "Option<SlotDef>")]
    slot: Option<Slot>,
    #[serde_as(as = "GrantDef")]
    grant: Grant,
    #[serde_as(as = "Option<SettledDef>")]
    settled: Option<Settled>,
    #[serde_as(as = "Millis")]
    created_at: Timestamp,
    #[serde_as(as = "Millis")]
    updated_at: Timestamp,
    version: u64,
}
mirror!(SiteDef, Site);

/// Hostnames as they were given, and the canonical one.
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
    service: Selector,
    #[serde_as(as = "FenceDef")]
    fence: crate::domain::Fence,
}
mirror!(RoutedDef, Routed);

#[serde_as]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Settled", rename_all = "camelCase")]
pub(crate) struct SettledDef {
    rollout: u64,
    #[serde_as(as = "LegDef")]
    leg: Leg,
    #[serde_as(as = "OutcomeDef")]
    outcome: Outcome,
    /// Records of before do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde_as(as = "Option<DisplayFromStr>")]
    digest: Option<Digest>,
}
mirror!(SettledDef, Settled);

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
#[serde(remote = "Colour", rename_all = "camelCase")]
pub(crate) struct ColourDef {
    #[serde_as(as = "Text")]
    selector: Selector,
    #[serde_as(as = "Option<SlotDef>")]
    slot: Option<Slot>,
    #[serde_as(as = "HoldDef")]
    hold: Hold,
    #[serde_as(as = "Option<DisplayFromStr>")]
    running: Option<Digest>,
    #[serde_as(as = "Vec<ReleaseDef>")]
    releases: Vec<Release>,
    version: u64,
}
mirror!(ColourDef, Colour);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Hold", rename_all = "camelCase")]
struct HoldDef {
    deploy: Option<u64>,
    moves: BTreeSet<u64>,
}
mirror!(HoldDef, Hold);

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
    #[serde_as(as = "Option<SlotDef>")]
    slot: Option<Slot>,
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

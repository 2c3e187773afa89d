//! The specification of a rollout: what the user has chosen.

use std::time::Duration;

use super::{Budget, HealthGate, WaveTarget};
use crate::domain::{Canonical, Color, Digest, SiteId};

/// The kind of a rollout: its effect on each site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RolloutKind {
    /// Assigns the site to the target.
    Upgrade,
    /// Moves the route of the site to the target, and assigns the site to it.
    Promote,
    /// Only flushes the caches of the site: the hooks of a deploy.
    Flush,
}

impl RolloutKind {
    /// Returns whether sites change service. Only one unfinished rollout may do that.
    pub const fn moves(self) -> bool {
        match self {
            Self::Upgrade | Self::Promote => true,
            Self::Flush => false,
        }
    }
}

/// The sites of a rollout, as they were requested. The stored list contains the sites that this was resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RolloutScope {
    /// The sites on the active canary.
    #[default]
    Active,
    /// The sites on the other service.
    Inactive,
    /// The active sites of both services.
    All,
    /// The sites on this service, for the hooks of a deploy to it.
    Service(Color),
    /// The sites with these ids.
    Sites(Vec<SiteId>),
}

/// What a rollout does, as the user has chosen it: the same type in a request, in a plan and in the record.
///
/// ```
/// use std::time::Duration;
///
/// use cdm_core::domain::rollout::{RolloutKind, RolloutSpec, WaveTarget};
///
/// let spec = RolloutSpec {
///     kind: RolloutKind::Promote,
///     waves: vec![WaveTarget::Count(1), WaveTarget::Percent(100)],
///     bake: Duration::from_secs(600),
///     ..RolloutSpec::default()
/// };
/// assert_eq!(spec.max_concurrent, 64);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutSpec {
    /// The effect on each site. The default is [`RolloutKind::Upgrade`], which moves no routes.
    pub kind: RolloutKind,
    /// The digest that the target has to run; deployed first if the target runs another one. `None`, the default of a
    /// request, uses the running digest, which the record then names.
    pub digest: Option<Digest>,
    /// The sites of the rollout. The default is the sites that are assigned to the active service.
    pub scope: RolloutScope,
    /// The sizes of the waves. An empty list, the default of a request, makes one wave of all sites. The record names
    /// the waves that have sites.
    pub waves: Vec<WaveTarget>,
    /// The maximum number of sites that are moved in parallel; 64 by default. A higher number is faster up to what one
    /// API server handles, and affects more sites at the same time.
    pub max_concurrent: u32,
    /// The number or share of a wave's sites that may fail before the rollout halts; 0 by default.
    pub budget: Budget,
    /// Whether a halt moves the moved sites back and restores the previous digest if sites were already on the
    /// target; `false` by default.
    pub auto_rollback: bool,
    /// The health gate that each site has to pass before and after its move; `None`, the default, moves sites without
    /// a check.
    pub gate: Option<HealthGate>,
    /// The bake time between two waves; zero by default. A longer bake time detects slow failures but makes the
    /// rollout slower.
    pub bake: Duration,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            kind: RolloutKind::Upgrade,
            digest: None,
            scope: RolloutScope::Active,
            waves: Vec::new(),
            max_concurrent: 64,
            budget: Budget::Count(0),
            auto_rollback: false,
            gate: None,
            bake: Duration::ZERO,
        }
    }
}

impl RolloutSpec {
    /// Encodes what the rollout does. The hash of a plan and the fingerprint of a request include this encoding.
    pub fn encode(&self) -> Canonical {
        let scope = match &self.scope {
            RolloutScope::Active => Canonical::new().field("kind", "active"),
            RolloutScope::Inactive => Canonical::new().field("kind", "inactive"),
            RolloutScope::All => Canonical::new().field("kind", "all"),
            RolloutScope::Service(service) => {
                Canonical::new().field("kind", "service").field("service", service)
            }
            RolloutScope::Sites(ids) => Canonical::new().field("kind", "sites").list("sites", ids),
        };
        let content = Canonical::new()
            .field("promote", self.kind == RolloutKind::Promote)
            .optional("digest", self.digest)
            .nested("scope", &scope)
            .list("waves", &self.waves)
            .field("maxConcurrent", self.max_concurrent)
            .field("budget", self.budget)
            .field("autoRollback", self.auto_rollback)
            .field("bakeMillis", self.bake.as_millis());
        let Some(gate) = &self.gate else { return content };
        let gate = Canonical::new()
            .field("path", gate.path())
            .field("status", gate.status())
            .optional("contains", gate.text())
            .optional("latencyThousandths", gate.latency())
            .field("settleMillis", gate.settle().as_millis());
        content.nested("gate", &gate)
    }
}

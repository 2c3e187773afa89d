//! promote: `PatchIngress`, `PatchService`, `FlushCaches`. A cancelled one moves the route back first.

use async_trait::async_trait;

use super::route::{Missing, point};
use super::upgrade::{course, flush_caches, patch_service};
use super::{Platform, at_work};
use crate::domain::operation::{Position, Slot};
use crate::domain::{HoldMode, Kind, Selector};
use crate::engine::{Context, Done, Pipeline, Stop};

#[derive(Debug)]
pub(super) struct Promote {
    platform: Platform,
}

impl Promote {
    pub(super) const fn new(platform: Platform) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl Pipeline for Promote {
    fn kind(&self) -> Kind {
        Kind::Promote
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["PatchIngress", "PatchService", "FlushCaches"]
    }

    fn undo(&self) -> &'static [&'static str] {
        &["PatchIngress", "PatchService"]
    }

    fn cancellable(&self, _: usize) -> bool {
        true
    }

    fn hold(&self, slot: &Slot) -> Option<(Selector, HoldMode)> {
        let course = course(slot).ok()?;
        match slot.position {
            Position::Forward(0) if at_work(slot) => Some((course.to, HoldMode::Shared)),
            Position::Undo(0, _) if at_work(slot) => Some((course.routed, HoldMode::Shared)),
            Position::Forward(_) | Position::Undo(..) => None,
        }
    }

    async fn attempt(&self, context: &Context<'_>, at: Position) -> Result<Done, Stop> {
        let course = course(context.slot)?;
        match at {
            Position::Forward(0) => point(context, &self.platform, course.to, Missing::Park).await,
            Position::Forward(1) => Ok(patch_service(course.to)),
            Position::Forward(_) => flush_caches(context, &self.platform).await,
            Position::Undo(0, _) if crate::bug!(UndoLeavesRoute) => Ok(Done::default()),
            Position::Undo(0, _) => point(context, &self.platform, course.routed, Missing::Park).await,
            Position::Undo(..) => Ok(patch_service(course.from)),
        }
    }
}

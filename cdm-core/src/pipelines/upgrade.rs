//! upgrade: `PatchService`, `FlushCaches`. The record changes its service, the route stays where it is.

use async_trait::async_trait;

use super::{Platform, jobs, site};
use crate::domain::operation::{Move, Position, Slot};
use crate::domain::{Code, HoldMode, Kind, Selector, SiteChange, Task};
use crate::engine::{Change, Context, Done, Pipeline, Stop};
use crate::ports::JobKind;

#[derive(Debug)]
pub(super) struct Upgrade {
    platform: Platform,
}

impl Upgrade {
    pub(super) const fn new(platform: Platform) -> Self {
        Self { platform }
    }
}

/// From where to where a moving site goes.
pub(super) fn course(slot: &Slot) -> Result<Move, Stop> {
    match slot.task {
        Task::Upgrade(course) | Task::Promote(course) => Ok(course),
        Task::Create | Task::Provision(_) | Task::Terminate | Task::Deploy(_) | Task::Select(_) => {
            Err(Stop::Lost)
        }
    }
}

/// The record's service becomes `service`: a change of the record and nothing else.
pub(super) fn patch_service(service: Selector) -> Done {
    Done::with(vec![Change::Site(SiteChange::Serve(service))])
}

/// Flushes the site's caches in the image that serves it.
pub(super) async fn flush_caches(context: &Context<'_>, platform: &Platform) -> Result<Done, Stop> {
    let site = site(context)?;
    let service = site.routed_service().unwrap_or(site.service);
    let kind = JobKind::FlushCaches { uids: vec![site.uid] };
    jobs::job_step(context, platform, kind, service, Code::CacheFlushFailed).await
}

#[async_trait]
impl Pipeline for Upgrade {
    fn kind(&self) -> Kind {
        Kind::Upgrade
    }

    fn version(&self) -> u32 {
        1
    }

    fn steps(&self) -> &'static [&'static str] {
        &["PatchService", "FlushCaches"]
    }

    fn undo(&self) -> &'static [&'static str] {
        &["PatchService"]
    }

    fn cancellable(&self, _: usize) -> bool {
        true
    }

    fn hold(&self, _: &Slot) -> Option<(Selector, HoldMode)> {
        None
    }

    async fn attempt(&self, context: &Context<'_>, at: Position) -> Result<Done, Stop> {
        let course = course(context.slot)?;
        match at {
            Position::Forward(0) => Ok(patch_service(course.to)),
            Position::Forward(_) => flush_caches(context, &self.platform).await,
            Position::Undo(..) => Ok(patch_service(course.from)),
        }
    }
}

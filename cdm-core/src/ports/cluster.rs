//! The two services, the routes to them, jobs, and the canary.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::{CallContext, JobFailure, Outcome, PortError};
use crate::domain::{Color, Digest, Fence, Hostnames, JobName, SiteId, SiteName, Template, Theme, Uid};

/// Reads and changes the cluster.
///
/// Every object of a site is labeled with the site's uid and belongs to an anchor of that uid; see
/// [`ClusterOps::release`].
#[async_trait]
pub trait ClusterOps: Send + Sync + fmt::Debug + 'static {
    /// Returns the active canary service and its image; `None` if no canary was ever set.
    async fn canary(&self) -> Result<Option<Canary>, PortError>;

    /// Sets the color and the digest of the canary if the canary still has the version `expect` (`None`: no canary
    /// was set yet). Other values of the canary object stay unchanged.
    ///
    /// # Errors
    /// Returns `Conflict` if the canary has another version.
    async fn set_canary(
        &self,
        call: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()>;

    /// Returns the state of a service. The state may come from a watch and lag by moments.
    async fn service(&self, color: Color) -> Result<ServiceView, PortError>;

    /// Sets the image of a service, or restores a complete template, if the workload still carries the fence
    /// `expect`. The workload carries `call.fence` afterward. The call does not wait for the pods.
    ///
    /// A repetition of an applied call returns `Conflict`; the caller recognizes its own fence when it reads the
    /// service. Setting the image that the workload already runs raises the fence and restarts no pod.
    ///
    /// # Errors
    /// Returns `Conflict` if the workload carries another fence.
    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        want: &ImageWant,
    ) -> Outcome<()>;

    /// Returns a site's route. The route may come from a watch and lag by moments.
    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError>;

    /// Creates a site's route, which carries `call.fence`.
    ///
    /// # Errors
    /// Returns `Exists` if the site has a route, `Foreign` if a route of another owner has one of the hostnames, and
    /// `Gone` after [`ClusterOps::release`].
    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()>;

    /// Points a site's route to `to` in place and without interruption, if the route still carries the fence
    /// `expect`. The route carries `call.fence` afterward. A move to the service that the route already points to
    /// only raises the fence.
    ///
    /// # Errors
    /// Returns `Conflict` if the route carries another fence, and `NotFound` if the site has no route.
    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()>;

    /// Removes every object of the uid: the route, jobs with their pods, and the anchor. The call is idempotent and
    /// final, even for a uid without objects: an object that a late call creates under the uid is rejected or deleted
    /// immediately.
    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()>;

    /// Starts a job.
    ///
    /// # Errors
    /// Returns `Exists` if a job of that name and uid exists in any state, `Foreign` if the name belongs to another
    /// owner, and `Gone` after [`ClusterOps::release`].
    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()>;

    /// Returns a job; `None` if the job does not exist or was deleted. The job may come from a watch and lag by
    /// moments.
    ///
    /// Credentials that the adapter put into the cluster for a job are deleted with the job's end: the adapter
    /// reports an end only after it has deleted them, and the caller of [`ClusterOps::changes`] triggers the deletion
    /// for ended jobs that no caller reads. The credentials of a running job stay, so that a replacement pod can
    /// start. A repetition of [`ClusterOps::run_job`] for an ended job does not create them again.
    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError>;

    /// Returns the changes since `cursor` and the cursor for the next call. Waits at most `wait` for a change.
    ///
    /// A change can be reported late or more than once, but is never lost; the caller reads the complete object after
    /// a report. A cursor that is too old returns [`Changed::Anything`].
    async fn changes(
        &self,
        cursor: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError>;
}

/// The state of the canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The color of the active service.
    pub color: Color,
    /// The digest that the canary was set to.
    pub digest: Option<Digest>,
    /// The version, which the next write has to name.
    pub version: CanaryVersion,
}

/// The version of the canary's state. Only the adapter that created the value interprets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryVersion(pub String);

/// The image that a workload is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageWant {
    /// This digest, with the rest of the template unchanged.
    Digest(Digest),
    /// This complete template, as [`ServiceView::template`] returned it.
    Template(Template),
}

/// The observed state of a service.
///
/// ```
/// use cdm_core::domain::{Color, Fence};
/// use cdm_core::ports::ServiceView;
///
/// let view = ServiceView {
///     color: Color::Blue,
///     digest: None,
///     template: None,
///     fence: Fence::default(),
///     desired: 2,
///     updated: 2,
///     ready: 2,
///     available: 2,
///     total: 2,
///     observed: true,
///     failure: None,
/// };
/// assert!(view.is_ready());
/// // A pod of an earlier template still exists.
/// assert!(!ServiceView { total: 3, ..view }.is_ready());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// The color of the service.
    pub color: Color,
    /// The digest that the template names; `None` if the template names a tag or no image.
    pub digest: Option<Digest>,
    /// The complete pod template; `None` if the workload does not exist or has no template.
    pub template: Option<Template>,
    /// The fence of CDM's last write.
    pub fence: Fence,
    /// The number of pods that the workload requests.
    pub desired: u32,
    /// The number of pods of the current template.
    pub updated: u32,
    /// The number of pods that pass their readiness check.
    pub ready: u32,
    /// The number of pods of the current template that are available and run the requested digest.
    pub available: u32,
    /// The number of all pods, including those of earlier templates.
    pub total: u32,
    /// Whether the numbers refer to the current template.
    pub observed: bool,
    /// Why pods do not become ready, as the platform reports it.
    pub failure: Option<PodFailure>,
}

impl ServiceView {
    /// Returns whether routes may point to the service: at least one pod is requested, the current template was
    /// observed, every pod of that template is available, and no pod of an earlier template exists.
    ///
    /// The rule is that of `kubectl rollout status`, and additionally checks the digest of the pods.
    pub const fn is_ready(&self) -> bool {
        self.desired > 0
            && self.observed
            && self.updated == self.desired
            && self.available == self.desired
            && self.total == self.desired
            && self.failure.is_none()
    }
}

/// Why pods do not become ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFailure {
    /// Whether the platform has stopped waiting, because the progress deadline has passed.
    pub definite: bool,
    /// Whether the image is at fault: a crash, a failed readiness check or a missing image. Unschedulable pods and a
    /// registry that denies access do not count.
    pub blames_image: bool,
    /// The reason that the pods report.
    pub message: String,
}

/// The observed state of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The uid of the site that the route belongs to.
    pub uid: Uid,
    /// The hostnames that the route serves.
    pub hostnames: Hostnames,
    /// The color of the service that the route points to.
    pub service: Color,
    /// The fence of the last write.
    pub fence: Fence,
}

/// A route to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// The uid of the site.
    pub uid: Uid,
    /// The id of the site, for users who inspect the cluster.
    pub site: SiteId,
    /// The hostnames to serve.
    pub hostnames: Hostnames,
    /// The color of the service to point to.
    pub service: Color,
}

/// A job to start. The job runs in the image of a service, with the service's settings and the site's credentials as
/// files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The name of the job.
    pub name: JobName,
    /// The color of the service whose image the job runs in.
    pub service: Color,
    /// The task of the job.
    pub kind: JobKind,
}

/// The task of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Installs WordPress if it is not installed, then verifies by queries the address of the site, the mark of a
    /// complete installation, and the role of the administrator. The job fails with [`JobFailure::InstallIncomplete`]
    /// if the database contains an interrupted installation.
    Install {
        /// The uid of the site.
        uid: Uid,
        /// The site's hostnames. The canonical one becomes the address of the site.
        hostnames: Hostnames,
        /// The title of the site.
        title: SiteName,
    },
    /// Activates a theme that the image contains.
    ActivateTheme {
        /// The uid of the site.
        uid: Uid,
        /// The theme to activate.
        theme: Theme,
    },
    /// Flushes the object caches of sites. A failure of one site does not prevent the others. The end of the job is
    /// not a proof: a site counts as flushed only if `wp` reported success for it.
    FlushCaches {
        /// The uids of the sites, at most as many as a window of a rollout has.
        uids: Vec<Uid>,
    },
}

impl JobKind {
    /// Returns the site that the job belongs to; `None` for a batch of sites.
    pub fn uid(&self) -> Option<Uid> {
        match self {
            Self::Install { uid, .. } | Self::ActivateTheme { uid, .. } => Some(*uid),
            Self::FlushCaches { uids } => uids.first().copied().filter(|_| uids.len() == 1),
        }
    }

    /// Returns the middle part of the job's name.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Install { .. } => "install",
            Self::ActivateTheme { .. } => "activate-theme",
            Self::FlushCaches { .. } => "flush-caches",
        }
    }
}

/// The observed state of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Whether the job is running, succeeded or failed.
    pub state: JobState,
    /// The output of the job, as far as it is available.
    pub log: String,
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// The job has not ended.
    Running,
    /// The job ended. In a batch, individual sites can still have failed.
    Succeeded {
        /// The sites of a batch that failed, each with the reason.
        failed: Vec<(Uid, String)>,
    },
    /// The job ended with an error.
    Failed {
        /// The reason, for users.
        message: String,
        /// The cause that the job's output names.
        cause: JobFailure,
    },
}

/// The position up to which a caller has read the changes; zero before the first call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeCursor(pub u64);

/// An object that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Changed {
    /// A job with this name.
    Job(JobName),
    /// The service of this color.
    Service(Color),
    /// An unknown object: the cursor was too old, so every object may have changed.
    Anything,
}

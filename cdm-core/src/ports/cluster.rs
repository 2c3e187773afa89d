//! The two services, the routes to them, the jobs, and which service is the canary.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::{CallContext, JobFailure, Outcome, PortError};
use crate::domain::{Color, Digest, Fence, Hostnames, JobName, SiteId, SiteName, Template, Theme, Uid};

/// The cluster.
///
/// Every object of a site is labelled with the site's uid and belongs to an anchor of that uid; see
/// [`ClusterOps::release`].
#[async_trait]
pub trait ClusterOps: Send + Sync + fmt::Debug + 'static {
    /// Which service is the active canary, and with which image; `None` before anything was set.
    async fn canary(&self) -> Result<Option<Canary>, PortError>;

    /// Sets selector and digest if the canary still has the version `expect` (`None`: is not set yet). What else is
    /// kept there stays.
    ///
    /// # Errors
    /// `Conflict` when it has another version.
    async fn set_canary(
        &self,
        call: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()>;

    /// How a service stands. May be answered from a watch that lags by moments.
    async fn service(&self, color: Color) -> Result<ServiceView, PortError>;

    /// Sets the image, or puts a whole template back, if the workload still carries the fence `expect`; it carries
    /// `call.fence` afterwards. The pods follow in their own time.
    ///
    /// A repetition of a call that was applied is a `Conflict`: the caller recognises its own fence when it looks.
    /// Setting what the workload runs already raises the fence and restarts nothing.
    ///
    /// # Errors
    /// `Conflict` when the workload carries another fence.
    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        want: &ImageWant,
    ) -> Outcome<()>;

    /// A site's route. May be answered from a watch that lags by moments.
    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError>;

    /// Creates a site's route, carrying `call.fence`.
    ///
    /// # Errors
    /// `Exists` when the site has a route; `Foreign` when another owner's route has one of the hostnames; `Gone` after
    /// [`ClusterOps::release`].
    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()>;

    /// Points a site's route to `to` in place, without a gap, if it still carries the fence `expect`; it carries
    /// `call.fence` afterwards. Pointing it to where it points already raises the fence and nothing else.
    ///
    /// # Errors
    /// `Conflict` when the route carries another fence; `NotFound` when there is none.
    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()>;

    /// Removes everything of the uid: route, jobs with their pods, anchor. Idempotent and final, also for a uid that had
    /// nothing yet: what a late call
    /// creates under that uid is refused, or collected at once.
    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()>;

    /// Starts a job.
    ///
    /// # Errors
    /// `Exists` when a job of that name and uid is there, whatever became of it; `Foreign` when the name is someone
    /// else's; `Gone` after [`ClusterOps::release`].
    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()>;

    /// A job; `None` when there is none, or none any more. May be answered from a watch that lags by moments.
    ///
    /// Credentials that were put into the cluster for a job do not outlast it: an end is answered only once they are
    /// gone, and those of a job that ended and that nobody asks about are removed by whoever follows
    /// [`ClusterOps::changes`]. While a job has not ended they stay, so that a pod in place of a lost one can start. A
    /// repetition of [`ClusterOps::run_job`] for a job that has ended brings none back.
    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError>;

    /// What changed since `mark`, and the mark to ask with next; waits at most `wait` for news.
    ///
    /// News may come late or twice, never not at all; whoever hears of it looks at the whole object. A mark that is too old answers
    /// as if everything had changed.
    async fn changes(
        &self,
        mark: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError>;
}

/// The state of the canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The active service.
    pub color: Color,
    /// The digest it was given.
    pub digest: Option<Digest>,
    /// For the next write.
    pub version: CanaryVersion,
}

/// Which write a canary state is of; only the adapter that made it looks inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryVersion(pub String);

/// What a workload shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageWant {
    /// This digest, everything else as it is.
    Digest(Digest),
    /// This whole template, as [`ServiceView::template`] had it.
    Template(Template),
}

/// How a service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Which.
    pub color: Color,
    /// The digest its template names; `None` where it names a tag or nothing.
    pub digest: Option<Digest>,
    /// The whole template.
    pub template: Option<Template>,
    /// The fence of the last write by CDM.
    pub fence: Fence,
    /// Pods wanted.
    pub desired: u32,
    /// Pods of the present template.
    pub updated: u32,
    /// Pods that pass their readiness check.
    pub ready: u32,
    /// Pods of the present template that are available and run the wanted digest.
    pub available: u32,
    /// All pods, those of earlier templates too.
    pub total: u32,
    /// Whether the numbers are of the present template.
    pub observed: bool,
    /// What keeps pods from getting ready, in the platform's own words.
    pub failure: Option<PodFailure>,
}

impl ServiceView {
    /// Whether routes may be pointed to it: at least one pod wanted, the present template observed, every pod of it and
    /// available, none of an earlier one.
    ///
    /// The rule is that of `kubectl rollout status`, with the pods' digest besides.
    pub const fn is_ready(&self) -> bool {
        self.desired > 0
            && self.observed
            && self.updated == self.desired
            && self.available == self.desired
            && self.total == self.desired
            && self.failure.is_none()
    }
}

/// What keeps pods from getting ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFailure {
    /// Whether the platform has given up waiting (the progress deadline has passed).
    pub definite: bool,
    /// Whether it speaks against the image: a crash, a failed readiness, an absent image. Unschedulable pods and a
    /// registry that refuses do not.
    pub blames_image: bool,
    /// The pods' own reason.
    pub message: String,
}

/// A route as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whose.
    pub uid: Uid,
    /// Its hostnames.
    pub hostnames: Hostnames,
    /// Where it points.
    pub service: Color,
    /// The fence of its last write.
    pub fence: Fence,
}

/// A route to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Whose.
    pub uid: Uid,
    /// The site's id, for people.
    pub site: SiteId,
    /// Its hostnames.
    pub hostnames: Hostnames,
    /// Where it points.
    pub service: Color,
}

/// A job to start. It runs in the image of a service, with that service's settings and the site's credentials as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Its name.
    pub name: JobName,
    /// In whose image.
    pub service: Color,
    /// What it does.
    pub kind: JobKind,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Installs WordPress where it is not installed, and proves by queries that the site has its address, the mark of a
    /// whole installation, and its administrator that role. Ends with [`JobFailure::InstallIncomplete`] on what an installation that was cut short
    /// has left.
    Install {
        /// The site.
        uid: Uid,
        /// The site's hostnames; its address is the canonical one.
        hostnames: Hostnames,
        /// Its title.
        title: SiteName,
    },
    /// Makes a theme the active one.
    ActivateTheme {
        /// The site.
        uid: Uid,
        /// The theme.
        theme: Theme,
    },
    /// Flushes the object caches of sites; one that fails does not keep the others from it. An end without an error is
    /// no proof: a site counts as flushed where `wp` said so.
    FlushCaches {
        /// The sites; at most a window of a rollout.
        uids: Vec<Uid>,
    },
}

impl JobKind {
    /// The one site that the job belongs to; `None` for a batch.
    pub fn uid(&self) -> Option<Uid> {
        match self {
            Self::Install { uid, .. } | Self::ActivateTheme { uid, .. } => Some(*uid),
            Self::FlushCaches { uids } => uids.first().copied().filter(|_| uids.len() == 1),
        }
    }

    /// The middle of the job's name.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Install { .. } => "install",
            Self::ActivateTheme { .. } => "activate-theme",
            Self::FlushCaches { .. } => "flush-caches",
        }
    }
}

/// A job as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What became of it.
    pub state: JobState,
    /// What it printed, as far as it is to be had.
    pub log: String,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It has not ended.
    Running,
    /// Done; of a batch, the sites that were not, with the reason.
    Succeeded {
        /// The sites of a batch that failed.
        failed: Vec<(Uid, String)>,
    },
    /// It failed.
    Failed {
        /// Why.
        message: String,
        /// What its output says of the cause.
        cause: JobFailure,
    },
}

/// How far someone has followed the changes; zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeCursor(pub u64);

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Changed {
    /// A job.
    Job(JobName),
    /// A service.
    Service(Color),
    /// Whatever; the mark was too old.
    Anything,
}

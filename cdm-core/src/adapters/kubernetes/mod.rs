//! The two services, the routes and the jobs on Kubernetes.
//!
//! Two Deployments, a ConfigMap with the canary, a route object and Jobs per site. Whatever a site has belongs to its
//! anchor, a ConfigMap of its own, and is collected by the cluster when that is gone. Each request ends by its call's
//! deadline and is sent once; what is waited for comes from one watch for each kind.

mod access;
mod anchor;
mod api;
mod batch;
mod canary;
mod confinement;
mod failure;
mod image;
mod job;
mod jobs;
mod lookup;
mod names;
mod news;
mod pods;
mod routes;
mod service;
mod settings;
mod shape;
mod verdict;
mod watch;
mod wp;

pub use settings::{
    Access, JobSecurity, KubernetesError, KubernetesSettings, Lookup, RouteKind, Scheme, ServiceNames, WpRoot,
};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use self::api::{ClientHandle, Session};
use self::routes::RuleCountHint;
use self::watch::Watches;
use crate::domain::{Color, Digest, Fence, JobName, MonotonicTime, Uid};
use crate::ports::{
    CallContext, Canary, CanaryVersion, ChangeCursor, Changed, Clock, ClusterOps, ImageWant, Job, JobSpec,
    JobState, Outcome, PortError, Route, RouteSpec, SecretStore, ServiceView,
};

/// How long a look may take.
const READ: Duration = Duration::from_secs(10);
/// How long the questions at start may take together.
const START: Duration = Duration::from_secs(30);
/// How often old tombstones are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// A cluster's namespace with the two services; clones share its watches.
#[derive(Clone)]
pub struct KubernetesCluster {
    client: Arc<ClientHandle>,
    settings: Arc<KubernetesSettings>,
    secrets: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    guess: Arc<RuleCountHint>,
    watches: Arc<Watches>,
    /// When tombstones were last looked for.
    swept: Arc<AtomicU64>,
}

impl KubernetesCluster {
    /// The namespace of the settings, by that access. Does not connect; the first call does.
    ///
    /// Jobs get the credentials of their sites from `secrets`.
    ///
    /// # Errors
    /// When the settings are wrong, or the access cannot be read.
    pub async fn new(
        settings: KubernetesSettings,
        access: &Access,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KubernetesError> {
        settings.judge()?;
        let mut config = config(access).await?;
        // A repetition is for whoever knows what it means, and when its time is over.
        config.default_retry = false;
        let unusable =
            |_| KubernetesError::Access("its certificates or credentials are of no use".to_owned());
        let client = Client::try_from(config).map_err(unusable)?;
        Ok(Self {
            client: Arc::new(ClientHandle { client, namespace: settings.namespace.clone() }),
            settings: Arc::new(settings),
            secrets,
            clock,
            guess: Arc::default(),
            watches: Arc::new(Watches::new()),
            swept: Arc::default(),
        })
    }

    /// Whether the server answers, the role allows what is needed, both services are there, and their images look sites
    /// up where they are kept.
    ///
    /// # Errors
    /// `Denied` with the first thing that the role does not allow; `NotFound` or `Invalid` for a service that is not
    /// there, has no container of that name or looks elsewhere; `Unavailable` without an answer.
    pub async fn check(&self) -> Result<(), PortError> {
        let session = self.session(self.clock.monotonic().after(START));
        let work = async {
            access::check(&session, &self.settings).await?;
            for color in Color::ALL {
                service::read(&session, &self.settings, color).await?;
            }
            lookup::check(&session, &self.settings).await?;
            canary::read(&session, &self.settings).await.map(drop)
        };
        session.answer(work).await
    }

    /// Makes the canary's ConfigMap where there is none, or fills its key where that is missing: blue is the canary, with
    /// the image of its Deployment. Checks the rest.
    ///
    /// # Errors
    /// As [`KubernetesCluster::check`].
    pub async fn bootstrap(&self) -> Result<(), PortError> {
        let session = self.session(self.clock.monotonic().after(START));
        session.answer(canary::ensure(&session, &self.settings)).await?;
        self.check().await
    }

    fn session(&self, deadline: MonotonicTime) -> Session<'_> {
        Session::new(&self.client, &*self.clock, deadline)
    }

    fn look(&self) -> Session<'_> {
        self.session(self.clock.monotonic().after(READ))
    }

    /// Deletes the Secrets of ended Jobs that no operation reads any more: the operation was canceled, or its worker was
    /// lost between the Job's end and its read.
    async fn clear_leftovers(&self) {
        for leftover in self.watches.leftovers() {
            match leftover.clear(&self.look()).await {
                Ok(()) => self.watches.cleared(&leftover),
                Err(failure) => {
                    tracing::warn!(error = %failure.message, "the Secret of an ended job was not deleted");
                    return;
                }
            }
        }
    }

    /// Whether the time has come to look for old tombstones again; whoever hears so does it.
    fn is_time_to_sweep(&self) -> bool {
        let now = self.clock.monotonic();
        let last = self.swept.load(Ordering::Relaxed);
        let due = last == 0 || now.since(MonotonicTime::from_millis(last)) >= SWEEP;
        let next = now.millis().max(1);
        due && self.swept.compare_exchange(last, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

async fn config(access: &Access) -> Result<Config, KubernetesError> {
    match access {
        Access::InCluster => Config::incluster().map_err(|_| {
            KubernetesError::Access(
                "this is no pod with a service account, and no kubeconfig is named (KUBECONFIG)".to_owned(),
            )
        }),
        Access::Kubeconfig { path, context } => {
            let refused = |_| {
                KubernetesError::Access(format!(
                    "`{}` is no kubeconfig, or has no such context",
                    path.display()
                ))
            };
            let file = Kubeconfig::read_from(path).map_err(refused)?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(file, &options).await.map_err(refused)
        }
    }
}

#[async_trait]
impl ClusterOps for KubernetesCluster {
    async fn canary(&self) -> Result<Option<Canary>, PortError> {
        let session = self.look();
        session.answer(canary::read(&session, &self.settings)).await
    }

    async fn set_canary(
        &self,
        call: &CallContext,
        expect: Option<&CanaryVersion>,
        color: Color,
        digest: Option<Digest>,
    ) -> Outcome<()> {
        let session = self.session(call.deadline);
        session.outcome(canary::set(&session, &self.settings, call, expect, (color, digest))).await
    }

    async fn service(&self, color: Color) -> Result<ServiceView, PortError> {
        let session = self.look();
        session.answer(service::read(&session, &self.settings, color)).await
    }

    async fn set_image(
        &self,
        call: &CallContext,
        color: Color,
        expect: Fence,
        want: &ImageWant,
    ) -> Outcome<()> {
        let session = self.session(call.deadline);
        session.outcome(image::set(&session, &self.settings, call, color, (expect, want))).await
    }

    async fn route(&self, uid: Uid) -> Result<Option<Route>, PortError> {
        let session = self.look();
        session.answer(routes::read(&session, &self.settings, uid)).await
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        let session = self.session(call.deadline);
        session.outcome(routes::put(&session, &self.settings, call, spec)).await
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        let session = self.session(call.deadline);
        let what = (uid, expect, call.fence);
        session.outcome(routes::shift(&session, &self.settings, &self.guess, what, to)).await
    }

    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        let session = self.session(call.deadline);
        let work = async {
            anchor::release(&session, &self.settings, uid).await?;
            if self.is_time_to_sweep() {
                // Another release's turn comes when this one's does not.
                drop(anchor::sweep(&session).await);
            }
            Ok(())
        };
        match session.outcome(work).await {
            // A part of it may be done.
            Outcome::NotApplied(error) if error.is_retryable() && session.has_begun() => {
                Outcome::Unknown(error)
            }
            other => other,
        }
    }

    async fn run_job(&self, call: &CallContext, spec: &JobSpec) -> Outcome<()> {
        let session = self.session(call.deadline);
        session.outcome(jobs::run(&session, &self.settings, &*self.secrets, spec)).await
    }

    async fn job(&self, name: &JobName) -> Result<Option<Job>, PortError> {
        if self.watches.is_running(name) {
            return Ok(Some(Job { state: JobState::Running, log: String::new() }));
        }
        let session = self.look();
        session.answer(jobs::read(&session, name)).await
    }

    async fn changes(
        &self,
        mark: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        self.watches.start(&self.client.client, &self.settings);
        self.clear_leftovers().await;
        Ok(self.watches.since(&*self.clock, mark, wait).await)
    }
}

impl fmt::Debug for KubernetesCluster {
    /// Without the client: it holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesCluster").field("namespace", &self.client.namespace).finish_non_exhaustive()
    }
}

//! The two services, the routes and the jobs on Kubernetes.
//!
//! Two Deployments, a ConfigMap with the canary, and per site a route object and Jobs. All objects of a site are owned
//! by its anchor, a ConfigMap, and are garbage-collected when the anchor is deleted. Each request is sent once and ends
//! at the deadline of its call. One watch for each kind of object reports changes.

mod access;
mod anchor;
mod api;
mod batch;
mod canary;
mod changes;
mod confinement;
mod failure;
mod image;
mod job;
mod job_status;
mod jobs;
mod lookup;
mod manifest;
mod names;
mod patch;
mod pods;
mod routes;
mod service;
mod settings;
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

const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of all checks at start together.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often old tombstones are deleted.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// A namespace of a cluster with the two services. Clones share the watches.
#[derive(Clone)]
pub struct KubernetesCluster {
    client: Arc<ClientHandle>,
    settings: Arc<KubernetesSettings>,
    secrets: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    hint: Arc<RuleCountHint>,
    watches: Arc<Watches>,
    /// When tombstones were last deleted, in milliseconds of monotonic time; 0 for never.
    last_sweep: Arc<AtomicU64>,
}

impl KubernetesCluster {
    /// Creates a client for the namespace in the settings. Does not connect before the first call.
    ///
    /// Jobs get the credentials of their sites from `secrets`.
    ///
    /// # Errors
    /// When the settings are invalid, or the access configuration cannot be read.
    pub async fn new(
        settings: KubernetesSettings,
        access: &Access,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KubernetesError> {
        settings.check_values()?;
        let mut config = config(access).await?;
        // Only the caller knows whether and until when a request may be retried.
        config.default_retry = false;
        let unusable = |_| KubernetesError::Access("the certificates or credentials are invalid".to_owned());
        let client = Client::try_from(config).map_err(unusable)?;
        Ok(Self {
            client: Arc::new(ClientHandle { client, namespace: settings.namespace.clone() }),
            settings: Arc::new(settings),
            secrets,
            clock,
            hint: Arc::default(),
            watches: Arc::new(Watches::new()),
            last_sweep: Arc::default(),
        })
    }

    /// Checks that the server responds, the role grants the required permissions, both services exist, and their images
    /// look up sites in this server's table.
    ///
    /// # Errors
    /// `Denied` with the first permission that is missing; `NotFound` or `Invalid` when a service does not exist, lacks
    /// the container, or uses another table; `Unavailable` without a response.
    pub async fn check(&self) -> Result<(), PortError> {
        let session = self.session(self.clock.monotonic().after(START_TIMEOUT));
        let work = async {
            access::check(&session, &self.settings).await?;
            for color in Color::ALL {
                service::read(&session, &self.settings, color).await?;
            }
            lookup::check(&session, &self.settings).await?;
            canary::read(&session, &self.settings).await.map(drop)
        };
        session.read(work).await
    }

    /// Creates the canary's ConfigMap, or its key, if it is missing: blue is the canary, with the image of its
    /// Deployment. Then runs [`KubernetesCluster::check`].
    ///
    /// # Errors
    /// The errors of [`KubernetesCluster::check`].
    pub async fn bootstrap(&self) -> Result<(), PortError> {
        let session = self.session(self.clock.monotonic().after(START_TIMEOUT));
        session.read(canary::ensure(&session, &self.settings)).await?;
        self.check().await
    }

    fn session(&self, deadline: MonotonicTime) -> Session<'_> {
        Session::new(&self.client, &*self.clock, deadline)
    }

    fn read_session(&self) -> Session<'_> {
        self.session(self.clock.monotonic().after(READ_TIMEOUT))
    }

    /// Deletes the Secrets of ended Jobs that no operation reads any more: the operation was canceled, or its worker
    /// was lost between the end of the Job and the read.
    async fn clear_leftovers(&self) {
        for leftover in self.watches.leftovers() {
            match leftover.clear(&self.read_session()).await {
                Ok(()) => self.watches.cleared(&leftover),
                Err(failure) => {
                    tracing::warn!(error = %failure.message, "the Secret of an ended job could not be deleted");
                    return;
                }
            }
        }
    }

    /// Returns whether old tombstones should be deleted now. Returns `true` to one caller per interval.
    fn is_time_to_sweep(&self) -> bool {
        let now = self.clock.monotonic();
        let last = self.last_sweep.load(Ordering::Relaxed);
        let is_due = last == 0 || now.since(MonotonicTime::from_millis(last)) >= SWEEP_INTERVAL;
        let next = now.millis().max(1);
        is_due && self.last_sweep.compare_exchange(last, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

async fn config(access: &Access) -> Result<Config, KubernetesError> {
    match access {
        Access::InCluster => Config::incluster().map_err(|_| {
            KubernetesError::Access(
                "this process does not run in a pod with a service account, and no kubeconfig is configured \
                 (KUBECONFIG)"
                    .to_owned(),
            )
        }),
        Access::Kubeconfig { path, context } => {
            let refused = |_| {
                KubernetesError::Access(format!(
                    "`{}` is not a valid kubeconfig, or does not have the context",
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
        let session = self.read_session();
        session.read(canary::read(&session, &self.settings)).await
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
        let session = self.read_session();
        session.read(service::read(&session, &self.settings, color)).await
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
        let session = self.read_session();
        session.read(routes::read(&session, &self.settings, uid)).await
    }

    async fn put_route(&self, call: &CallContext, spec: &RouteSpec) -> Outcome<()> {
        let session = self.session(call.deadline);
        session.outcome(routes::put(&session, &self.settings, call, spec)).await
    }

    async fn move_route(&self, call: &CallContext, uid: Uid, expect: Fence, to: Color) -> Outcome<()> {
        let session = self.session(call.deadline);
        let what = (uid, expect, call.fence);
        session.outcome(routes::move_route(&session, &self.settings, &self.hint, what, to)).await
    }

    async fn release(&self, call: &CallContext, uid: Uid) -> Outcome<()> {
        let session = self.session(call.deadline);
        let work = async {
            anchor::release(&session, &self.settings, uid).await?;
            if self.is_time_to_sweep() {
                // If it fails, a later release deletes the tombstones.
                drop(anchor::sweep(&session).await);
            }
            Ok(())
        };
        match session.outcome(work).await {
            // Some of the requests may have taken effect.
            Outcome::NotApplied(error) if error.is_retryable() && session.has_sent_change() => {
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
        let session = self.read_session();
        session.read(jobs::read(&session, name)).await
    }

    async fn changes(
        &self,
        cursor: ChangeCursor,
        wait: Duration,
    ) -> Result<(Vec<Changed>, ChangeCursor), PortError> {
        self.watches.start(&self.client.client, &self.settings);
        self.clear_leftovers().await;
        Ok(self.watches.since(&*self.clock, cursor, wait).await)
    }
}

impl fmt::Debug for KubernetesCluster {
    /// Omits the client, which has credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesCluster").field("namespace", &self.client.namespace).finish_non_exhaustive()
    }
}

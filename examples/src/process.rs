//! A process of the platform: the manager that its frontend calls, and the worker that runs operations.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{Operation, OperationId, WorkerId};
use cdm_core::engine::{RolloutDriver, Settings, Worker};
use cdm_core::manager::{Manager, ManagerError};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::ports::{ClusterOps, Ports};
use cdm_testkit::clock::SimClock;
use cdm_testkit::fakes::{FakeDatabases, FakeObjects, FakeProbe, FakeSecrets, FakeStore};
use cdm_testkit::ids::SeededIds;
use cdm_testkit::log::EffectLog;

/// One process. Any number of processes may run on one store, each with its own name.
#[derive(Clone, Debug)]
pub struct Process {
    /// The application layer, which a frontend calls.
    pub manager: Arc<Manager>,
    /// To be spawned, as `worker.run()`.
    pub worker: Arc<Worker>,
}

impl Process {
    /// Creates a process with this name on these ports, with default settings.
    pub fn new(name: &str, ports: &Ports) -> Self {
        let (platform, settings) = (PipelineSettings::default(), Settings::default());
        let pipelines = Arc::new(registry(&platform));
        let rollouts: Arc<dyn RolloutDriver> = Arc::new(Rollouts::new(platform));
        let manager = Manager::new(ports.clone(), Arc::clone(&pipelines), settings.clone());
        let worker = Worker::new(WorkerId::new(name), ports.clone(), pipelines, rollouts, settings);
        Self { manager: Arc::new(manager), worker: Arc::new(worker) }
    }
}

/// Waits until the operation has ended or is parked, and returns it.
///
/// # Errors
/// When it cannot be read.
pub async fn wait_until_settled(
    ports: &Ports,
    manager: &Manager,
    id: &OperationId,
) -> Result<Operation, ManagerError> {
    loop {
        let operation = manager.operation(id).await?;
        if operation.state.status.is_settled() {
            return Ok(operation);
        }
        pause(ports).await;
    }
}

/// Waits until no operation and no rollout is in progress.
///
/// # Errors
/// When the store does not respond.
pub async fn wait_until_idle(ports: &Ports) -> Result<(), ManagerError> {
    while !ports.store.pending_work().await?.is_empty() {
        pause(ports).await;
    }
    Ok(())
}

async fn pause(ports: &Ports) {
    ports.clock.sleep_until(ports.clock.monotonic().after(Duration::from_millis(500))).await;
}

/// Ports in memory, with this cluster; the other ports are fakes of the test kit.
pub fn in_memory(cluster: Arc<dyn ClusterOps>, clock: &SimClock, log: &EffectLog) -> Ports {
    Ports {
        store: Arc::new(FakeStore::new(log.clone(), clock.clone())),
        secrets: Arc::new(FakeSecrets::new(log.clone(), clock.clone())),
        objects: Arc::new(FakeObjects::new(log.clone(), clock.clone())),
        databases: Arc::new(FakeDatabases::new(log.clone(), clock.clone())),
        probe: Arc::new(FakeProbe::new(Arc::clone(&cluster), clock.clone())),
        cluster,
        clock: Arc::new(clock.clone()),
        entropy: Arc::new(SeededIds::new(1)),
    }
}

//! A process on stored data, with the API in front of it, and workers that die where a test says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use cdm_core::domain::{Actor, Role, WorkerId};
use cdm_core::engine::{Registry, RolloutDriver, Settings, Worker};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::wiring::{Config, Process};
use cdm_http::{App, HttpSettings};
use cdm_testkit::faults::{CallSite, Fault, FaultInjector, Plan, faulty};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

/// Pods and jobs that take milliseconds.
const QUICK: &str = "[local]\npod_start_ms = 20\nprogress_deadline_ms = 1500\njob_ms = 5\n";
/// How long a worker is given at most for what it finds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a worker looks again at something that waits.
const TURNS: usize = 400;

/// A process, and where its data is.
pub(crate) struct Stage {
    pub(crate) process: Arc<Process>,
    pub(crate) dir: TempDir,
    router: Router,
    registry: Arc<Registry>,
    workers: AtomicU32,
}

impl Stage {
    /// A process on `dir/data` that does no work by itself.
    pub(crate) async fn open(dir: TempDir, configuration: &str) -> Self {
        let file = dir.path().join("cdm.toml");
        std::fs::write(&file, format!("{configuration}{QUICK}")).expect("a configuration");
        let data = dir.path().join("data").display().to_string();
        let ask = |name: &str| match name {
            "CDM_DATA_DIR" => Some(data.clone()),
            "CDM_ROUTER_LISTEN" => Some("127.0.0.1:0".to_owned()),
            _ => None,
        };
        let config = Config::load(Some(&file), &ask).expect("a configuration");
        let process = Arc::new(Process::open(&config).await.expect("a process"));
        let app = App::of(&process, HttpSettings::default());
        let actor = Actor::parse("maker").expect("a name");
        let router = cdm_http::local_router(app, actor, Role::Admin);
        Self {
            process,
            dir,
            router,
            registry: Arc::new(registry(&PipelineSettings::default())),
            workers: AtomicU32::new(0),
        }
    }

    /// What the API answers.
    pub(crate) async fn ask(&self, line: &str, body: Option<Value>) -> (StatusCode, Value) {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response =
            self.router.clone().oneshot(request.body(body).expect("a request")).await.expect("an answer");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// The answer to a request that succeeds.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(&format!("GET {path}"), None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// Asks for work, and answers the id of the operation or rollout.
    pub(crate) async fn accepted(&self, line: &str, body: Option<Value>) -> String {
        let (status, answer) = self.ask(line, body).await;
        assert!(status.is_success(), "{line}: {status} {answer}");
        answer["id"].as_str().unwrap_or_else(|| panic!("{line}: {answer}")).to_owned()
    }

    /// A worker that no other process is named like.
    fn worker(&self, gate: &FaultInjector) -> Worker {
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        let rollouts: Arc<dyn RolloutDriver> = Arc::new(Rollouts::new(PipelineSettings::default()));
        let settings = Settings { scan: Duration::from_millis(20), ..Settings::default() };
        let id = WorkerId::new(&format!("maker-{number}"));
        Worker::new(id, faulty(self.process.ports(), gate), Arc::clone(&self.registry), rollouts, settings)
    }

    /// One worker runs all that it finds until it rests.
    pub(crate) async fn run(&self) {
        let gate = FaultInjector::default();
        let worker = self.worker(&gate);
        for _ in 0..TURNS {
            let turn =
                tokio::time::timeout(PATIENCE, worker.run_once()).await.expect("a worker that goes on");
            let clock = &self.process.ports().clock;
            match turn.next_poll_at {
                None if turn.ran == 0 => return,
                None => {}
                Some(_) => clock.sleep_until(clock.monotonic().after(Duration::from_millis(20))).await,
            }
        }
        panic!("a worker that never comes to rest");
    }

    /// The calls of one worker's look, which finds work and gives it no fault.
    pub(crate) async fn trace(&self) -> Vec<CallSite> {
        let gate = FaultInjector::default();
        let worker = self.worker(&gate);
        gate.start_trace();
        tokio::time::timeout(PATIENCE, worker.run_once()).await.expect("a worker that goes on");
        let trace = gate.trace();
        // What still waits is this worker's.
        for _ in 0..TURNS {
            let turn =
                tokio::time::timeout(PATIENCE, worker.run_once()).await.expect("a worker that goes on");
            if turn.ran == 0 && turn.next_poll_at.is_none() {
                return trace;
            }
            let clock = &self.process.ports().clock;
            clock.sleep_until(clock.monotonic().after(Duration::from_millis(20))).await;
        }
        panic!("a worker that never comes to rest");
    }

    /// One look of a worker whose call at `at` goes wrong; the worker does nothing afterwards, and is soon taken for lost.
    pub(crate) async fn fail(&self, at: usize, fault: Fault) {
        let gate = FaultInjector::default();
        let worker = self.worker(&gate);
        gate.arm(Plan(vec![(at, fault)]));
        let mut turn = std::pin::pin!(worker.run_once());
        for _ in 0..600 {
            let ended = tokio::time::timeout(Duration::from_millis(50), &mut turn).await.is_ok();
            if ended || gate.take_halt().is_some() {
                assert_eq!(gate.fired(), 1, "a fault that did not happen");
                return;
            }
        }
        panic!("a worker that neither ends nor dies");
    }

    /// Ends the process in good order, and answers its directory.
    pub(crate) async fn close(self) -> TempDir {
        self.process.stop(PATIENCE).await;
        self.dir
    }
}

/// Copies a directory with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory to copy") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a copy");
            // A checkout keeps no mode, and a key that others may read is refused.
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&target, private).expect("a mode");
        }
    }
}

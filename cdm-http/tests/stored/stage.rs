//! A process on stored data, with the API in front of it and workers that crash where a test says.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use cdm_core::domain::{Actor, Role, WorkerId};
use cdm_core::engine::{RolloutDriver, Settings, StepTimeouts, Worker};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::wiring::{Config, Process};
use cdm_http::{App, HttpSettings};
use cdm_testkit::faults::{CallSite, Fault, FaultInjector, Plan, faulty};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// Timeout of one pass of a worker, and of a stream of stored events.
const PASS: Duration = Duration::from_secs(30);
/// Passes of a worker until a state has to be reached.
const PASSES: usize = 400;
/// Pause between two passes.
const PAUSE: Duration = Duration::from_millis(20);

/// The data of a scene.
const ARCHIVE: &str = "stored.tar.gz";

/// A process and its data directory.
pub(crate) struct Stage {
    pub(crate) process: Arc<Process>,
    pub(crate) dir: TempDir,
    /// The API for callers in this process; the actor is `maker`.
    local: Router,
    /// The API and the console for callers who authenticate.
    router: Router,
    configuration: String,
    workers: AtomicU32,
}

/// A response.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON; null where it has another type.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The text of a page between `mark` and the next quotation mark or tag.
    pub(crate) fn after(&self, mark: &str) -> String {
        let (_, rest) = self.text.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {}", self.text));
        rest.split(['"', '<']).next().unwrap_or_default().to_owned()
    }
}

impl Stage {
    /// A process on `dir/data` that runs no operation by itself.
    pub(crate) async fn open(dir: TempDir, configuration: &str) -> Self {
        let file = dir.path().join("cdm.toml");
        let local = "[local]\npod_start_ms = 20\nprogress_deadline_ms = 1500\njob_ms = 5\n";
        std::fs::write(&file, format!("{configuration}{local}")).expect("a configuration");
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
        Self {
            local: cdm_http::local_router(app.clone(), actor, Role::Admin),
            router: cdm_http::router(app),
            process,
            dir,
            configuration: configuration.to_owned(),
            workers: AtomicU32::new(0),
        }
    }

    /// A new process on the same data.
    pub(crate) async fn reopen(self) -> Self {
        let configuration = self.configuration.clone();
        let workers = self.workers.load(Ordering::Relaxed);
        let stage = Self::open(self.close().await, &configuration).await;
        stage.workers.store(workers, Ordering::Relaxed);
        stage
    }

    /// Sends a request of a caller in this process.
    pub(crate) async fn ask(&self, line: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.ask_with(line, body, None).await
    }

    /// The same, with an idempotency key.
    pub(crate) async fn ask_with(
        &self,
        line: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> (StatusCode, Value) {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = sent(&self.local, request.body(body).expect("a request")).await;
        (answer.status, answer.json())
    }

    /// The answer to a read, which succeeds.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(&format!("GET {path}"), None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// Sends a request that is accepted, and returns the id of the operation or rollout.
    pub(crate) async fn accepted(&self, line: &str, body: Option<Value>) -> String {
        let answer = self.done(line, body).await;
        answer["id"].as_str().unwrap_or_else(|| panic!("{line}: {answer}")).to_owned()
    }

    /// Sends a request that succeeds.
    pub(crate) async fn done(&self, line: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(line, body).await;
        assert!(status.is_success(), "{line}: {status} {answer}");
        answer
    }

    /// The status of a read with a token.
    pub(crate) async fn status_with_token(&self, path: &str, token: &str) -> StatusCode {
        let request = Request::builder().uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        sent(&self.router, request.body(Body::empty()).expect("a request")).await.status
    }

    /// A page of the console, or the answer to a form where there are fields.
    pub(crate) async fn page(&self, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
        let method = if fields.is_empty() { "GET" } else { "POST" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1:8080")
            .header(header::COOKIE, cookie)
            .header("sec-fetch-site", "same-origin")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let form = fields.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+")));
        let form = form.collect::<Vec<_>>().join("&");
        sent(&self.router, request.body(Body::from(form)).expect("a request")).await
    }

    /// The frames of an event stream up to the event `last`, or up to the frame `end` where it is `None`.
    pub(crate) async fn frames(&self, path: &str, last: Option<u64>) -> Value {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = self.local.clone().oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let mut body = response.into_body();
        let end = last.map_or_else(|| "event: end\n".to_owned(), |last| format!("id: {last}\n"));
        let mut text = String::new();
        while !text.split_once(&end).is_some_and(|(_, rest)| rest.contains("\n\n")) {
            let frame = tokio::time::timeout(PASS, body.frame()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{path}: no `{end}` in {text}"));
            let Some(frame) = frame else { break };
            let data = frame.expect("a frame").into_data().unwrap_or_default();
            text.push_str(std::str::from_utf8(&data).expect("text"));
        }
        let frame = |frame: &str| -> Value {
            let fields = frame.lines().filter_map(|line| line.split_once(": "));
            let field = |(name, value): (&str, &str)| {
                let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
                (name.to_owned(), value)
            };
            fields.map(field).collect::<serde_json::Map<_, _>>().into()
        };
        text.split("\n\n").filter(|text| text.contains("data: ")).map(frame).collect()
    }

    /// A worker with a name that no other process has.
    fn worker(&self, gate: &FaultInjector, timeout: StepTimeouts) -> Worker {
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        let platform = PipelineSettings { timeouts: timeout, ..PipelineSettings::default() };
        let pipelines = Arc::new(registry(&platform));
        let rollouts: Arc<dyn RolloutDriver> = Arc::new(Rollouts::new(platform));
        let settings = Settings { scan: PAUSE, ..Settings::default() };
        let id = WorkerId::new(&format!("maker-{number}"));
        Worker::new(id, faulty(self.process.ports(), gate), pipelines, rollouts, settings)
    }

    /// A worker without faults.
    pub(crate) fn healthy_worker(&self) -> Worker {
        self.worker(&FaultInjector::default(), StepTimeouts::default())
    }

    /// One worker runs all work until nothing waits.
    pub(crate) async fn run(&self) {
        let worker = self.healthy_worker();
        for _ in 0..PASSES {
            let turn = tokio::time::timeout(PASS, worker.run_once()).await.expect("a pass that ends");
            match turn.next_poll_at {
                None if turn.ran == 0 => return,
                None => {}
                Some(_) => self.pause().await,
            }
        }
        panic!("work that does not end");
    }

    /// One worker runs all work until the answer to a read is as wanted.
    pub(crate) async fn until(&self, path: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let worker = self.healthy_worker();
        for _ in 0..PASSES {
            tokio::time::timeout(PASS, worker.run_once()).await.expect("a pass that ends");
            let answer = self.get(path).await;
            if reached(&answer) {
                return answer;
            }
            self.pause().await;
        }
        panic!("not reached: {path}: {}", self.get(path).await);
    }

    /// The calls of one pass of a worker without faults, which then runs all work to its end.
    pub(crate) async fn trace(&self) -> Vec<CallSite> {
        let gate = FaultInjector::default();
        let worker = self.worker(&gate, StepTimeouts::default());
        gate.start_trace();
        tokio::time::timeout(PASS, worker.run_once()).await.expect("a pass that ends");
        let trace = gate.trace();
        // The operations that wait are this worker's.
        for _ in 0..PASSES {
            let turn = tokio::time::timeout(PASS, worker.run_once()).await.expect("a pass that ends");
            if turn.ran == 0 && turn.next_poll_at.is_none() {
                return trace;
            }
            self.pause().await;
        }
        panic!("work that does not end");
    }

    /// One pass of a worker whose call number `at` fails. The worker does nothing afterwards. A backend that denies a
    /// call is not waited for: the operation parks at once.
    pub(crate) async fn fail(&self, at: usize, fault: Fault) {
        let gate = FaultInjector::default();
        let timeout = match fault {
            Fault::Permanent => {
                StepTimeouts { backend: Duration::ZERO, denied: Duration::ZERO, ..StepTimeouts::default() }
            }
            _ => StepTimeouts::default(),
        };
        let worker = self.worker(&gate, timeout);
        gate.arm(Plan(vec![(at, fault)]));
        let mut turn = std::pin::pin!(worker.run_once());
        for _ in 0..600 {
            let ended = tokio::time::timeout(Duration::from_millis(50), &mut turn).await.is_ok();
            if ended || gate.take_halt().is_some() {
                assert_eq!(gate.fired(), 1, "a fault that did not occur");
                return;
            }
        }
        panic!("a pass that neither ends nor crashes");
    }

    /// A worker that crashes before its next call of that name.
    pub(crate) async fn crash(&self, call: &'static str) {
        self.crash_once("/services", |_| true, call).await;
    }

    /// A worker that crashes before its next call of that name, once the answer to a read is as wanted.
    pub(crate) async fn crash_once(&self, path: &str, reached: impl Fn(&Value) -> bool, call: &'static str) {
        let gate = FaultInjector::default();
        let worker = self.worker(&gate, StepTimeouts::default());
        let mut armed = false;
        for _ in 0..PASSES {
            if !armed && reached(&self.get(path).await) {
                gate.crash_at(call);
                armed = true;
            }
            let mut turn = std::pin::pin!(worker.run_once());
            while tokio::time::timeout(PAUSE, &mut turn).await.is_err() {
                if gate.take_halt().is_some() {
                    return;
                }
            }
            self.pause().await;
        }
        panic!("no call of `{call}`: {}", self.get(path).await);
    }

    pub(crate) async fn pause(&self) {
        let clock = &self.process.ports().clock;
        clock.sleep_until(clock.monotonic().after(PAUSE)).await;
    }

    /// Stops the process, and returns its directory.
    pub(crate) async fn close(self) -> TempDir {
        self.process.stop(PASS).await;
        self.dir
    }
}

async fn sent(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    Answer { status, headers, text: String::from_utf8_lossy(&bytes).into_owned() }
}

impl Answer {
    /// The cookies that it sets.
    pub(crate) fn cookies(&self) -> String {
        let cookies = self.headers.get_all(header::SET_COOKIE).iter().filter_map(|value| first(value));
        cookies.collect::<Vec<_>>().join("; ")
    }
}

fn first(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()?.split(';').next()
}

/// Packs a data directory, and the items of a table where there are any, into a scene.
pub(crate) fn pack(from: &Path, scene: &Path) {
    std::fs::create_dir_all(scene).expect("a directory");
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-czf"]);
    command.arg(scene.join(ARCHIVE)).arg("-C").arg(from).arg("data");
    command.args(Some("items.json").filter(|items| from.join(items).is_file()));
    run(command);
}

/// The data directory of a scene, and `items.json` next to it where there is a table.
pub(crate) fn unpack(scene: &Path) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let archive = scene.join(ARCHIVE);
    if archive.is_file() {
        let mut command = Command::new("tar");
        command.arg("-xzf").arg(archive).arg("-C").arg(dir.path());
        run(command);
        return dir;
    }
    // The scene of the oldest version is no archive.
    copy(&scene.join("data"), &dir.path().join("data"));
    let items = scene.join("items.json");
    if items.is_file() {
        std::fs::copy(items, dir.path().join("items.json")).expect("a copy");
    }
    dir
}

fn run(mut command: Command) {
    let output = command.output().expect("tar runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies a directory with everything in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory to copy") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a copy");
            // A checkout keeps no mode, and a key that others may read is rejected.
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&target, private).expect("a mode");
        }
    }
}

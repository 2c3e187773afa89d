//! A server on fakes, whose clock advances whenever all tasks wait for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use cdm_core::domain::token::Role;
use cdm_core::domain::{Actor, Color, Digest, WorkerId};
use cdm_core::engine::{RolloutDriver, Settings, Worker};
use cdm_core::manager::{self, Access, Expiry, Manager, NewToken};
use cdm_core::pipelines::{PipelineSettings, Rollouts, registry};
use cdm_core::ports::{Clock, Ports};
use cdm_http::{App, Backend, Health, HttpSettings};
use cdm_testkit::clock::SimClock;
use cdm_testkit::fakes::{
    FakeCluster, FakeDatabases, FakeObjects, FakeProbe, FakeSecrets, FakeStore, FakeTokens,
};
use cdm_testkit::ids::SeededIds;
use cdm_testkit::log::EffectLog;
use http_body_util::BodyExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tower::ServiceExt;

/// Backends whose health a test controls.
#[derive(Debug, Default)]
pub(crate) struct Backends(pub(crate) Mutex<Option<String>>);

#[async_trait]
impl Health for Backends {
    async fn backends(&self) -> Vec<Backend> {
        let problem = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        vec![Backend { name: "store".into(), problem }]
    }
}

/// A server with a token of each role.
pub(crate) struct TestEnv {
    pub(crate) app: App,
    pub(crate) router: Router,
    pub(crate) health: Arc<Backends>,
    /// The ports of the manager.
    pub(crate) ports: Ports,
    tokens: Vec<(Role, SecretString)>,
}

/// A response.
pub(crate) struct TestResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl TestResponse {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn digest(hex_digit: char) -> String {
    hex_digit.to_string().repeat(64)
}

impl TestEnv {
    pub(crate) async fn new() -> Self {
        Self::with(HttpSettings::default()).await
    }

    pub(crate) async fn with(settings: HttpSettings) -> Self {
        let (env, worker, clock) = Self::built(settings).await;
        tokio::spawn(async move { worker.run().await });
        tokio::spawn(drive_clock(clock));
        env
    }

    /// Creates an environment without a worker, in which operations keep their state.
    pub(crate) async fn idle(settings: HttpSettings) -> Self {
        let (env, _, clock) = Self::built(settings).await;
        tokio::spawn(drive_clock(clock));
        env
    }

    /// Creates an environment without a worker, in which the clock does not advance.
    pub(crate) async fn with_stopped_clock(settings: HttpSettings) -> Self {
        Self::built(settings).await.0
    }

    async fn built(settings: HttpSettings) -> (Self, Arc<Worker>, SimClock) {
        let (clock, log) = (SimClock::new(), EffectLog::new());
        let cluster = FakeCluster::new(log.clone(), clock.clone());
        for color in Color::ALL {
            cluster.install(color, Digest::parse(&digest('a')).expect("a digest"));
        }
        let ports = Ports {
            store: Arc::new(FakeStore::new(log.clone(), clock.clone())),
            secrets: Arc::new(FakeSecrets::new(log.clone(), clock.clone())),
            objects: Arc::new(FakeObjects::new(log.clone(), clock.clone())),
            databases: Arc::new(FakeDatabases::new(log, clock.clone())),
            cluster: Arc::new(cluster.clone()),
            probe: Arc::new(FakeProbe::new(Arc::new(cluster.clone()), clock.clone())),
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(SeededIds::new(1)),
        };
        let (platform, measures) = (PipelineSettings::default(), Settings::default());
        let pipelines = Arc::new(registry(&platform));
        let rollouts: Arc<dyn RolloutDriver> = Arc::new(Rollouts::new(platform));
        let name = WorkerId::new("tester");
        let worker =
            Arc::new(Worker::new(name, ports.clone(), Arc::clone(&pipelines), rollouts, measures.clone()));
        let manager = Manager::new(ports.clone(), pipelines, measures).with_worker(Arc::clone(&worker));
        let access =
            Arc::new(Access::new(Arc::new(FakeTokens::default()), ports.clone(), Duration::from_secs(8)));
        let mut tokens = Vec::new();
        for role in Role::ALL {
            let name = Actor::parse(role.as_str()).expect("a name");
            let request = manager::Request::by(name.clone(), Role::Admin);
            let new = NewToken { name, role, expiry: Expiry::Usual };
            tokens.push((role, access.create(&request, &new).await.expect("a token").1));
        }
        let health = Arc::new(Backends::default());
        let app = App {
            manager: Arc::new(manager),
            access,
            clock: Arc::new(clock.clone()) as Arc<dyn Clock>,
            health: Arc::clone(&health) as Arc<dyn Health>,
            settings,
        };
        (Self { router: cdm_http::router(app.clone()), app, health, ports, tokens }, worker, clock)
    }

    pub(crate) fn token(&self, role: Role) -> String {
        let found = self.tokens.iter().find(|(known, _)| *known == role).expect("a token");
        found.1.expose_secret().to_owned()
    }

    /// Returns a request with the token of a role.
    pub(crate) fn request(&self, role: Role, line: &str, body: Option<&str>) -> Request<Body> {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", format!("Bearer {}", self.token(role)));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        request.body(Body::from(body.unwrap_or_default().to_owned())).expect("a request")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> TestResponse {
        let response = self.router.clone().oneshot(request).await.expect("a response");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        TestResponse { status: parts.status, headers: parts.headers, text }
    }

    /// Sends a request as an administrator.
    pub(crate) async fn ask(&self, line: &str, body: Option<&str>) -> TestResponse {
        self.send(self.request(Role::Admin, line, body)).await
    }
}

/// Returns the served OpenAPI document.
pub(crate) async fn served() -> Value {
    TestEnv::new().await.ask("GET /openapi.json", None).await.json()
}

/// Returns a body that creates a site.
pub(crate) fn new_site(id: &str) -> String {
    serde_json::json!({"id": id, "theme": "plain", "hostnames": [format!("{id}.example.org")],
        "name": "A site", "canonicalHostname": format!("{id}.example.org")})
    .to_string()
}

/// Advances the clock whenever all other tasks have had their turn.
async fn drive_clock(clock: SimClock) {
    loop {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        match clock.next_sleeper() {
            Some(next) => clock.advance_to(next),
            None => tokio::task::yield_now().await,
        }
    }
}

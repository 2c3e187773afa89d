//! The measured servers, which differ only in their backends; all run in this process and on one runtime.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use cdm_core::adapters::SystemClock;
use cdm_core::domain::token::Role;
use cdm_core::domain::{Actor, Fence, PasswordHash, UserName};
use cdm_core::engine::Settings;
use cdm_core::manager::{Access, Expiry, Manager, NewToken, NewUser, Proven, Request, SignIn};
use cdm_core::pipelines::{PipelineSettings, registry};
use cdm_core::ports::{CallContext, Clock, Mutation, Outcome, Ports, WriteBatch};
use cdm_core::wiring::{Config, Process};
use cdm_http::{App, HttpSettings};
use cdm_testkit::clock::SimClock;
use cdm_testkit::fakes::{FakeStore, FakeTokens};
use cdm_testkit::log::EffectLog;
use hyper::body::Bytes;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::measure::must;

/// Timeout of a call to a port.
const CALL: Duration = Duration::from_secs(8);
/// Sites written in one transaction while a directory is filled.
const SITES_PER_TRANSACTION: usize = 80;

/// A listening server, and the header that authenticates its client.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) header: &'static str,
    pub(crate) token: String,
}

/// Returns the id of the nth site; all ids have the same length, so that all responses have the same length.
pub(crate) fn id(n: usize) -> String {
    format!("site-{n:05}")
}

/// Returns the configuration of a server in `dir`; each job of its local cluster takes `job`.
pub(crate) fn config(dir: &Path, job: Duration) -> Config {
    let environment = |name: &str| match name {
        "CDM_DATA_DIR" => Some(dir.display().to_string()),
        "CDM_ROUTER_LISTEN" => Some("127.0.0.1:0".to_owned()),
        _ => None,
    };
    let mut config = must("a configuration", Config::load(None, &environment));
    config.job = job;
    config
}

/// Opens a platform in `dir`.
pub(crate) async fn open(config: &Config) -> Arc<Process> {
    Arc::new(must("a platform", Process::open(config).await))
}

/// Writes the sites `0..sites` as if they had been provisioned.
pub(crate) async fn fill(ports: &Ports, sites: usize) {
    let all: Vec<usize> = (0..sites).collect();
    for some in all.chunks(SITES_PER_TRANSACTION) {
        let site = |n: &usize| Mutation::CreateSite(Box::new(cdm_testkit::fixtures::site(&id(*n))));
        let batch = WriteBatch::of(some.iter().map(site).collect());
        let deadline = ports.clock.monotonic().after(CALL);
        let call = CallContext { deadline, write: ports.entropy.write(), fence: Fence::default() };
        match ports.store.write(&call, &batch).await {
            Outcome::Applied(()) => {}
            other => panic!("the sites were not written: {other:?}"),
        }
    }
}

/// Returns settings whose limits a fast client does not reach.
fn unlimited() -> HttpSettings {
    let most = NonZeroU32::new(100_000_000).unwrap_or(NonZeroU32::MIN);
    HttpSettings { rate: most, burst: most, ..HttpSettings::default() }
}

/// Starts the complete server.
pub(crate) async fn complete(process: &Arc<Process>) -> Arm {
    serve("the server", App::of(process, unlimited())).await
}

/// Starts the server with its tokens in memory.
pub(crate) async fn tokens_in_memory(process: &Arc<Process>) -> Arm {
    let access = Access::new(Arc::new(FakeTokens::default()), process.ports().clone(), CALL);
    let app = App { access: Arc::new(access), ..App::of(process, unlimited()) };
    serve("tokens in memory", app).await
}

/// Starts the server with tokens and records in memory, so that only the server's own work is measured.
pub(crate) async fn all_in_memory(process: &Arc<Process>, sites: usize) -> Arm {
    let store = Arc::new(FakeStore::new(EffectLog::new(), SimClock::new()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ports = Ports { store, clock: Arc::clone(&clock), ..process.ports().clone() };
    fill(&Ports { clock: Arc::new(SimClock::new()), ..ports.clone() }, sites).await;
    let access = Access::new(Arc::new(FakeTokens::default()), ports.clone(), CALL);
    let pipelines = Arc::new(registry(&PipelineSettings::default()));
    let manager = Manager::new(ports, pipelines, Settings::default());
    let app = App { access: Arc::new(access), manager: Arc::new(manager), ..App::of(process, unlimited()) };
    serve("all in memory", app).await
}

/// Starts a handler that returns `body` for every site, and does nothing else.
pub(crate) async fn bare(body: Bytes) -> Arm {
    let handler = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    let routes = Router::new().route("/sites", get(handler.clone())).route("/sites/{id}", get(handler));
    let listener = listen().await;
    let address = must("an address", listener.local_addr());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Arm { name: "bare handler", address, header: "authorization", token: "Bearer not-checked".to_owned() }
}

async fn serve(name: &'static str, app: App) -> Arm {
    let actor = |text: &str| must("a name", Actor::parse(text));
    let new = NewToken { name: actor(&name.replace(' ', "-")), role: Role::Operator, expiry: Expiry::Usual };
    let made = app.access.create(&Request::by(actor("bench"), Role::Admin), &new).await;
    let (_, token) = must("a token", made);
    let listener = listen().await;
    let address = must("an address", listener.local_addr());
    tokio::spawn(cdm_http::serve(listener, app, CancellationToken::new(), CALL));
    Arm { name, address, header: "authorization", token: format!("Bearer {}", token.expose_secret()) }
}

/// Returns the console of a server with a signed-in session.
pub(crate) async fn console(process: &Process, server: &Arm) -> Arm {
    let name = must("a name", UserName::parse("ada"));
    let (request, password) =
        (Request::by(name.actor(), Role::Admin), PasswordHash::new("unused".to_owned()));
    let new = NewUser { name: name.clone(), role: Role::Operator, password: password.clone() };
    must("a user", process.manager().create_user(&request, &new).await);
    let sign_in = SignIn { name, proven: Proven::Password(password), from: None, former: None };
    let opened = process.manager().open_session(&request, &sign_in).await;
    let (_, text) = must("a session", opened);
    let token = format!("cdm={}", text.expose_secret());
    Arm { name: "the console", header: "cookie", token, ..server.clone() }
}

async fn listen() -> TcpListener {
    must("a socket", TcpListener::bind("127.0.0.1:0").await)
}

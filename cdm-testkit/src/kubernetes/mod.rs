//! A Kubernetes API on loopback with the kinds that CDM uses: objects, watches, authorization and controllers,
//! on a clock that tests advance.
//!
//! The server does not use types of a Kubernetes client, so that it is an independent check of the client.

mod containers;
mod controllers;
mod faults;
mod http;
mod kinds;
mod managed_fields;
mod object;
mod patch;
mod protobuf;
mod rbac;
mod request;
mod rules;
mod selector;
mod state;
mod status_error;
mod store;
mod watches;
mod wordpress;
mod writes;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdm_core::domain::Timestamp;
use cdm_core::ports::Clock;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub use self::containers::{Container, Containers, Exit, Idle, ImageBehavior};
pub use self::faults::{Fault, FaultKind, FaultTiming, Request, RequestMatcher};
use self::kinds::Kind;
pub use self::rbac::User;
use self::state::State;
use self::store::Key;
pub use self::wordpress::{Availability, Site, WordPress};
use self::writes::Run;

/// Interval between reads of a clock that advances by itself.
const CLOCK_INTERVAL: Duration = Duration::from_millis(20);
/// Initial time of a server that tests advance: midnight of 1 January 2026, UTC.
const START_TIME: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// User name of the administrator of every server.
const ADMINISTRATOR: &str = "kubernetes-admin";
const ADMINISTRATORS_TOKEN: &str = "loopback-administrator";

/// Initial configuration of a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The source of the server's time. Default: [`Pace::Manual`].
    pub pace: Pace,
    /// The initial namespaces. Default: `default` and `cdm`.
    pub namespaces: Vec<String>,
    /// Users besides the administrator. Default: none.
    pub users: Vec<User>,
    /// What finite containers do. Default: [`Idle`].
    pub containers: Arc<dyn Containers>,
}

/// The source of a server's time.
#[derive(Clone, Debug)]
pub enum Pace {
    /// Time advances only by [`KubernetesApi::advance`].
    Manual,
    /// Time advances with this clock.
    Clock(Arc<dyn Clock>),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pace: Pace::Manual,
            namespaces: vec!["default".to_owned(), "cdm".to_owned()],
            users: Vec::new(),
            containers: Arc::new(Idle),
        }
    }
}

/// A server that runs until it is stopped or dropped.
pub struct KubernetesApi {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: watch::Sender<Running>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Yes,
    Stopped,
}

/// The state that connections share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Incremented whenever the state or the time may have changed.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        let edited = edit(&mut self.lock());
        self.changed.send_modify(|revision| *revision += 1);
        edited
    }
}

impl KubernetesApi {
    /// Starts a server on a free loopback port, on the current Tokio runtime.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let now = match &settings.pace {
            Pace::Manual => START_TIME,
            Pace::Clock(clock) => clock.wall(),
        };
        let mut users = vec![User::administrator(ADMINISTRATOR, ADMINISTRATORS_TOKEN)];
        users.extend(settings.users);
        let state = State::new(now, users, &settings.namespaces, settings.containers);
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(0) });
        let (stop, stopped) = watch::channel(Running::Yes);
        tokio::spawn(accept(listener, Arc::clone(&shared), stopped.clone()));
        if let Pace::Clock(clock) = settings.pace {
            tokio::spawn(follow(clock, Arc::clone(&shared), stopped));
        }
        Ok(Self { shared, address, stop })
    }

    /// Returns the address of the server, such as `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a kubeconfig of the administrator for a namespace.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        self.kubeconfig_of(ADMINISTRATORS_TOKEN, namespace)
    }

    /// Returns a kubeconfig with this token for a namespace.
    pub fn kubeconfig_of(&self, token: &str, namespace: &str) -> String {
        kubeconfig(&self.url(), token, namespace)
    }

    /// Returns a kubeconfig with the token in the server address, for clients such as kubectl that send no
    /// token without TLS.
    pub fn kubeconfig_by_address(&self, token: &str, namespace: &str) -> String {
        kubeconfig(&format!("{}/{}/{token}", self.url(), http::TOKEN_PATH), token, namespace)
    }

    /// Returns the token of the administrator.
    pub const fn token(&self) -> &'static str {
        ADMINISTRATORS_TOKEN
    }

    /// Closes every connection and accepts no new one.
    pub fn stop(&self) {
        self.stop.send_replace(Running::Stopped);
    }

    /// Advances the server's time, and runs the controllers for each moment until then. With a zero `span`,
    /// runs what needs no time.
    pub fn advance(&self, span: Duration) {
        self.shared.edit(|state| controllers::advance(state, span));
    }

    /// Sets what happens to the pods of each image whose name ends with `image`: the whole name, its digest or
    /// its tag.
    pub fn set_image_behavior(&self, image: &str, behavior: ImageBehavior) {
        self.shared.edit(|state| {
            state.memory.behaviors.insert(image.to_owned(), behavior);
            state.memory.invalidate();
        });
    }

    /// Returns the server's time.
    pub fn now(&self) -> Timestamp {
        self.shared.lock().now
    }

    /// Adds a fault for a later request.
    pub fn fault(&self, fault: Fault) {
        self.shared.edit(|state| state.request_log.faults.push(fault));
    }

    /// Returns how many faults remain.
    pub fn faults(&self) -> usize {
        self.shared.lock().request_log.faults.len()
    }

    /// Returns the log of requests for objects, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().request_log.requests.clone()
    }

    /// Clears the log of requests.
    pub fn forget_requests(&self) {
        self.shared.edit(|state| state.request_log.forget_requests());
    }

    /// Discards the change history: a watch or a page from an earlier version has expired.
    pub fn compact(&self) {
        self.shared.edit(|state| state.store.compact());
    }

    /// Sends an `Expired` error to every watch.
    pub fn expire_watches(&self) {
        self.shared.edit(|state| state.signals.expirations += 1);
    }

    /// Breaks every watch connection.
    pub fn drop_watches(&self) {
        self.shared.edit(|state| state.signals.drops += 1);
    }

    /// Sends a bookmark to every watch that requested bookmarks.
    pub fn send_bookmarks(&self) {
        self.shared.edit(|state| state.signals.bookmarks += 1);
    }

    /// Returns an object, without authorization.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let kind = Kind::of(resource)?;
        let key: Key = (kind.plural, namespace.to_owned(), name.to_owned());
        self.shared.lock().store.get(&key).map(|object| object.as_ref().clone())
    }

    /// Returns the objects of a resource in a namespace, without authorization.
    pub fn objects(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let Some(kind) = Kind::of(resource) else { return Vec::new() };
        let state = self.shared.lock();
        state.store.of(kind, Some(namespace)).map(|(_, object)| object.as_ref().clone()).collect()
    }

    /// Returns the number of objects of each resource.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.shared.lock().counts()
    }

    /// Stores an object with its own `kind` and `metadata.namespace`, replacing an existing one.
    ///
    /// # Errors
    /// Returns the message that a client would receive.
    pub fn put(&self, object: &Value) -> Result<(), String> {
        use object::Object as _;
        let kind = Kind::named(object.text("/apiVersion"), object.text("/kind"))
            .ok_or("the kind is not supported")?;
        let (namespace, name) = (object.text("/metadata/namespace"), object.text("/metadata/name"));
        let key: Key = (kind.plural, namespace.to_owned(), name.to_owned());
        self.shared
            .edit(|state| {
                state.store.remove(&key);
                writes::create(&mut state.store, state.now, kind, namespace, object.clone(), Run::Real)
            })
            .map(drop)
            .map_err(|error| error.message)
    }
}

impl fmt::Debug for KubernetesApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesApi").field("address", &self.address).finish_non_exhaustive()
    }
}

fn kubeconfig(server: &str, token: &str, namespace: &str) -> String {
    // JSON is also valid YAML.
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "loopback",
        "clusters": [{"name": "loopback", "cluster": {"server": server}}],
        "users": [{"name": "loopback", "user": {"token": token}}],
        "contexts": [{
            "name": "loopback",
            "context": {"cluster": "loopback", "user": "loopback", "namespace": namespace},
        }],
    })
    .to_string()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<Running>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ended(&mut stopped) => return,
        };
        if let Ok((stream, _)) = accepted {
            tokio::spawn(connection(stream, Arc::clone(&shared), stopped.clone()));
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, mut stopped: watch::Receiver<Running>) {
    let service = service_fn(|request| http::respond(Arc::clone(&shared), request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A connection may break by an injected fault or by its client; its error is not a failure of the server.
    tokio::select! {
        served = served => drop(served),
        _ = ended(&mut stopped) => {}
    }
}

/// Returns when the server was stopped or dropped.
async fn ended(stopped: &mut watch::Receiver<Running>) {
    drop(stopped.wait_for(|running| *running == Running::Stopped).await);
}

/// Advances the server's time with a clock.
async fn follow(clock: Arc<dyn Clock>, shared: Arc<Shared>, mut stopped: watch::Receiver<Running>) {
    let mut last = clock.monotonic();
    loop {
        tokio::select! {
            () = clock.sleep_until(last.after(CLOCK_INTERVAL)) => {}
            _ = ended(&mut stopped) => return,
        }
        let now = clock.monotonic();
        shared.edit(|state| controllers::advance(state, now.since(last)));
        last = now;
    }
}

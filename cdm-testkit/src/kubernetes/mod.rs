//! A Kubernetes API on loopback, with the kinds that a platform of sites uses: objects, watches, rights and the
//! controllers behind them, on a clock that tests move.
//!
//! It knows nothing of a client's types, so that it is a judge of its own.

mod ask;
mod base64;
mod containers;
mod controllers;
mod faults;
mod http;
mod kinds;
mod object;
mod owners;
mod patch;
mod protobuf;
mod rbac;
mod refusal;
mod rules;
mod selector;
mod state;
mod store;
mod time;
mod watching;
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

pub use self::containers::{Container, Containers, Exit, Fate, Idle};
pub use self::faults::{Fault, Matching, Moment, Request, Trouble};
use self::kinds::Kind;
pub use self::rbac::User;
use self::state::State;
use self::store::Key;
pub use self::wordpress::{Reach, Site, WordPress};
use self::writes::Run;

/// Between two looks at a clock that runs by itself.
const BEAT: Duration = Duration::from_millis(20);
/// Where a clock that tests move stands first: midnight of 1 January 2026, UTC.
const BEGINNING: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// The administrator of every server.
const ADMINISTRATOR: &str = "kubernetes-admin";
const ADMINISTRATORS_TOKEN: &str = "loopback-administrator";

/// How a server begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What moves its time.
    pub pace: Pace,
    /// The namespaces that are there.
    pub namespaces: Vec<String>,
    /// Who may ask it something, besides an administrator.
    pub users: Vec<User>,
    /// What the containers of jobs do.
    pub containers: Arc<dyn Containers>,
}

/// What moves a server's time.
#[derive(Clone, Debug)]
pub enum Pace {
    /// Only [`KubernetesApi::advance`].
    Manual,
    /// This clock.
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

/// What connections share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Turns whenever something may have changed, time among it.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        let edited = edit(&mut self.lock());
        self.changed.send_modify(|turn| *turn += 1);
        edited
    }
}

impl KubernetesApi {
    /// Starts a server on a free port of loopback, on the runtime that this is polled by.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let now = match &settings.pace {
            Pace::Manual => BEGINNING,
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

    /// Its address, such as `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig of the administrator, for a namespace.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        self.kubeconfig_of(ADMINISTRATORS_TOKEN, namespace)
    }

    /// A kubeconfig of whoever has that token, for a namespace.
    pub fn kubeconfig_of(&self, token: &str, namespace: &str) -> String {
        kubeconfig(&self.url(), token, namespace)
    }

    /// The same for clients that send no token without TLS, as kubectl does not: it stands in the address.
    pub fn kubeconfig_by_address(&self, token: &str, namespace: &str) -> String {
        kubeconfig(&format!("{}/{}/{token}", self.url(), http::AS), token, namespace)
    }

    /// The token of the administrator.
    pub const fn token(&self) -> &'static str {
        ADMINISTRATORS_TOKEN
    }

    /// Ends every connection and takes no new one.
    pub fn stop(&self) {
        self.stop.send_replace(Running::Stopped);
    }

    /// Moves the server's time on, and lets everything happen that happens until then. No time lets happen what needs
    /// none.
    pub fn advance(&self, span: Duration) {
        self.shared.edit(|state| controllers::advance(state, span));
    }

    /// Decides what becomes of the pods of every image whose name ends so, from now on: the whole name, its digest, its
    /// tag.
    pub fn fate(&self, image: &str, fate: Fate) {
        self.shared.edit(|state| {
            state.memory.fates.insert(image.to_owned(), fate);
            state.memory.poll_interval();
        });
    }

    /// The server's time.
    pub fn now(&self) -> Timestamp {
        self.shared.lock().now
    }

    /// Lets a fault wait for its request.
    pub fn fault(&self, fault: Fault) {
        self.shared.edit(|state| state.ledger.faults.push(fault));
    }

    /// How many faults still wait.
    pub fn faults(&self) -> usize {
        self.shared.lock().ledger.faults.len()
    }

    /// The requests about objects that were heard, in their order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().ledger.requests.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.edit(|state| state.ledger.forget_requests());
    }

    /// Forgets every change so far: a watch or a page that goes on from an earlier version is too old.
    pub fn compact(&self) {
        self.shared.edit(|state| state.store.compact());
    }

    /// Tells every watch that its version is too old.
    pub fn expire_watches(&self) {
        self.shared.edit(|state| state.signals.expirations += 1);
    }

    /// Ends every watch in the middle.
    pub fn drop_watches(&self) {
        self.shared.edit(|state| state.signals.drops += 1);
    }

    /// Sends a bookmark to every watch that wants some.
    pub fn send_bookmarks(&self) {
        self.shared.edit(|state| state.signals.bookmarks += 1);
    }

    /// An object as it is, whoever asks.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let kind = Kind::of(resource)?;
        let key: Key = (kind.plural, namespace.to_owned(), name.to_owned());
        self.shared.lock().store.get(&key).map(|object| object.as_ref().clone())
    }

    /// The objects of a resource in a namespace, as they are.
    pub fn objects(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let Some(kind) = Kind::of(resource) else { return Vec::new() };
        let state = self.shared.lock();
        state.store.of(kind, Some(namespace)).map(|(_, object)| object.as_ref().clone()).collect()
    }

    /// How many objects there are of each resource.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.shared.lock().counts()
    }

    /// Puts an object there, as its own `kind` and `metadata.namespace` say; what is there already makes way.
    ///
    /// # Errors
    /// What a client would be told.
    pub fn put(&self, object: &Value) -> Result<(), String> {
        use object::Object as _;
        let kind = Kind::named(object.text("/apiVersion"), object.text("/kind"))
            .ok_or("a kind that is unknown here")?;
        let (namespace, name) = (object.text("/metadata/namespace"), object.text("/metadata/name"));
        let key: Key = (kind.plural, namespace.to_owned(), name.to_owned());
        self.shared
            .edit(|state| {
                state.store.remove(&key);
                writes::create(&mut state.store, state.now, kind, namespace, object.clone(), Run::Real)
            })
            .map(drop)
            .map_err(|refusal| refusal.message)
    }
}

impl fmt::Debug for KubernetesApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesApi").field("address", &self.address).finish_non_exhaustive()
    }
}

fn kubeconfig(server: &str, token: &str, namespace: &str) -> String {
    // JSON is YAML.
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
    // A connection that broke, by a fault or by its client, is over; nobody is left to be told.
    tokio::select! {
        served = served => drop(served),
        _ = ended(&mut stopped) => {}
    }
}

/// Returns when the server was stopped or dropped.
async fn ended(stopped: &mut watch::Receiver<Running>) {
    drop(stopped.wait_for(|running| *running == Running::Stopped).await);
}

/// Moves the server's time with a clock.
async fn follow(clock: Arc<dyn Clock>, shared: Arc<Shared>, mut stopped: watch::Receiver<Running>) {
    let mut last = clock.monotonic();
    loop {
        tokio::select! {
            () = clock.sleep_until(last.after(BEAT)) => {}
            _ = ended(&mut stopped) => return,
        }
        let now = clock.monotonic();
        shared.edit(|state| controllers::advance(state, now.since(last)));
        last = now;
    }
}

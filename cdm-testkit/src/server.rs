//! Starts a server in a separate directory, sends requests to it, and stops it: by itself, by SIGTERM or by SIGKILL.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use cdm_core::adapters::SystemClock;
use cdm_core::adapters::embedded::{
    EmbeddedSecrets, EmbeddedStore, File, ImageSpec, LivenessLock, LocalCluster, LocalSettings,
};
use cdm_core::domain::{Digest, SecretKind, SecretName, WorkerId};
use cdm_core::ports::{Clock, SecretStore, SiteQuery, SiteRepository, StoredSecret};
use reqwest::{Client, Method, Response, StatusCode};
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;

/// The administrator's token in all tests.
pub const ADMIN: &str = "an-administrator-of-the-tests-0123456789";

/// Timeout for a server to log its listening address.
pub const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);

/// A server process with its addresses and its log.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// The address of the API.
    pub url: String,
    /// The address of the site router.
    pub router: String,
    /// Everything that the server has logged.
    pub log: Arc<Mutex<String>>,
    /// A client without redirects.
    pub client: Client,
}

/// Creates an empty data directory, which is removed when the value is dropped.
pub fn directory() -> TempDir {
    TempDir::new().expect("a directory for the test")
}

/// Returns a client, and installs the TLS provider of the process, which the client requires.
pub fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

/// Pods and jobs that take milliseconds.
pub const QUICK: &str = "[local]\npod_start_ms = 20\nprogress_deadline_ms = 1500\njob_ms = 5\n";

/// Starts the process of a server on `dir`; its log is piped.
pub fn begin(dir: &Path, configuration: &str) -> Child {
    command(dir, configuration).spawn().expect("the server starts")
}

/// Returns the path of the program, which cargo builds for the tests of `cdm-http` in the directory above theirs.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    let directory = test.parent().and_then(Path::parent).expect("a directory of programs");
    directory.join(format!("cdm-server{}", std::env::consts::EXE_SUFFIX))
}

/// Returns the command of a server on `dir`; its log is piped.
pub fn command(dir: &Path, configuration: &str) -> Command {
    let config = dir.join("cdm.toml");
    std::fs::write(&config, configuration).expect("a configuration");
    let mut command = Command::new(program());
    command
        .arg("--config")
        .arg(&config)
        .env("CDM_LISTEN", "127.0.0.1:0")
        .env("CDM_ROUTER_LISTEN", "127.0.0.1:0")
        .env("CDM_DATA_DIR", dir.join("data"))
        .env("CDM_ADMIN_TOKEN", ADMIN)
        .env("CDM_LOG_FORMAT", "json")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// The listeners of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerMode {
    /// The API and the site router.
    ApiAndSites,
    /// The API only; sites are served elsewhere.
    Api,
}

impl Server {
    /// Starts a server on `dir` with fast pods and jobs, and waits until it logs its listening address.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, QUICK)
    }

    /// Starts a server with slower pods and jobs, so that work is in progress when the next request arrives.
    pub fn start_slow(dir: &Path) -> Self {
        Self::start_with(
            dir,
            "[local]
pod_start_ms = 600
progress_deadline_ms = 9000
job_ms = 400
",
        )
    }

    /// Starts a server on `dir` with this configuration file, and waits until it listens.
    pub fn start_with(dir: &Path, configuration: &str) -> Self {
        Self::listen(begin(dir, configuration), ServerMode::ApiAndSites)
    }

    /// Waits until a newly started process logs its listening address.
    pub fn listen(mut child: Child, mode: ServerMode) -> Self {
        let log = Arc::new(Mutex::new(String::new()));
        let (line_sender, received_lines) = mpsc::channel();
        let (lines, log_buffer) =
            (BufReader::new(child.stderr.take().expect("the server's log")).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log_buffer.lock().expect("the log").push_str(&format!("{line}\n"));
                // After the listening address is known, the receiver is dropped.
                let _ = line_sender.send(line);
            }
        });
        let mut server = Self::unread(child);
        server.log = log;
        while server.url.is_empty() || (mode == ServerMode::ApiAndSites && server.router.is_empty()) {
            let Ok(line) = received_lines.recv_timeout(LISTEN_TIMEOUT) else {
                panic!(
                    "the server does not log its listening address:\n{}",
                    server.log.lock().expect("the log")
                )
            };
            let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
            let field = |name: &str| entry["fields"][name].as_str().map(|value| format!("http://{value}"));
            if let Some(address) = field("address") {
                server.url = address;
            }
            if let Some(router) = field("router") {
                server.router = router;
            }
        }
        server
    }

    /// Returns a server whose log the test itself reads.
    pub fn unread(child: Child) -> Self {
        let (url, router) = (String::new(), String::new());
        Self { child, url, router, log: Arc::default(), client: client() }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the arguments of the process as a process list shows them.
    pub fn arguments(&self) -> String {
        let id = self.child.id();
        let shown = std::fs::read(format!("/proc/{id}/cmdline")).or_else(|_| {
            let output = Command::new("ps").args(["-ww", "-o", "args=", "-p", &id.to_string()]).output();
            output.map(|output| output.stdout)
        });
        String::from_utf8_lossy(&shown.expect("a list of processes")).replace('\0', " ")
    }

    /// Sends a request with a token; `None` sends no token.
    pub async fn ask_as(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.expect("a response")
    }

    /// Sends a request as the administrator; returns the status and the JSON body.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let response = self.ask_as(Some(ADMIN), method, path, body).await;
        (response.status(), response.json().await.unwrap_or(Value::Null))
    }

    /// Sends raw bytes on a connection that the server closes; returns the JSON body.
    pub fn raw(&self, request: &str) -> Value {
        let mut stream =
            std::net::TcpStream::connect(self.url.trim_start_matches("http://")).expect("a connection");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response");
        let body = response.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {response}"))
    }

    /// Reads a resource as the administrator; panics unless the status is 200.
    pub async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
        value
    }

    /// Requests an operation and waits until it has ended or is parked; panics unless it succeeded.
    pub async fn done(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, operation) = self.ask(method, &format!("{path}?wait=30s"), body).await;
        assert_eq!((status, &operation["status"]), (StatusCode::OK, &"succeeded".into()), "{operation}");
        operation
    }

    /// Waits for the end of the event stream of an operation or a rollout, then returns it.
    pub async fn wait_until_at_rest(&self, path: &str) -> Value {
        let events = self.ask_as(Some(ADMIN), Method::GET, &format!("{path}/events"), None).await;
        assert_eq!(events.status(), StatusCode::OK, "{path}");
        events.text().await.expect("a stream that ends");
        self.get(path).await
    }

    /// Requests a site's page through the router.
    pub async fn page(&self, host: &str) -> Response {
        let request = self.client.get(&self.router).header("host", host);
        request.send().await.expect("a response of the router")
    }

    /// Creates a token of a role; returns its id and its text.
    pub async fn token(&self, role: &str) -> (String, String) {
        let body = serde_json::json!({"name": format!("{role}-{}", self.url.len()), "role": role});
        let (status, made) = self.ask(Method::POST, "/tokens", Some(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let text = |key: &str| made[key].as_str().unwrap_or_else(|| panic!("no {key} in {made}")).to_owned();
        (text("id"), text("token"))
    }

    /// Stops or continues the process: `-STOP`, `-CONT`.
    pub fn signal(&self, signal: &str) {
        let received_lines = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(received_lines.expect("a signal").success());
    }

    /// Kills the server immediately.
    pub fn kill(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
    }

    /// Sends SIGTERM to the server, and waits until it has ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.end("-TERM")
    }

    /// Sends a signal that ends the server, and waits until it has ended.
    pub fn end(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.child.wait().expect("an end")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the body of a request to create a site.
pub fn new_site(id: &str) -> Value {
    serde_json::json!({
        "id": id,
        "name": format!("The site {id}"),
        "theme": "twentytwentyfive",
        "hostnames": [format!("{id}.example.com"), format!("www.{id}.example.com")],
        "canonicalHostname": format!("{id}.example.com"),
    })
}

/// Returns every file below a directory, with its content.
pub fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    found
}

/// Returns every password that the platform in `data` stores, decrypted.
pub async fn passwords(data: &Path) -> Vec<String> {
    let backends = Backends::open(data).await;
    let mut found = Vec::new();
    for site in backends.store.sites(&SiteQuery::default(), None, 1_000).await.expect("sites").items {
        for kind in SecretKind::OF_SITE {
            let name = SecretName { uid: site.uid, kind };
            if let Ok(Some(StoredSecret::Value(value))) = backends.secrets.read(&name).await {
                found.push(value.password().expose_secret().to_owned());
            }
        }
    }
    found
}

/// The backends of a data directory, opened while the server runs or afterwards.
#[derive(Debug)]
pub struct Backends {
    /// The records of sites, services and operations.
    pub store: EmbeddedStore,
    /// The secrets, which the key in the data directory decrypts.
    pub secrets: EmbeddedSecrets,
}

impl Backends {
    /// Opens the backends of a data directory.
    pub async fn open(data: &Path) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let file = File::open(&data.join("cdm.db")).await.expect("the file");
        let liveness_lock =
            LivenessLock::open(&data.join("observers"), &WorkerId::new("observer")).expect("a presence");
        Self {
            store: EmbeddedStore::open(file.clone(), Arc::clone(&clock), liveness_lock)
                .await
                .expect("the store"),
            secrets: EmbeddedSecrets::open(file.clone(), &data.join("key"), clock).await.expect("secrets"),
        }
    }
}

/// Sets the behavior of an image on the local cluster of a data directory.
pub async fn declare(data: &Path, digest: Digest, image: ImageSpec) {
    let file = File::open(&data.join("cdm.db")).await.expect("the file");
    let cluster = LocalCluster::open(file, LocalSettings::default(), Arc::new(SystemClock::new())).await;
    cluster.expect("the local cluster").declare(digest, image).await.expect("a declared image");
}

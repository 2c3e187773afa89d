//! A whole platform in one process, on free ports, in a temporary directory.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Digest;
use cdm_core::wiring::{Config, Process, harden_process};
use cdm_http::{App, HttpSettings};
use reqwest::{Client, Method, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Error that ends the demo.
pub(super) type DemoError = Box<dyn std::error::Error + Send + Sync>;

/// How an image is broken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flaw {
    /// Pods of the image never become ready.
    NeverReady,
    /// Pods of the image become ready, and respond to visitors with an error.
    Failing,
}

/// Maximum time for the platform to stop.
const GRACE: Duration = Duration::from_secs(5);

/// The platform, and a client outside of it.
#[derive(Debug)]
pub(super) struct DemoPlatform {
    process: Arc<Process>,
    served: JoinHandle<std::io::Result<()>>,
    shutdown: CancellationToken,
    client: Client,
    api: String,
    router: String,
    token: SecretString,
    directory: TempDir,
}

impl DemoPlatform {
    /// Starts the platform on free ports.
    pub(super) async fn start() -> Result<Self, DemoError> {
        harden_process()?;
        let directory = TempDir::with_prefix("cdm-demo-")?;
        let data = directory.path().join("data").display().to_string();
        let settings = |name: &str| match name {
            "CDM_LISTEN" | "CDM_ROUTER_LISTEN" => Some("127.0.0.1:0".to_owned()),
            "CDM_DATA_DIR" => Some(data.clone()),
            _ => None,
        };
        let mut config = Config::load(None, &settings)?;
        config.progress_deadline = Duration::from_secs(2);
        let process = Arc::new(Process::open(&config).await?);
        let token = process.access().first_admin().await?.ok_or("the directory is not new")?;
        let listener = TcpListener::bind(config.listen).await?;
        let api = format!("http://{}", listener.local_addr()?);
        let router = process.router_address().ok_or("another process hosts the local cluster")?;
        process.work();
        let shutdown = CancellationToken::new();
        let app = App::of(&process, HttpSettings::default());
        let served = tokio::spawn(cdm_http::serve(listener, app, shutdown.clone(), GRACE));
        crate::remote::install_crypto();
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let router = format!("http://{router}");
        Ok(Self { process, served, shutdown, client, api, router, token, directory })
    }

    /// Sends a request to the API as its administrator; returns the status and the JSON of the body.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<(u16, Value), DemoError> {
        let url = format!("{}{path}", self.api);
        let mut request = self.client.request(method, url).bearer_auth(self.token.expose_secret());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.json().await.unwrap_or(Value::Null)))
    }

    /// Requests a page through the router, as a visitor's browser does.
    pub(super) async fn get_page(&self, host: &str) -> Result<Response, DemoError> {
        Ok(self.client.get(&self.router).header("host", host).send().await?)
    }

    /// Declares that pods of an image never become ready, or that they respond to visitors with an error.
    pub(super) async fn declare(&self, digest: Digest, flaw: Flaw) -> Result<(), DemoError> {
        use cdm_core::adapters::embedded::{ImageSpec, Readiness};
        let spec = match flaw {
            Flaw::NeverReady => ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() },
            Flaw::Failing => ImageSpec { answers: 500, ..ImageSpec::default() },
        };
        let cluster = self.process.local_cluster().ok_or("the platform has no local cluster")?;
        Ok(cluster.declare(digest, spec).await?)
    }

    /// Returns the addresses, as a line of the output.
    pub(super) fn addresses(&self) -> String {
        format!("The API is at {}; the router serves the sites at {}, by their Host.", self.api, self.router)
    }

    /// Returns commands to try on a platform that is kept.
    pub(super) fn next_steps(&self) -> String {
        let search = crate::io::path_to_add()
            .map(|directory| format!("  export PATH={directory}:\"$PATH\"\n"))
            .unwrap_or_default();
        format!(
            "\nThe platform keeps running. In another terminal:\n\n{search}  export CDM_SERVER={}\n  export CDM_TOKEN={}\n  \
             cdm site list\n  cdm services show\n  cdm services history green\n  cdm op list\n  cdm audit --limit 5\n  \
             curl -i -H 'Host: books.example.com' {}/\n\nThe data is in `{}`. Ctrl-C stops the platform and deletes the data.",
            self.api,
            self.token.expose_secret(),
            self.router,
            self.directory.path().display(),
        )
    }

    /// Stops the platform, and deletes its directory.
    pub(super) async fn end(self) {
        self.shutdown.cancel();
        // The result does not matter, since nothing of the platform is kept.
        let _ = self.served.await;
        self.process.stop(GRACE).await;
    }

    /// Reads an event stream to its end.
    pub(super) async fn follow(&self, path: &str) -> Result<(), DemoError> {
        let request = self.client.get(format!("{}{path}", self.api)).bearer_auth(self.token.expose_secret());
        let mut response = request.send().await?;
        while response.chunk().await?.is_some() {}
        Ok(())
    }
}

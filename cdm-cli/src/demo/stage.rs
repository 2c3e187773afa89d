//! A whole platform in one process, on free ports, in a directory that goes with it.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::Digest;
use cdm_core::wiring::{Config, Process, harden_process};
use cdm_http::{App, HttpSettings};
use reqwest::{Client, Method, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What keeps a story from being told at all.
pub(super) type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// How long the platform may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// The platform, and a client on the outside of it.
#[derive(Debug)]
pub(super) struct Stage {
    process: Arc<Process>,
    served: JoinHandle<std::io::Result<()>>,
    shutdown: CancellationToken,
    client: Client,
    api: String,
    router: String,
    token: SecretString,
    directory: TempDir,
}

impl Stage {
    /// Starts everything on free ports.
    pub(super) async fn start() -> Result<Self, Trouble> {
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
        let router = process.router_address().ok_or("the local cluster is hosted elsewhere")?;
        process.work();
        let shutdown = CancellationToken::new();
        let app = App::of(&process, HttpSettings::default());
        let served = tokio::spawn(cdm_http::serve(listener, app, shutdown.clone(), GRACE));
        crate::remote::install_crypto();
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let router = format!("http://{router}");
        Ok(Self { process, served, shutdown, client, api, router, token, directory })
    }

    /// Asks the API as its administrator.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Trouble> {
        let url = format!("{}{path}", self.api);
        let mut request = self.client.request(method, url).bearer_auth(self.token.expose_secret());
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null)))
    }

    /// Asks for a page through the router, as a visitor's browser does.
    pub(super) async fn visit(&self, host: &str) -> Result<Response, Trouble> {
        Ok(self.client.get(&self.router).header("host", host).send().await?)
    }

    /// Declares that pods of an image never get ready, or that they answer visitors with an error.
    pub(super) async fn declare(&self, digest: Digest, flaw: super::story::Flaw) -> Result<(), Trouble> {
        use cdm_core::adapters::embedded::{ImageSpec, Readiness};
        let spec = match flaw {
            super::story::Flaw::NeverReady => {
                ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() }
            }
            super::story::Flaw::Failing => ImageSpec { answers: 500, ..ImageSpec::default() },
        };
        let cluster = self.process.local_cluster().ok_or("the cluster is another")?;
        Ok(cluster.declare(digest, spec).await?)
    }

    /// Where it is reached.
    pub(super) fn addresses(&self) -> String {
        format!("The API is at {}; the router serves the sites at {}, by their Host.", self.api, self.router)
    }

    /// What to try next, for whoever keeps the platform.
    pub(super) fn invitation(&self) -> String {
        let search = crate::world::unsearched()
            .map(|directory| format!("  export PATH={directory}:\"$PATH\"\n"))
            .unwrap_or_default();
        format!(
            "\nThe platform goes on. In another terminal:\n\n{search}  export CDM_SERVER={}\n  export CDM_TOKEN={}\n  \
             cdm site list\n  cdm services show\n  cdm services history green\n  cdm op list\n  cdm audit --limit 5\n  \
             curl -i -H 'Host: books.example.com' {}/\n\nIts data lies in `{}` and goes with it. Ctrl-C ends it.",
            self.api,
            self.token.expose_secret(),
            self.router,
            self.directory.path().display(),
        )
    }

    /// Ends the platform; its directory goes with it.
    pub(super) async fn end(self) {
        self.shutdown.cancel();
        // It ends either way, and nothing of it is kept.
        let _ = self.served.await;
        self.process.stop(GRACE).await;
    }
}

impl Stage {
    /// Reads a stream of events to its end.
    pub(super) async fn follow(&self, path: &str) -> Result<(), Trouble> {
        let request = self.client.get(format!("{}{path}", self.api)).bearer_auth(self.token.expose_secret());
        let mut answer = request.send().await?;
        while answer.chunk().await?.is_some() {}
        Ok(())
    }
}

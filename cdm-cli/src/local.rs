//! The API in this process: the same routes, called instead of connected to.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http;
use cdm_core::adapters::embedded::{ImageSpec, Readiness};
use cdm_core::domain::{Actor, Digest, Role};
use cdm_core::wiring::{Config, Process, harden_process};
use cdm_http::{App, HttpSettings};
use futures_util::stream::StreamExt;
use http_body_util::BodyExt;
use secrecy::{ExposeSecret, SecretString};
use tower::ServiceExt;

use crate::args::ImageBehaviour;
use crate::error::CliError;
use crate::sse;
use crate::transport::{Listening, Request, Response, Transport, TransportError, Trouble, target};

const HERE: &str = "the embedded server";

/// Where the store is, and how it is set up.
#[derive(Clone, Debug, Default)]
pub struct LocalOptions {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The directory of the embedded store.
    pub data_dir: Option<PathBuf>,
}

/// Routes of the API, called in this process.
pub struct Local {
    router: Router,
    token: Option<SecretString>,
    keep: Option<Box<dyn Send + Sync>>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("keeps", &self.keep.is_some()).finish_non_exhaustive()
    }
}

impl Local {
    /// Calls `router`, with `token` if it asks for one. `keep` lives as long as this does: the worker, for one.
    pub fn new(router: Router, token: Option<SecretString>, keep: Option<Box<dyn Send + Sync>>) -> Self {
        Self { router, token, keep }
    }

    async fn call(
        &self,
        request: http::request::Builder,
        body: Body,
    ) -> Result<http::Response<Body>, TransportError> {
        let request = match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {}", token.expose_secret())),
            None => request,
        };
        let request = request.body(body).map_err(error)?;
        // A router cannot fail: what goes wrong inside it is a response.
        match self.router.clone().oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }
}

#[async_trait]
impl Transport for Local {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let target = target(&request.path, &request.query);
        let mut builder = http::Request::builder().method(request.method.as_str()).uri(target);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let body = match &request.body {
            Some(body) => {
                builder = builder.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        whole(self.call(builder, body).await?).await
    }

    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<Listening, TransportError> {
        let mut builder = http::Request::builder().uri(path).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            builder = builder.header("last-event-id", id);
        }
        let response = self.call(builder, Body::empty()).await?;
        if !response.status().is_success() {
            return Ok(Listening::Refused(whole(response).await?));
        }
        Ok(Listening::Open(sse::events(
            StreamExt::boxed(response.into_body().into_data_stream()),
            HERE.into(),
        )))
    }
}

async fn whole(response: http::Response<Body>) -> Result<Response, TransportError> {
    let (parts, body) = response.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let body = body.collect().await.map_err(error)?.to_bytes().to_vec();
    Ok(Response { status: parts.status.as_u16(), headers, body })
}

fn error(source: impl std::error::Error + Send + Sync + 'static) -> TransportError {
    TransportError { server: HERE.into(), trouble: Trouble::Away, source: Box::new(source) }
}

/// How long a command's own process may take to give its work back.
pub const GRACE: Duration = Duration::from_secs(10);

/// Opens the store and the routes over it, and begins to work. The process has to be stopped in the end.
///
/// # Errors
/// When the configuration is wrong, or something of the store cannot be opened.
pub async fn open(options: &LocalOptions) -> Result<(Local, Arc<Process>), CliError> {
    let config = configuration(options)?;
    let process = Arc::new(opened(&config).await?);
    process.work();
    let settings = HttpSettings { repository: config.image_repository.clone(), ..HttpSettings::default() };
    // Who may open the store's files may do everything with them.
    let actor = Actor::parse("local").map_err(|error| CliError::Failed(error.to_string()))?;
    let router = cdm_http::local_router(App::of(&process, settings), actor, Role::Admin);
    Ok((Local::new(router, None, None), process))
}

/// Declares how an image behaves in the local cluster of an embedded store, also while a server runs on it; gives the
/// digest and where the store is.
///
/// # Errors
/// When the digest is none, or the store cannot be opened.
pub async fn declare_image(
    options: &LocalOptions,
    digest: &str,
    behaviour: ImageBehaviour,
) -> Result<(Digest, PathBuf), CliError> {
    let digest =
        Digest::of_image(digest, None).map_err(|error| CliError::Usage(format!("`{digest}`: {error}")))?;
    let spec = match behaviour {
        ImageBehaviour::NeverReady => ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() },
        ImageBehaviour::Failing => ImageSpec { answers: 500, ..ImageSpec::default() },
        ImageBehaviour::NoThemes => ImageSpec { themes: Some(Vec::new()), ..ImageSpec::default() },
        ImageBehaviour::Healthy => ImageSpec::default(),
    };
    let config = configuration(options)?;
    let process = opened(&config).await?;
    let declared = match process.local_cluster() {
        Some(cluster) => cluster.declare(digest, spec).await.map_err(|error| error.to_string()),
        None => Err("only images of the local cluster can be declared; this one is another".to_owned()),
    };
    process.stop(GRACE).await;
    declared.map_err(CliError::Failed)?;
    Ok((digest, config.data_dir))
}

fn configuration(options: &LocalOptions) -> Result<Config, CliError> {
    // Also where there is no home directory to lie in, a directory that was named is enough.
    let named = options.data_dir.as_ref().map(|dir| dir.display().to_string());
    let environment = |name: &str| match name {
        "CDM_DATA_DIR" => named.clone().or_else(|| crate::world::environment(name)),
        _ => crate::world::environment(name),
    };
    let mut config = Config::load(options.config.as_deref(), &environment)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    if let Some(dir) = &options.data_dir {
        config.data_dir.clone_from(dir);
    }
    // A server that starts meanwhile wants the usual port; it takes the local cluster over when this command ends.
    config.router_listen.set_port(0);
    Ok(config)
}

async fn opened(config: &Config) -> Result<Process, CliError> {
    harden_process()
        .map_err(|source| CliError::Io { what: "closing this process to others".into(), source })?;
    Process::open(config).await.map_err(|error| CliError::Failed(crate::demo::whole(&error)))
}

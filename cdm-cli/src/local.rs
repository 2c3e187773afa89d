//! The API in this process: requests call the routes directly, without a connection.

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

use crate::args::ImageBehavior;
use crate::error::CliError;
use crate::sse;
use crate::transport::{
    EventStream, Request, Response, Transport, TransportError, TransportErrorKind, target,
};

const SERVER_NAME: &str = "the embedded server";

/// Where the embedded store is, and how it is configured.
#[derive(Clone, Debug, Default)]
pub struct LocalOptions {
    /// The configuration file; `None` (the default) to use the environment and the defaults only.
    pub config: Option<PathBuf>,
    /// The directory of the embedded store; `None` (the default) to use the configured one.
    pub data_dir: Option<PathBuf>,
}

/// A transport that calls the routes of the API in this process.
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
    /// Creates a transport that calls `router`, and sends `token` if given. `keep` is dropped together with the
    /// transport.
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
        // A router does not return errors: failures inside it are responses.
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
        read_response(self.call(builder, body).await?).await
    }

    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<EventStream, TransportError> {
        let mut builder = http::Request::builder().uri(path).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            builder = builder.header("last-event-id", id);
        }
        let response = self.call(builder, Body::empty()).await?;
        if !response.status().is_success() {
            return Ok(EventStream::Rejected(read_response(response).await?));
        }
        Ok(EventStream::Open(sse::events(
            StreamExt::boxed(response.into_body().into_data_stream()),
            SERVER_NAME.into(),
        )))
    }
}

async fn read_response(response: http::Response<Body>) -> Result<Response, TransportError> {
    let (parts, body) = response.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let body = body.collect().await.map_err(error)?.to_bytes().to_vec();
    Ok(Response { status: parts.status.as_u16(), headers, body })
}

fn error(source: impl std::error::Error + Send + Sync + 'static) -> TransportError {
    TransportError {
        server: SERVER_NAME.into(),
        kind: TransportErrorKind::Unreachable,
        source: Box::new(source),
    }
}

/// How long a command's own process may take to release its work.
pub const GRACE: Duration = Duration::from_secs(10);

/// Opens the store, builds the routes over it, and starts the worker. The caller must stop the process.
///
/// # Errors
/// When the configuration is invalid, or a part of the store cannot be opened.
pub async fn open(options: &LocalOptions) -> Result<(Local, Arc<Process>), CliError> {
    let config = load_config(options)?;
    let process = Arc::new(open_process(&config).await?);
    process.work();
    let settings = HttpSettings { repository: config.image_repository.clone(), ..HttpSettings::default() };
    // A user who can open the store's files can change anything in them, so the role is `admin`.
    let actor = Actor::parse("local").map_err(|error| CliError::Failed(error.to_string()))?;
    let router = cdm_http::local_router(App::of(&process, settings), actor, Role::Admin);
    Ok((Local::new(router, None, None), process))
}

/// Declares how an image behaves in the local cluster of an embedded store, even while a server uses that store.
/// Returns the digest and the data directory.
///
/// # Errors
/// When the digest is invalid, or the store cannot be opened.
pub async fn declare_image(
    options: &LocalOptions,
    digest: &str,
    behavior: ImageBehavior,
) -> Result<(Digest, PathBuf), CliError> {
    let digest =
        Digest::of_image(digest, None).map_err(|error| CliError::Usage(format!("`{digest}`: {error}")))?;
    let spec = match behavior {
        ImageBehavior::NeverReady => ImageSpec { readiness: Readiness::Never, ..ImageSpec::default() },
        ImageBehavior::Failing => ImageSpec { answers: 500, ..ImageSpec::default() },
        ImageBehavior::NoThemes => ImageSpec { themes: Some(Vec::new()), ..ImageSpec::default() },
        ImageBehavior::Healthy => ImageSpec::default(),
    };
    let config = load_config(options)?;
    let process = open_process(&config).await?;
    let declared =
        match process.local_cluster() {
            Some(cluster) => cluster.declare(digest, spec).await.map_err(|error| error.to_string()),
            None => Err("images can be declared only for the local cluster; this store uses another cluster"
                .to_owned()),
        };
    process.stop(GRACE).await;
    declared.map_err(CliError::Failed)?;
    Ok((digest, config.data_dir))
}

fn load_config(options: &LocalOptions) -> Result<Config, CliError> {
    // A directory given by option is enough, even without a home directory for the default one.
    let named = options.data_dir.as_ref().map(|dir| dir.display().to_string());
    let env_var = |name: &str| match name {
        "CDM_DATA_DIR" => named.clone().or_else(|| crate::io::env_var(name)),
        _ => crate::io::env_var(name),
    };
    let mut config = Config::load(options.config.as_deref(), &env_var)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    if let Some(dir) = &options.data_dir {
        config.data_dir.clone_from(dir);
    }
    // A server that starts in the meantime needs the usual port; it takes over the local cluster when this command
    // ends.
    config.router_listen.set_port(0);
    Ok(config)
}

async fn open_process(config: &Config) -> Result<Process, CliError> {
    harden_process().map_err(|source| CliError::Io { what: "hardening this process".into(), source })?;
    Process::open(config).await.map_err(|error| CliError::Failed(crate::demo::error_chain(&error)))
}

//! What `cdm-server` does between its first line and its last.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::wiring::{Config, LogFormat, Process};
use cdm_http::{App, HttpSettings, SetupLink};
use clap::Parser;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How long a server takes at most to end in good order; a Kubernetes pod is given 30 s.
const GRACE: Duration = Duration::from_secs(25);

/// Serves the REST API of Cloud Deployment Manager.
#[derive(Debug, Parser)]
#[command(name = "cdm-server", version, after_help = HELP)]
pub(crate) struct Arguments {
    /// A TOML file; environment variables override it.
    #[arg(long, env = "CDM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Judge the configuration and end.
    #[arg(long)]
    check_config: bool,
    /// Make what is missing (data directory, tables, keys), touch nothing that exists, and end.
    #[arg(long)]
    bootstrap: bool,
}

const HELP: &str = "Without any configuration everything is kept in one directory, and the first start prints an \
                    administrator's token that serves this machine only.\n\nExamples:\n  cdm-server\n  \
                    CDM_LISTEN=127.0.0.1:9000 CDM_DATA_DIR=/var/lib/cdm cdm-server\n  cdm-server --config cdm.toml \
                    --check-config";

type Failure = Box<dyn Error + Send + Sync>;

/// Prints an error with everything below it, and what a program ends with then.
#[expect(clippy::print_stderr, reason = "the last words of a program")]
pub(crate) fn tell(error: &Failure) -> ExitCode {
    let mut message = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        message.push_str(&format!(": {cause}"));
        below = cause.source();
    }
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

#[expect(clippy::disallowed_methods, reason = "the one place of the server that reads the environment")]
fn configuration(path: Option<&PathBuf>) -> Result<Config, Failure> {
    Ok(Config::load(path.map(PathBuf::as_path), &|name| std::env::var(name).ok())?)
}

/// Runs the server until it is told to end.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = configuration(arguments.config.as_ref())?;
    if config.oidc.is_some() && !cfg!(feature = "oidc") {
        return Err(
            "`CDM_OIDC_ISSUER`: this program was built without OpenID Connect; build it with --features oidc"
                .into(),
        );
    }
    if arguments.check_config {
        writeln!(std::io::stdout(), "the configuration is in order")?;
        return Ok(());
    }
    log_to_stderr(&config)?;
    let process = Arc::new(Process::open(&config).await?);
    if arguments.bootstrap {
        process.bootstrap().await?;
        writeln!(std::io::stdout(), "everything is there")?;
        process.stop(GRACE).await;
        return Ok(());
    }
    admit_administrator(&config, &process).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| format!("`{}` cannot be listened on: {error}; set CDM_LISTEN", config.listen))?;
    let address = listener.local_addr()?;
    process.work();
    announce(address, &process);
    let setup = offer_setup(address, &process).await?;
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        if told_to_end().await.is_ok() {
            told.cancel();
        }
    });
    let usual = HttpSettings::default();
    let settings = HttpSettings {
        rate: config.rate.unwrap_or(usual.rate),
        burst: config.burst.unwrap_or(usual.burst),
        failures: config.failures.unwrap_or(usual.failures),
        trusted_proxies: config.http.trusted_proxies.clone(),
        repository: config.image_repository.clone(),
        setup,
        oidc: config.oidc.clone(),
        ..usual
    };
    let app = App::of(&process, settings);
    let served = cdm_http::serve(listener, app, shutdown, GRACE / 2).await;
    tracing::info!("giving work back");
    let in_time = process.stop(GRACE / 2).await;
    tracing::info!(in_time, "ended");
    Ok(served?)
}

fn log_to_stderr(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| format!("`CDM_LOG`: {error}"))?;
    let text = match config.log_format {
        Some(format) => format == LogFormat::Text,
        None => std::io::stderr().is_terminal(),
    };
    let to = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if text {
        to.init()
    } else {
        to.json().init()
    }
    Ok(())
}

/// Sees to it that someone may ask: the configured administrator, or one made up at the first start.
async fn admit_administrator(config: &Config, process: &Process) -> Result<(), Failure> {
    if let Some(token) = &config.admin_token {
        process.access().admit_admin(token).await?;
        return Ok(());
    }
    if let Some(token) = process.access().first_admin().await? {
        let mut out = std::io::stdout().lock();
        writeln!(out, "admin token (shown once, serves this machine only):\n{}", token.expose_secret())?;
        out.flush()?;
    }
    let beyond = process
        .access()
        .tokens()
        .await?
        .iter()
        .any(|token| !token.loopback_only && token.serves(process.ports().clock.wall()));
    if config.listen.ip().is_loopback() || beyond {
        return Ok(());
    }
    Err(format!(
        "`{}` is reached from other machines, and no token serves them; set CDM_ADMIN_TOKEN (32 characters or more)",
        config.listen
    )
    .into())
}

fn announce(address: SocketAddr, process: &Process) {
    tracing::info!(%address, "the API and the console are at http://{address}");
    match process.router_address() {
        Some(router) => tracing::info!(%router, "sites are served at http://{router}, by their Host"),
        None if process.local_cluster().is_some() => {
            tracing::info!("another process hosts the local cluster")
        }
        None => {}
    }
}

/// Prints the link that makes the console's first user, while there is none: on a loopback address only, where nobody else
/// can follow it.
async fn offer_setup(address: SocketAddr, process: &Process) -> Result<Option<SetupLink>, Failure> {
    let somebody = process.services().users().await?.present().next().is_some();
    if somebody || !address.ip().is_loopback() {
        return Ok(None);
    }
    let code = process.ports().ids.password();
    let mut out = std::io::stdout().lock();
    writeln!(out, "the console's first user (this link serves once, within 1 hour, on this machine only):")?;
    writeln!(out, "http://{address}/console/setup/{}", code.expose_secret())?;
    out.flush()?;
    let until = process.ports().clock.monotonic().after(SetupLink::LASTS);
    Ok(Some(SetupLink { code, until }))
}

/// Returns when the process is told to end.
async fn told_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

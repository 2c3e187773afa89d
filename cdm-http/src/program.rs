//! The program `cdm-server`: arguments, startup checks, the server, and the shutdown.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::manager::{Admitted, Span};
use cdm_core::wiring::{
    BackendKind, Config, Descriptors, LogFormat, Process, end_signal, harden_process, rotate_key,
    unknown_variables,
};
use cdm_http::log::{LossyLog, log_panics};
use cdm_http::{App, ConnectionLimits, HttpSettings, SetupLink, Tls};
use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The maximum duration of a graceful shutdown; the default grace period of a Kubernetes pod is 30 s.
const GRACE: Duration = Duration::from_secs(25);

/// Serves the REST API and the console of Cloud Deployment Manager.
#[derive(Debug, Parser)]
#[command(name = "cdm-server", version, after_help = HELP)]
pub(crate) struct Arguments {
    /// A TOML file with the configuration; environment variables override its values.
    #[arg(long, env = "CDM_CONFIG", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    /// Create what is missing (data directory, tables, keys) without changing existing data, and exit.
    #[arg(long)]
    bootstrap: bool,
    /// Encrypt the embedded secrets with a new key, and exit. Stop every server that uses the data directory first.
    #[arg(long)]
    rotate_key: bool,
}

const HELP: &str = "Without a configuration, all data is stored in one directory, and the first start prints an \
                    administrator's token that is valid only on this machine.\n\nExamples:\n  cdm-server\n  \
                    CDM_LISTEN=127.0.0.1:9000 CDM_DATA_DIR=/var/lib/cdm cdm-server\n  cdm-server --config cdm.toml \
                    --check-config";

type BoxError = Box<dyn Error + Send + Sync>;

/// Prints an error with its causes, and returns the exit code of a failure.
pub(crate) fn report(error: &BoxError) -> ExitCode {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    cdm_http::log::write_to_stderr(&format!("error: {message}"));
    ExitCode::FAILURE
}

#[expect(clippy::disallowed_methods, reason = "the one place of the server that reads the environment")]
fn configuration(path: Option<&PathBuf>) -> Result<Config, BoxError> {
    Ok(Config::load(path.map(PathBuf::as_path), &|name| std::env::var(name).ok())?)
}

/// Returns the environment variables that look like variables of CDM, but are not.
fn unknown_names() -> Vec<String> {
    unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

/// Runs the server until a signal ends it.
pub(crate) async fn run(arguments: Arguments) -> Result<(), BoxError> {
    harden_process()?;
    // An empty variable counts as unset.
    let config = configuration(arguments.config.as_ref().filter(|path| !path.as_os_str().is_empty()))?;
    if config.oidc.is_some() && !cfg!(feature = "oidc") {
        return Err(
            "`CDM_OIDC_ISSUER`: this program was built without OpenID Connect\nhint: build it with `--features oidc`"
                .into(),
        );
    }
    let tls = config.http.tls.as_ref().map(Tls::load).transpose()?;
    if !arguments.bootstrap && !arguments.rotate_key {
        permit_plaintext(&config)?;
    }
    let filter = log_filter(&config.log)?;
    let unknown = unknown_names();
    if arguments.check_config {
        for name in unknown {
            let warning =
                format!("warning: `{name}` is set, but it is not a variable of CDM; check the spelling");
            cdm_http::log::write_to_stderr(&warning);
        }
        writeln!(std::io::stdout(), "the configuration is valid")?;
        return Ok(());
    }
    let log = log_to_stderr(&config, filter)?;
    for name in unknown {
        tracing::warn!(name, "an environment variable is not a variable of CDM; check the spelling");
    }
    if arguments.rotate_key {
        let count = rotate_key(&config).await?;
        let key = config.data_dir.join("key");
        writeln!(
            std::io::stdout(),
            "{count} secrets are encrypted with a new key\nhint: back up `{}`",
            key.display()
        )?;
        return Ok(());
    }
    let served = serve(&arguments, &config, tls, &log).await;
    log.flush();
    served
}

async fn serve(
    arguments: &Arguments,
    config: &Config,
    tls: Option<Tls>,
    log: &LossyLog,
) -> Result<(), BoxError> {
    let descriptors = Descriptors::raise();
    tracing::info!(
        limit = descriptors.limit,
        connections = descriptors.api,
        "raised the limit of open files to its maximum, which limits the connections to the API"
    );
    // Binds all addresses before it prints a secret, so that a failing start does not print a secret that is shown once.
    let listener = match arguments.bootstrap {
        true => None,
        false => Some(listen(config).await?),
    };
    let process = Arc::new(Process::open(config).await?);
    let Some(listener) = listener else {
        process.bootstrap().await?;
        writeln!(std::io::stdout(), "the platform is initialized")?;
        process.stop(GRACE).await;
        return Ok(());
    };
    admit_administrator(config, &process).await?;
    for token in process.access().with_reserved_names().await? {
        tracing::warn!(
            name = %token.name, id = %token.id,
            "the name of a token is reserved for the audit log; create a token with another name, and revoke this token"
        );
    }
    let address = listener.local_addr()?;
    // Before the server is announced, so that an early signal also causes a graceful shutdown.
    let end_signal = end_signal()?;
    process.work();
    let scheme = if tls.is_some() { "https" } else { "http" };
    announce(address, scheme, config, &process);
    // Prints the secrets after the log lines of the start, not between them.
    log.flush();
    show_first_token(config, &process).await?;
    let setup = match config.sign_in.passwords {
        true => offer_setup(address, scheme, &process).await?,
        false => None,
    };
    let shutdown = CancellationToken::new();
    let on_signal = shutdown.clone();
    tokio::spawn(async move {
        end_signal.await;
        on_signal.cancel();
    });
    let defaults = HttpSettings::default();
    let settings = HttpSettings {
        rate: config.rate.unwrap_or(defaults.rate),
        burst: config.burst.unwrap_or(defaults.burst),
        failures: config.failures.unwrap_or(defaults.failures),
        connections: ConnectionLimits::within(descriptors.api),
        tls,
        trusted_proxies: config.http.trusted_proxies.clone(),
        repository: config.image_repository.clone(),
        setup,
        passwords: config.sign_in.passwords,
        second_factor: config.sign_in.second_factor,
        oidc: config.oidc.clone(),
        root: config.http.root.clone(),
        ..defaults
    };
    let app = App::of(&process, settings);
    tokio::spawn(count_refusals(app.clone(), shutdown.clone()));
    let served = cdm_http::serve(listener, app, shutdown, GRACE / 2).await;
    process.manager().count_refusals(Span::Present).await;
    process.access().count_refusals(Span::Present).await;
    tracing::info!("releasing claimed work");
    let in_time = process.stop(GRACE / 2).await;
    tracing::info!(in_time, "ended");
    Ok(served?)
}

async fn listen(config: &Config) -> Result<TcpListener, BoxError> {
    let bound = TcpListener::bind(config.listen).await;
    let describe = |error| {
        format!(
            "cannot listen on `{}`: {error}\nhint: set another address for the API and the console (CDM_LISTEN)",
            config.listen
        )
    };
    Ok(bound.map_err(describe)?)
}

/// Rejects a configuration that serves other machines in plaintext, unless it allows plaintext explicitly: tokens,
/// passwords and cookies, also of the sites, could be intercepted.
fn permit_plaintext(config: &Config) -> Result<(), BoxError> {
    if config.http.allow_plaintext {
        return Ok(());
    }
    if is_reachable_from_other_machines(config.listen) && config.http.tls.is_none() {
        return Err(format!(
            "other machines can reach `{}`, and without TLS, tokens and passwords can be intercepted\n\
             hint: set CDM_TLS_CERT and CDM_TLS_KEY to serve TLS; or, if an ingress or proxy in front of this server \
             terminates TLS, set CDM_ALLOW_PLAINTEXT=true",
            config.listen
        )
        .into());
    }
    if is_reachable_from_other_machines(config.router_listen)
        && config.backends.cluster == BackendKind::Embedded
    {
        return Err(format!(
            "other machines can reach `{}`, the router of the local cluster, which does not support TLS\n\
             hint: set CDM_ROUTER_LISTEN to a loopback address; or, if a proxy in front of the router terminates TLS, \
             set CDM_ALLOW_PLAINTEXT=true",
            config.router_listen
        )
        .into());
    }
    Ok(())
}

fn is_reachable_from_other_machines(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Parses the log filter. A single word must be a level: the library would interpret `verbose` as a module, and log nothing.
fn log_filter(text: &str) -> Result<EnvFilter, BoxError> {
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if let Some(word) = text.split(',').map(str::trim).find(|word| is_word(word) && !is_level(word)) {
        return Err(format!(
            "`CDM_LOG`: `{word}` is not a level\nhint: the levels are off, error, warn, info, debug and trace; to set \
             the level of a module, write `{word}=debug`"
        )
        .into());
    }
    Ok(EnvFilter::try_new(text).map_err(|error| format!("`CDM_LOG`: {error}"))?)
}

fn log_to_stderr(config: &Config, filter: EnvFilter) -> Result<LossyLog, BoxError> {
    let text = match config.log_format {
        Some(format) => format == LogFormat::Text,
        None => std::io::stderr().is_terminal(),
    };
    let log = LossyLog::to_stderr()?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone());
    let subscriber = subscriber.log_internal_errors(false);
    if text {
        subscriber.with_ansi(std::io::stderr().is_terminal()).init()
    } else {
        subscriber.json().init()
    }
    log_panics();
    Ok(log)
}

/// Stores the configured administrator's token. Without one, checks that a valid token exists if other machines can reach
/// the server.
async fn admit_administrator(config: &Config, process: &Process) -> Result<(), BoxError> {
    if let Some(token) = &config.admin_token {
        if process.access().admit_admin(token).await? == Admitted::Replaced {
            tracing::warn!(
                "the configured administrator's token is no longer valid, since a newer one was configured; configure \
                 the newer token for this server"
            );
        }
        return Ok(());
    }
    // Checked before a token is created: a token that is valid only on this machine is not sufficient here.
    if !config.listen.ip().is_loopback() && !process.access().serves_other_machines().await? {
        return Err(format!(
            "other machines can reach `{}`, but no token is valid for them\nhint: set CDM_ADMIN_TOKEN to a token of at \
             least 32 characters",
            config.listen
        )
        .into());
    }
    Ok(())
}

/// Creates and prints an administrator's token at the first start, unless one is configured.
async fn show_first_token(config: &Config, process: &Process) -> Result<(), BoxError> {
    if config.admin_token.is_some() {
        return Ok(());
    }
    if let Some(token) = process.access().first_admin().await? {
        let mut out = std::io::stdout().lock();
        let gap = if out.is_terminal() { "\n" } else { "" };
        let shown = writeln!(
            out,
            "{gap}admin token (shown once, valid only on this machine):\n{}{gap}",
            token.expose_secret()
        );
        if let Err(error) = shown.and_then(|()| out.flush()) {
            tracing::warn!(%error, "the administrator's token could not be shown; set CDM_ADMIN_TOKEN");
        }
    }
    Ok(())
}

/// Writes, each minute, the number of rejected requests that have no separate audit entry.
async fn count_refusals(app: App, shutdown: CancellationToken) {
    loop {
        let next = app.clock.sleep_until(app.clock.monotonic().after(Duration::from_secs(60)));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = next => {}
        }
        app.manager.count_refusals(Span::Over).await;
        app.access.count_refusals(Span::Over).await;
    }
}

fn announce(address: SocketAddr, scheme: &str, config: &Config, process: &Process) {
    if !config.data_dir.as_os_str().is_empty() {
        tracing::info!("data is stored in `{}` (CDM_DATA_DIR)", config.data_dir.display());
    }
    tracing::info!(%address, "the API and the console are at {scheme}://{address}");
    match process.router_address() {
        Some(router) => {
            tracing::info!(%router, "sites are served at http://{router}, selected by the Host header")
        }
        None if process.local_cluster().is_some() => {
            tracing::info!("another process runs the local cluster")
        }
        None => {}
    }
}

/// Prints the link that creates the console's first user, if there is no user and the server listens on a loopback address,
/// which other machines cannot reach.
async fn offer_setup(
    address: SocketAddr,
    scheme: &str,
    process: &Process,
) -> Result<Option<SetupLink>, BoxError> {
    let has_users = process.manager().users().await?.present().next().is_some();
    if has_users || !address.ip().is_loopback() {
        return Ok(None);
    }
    let code = process.ports().entropy.password();
    let mut out = std::io::stdout().lock();
    let shown = writeln!(
        out,
        "create the console's first user (this link is valid once, for 1 hour, only on this machine):\n\
         {scheme}://{address}/console/setup/{}",
        code.expose_secret()
    );
    if let Err(error) = shown.and_then(|()| out.flush()) {
        tracing::warn!(%error, "the link for the console's first user could not be shown");
        return Ok(None);
    }
    let until = process.ports().clock.monotonic().after(SetupLink::LASTS);
    Ok(Some(SetupLink { code, until }))
}

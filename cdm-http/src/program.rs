//! What `cdm-server` does between its first line and its last.

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

/// How long a server takes at most to end in good order; a Kubernetes pod is given 30 s.
const GRACE: Duration = Duration::from_secs(25);

/// Serves the REST API of Cloud Deployment Manager.
#[derive(Debug, Parser)]
#[command(name = "cdm-server", version, after_help = HELP)]
pub(crate) struct Arguments {
    /// A TOML file; environment variables override it.
    #[arg(long, env = "CDM_CONFIG", value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    config: Option<PathBuf>,
    /// Judge the configuration and end.
    #[arg(long)]
    check_config: bool,
    /// Make what is missing (data directory, tables, keys), touch nothing that exists, and end.
    #[arg(long)]
    bootstrap: bool,
    /// Seal the embedded secrets with a fresh key, and end; every server on the data directory has to be stopped first.
    #[arg(long)]
    rotate_key: bool,
}

const HELP: &str = "Without any configuration everything is kept in one directory, and the first start prints an \
                    administrator's token that serves this machine only.\n\nExamples:\n  cdm-server\n  \
                    CDM_LISTEN=127.0.0.1:9000 CDM_DATA_DIR=/var/lib/cdm cdm-server\n  cdm-server --config cdm.toml \
                    --check-config";

type Failure = Box<dyn Error + Send + Sync>;

/// Prints an error with everything below it, and what a program ends with then.
pub(crate) fn tell(error: &Failure) -> ExitCode {
    let mut message = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        message.push_str(&format!(": {cause}"));
        below = cause.source();
    }
    cdm_http::log::last_words(&format!("error: {message}"));
    ExitCode::FAILURE
}

#[expect(clippy::disallowed_methods, reason = "the one place of the server that reads the environment")]
fn configuration(path: Option<&PathBuf>) -> Result<Config, Failure> {
    Ok(Config::load(path.map(PathBuf::as_path), &|name| std::env::var(name).ok())?)
}

/// The variables that look like CDM's and are none.
fn unknown() -> Vec<String> {
    unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

/// Runs the server until it is told to end.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    harden_process()?;
    // An empty variable says nothing.
    let config = configuration(arguments.config.as_ref().filter(|path| !path.as_os_str().is_empty()))?;
    if config.oidc.is_some() && !cfg!(feature = "oidc") {
        return Err(
            "`CDM_OIDC_ISSUER`: this program was built without OpenID Connect; build it with --features oidc"
                .into(),
        );
    }
    let tls = config.http.tls.as_ref().map(Tls::load).transpose()?;
    if !arguments.bootstrap && !arguments.rotate_key {
        permit_plaintext(&config)?;
    }
    let filter = log_filter(&config.log)?;
    let unknown = unknown();
    if arguments.check_config {
        for name in unknown {
            cdm_http::log::last_words(&format!("warning: `{name}` is set, and CDM reads no such variable"));
        }
        writeln!(std::io::stdout(), "the configuration is in order")?;
        return Ok(());
    }
    let log = log_to_stderr(&config, filter)?;
    for name in unknown {
        tracing::warn!(name, "a variable is set that CDM does not read; it may be misspelled");
    }
    if arguments.rotate_key {
        let count = rotate_key(&config).await?;
        let key = config.data_dir.join("key");
        let words = format!("{count} secrets are sealed with a fresh key; save `{}`", key.display());
        writeln!(std::io::stdout(), "{words}")?;
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
) -> Result<(), Failure> {
    let descriptors = Descriptors::raise();
    tracing::info!(
        limit = descriptors.limit,
        connections = descriptors.api,
        "the limit of open files was raised as far as the system allows; it bounds the connections to the API"
    );
    // Every address is had before anybody is shown a secret that is shown once: a start that fails shows none.
    let listener = match arguments.bootstrap {
        true => None,
        false => Some(listen(config).await?),
    };
    let process = Arc::new(Process::open(config).await?);
    let Some(listener) = listener else {
        process.bootstrap().await?;
        writeln!(std::io::stdout(), "everything is there")?;
        process.stop(GRACE).await;
        return Ok(());
    };
    admit_administrator(config, &process).await?;
    for token in process.access().with_reserved_names().await? {
        tracing::warn!(
            name = %token.name, id = %token.id,
            "a token has a name that is reserved for the audit; make another one, and revoke this"
        );
    }
    let address = listener.local_addr()?;
    // Before anybody is told that the server is there: a signal that comes early ends it in good order too.
    let told_to_end = end_signal()?;
    process.work();
    let scheme = if tls.is_some() { "https" } else { "http" };
    announce(address, scheme, config, &process);
    // What is shown once stands together after the lines of the start, and not between them.
    log.flush();
    show_first_token(config, &process).await?;
    let setup = match config.sign_in.passwords {
        true => offer_setup(address, scheme, &process).await?,
        false => None,
    };
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        told_to_end.await;
        told.cancel();
    });
    let usual = HttpSettings::default();
    let settings = HttpSettings {
        rate: config.rate.unwrap_or(usual.rate),
        burst: config.burst.unwrap_or(usual.burst),
        failures: config.failures.unwrap_or(usual.failures),
        connections: ConnectionLimits::within(descriptors.api),
        tls,
        trusted_proxies: config.http.trusted_proxies.clone(),
        repository: config.image_repository.clone(),
        setup,
        passwords: config.sign_in.passwords,
        second_factor: config.sign_in.second_factor,
        oidc: config.oidc.clone(),
        root: config.http.root.clone(),
        ..usual
    };
    let app = App::of(&process, settings);
    tokio::spawn(count_refusals(app.clone(), shutdown.clone()));
    let served = cdm_http::serve(listener, app, shutdown, GRACE / 2).await;
    process.manager().count_refusals(Span::Present).await;
    process.access().count_refusals(Span::Present).await;
    tracing::info!("giving work back");
    let in_time = process.stop(GRACE / 2).await;
    tracing::info!(in_time, "ended");
    Ok(served?)
}

async fn listen(config: &Config) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(config.listen).await;
    let told = |error| {
        format!(
            "`{}` cannot be listened on: {error}; name another address for the API and the console (CDM_LISTEN)",
            config.listen
        )
    };
    Ok(bound.map_err(told)?)
}

/// Refuses to serve other machines in plaintext unless the configuration says so: tokens, passwords and cookies, those of
/// the sites too, could be read on the way.
fn permit_plaintext(config: &Config) -> Result<(), Failure> {
    if config.http.allow_plaintext {
        return Ok(());
    }
    if reached_from_outside(config.listen) && config.http.tls.is_none() {
        return Err(format!(
            "`{}` is reached from other machines, and without TLS tokens and passwords can be read on the way\n\
             hint: set CDM_TLS_CERT and CDM_TLS_KEY to serve TLS; or, where an ingress or proxy in front of this \
             server does, CDM_ALLOW_PLAINTEXT=true",
            config.listen
        )
        .into());
    }
    if reached_from_outside(config.router_listen) && config.backends.cluster == BackendKind::Embedded {
        return Err(format!(
            "`{}`, the router of the local cluster, is reached from other machines and speaks no TLS\n\
             hint: set CDM_ROUTER_LISTEN to an address of this machine; or, where a proxy in front of it serves TLS, \
             CDM_ALLOW_PLAINTEXT=true",
            config.router_listen
        )
        .into());
    }
    Ok(())
}

fn reached_from_outside(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// What is logged. A single word is a level: the library would take `verbose` for the name of a module, and log nothing.
fn log_filter(text: &str) -> Result<EnvFilter, Failure> {
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if let Some(word) = text.split(',').map(str::trim).find(|word| is_word(word) && !is_level(word)) {
        return Err(format!(
            "`CDM_LOG`: `{word}` is not a level\nhint: the levels are off, error, warn, info, debug and trace; one \
             for a module is written `{word}=debug`"
        )
        .into());
    }
    Ok(EnvFilter::try_new(text).map_err(|error| format!("`CDM_LOG`: {error}"))?)
}

fn log_to_stderr(config: &Config, filter: EnvFilter) -> Result<LossyLog, Failure> {
    let text = match config.log_format {
        Some(format) => format == LogFormat::Text,
        None => std::io::stderr().is_terminal(),
    };
    let log = LossyLog::to_stderr()?;
    let to = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone());
    let to = to.log_internal_errors(false);
    if text {
        to.with_ansi(std::io::stderr().is_terminal()).init()
    } else {
        to.json().init()
    }
    log_panics();
    Ok(log)
}

/// Sees to it that someone may ask: the configured administrator, or one who can ask from this machine.
async fn admit_administrator(config: &Config, process: &Process) -> Result<(), Failure> {
    if let Some(token) = &config.admin_token {
        if process.access().admit_admin(token).await? == Admitted::Replaced {
            tracing::warn!(
                "the configured administrator's token was replaced by one that was configured later, and serves no more; \
                 give this server the newer one"
            );
        }
        return Ok(());
    }
    // Judged first: a token that serves this machine only would be no help, and is shown once.
    if !config.listen.ip().is_loopback() && !process.access().serves_other_machines().await? {
        return Err(format!(
            "`{}` is reached from other machines, and no token serves them; set CDM_ADMIN_TOKEN (32 characters or more)",
            config.listen
        )
        .into());
    }
    Ok(())
}

/// Makes an administrator's token at the first start, where none is configured, and shows it.
async fn show_first_token(config: &Config, process: &Process) -> Result<(), Failure> {
    if config.admin_token.is_some() {
        return Ok(());
    }
    if let Some(token) = process.access().first_admin().await? {
        let mut out = std::io::stdout().lock();
        let gap = if out.is_terminal() { "\n" } else { "" };
        let shown = writeln!(
            out,
            "{gap}admin token (shown once, serves this machine only):\n{}{gap}",
            token.expose_secret()
        );
        if let Err(error) = shown.and_then(|()| out.flush()) {
            tracing::warn!(%error, "the administrator's token could not be shown: set CDM_ADMIN_TOKEN");
        }
    }
    Ok(())
}

/// Writes each minute how many refusals had no audit entry of their own.
async fn count_refusals(app: App, shutdown: CancellationToken) {
    loop {
        let later = app.clock.sleep_until(app.clock.monotonic().after(Duration::from_secs(60)));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = later => {}
        }
        app.manager.count_refusals(Span::Over).await;
        app.access.count_refusals(Span::Over).await;
    }
}

fn announce(address: SocketAddr, scheme: &str, config: &Config, process: &Process) {
    if !config.data_dir.as_os_str().is_empty() {
        tracing::info!("data is kept in `{}` (CDM_DATA_DIR)", config.data_dir.display());
    }
    tracing::info!(%address, "the API and the console are at {scheme}://{address}");
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
async fn offer_setup(
    address: SocketAddr,
    scheme: &str,
    process: &Process,
) -> Result<Option<SetupLink>, Failure> {
    let somebody = process.manager().users().await?.present().next().is_some();
    if somebody || !address.ip().is_loopback() {
        return Ok(None);
    }
    let code = process.ports().entropy.password();
    let mut out = std::io::stdout().lock();
    let shown = writeln!(
        out,
        "the console's first user (this link serves once, within 1 hour, on this machine only):\n\
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

//! Configuration: defaults, then a TOML file, then environment variables. Values are validated once, when they are loaded.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::backend_selection::BackendSelection;
use super::cloud_config::CloudConfig;
use super::file::{RawConfig, RawWebhooks};
use super::http::{HttpConfig, RawHttp};
use super::oidc::OidcConfig;
use super::retention;
use super::retry::RetryConfig;
use super::sign_in::{RawSignIn, SignInConfig};
use super::sources::{Setting, only_one, parsed, pick, pick_renamed, secret, text};
use crate::domain::NameError;
use crate::domain::administrator;
use crate::domain::token::judge_bootstrap;
use crate::domain::webhook::Allowed;
use crate::engine::RetentionPeriods;

/// The configuration of a process. Each field names its environment variable, which overrides the file, and its key in the
/// file.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address of the API and the console, by default `127.0.0.1:8080`. `CDM_LISTEN`, `listen`.
    pub listen: SocketAddr,
    /// How clients reach the API: proxies, TLS and plaintext.
    pub http: HttpConfig,
    /// The address of the local cluster's router, by default `127.0.0.1:8088`. `CDM_ROUTER_LISTEN`, `router_listen`.
    pub router_listen: SocketAddr,
    /// The directory of all embedded data, by default `cdm` in the user's data directory; empty if it is not set and every
    /// backend is in the cloud. `CDM_DATA_DIR`, `data_dir`.
    pub data_dir: PathBuf,
    /// The backend of each port, by default embedded. `CDM_BACKEND`, `backend`, `backends.…`.
    pub backends: BackendSelection,
    /// The bootstrap token, which authenticates an administrator; `None`: it is not configured. `CDM_ADMIN_TOKEN`,
    /// `CDM_ADMIN_TOKEN_FILE`, `admin_token_file`.
    pub admin_token: Option<SecretString>,
    /// The repository of the image that digests belong to, without a tag; required if the cluster is in the cloud.
    /// `CDM_IMAGE_REPOSITORY`, `image_repository`.
    pub image_repository: Option<String>,
    /// The scheme of the addresses of new sites, `http` or `https`; by default `https` if the cluster is in the cloud, and
    /// `http` otherwise. `CDM_SITE_SCHEME`, `site.scheme`.
    pub site_scheme: String,
    /// The name of the WordPress administrator of new sites, by default `admin`. `CDM_SITE_ADMIN_USER`, `site.admin_user`.
    pub site_admin_user: String,
    /// The email address of the WordPress administrator of new sites; required if the cluster is in the cloud, otherwise by
    /// default `admin@example.com`. `CDM_SITE_ADMIN_EMAIL`, `site.admin_email`.
    pub site_admin_email: String,
    /// The maximum number of operations and rollouts that a process runs in parallel, and of sites that a rollout moves in
    /// parallel: from 1 to 1024, by default 64. A higher value runs more work at the same time, and sends more concurrent
    /// calls to the backends. `CDM_CONCURRENCY`, `concurrency`; earlier names: `CDM_WORKERS`, `workers`.
    pub concurrency: usize,
    /// The sustained number of requests per second of one token; `None`: the server's default, 200. A lower value
    /// rejects a busy client earlier with 429; a higher one lets one token use more of the server. `limits.rate`.
    pub rate: Option<NonZeroU32>,
    /// The number of requests of one token that the server accepts in a burst; `None`: the server's default, 400. A
    /// higher value accepts larger bursts, which the backends then have to serve. `limits.burst`.
    pub burst: Option<NonZeroU32>,
    /// The number of failed authentications per minute of one address; `None`: the server's default, 30. A low value
    /// hinders attackers that guess credentials, and affects users who share an address.
    /// `limits.auth_failures_per_minute`; earlier name: `limits.failures`.
    pub failures: Option<NonZeroU32>,
    /// The filter of log lines, a level or directives per module such as `info,cdm_core=debug`; by default `info`.
    /// `CDM_LOG`, `log`.
    pub log: String,
    /// The format of log lines; `None`: text on a terminal, otherwise JSON. `CDM_LOG_FORMAT`, `log_format`.
    pub log_format: Option<LogFormat>,
    /// The webhook receivers that may have internal addresses, by default none. A webhook can send messages to every
    /// receiver in the list, inside the network too. `CDM_WEBHOOKS_ALLOWED_RECEIVERS`, separated by commas,
    /// `webhooks.allowed_receivers`; earlier names: `CDM_WEBHOOKS_ALLOW`, `webhooks.allow`.
    pub allowed_receivers: Vec<Allowed>,
    /// The OpenID Connect provider for sign-in to the console; `None`: users sign in with passwords only.
    pub oidc: Option<OidcConfig>,
    /// The retention of audit entries and events, by default 400 and 7 days. A longer retention needs more storage.
    /// `CDM_RETENTION_AUDIT`, `CDM_RETENTION_EVENTS`, `[retention]`.
    pub retention: RetentionPeriods,
    /// How long steps wait for unavailable backends, and the pauses between retries. `CDM_RETRY_…`, `retry.…`.
    pub retry: RetryConfig,
    /// How users sign in to the console. `CDM_PASSWORDS`, `CDM_SECOND_FACTOR`, `passwords`, `second_factor`.
    pub sign_in: SignInConfig,
    /// The configuration of the cloud backends.
    pub cloud: CloudConfig,
    /// How long a pod of the local cluster takes to become ready, by default 400 ms. A longer time shows rollouts as
    /// slow as on a real cluster. `local.pod_start_ms`.
    pub pod_start: Duration,
    /// How long pods of the local cluster may make no progress before their service fails, by default 5 s. A short
    /// deadline fails slow images, a long one delays the failure of broken ones. `local.progress_deadline_ms`.
    pub progress_deadline: Duration,
    /// How long a job of the local cluster takes, by default 150 ms. A longer time makes jobs visible while they run.
    /// `local.job_ms`.
    pub job: Duration,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// An error of the configuration. Its text has the form `` `<key>`: <message> ``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The environment variable or the key of the file, as the user set it; the path of a file that cannot be read or
    /// parsed.
    pub key: String,
    /// What is wrong with the value, and what is expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Returns the value of an environment variable. A function, so that only the `main` of a program reads the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Loads the configuration from a file, if one is given, and from the environment, which overrides the file.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or has an unknown key; otherwise the first value that is missing or invalid.
    pub fn load(path: Option<&Path>, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let raw = match path {
            None => RawConfig::default(),
            Some(path) => {
                let error = |message: String| ConfigError { key: path.display().to_string(), message };
                let text = std::fs::read_to_string(path)
                    .map_err(|source| error(format!("cannot be read: {source}")))?;
                toml::from_str(&text).map_err(|source| error(source.to_string().trim().replace('\n', " ")))?
            }
        };
        Self::resolve(raw, environment)
    }

    /// Applies the environment and the defaults to a file, and validates the values.
    fn resolve(mut raw: RawConfig, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let pick = |variable: &str, key: &str, from_file| pick(environment, variable, key, from_file);
        let site = raw.site.take().unwrap_or_default();
        let local = raw.local.take().unwrap_or_default();
        let limits = raw.limits.take().unwrap_or_default();
        let backends = BackendSelection::resolve(
            environment,
            raw.backend.take(),
            raw.backends.take().unwrap_or_default(),
        )?;
        let text = |variable: &str, key: &str, from_file, default: &str| {
            text(environment, variable, key, from_file, default)
        };
        let log_format = pick("CDM_LOG_FORMAT", "log_format", raw.log_format.take())
            .map(|(key, value)| LogFormat::parse(&value).map_err(|message| ConfigError { key, message }))
            .transpose()?;
        let site_scheme = match pick("CDM_SITE_SCHEME", "site.scheme", site.scheme) {
            None if backends.cluster.is_cloud() => "https".to_owned(),
            None => "http".to_owned(),
            Some((_, value)) if value == "http" || value == "https" => value,
            Some((key, value)) => {
                return Err(ConfigError { key, message: format!("`{value}` is neither `http` nor `https`") });
            }
        };
        let concurrency = pick_renamed(
            environment,
            ["CDM_CONCURRENCY", "CDM_WORKERS"],
            ["concurrency", "workers"],
            [raw.concurrency.take(), raw.workers.take()].map(|count| count.map(|count| count.to_string())),
        )?;
        let concurrency =
            parsed(concurrency, "64", "a number from 1 to 1024", |count| (1..=1024).contains(count))?;
        let failures = only_one(
            ["limits.auth_failures_per_minute", "limits.failures"],
            [limits.auth_failures_per_minute, limits.failures],
        )?;
        let address = "an address and a port, such as 127.0.0.1:8080";
        let listen = pick("CDM_LISTEN", "listen", raw.listen.take());
        let router = pick("CDM_ROUTER_LISTEN", "router_listen", raw.router_listen.take());
        let data_dir = match pick("CDM_DATA_DIR", "data_dir", raw.data_dir.take()) {
            Some((_, path)) => PathBuf::from(path),
            // A container has no home directory.
            None if backends.is_all_cloud() => PathBuf::new(),
            None => default_data_dir()?,
        };
        let image_repository = pick("CDM_IMAGE_REPOSITORY", "image_repository", raw.image_repository.take())
            .map(|(_, value)| value);
        let email = pick("CDM_SITE_ADMIN_EMAIL", "site.admin_email", site.admin_email);
        let email = validated(email, administrator::judge_email)?;
        let admin_user = pick("CDM_SITE_ADMIN_USER", "site.admin_user", site.admin_user);
        let admin_user = validated(admin_user, administrator::judge_name)?;
        if backends.cluster.is_cloud() {
            let require = |key: &str, value: &Option<String>, expected: &str| match value {
                Some(_) => Ok(()),
                None => Err(ConfigError {
                    key: key.to_owned(),
                    message: format!("is not set; set it to {expected}"),
                }),
            };
            let repository = "the repository of the image, without a tag";
            require("CDM_IMAGE_REPOSITORY", &image_repository, repository)?;
            let address = "the email address of the administrator of new sites";
            require("CDM_SITE_ADMIN_EMAIL", &email, address)?;
        }
        let site_admin_email = email.unwrap_or_else(|| "admin@example.com".to_owned());
        let mut oidc = raw.oidc.take();
        // Both keys set one value, and `oidc.public_url` overrides `public_url`.
        let oidc_url = oidc.as_mut().and_then(|oidc| oidc.public_url.take());
        let public_url = oidc_url.or(raw.public_url.take());
        if let Some(url) = &public_url {
            oidc.get_or_insert_default().public_url = Some(url.clone());
        }
        let oidc = OidcConfig::resolve(environment, oidc)?;
        let sign_in = RawSignIn { passwords: raw.passwords.take(), second_factor: raw.second_factor.take() };
        let millis = |millis: Option<u64>, default| Duration::from_millis(millis.unwrap_or(default));
        let http = RawHttp {
            trusted_proxies: raw.trusted_proxies.take(),
            tls_cert: raw.tls_cert.take(),
            tls_key: raw.tls_key.take(),
            allow_plaintext: raw.allow_plaintext.take(),
            public_url,
        };
        Ok(Self {
            http: HttpConfig::resolve(environment, http)?,
            listen: parsed(listen, "127.0.0.1:8080", address, |_| true)?,
            router_listen: parsed(router, "127.0.0.1:8088", address, |_| true)?,
            data_dir,
            backends,
            admin_token: admin_token(environment, raw.admin_token_file.take())?,
            image_repository,
            site_scheme,
            site_admin_user: admin_user.unwrap_or_else(|| "admin".to_owned()),
            site_admin_email,
            concurrency,
            rate: limits.rate,
            burst: limits.burst,
            failures: failures.map(|(_, count)| count),
            log: text("CDM_LOG", "log", raw.log.take(), "info"),
            log_format,
            allowed_receivers: allowed_receivers(environment, raw.webhooks.take().unwrap_or_default())?,
            sign_in: SignInConfig::resolve(environment, sign_in, oidc.is_some())?,
            oidc,
            retention: retention::resolve(environment, raw.retention.take())?,
            retry: RetryConfig::resolve(environment, raw.retry.take().unwrap_or_default())?,
            cloud: CloudConfig::resolve(environment, raw, &backends)?,
            pod_start: millis(local.pod_start_ms, 400),
            progress_deadline: millis(local.progress_deadline_ms, 5_000),
            job: millis(local.job_ms, 150),
        })
    }
}

impl LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is neither `text` nor `json`")),
        }
    }
}

fn admin_token(
    environment: Environment<'_>,
    from_file: Option<String>,
) -> Result<Option<SecretString>, ConfigError> {
    let from_file = from_file.map(|path| ("admin_token_file", path));
    let Some((key, token)) = secret(environment, "CDM_ADMIN_TOKEN", from_file)? else { return Ok(None) };
    if let Err(broken) = judge_bootstrap(token.expose_secret()) {
        return Err(ConfigError { key, message: format!("{}: {}", broken.what(), broken.rule()) });
    }
    Ok(Some(token))
}

/// Returns the value of a setting if it passes a rule.
fn validated(
    setting: Option<Setting>,
    rule: fn(&str) -> Result<(), NameError>,
) -> Result<Option<String>, ConfigError> {
    let Some((key, value)) = setting else { return Ok(None) };
    match rule(&value) {
        Ok(()) => Ok(Some(value)),
        Err(error) => Err(ConfigError { key, message: error.to_string() }),
    }
}

/// Reads the webhook receivers that may have internal addresses: a list in the file, a text with commas in the
/// environment.
fn allowed_receivers(
    environment: Environment<'_>,
    webhooks: RawWebhooks,
) -> Result<Vec<Allowed>, ConfigError> {
    let setting = pick_renamed(
        environment,
        ["CDM_WEBHOOKS_ALLOWED_RECEIVERS", "CDM_WEBHOOKS_ALLOW"],
        ["webhooks.allowed_receivers", "webhooks.allow"],
        [webhooks.allowed_receivers, webhooks.allow].map(|list| list.map(|list| list.join(","))),
    )?;
    let Some((key, text)) = setting else { return Ok(Vec::new()) };
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let invalid = |error: NameError| ConfigError { key: key.clone(), message: error.to_string() };
    entries.map(|entry| Allowed::parse(entry).map_err(invalid)).collect()
}

fn default_data_dir() -> Result<PathBuf, ConfigError> {
    let dirs = directories::ProjectDirs::from("", "", "cdm");
    let message =
        "is not set, and this user has no home directory; set it to a directory for the data".to_owned();
    let missing = || ConfigError { key: "CDM_DATA_DIR".to_owned(), message };
    dirs.map(|dirs| dirs.data_dir().to_owned()).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "cloud")]
    use crate::wiring::BackendKind;
    use crate::wiring::SecondFactorRule;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::resolve(toml::from_str(file).expect("a file"), &environment)
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_file_overrides_the_default() {
        let dir = ("CDM_DATA_DIR", "/data");
        assert_eq!(load("", &[dir]).unwrap().listen.to_string(), "127.0.0.1:8080");
        assert_eq!(load("listen = '127.0.0.1:1'", &[dir]).unwrap().listen.port(), 1);
        let both = load("listen = '127.0.0.1:1'", &[dir, ("CDM_LISTEN", "127.0.0.1:2")]);
        assert_eq!(both.unwrap().listen.port(), 2);
    }

    #[test]
    fn an_invalid_value_is_rejected_with_its_key() {
        let dir = ("CDM_DATA_DIR", "/data");
        let key = |variables: &[(&str, &str)]| load("", variables).unwrap_err().key;
        assert_eq!(key(&[dir, ("CDM_LISTEN", "nowhere")]), "CDM_LISTEN");
        assert_eq!(key(&[dir, ("CDM_CONCURRENCY", "0")]), "CDM_CONCURRENCY");
        assert_eq!(key(&[dir, ("CDM_WORKERS", "0")]), "CDM_WORKERS");
        assert_eq!(key(&[dir, ("CDM_BACKEND", "clouds")]), "CDM_BACKEND");
        assert_eq!(key(&[dir, ("CDM_ROUTES", "roads")]), "CDM_ROUTES");
        assert_eq!(key(&[dir, ("CDM_ROUTES", "httproute")]), "CDM_ROUTES", "without a Gateway");
        assert_eq!(key(&[dir, ("CDM_S3_PATH_STYLE", "perhaps")]), "CDM_S3_PATH_STYLE");
        assert_eq!(key(&[dir, ("CDM_ADMIN_TOKEN", "short")]), "CDM_ADMIN_TOKEN");
        assert_eq!(key(&[dir, ("CDM_ADMIN_TOKEN", &"a".repeat(32))]), "CDM_ADMIN_TOKEN");
        assert_eq!(key(&[dir, ("CDM_SITE_SCHEME", "ftp")]), "CDM_SITE_SCHEME");
        assert_eq!(key(&[dir, ("CDM_SITE_ADMIN_USER", &"a".repeat(61))]), "CDM_SITE_ADMIN_USER");
        assert_eq!(key(&[dir, ("CDM_SITE_ADMIN_EMAIL", "ops@localhost")]), "CDM_SITE_ADMIN_EMAIL");
        assert_eq!(key(&[dir, ("CDM_WP_PATH", "srv/wordpress")]), "CDM_WP_PATH");
        assert_eq!(key(&[dir, ("CDM_WP_ALLOW_ROOT", "yes")]), "CDM_WP_ALLOW_ROOT");
        assert_eq!(key(&[dir, ("CDM_SECOND_FACTOR", "maybe")]), "CDM_SECOND_FACTOR");
        assert_eq!(key(&[dir, ("CDM_PASSWORDS", "no")]), "CDM_PASSWORDS");
        assert_eq!(key(&[dir, ("CDM_PASSWORDS", "off")]), "CDM_PASSWORDS", "no way to sign in");
        assert_eq!(key(&[dir, ("CDM_WEBHOOKS_ALLOW", "10.0.0.1:80, https://a.b")]), "CDM_WEBHOOKS_ALLOW");
        assert!(toml::from_str::<RawConfig>("colour = 'blue'").is_err(), "an unknown key");
        assert!(toml::from_str::<RawConfig>("allow_tags = true").is_err(), "a tag is never deployed");
        assert!(
            toml::from_str::<RawConfig>("[limits]\nrate = 0").is_err(),
            "every request would be rejected"
        );
    }

    #[test]
    fn a_renamed_setting_is_read_under_both_names() {
        let dir = ("CDM_DATA_DIR", "/data");
        let debug = |file: &str, variables: &[(&str, &str)]| {
            let config = load(file, &[&[dir][..], variables].concat()).expect("a configuration");
            assert_eq!((config.concurrency, config.allowed_receivers.len()), (8, 1), "{file} {variables:?}");
            format!("{config:?}")
        };
        let current = "concurrency = 8\n[webhooks]\nallowed_receivers = ['hooks.internal:8443']\n\
                       [limits]\nauth_failures_per_minute = 7";
        let earlier = "workers = 8\n[webhooks]\nallow = ['hooks.internal:8443']\n[limits]\nfailures = 7";
        assert_eq!(debug(earlier, &[]), debug(current, &[]));
        assert_eq!(load(earlier, &[dir]).unwrap().failures.map(NonZeroU32::get), Some(7));
        let current = [("CDM_CONCURRENCY", "8"), ("CDM_WEBHOOKS_ALLOWED_RECEIVERS", "hooks.internal:8443")];
        let earlier = [("CDM_WORKERS", "8"), ("CDM_WEBHOOKS_ALLOW", "hooks.internal:8443")];
        assert_eq!(debug("", &earlier), debug("", &current));
        let file = "concurrency = 9\n[webhooks]\nallowed_receivers = []";
        assert_eq!(debug(file, &earlier), debug("", &current), "a variable overrides the file");
    }

    #[test]
    fn a_renamed_setting_that_has_both_names_is_rejected() {
        let files = [
            ("concurrency = 8\nworkers = 8", "concurrency", "workers"),
            (
                "[webhooks]\nallowed_receivers = []\nallow = []",
                "webhooks.allowed_receivers",
                "webhooks.allow",
            ),
            (
                "[limits]\nauth_failures_per_minute = 7\nfailures = 7",
                "limits.auth_failures_per_minute",
                "limits.failures",
            ),
        ];
        let dir = ("CDM_DATA_DIR", "/data");
        for (file, current, earlier) in files {
            let error = load(file, &[dir]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{current}`: ")), "{error}");
            assert!(error.contains(&format!("`{earlier}`")), "{error}");
        }
        for (current, earlier, value) in [
            ("CDM_CONCURRENCY", "CDM_WORKERS", "8"),
            ("CDM_WEBHOOKS_ALLOWED_RECEIVERS", "CDM_WEBHOOKS_ALLOW", "hooks.internal:8443"),
        ] {
            let error = load("", &[dir, (current, value), (earlier, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{current}`: ")), "{error}");
            assert!(error.contains(&format!("`{earlier}`")), "{error}");
        }
    }

    #[test]
    fn every_variable_that_is_read_is_known() {
        let variables = [
            ("CDM_DATA_DIR", "/data"),
            ("CDM_BACKEND", "embedded"),
            ("CDM_OIDC_ISSUER", "https://id.example.com"),
            ("CDM_OIDC_CLIENT_ID", "cdm"),
            ("CDM_PUBLIC_URL", "https://cdm.example.com"),
        ];
        let read = std::cell::RefCell::new(Vec::new());
        let environment = |name: &str| {
            read.borrow_mut().push(name.to_owned());
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::load(None, &environment).expect("a configuration");
        let read = read.into_inner();
        assert!(read.iter().any(|name| name == "CDM_OIDC_CLIENT_SECRET_FILE"), "{read:?}");
        assert_eq!(crate::wiring::unknown_variables(read), Vec::<String>::new());
    }

    #[test]
    fn passwords_may_be_off_if_there_is_a_provider() {
        let variables = [
            ("CDM_DATA_DIR", "/data"),
            ("CDM_PASSWORDS", "off"),
            ("CDM_OIDC_ISSUER", "https://id.example.com"),
            ("CDM_OIDC_CLIENT_ID", "cdm"),
            ("CDM_PUBLIC_URL", "https://cdm.example.com"),
        ];
        let config = load("second_factor = 'required'", &variables).unwrap();
        let expected = SignInConfig { passwords: false, second_factor: SecondFactorRule::Required };
        assert_eq!(config.sign_in, expected);
        assert_eq!(load("", &variables[..1]).unwrap().sign_in, SignInConfig::default());
    }

    #[test]
    #[cfg(not(feature = "cloud"))]
    fn a_build_without_the_cloud_backends_names_the_feature() {
        let error = load("", &[("CDM_DATA_DIR", "/data"), ("CDM_BACKEND", "cloud")]).unwrap_err();
        assert_eq!(error.key, "CDM_BACKEND");
        assert!(error.message.contains("--features cloud"), "{error}");
    }

    #[test]
    #[cfg(feature = "cloud")]
    fn the_cloud_backends_have_required_settings_and_each_port_may_have_another_backend() {
        let mut variables = vec![("CDM_DATA_DIR", "/data"), ("CDM_BACKEND", "cloud")];
        for (key, value) in [
            ("CDM_IMAGE_REPOSITORY", "registry.example.com/wordpress"),
            ("CDM_SITE_ADMIN_EMAIL", "admin@example.org"),
            ("CDM_BUCKET", "files"),
            ("CDM_DATABASE_URL", "mysql://cdm:hush@db.internal/"),
        ] {
            assert_eq!(load("", &variables).unwrap_err().key, key);
            variables.push((key, value));
        }
        assert_eq!(load("", &variables[1..]).unwrap().data_dir, PathBuf::new(), "no data on this machine");
        let config = load("[backends]\nobjects = 'embedded'", &variables).unwrap();
        assert_eq!(
            (config.backends.store, config.backends.objects),
            (BackendKind::Cloud, BackendKind::Embedded)
        );
        assert_eq!(config.site_scheme, "https");
        assert!(!format!("{config:?}").contains("hush"), "the password is redacted");
    }
}

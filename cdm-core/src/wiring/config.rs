//! Configuration: defaults, then a TOML file, then environment variables; judged once, plain values afterwards.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::choice::BackendSelection;
use super::cloud_config::CloudConfig;
use super::given::{parsed, pick, secret, text};
use super::http::{HttpConfig, RawHttp};
use super::oidc::OidcConfig;
use super::raw::Raw;
use super::retention;
use super::retry::RetryConfig;
use super::sign_in::{RawSignIn, SignInConfig};
use crate::domain::NameError;
use crate::domain::administrator;
use crate::domain::token::judge_bootstrap;
use crate::domain::webhook::Allowed;
use crate::engine::Kept;

/// What a process is configured with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the API. `CDM_LISTEN`, `listen`.
    pub listen: SocketAddr,
    /// How clients reach it.
    pub http: HttpConfig,
    /// Address of the local cluster's router. `CDM_ROUTER_LISTEN`, `router_listen`.
    pub router_listen: SocketAddr,
    /// Where everything embedded lies; empty where nothing is and none was named. `CDM_DATA_DIR`, `data_dir`.
    pub data_dir: PathBuf,
    /// Which backends. `CDM_BACKEND`, `backend`, `backends.…`.
    pub backends: BackendSelection,
    /// The bootstrap administrator's token. `CDM_ADMIN_TOKEN`, `CDM_ADMIN_TOKEN_FILE`, `admin_token_file`.
    pub admin_token: Option<SecretString>,
    /// The image repository, without tag, that digests belong to. `CDM_IMAGE_REPOSITORY`, `image_repository`.
    pub image_repository: Option<String>,
    /// `http` or `https`, for the address of a new site. `CDM_SITE_SCHEME`, `site.scheme`.
    pub site_scheme: String,
    /// The administrator's name on new sites. `CDM_SITE_ADMIN_USER`, `site.admin_user`.
    pub site_admin_user: String,
    /// The administrator's address on new sites. `CDM_SITE_ADMIN_EMAIL`, `site.admin_email`.
    pub site_admin_email: String,
    /// Port calls in flight in one process. `CDM_WORKERS`, `workers`.
    pub workers: usize,
    /// Requests a second of one token; `None`: the server's own measure. `limits.rate`.
    pub rate: Option<NonZeroU32>,
    /// How many of them may come at once, likewise. `limits.burst`.
    pub burst: Option<NonZeroU32>,
    /// Failed authentications a minute of one address, likewise. `limits.failures`.
    pub failures: Option<NonZeroU32>,
    /// What is logged: a filter. `CDM_LOG`, `log`.
    pub log: String,
    /// How; `None`: as text on a terminal, else as JSON. `CDM_LOG_FORMAT`, `log_format`.
    pub log_format: Option<LogFormat>,
    /// Receivers of webhooks that may be inside. `CDM_WEBHOOKS_ALLOW` (with commas), `webhooks.allow`.
    pub webhooks_allow: Vec<Allowed>,
    /// Who proves people's names besides their passwords.
    pub oidc: Option<OidcConfig>,
    /// How long audit entries and events are kept. `CDM_RETENTION_AUDIT`, `CDM_RETENTION_EVENTS`, `[retention]`.
    pub retention: Kept,
    /// How long steps wait for backends, and how often these are asked. `CDM_RETRY_…`, `retry.…`.
    pub retry: RetryConfig,
    /// By what people prove who they are.
    pub sign_in: SignInConfig,
    /// What those in the cloud are told.
    pub cloud: CloudConfig,
    /// How long a pod of the local cluster takes to start. `local.pod_start_ms`.
    pub pod_start: Duration,
    /// How long the local cluster waits for an image to get ready. `local.progress_deadline_ms`.
    pub progress_deadline: Duration,
    /// How long a job of the local cluster takes. `local.job_ms`.
    pub job: Duration,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Why a configuration is refused: which key, and what it should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable or the key.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Where the environment is asked; a function, so that nobody but a program's `main` reads it.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads the file, where there is one, and lays the environment over it.
    ///
    /// # Errors
    /// The first key that is unknown or out of range.
    pub fn load(path: Option<&Path>, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let raw = match path {
            None => Raw::default(),
            Some(path) => {
                let refuse = |message: String| ConfigError { key: path.display().to_string(), message };
                let text = std::fs::read_to_string(path)
                    .map_err(|error| refuse(format!("cannot be read: {error}")))?;
                toml::from_str(&text).map_err(|error| refuse(error.to_string().trim().replace('\n', " ")))?
            }
        };
        Self::of(raw, environment)
    }

    fn of(mut raw: Raw, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let pick = |variable: &str, key: &str, of_file| pick(environment, variable, key, of_file);
        let site = raw.site.take().unwrap_or_default();
        let local = raw.local.take().unwrap_or_default();
        let limits = raw.limits.take().unwrap_or_default();
        let backends =
            BackendSelection::of(environment, raw.backend.take(), raw.backends.take().unwrap_or_default())?;
        let text = |variable: &str, key: &str, of_file, default: &str| {
            text(environment, variable, key, of_file, default)
        };
        let log_format = pick("CDM_LOG_FORMAT", "log_format", raw.log_format.take())
            .map(|(key, value)| LogFormat::parse(&value).map_err(|message| ConfigError { key, message }))
            .transpose()?;
        let site_scheme = match pick("CDM_SITE_SCHEME", "site.scheme", site.scheme) {
            None if backends.cluster.is_cloud() => "https".to_owned(),
            None => "http".to_owned(),
            Some((_, value)) if value == "http" || value == "https" => value,
            Some((key, value)) => {
                return Err(ConfigError {
                    key,
                    message: format!("\"{value}\" is neither `http` nor `https`"),
                });
            }
        };
        let workers = pick("CDM_WORKERS", "workers", raw.workers.take().map(|count| count.to_string()));
        let workers = parsed(workers, "64", "a number from 1 to 1024", |count| (1..=1024).contains(count))?;
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
        let email = judged(email, administrator::judge_email)?;
        let admin_user = pick("CDM_SITE_ADMIN_USER", "site.admin_user", site.admin_user);
        let admin_user = judged(admin_user, administrator::judge_name)?;
        if backends.cluster.is_cloud() {
            let needed = |key: &str, given: &Option<String>, what: &str| match given {
                Some(_) => Ok(()),
                None => Err(ConfigError { key: key.to_owned(), message: format!("is not set; {what}") }),
            };
            needed("CDM_IMAGE_REPOSITORY", &image_repository, "name the image's repository, without a tag")?;
            needed("CDM_SITE_ADMIN_EMAIL", &email, "name the address of new sites' administrator")?;
        }
        let site_admin_email = email.unwrap_or_else(|| "admin@example.com".to_owned());
        let mut oidc = raw.oidc.take();
        // One address, whichever of the two keys has it.
        let of_oidc = oidc.as_mut().and_then(|oidc| oidc.public_url.take());
        let public_url = of_oidc.or(raw.public_url.take());
        if let Some(url) = &public_url {
            oidc.get_or_insert_default().public_url = Some(url.clone());
        }
        let oidc = OidcConfig::of(environment, oidc)?;
        let sign_in = RawSignIn { passwords: raw.passwords.take(), second_factor: raw.second_factor.take() };
        let millis = |given: Option<u64>, default| Duration::from_millis(given.unwrap_or(default));
        let http = RawHttp {
            trusted_proxies: raw.trusted_proxies.take(),
            tls_cert: raw.tls_cert.take(),
            tls_key: raw.tls_key.take(),
            allow_plaintext: raw.allow_plaintext.take(),
            public_url,
        };
        Ok(Self {
            http: HttpConfig::of(environment, http)?,
            listen: parsed(listen, "127.0.0.1:8080", address, |_| true)?,
            router_listen: parsed(router, "127.0.0.1:8088", address, |_| true)?,
            data_dir,
            backends,
            admin_token: admin_token(environment, raw.admin_token_file.take())?,
            image_repository,
            site_scheme,
            site_admin_user: admin_user.unwrap_or_else(|| "admin".to_owned()),
            site_admin_email,
            workers,
            rate: limits.rate,
            burst: limits.burst,
            failures: limits.failures,
            log: text("CDM_LOG", "log", raw.log.take(), "info"),
            log_format,
            webhooks_allow: receivers(environment, raw.webhooks.take().and_then(|webhooks| webhooks.allow))?,
            sign_in: SignInConfig::of(environment, sign_in, oidc.is_some())?,
            oidc,
            retention: retention::of(environment, raw.retention.take())?,
            retry: RetryConfig::of(environment, raw.retry.take().unwrap_or_default())?,
            cloud: CloudConfig::of(environment, raw, &backends)?,
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
            other => Err(format!("\"{other}\" is neither `text` nor `json`")),
        }
    }
}

fn admin_token(
    environment: Environment<'_>,
    of_file: Option<String>,
) -> Result<Option<SecretString>, ConfigError> {
    let of_file = of_file.map(|path| ("admin_token_file", path));
    let Some((key, token)) = secret(environment, "CDM_ADMIN_TOKEN", of_file)? else { return Ok(None) };
    if let Err(broken) = judge_bootstrap(token.expose_secret()) {
        return Err(ConfigError { key, message: format!("{}: {}", broken.what(), broken.rule()) });
    }
    Ok(Some(token))
}

/// What was given, where it keeps the rules.
fn judged(
    given: Option<(String, String)>,
    rule: fn(&str) -> Result<(), NameError>,
) -> Result<Option<String>, ConfigError> {
    let Some((key, value)) = given else { return Ok(None) };
    match rule(&value) {
        Ok(()) => Ok(Some(value)),
        Err(error) => Err(ConfigError { key, message: error.to_string() }),
    }
}

/// The receivers inside: a list in the file, one text with commas in the environment.
fn receivers(
    environment: Environment<'_>,
    of_file: Option<Vec<String>>,
) -> Result<Vec<Allowed>, ConfigError> {
    let given = pick(environment, "CDM_WEBHOOKS_ALLOW", "webhooks.allow", of_file.map(|list| list.join(",")));
    let Some((key, text)) = given else { return Ok(Vec::new()) };
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let refuse = |error: NameError| ConfigError { key: key.clone(), message: error.to_string() };
    entries.map(|entry| Allowed::parse(entry).map_err(refuse)).collect()
}

fn default_data_dir() -> Result<PathBuf, ConfigError> {
    let dirs = directories::ProjectDirs::from("", "", "cdm");
    let message = "there is no home directory to keep data in; name a directory".to_owned();
    let refuse = || ConfigError { key: "CDM_DATA_DIR".to_owned(), message };
    dirs.map(|dirs| dirs.data_dir().to_owned()).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "cloud")]
    use crate::wiring::BackendKind;
    use crate::wiring::SecondFactorRule;

    fn of(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let ask = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::of(toml::from_str(file).expect("a file"), &ask)
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
        let dir = ("CDM_DATA_DIR", "/data");
        assert_eq!(of("", &[dir]).unwrap().listen.to_string(), "127.0.0.1:8080");
        assert_eq!(of("listen = '127.0.0.1:1'", &[dir]).unwrap().listen.port(), 1);
        let both = of("listen = '127.0.0.1:1'", &[dir, ("CDM_LISTEN", "127.0.0.1:2")]);
        assert_eq!(both.unwrap().listen.port(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = ("CDM_DATA_DIR", "/data");
        let key = |environment: &[(&str, &str)]| of("", environment).unwrap_err().key;
        assert_eq!(key(&[dir, ("CDM_LISTEN", "nowhere")]), "CDM_LISTEN");
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
        assert_eq!(key(&[dir, ("CDM_PASSWORDS", "off")]), "CDM_PASSWORDS", "nobody could sign in");
        assert_eq!(key(&[dir, ("CDM_WEBHOOKS_ALLOW", "10.0.0.1:80, https://a.b")]), "CDM_WEBHOOKS_ALLOW");
        assert!(toml::from_str::<Raw>("colour = 'blue'").is_err(), "an unknown key");
        assert!(toml::from_str::<Raw>("allow_tags = true").is_err(), "no tag is ever deployed");
        assert!(toml::from_str::<Raw>("[limits]\nrate = 0").is_err(), "no request at all");
    }

    #[test]
    fn every_variable_that_is_read_is_known() {
        let given = [
            ("CDM_DATA_DIR", "/data"),
            ("CDM_BACKEND", "embedded"),
            ("CDM_OIDC_ISSUER", "https://id.example.com"),
            ("CDM_OIDC_CLIENT_ID", "cdm"),
            ("CDM_PUBLIC_URL", "https://cdm.example.com"),
        ];
        let asked = std::cell::RefCell::new(Vec::new());
        let ask = |name: &str| {
            asked.borrow_mut().push(name.to_owned());
            given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::load(None, &ask).expect("a configuration");
        let asked = asked.into_inner();
        assert!(asked.iter().any(|name| name == "CDM_OIDC_CLIENT_SECRET_FILE"), "{asked:?}");
        assert_eq!(crate::wiring::unknown_variables(asked), Vec::<String>::new());
    }

    #[test]
    fn passwords_may_be_switched_off_beside_a_provider() {
        let given = [
            ("CDM_DATA_DIR", "/data"),
            ("CDM_PASSWORDS", "off"),
            ("CDM_OIDC_ISSUER", "https://id.example.com"),
            ("CDM_OIDC_CLIENT_ID", "cdm"),
            ("CDM_PUBLIC_URL", "https://cdm.example.com"),
        ];
        let config = of("second_factor = 'required'", &given).unwrap();
        let expected = SignInConfig { passwords: false, second_factor: SecondFactorRule::Required };
        assert_eq!(config.sign_in, expected);
        assert_eq!(of("", &given[..1]).unwrap().sign_in, SignInConfig::default());
    }

    #[test]
    #[cfg(not(feature = "cloud"))]
    fn a_build_without_the_cloud_says_how_to_get_it() {
        let refused = of("", &[("CDM_DATA_DIR", "/data"), ("CDM_BACKEND", "cloud")]).unwrap_err();
        assert_eq!(refused.key, "CDM_BACKEND");
        assert!(refused.message.contains("--features cloud"), "{refused}");
    }

    #[test]
    #[cfg(feature = "cloud")]
    fn the_cloud_says_what_it_needs_and_each_port_may_be_elsewhere() {
        let mut given = vec![("CDM_DATA_DIR", "/data"), ("CDM_BACKEND", "cloud")];
        for (key, value) in [
            ("CDM_IMAGE_REPOSITORY", "registry.example.com/wordpress"),
            ("CDM_SITE_ADMIN_EMAIL", "admin@example.org"),
            ("CDM_BUCKET", "files"),
            ("CDM_DATABASE_URL", "mysql://cdm:hush@db.internal/"),
        ] {
            assert_eq!(of("", &given).unwrap_err().key, key);
            given.push((key, value));
        }
        assert_eq!(of("", &given[1..]).unwrap().data_dir, PathBuf::new(), "nothing lies on this machine");
        let config = of("[backends]\nobjects = 'embedded'", &given).unwrap();
        assert_eq!(
            (config.backends.store, config.backends.objects),
            (BackendKind::Cloud, BackendKind::Embedded)
        );
        assert_eq!(config.site_scheme, "https");
        assert!(!format!("{config:?}").contains("hush"), "a password is shown to nobody");
    }
}

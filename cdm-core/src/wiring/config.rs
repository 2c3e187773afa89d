//! Configuration: defaults, then a TOML file, then environment variables. Values are validated once, when they are loaded.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::backend_selection::BackendSelection;
use super::cloud_config::CloudConfig;
use super::file::RawConfig;
use super::http::HttpConfig;
use super::oidc::OidcConfig;
use super::retention;
use super::retry::RetryConfig;
use super::sign_in::SignInConfig;
use super::sources::{ConfigError, Environment, Setting};
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

impl Config {
    /// Loads the configuration from a file, if one is given, and from the environment, which overrides the file.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or has an unknown key; otherwise the first value that is missing or invalid.
    pub fn load(path: Option<&Path>, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let raw = match path {
            None => RawConfig::default(),
            Some(path) => {
                let error = |message: String| ConfigError::new(&path.display().to_string(), message);
                let text = std::fs::read_to_string(path)
                    .map_err(|source| error(format!("cannot be read: {source}")))?;
                toml::from_str(&text).map_err(|source| error(source.to_string().trim().replace('\n', " ")))?
            }
        };
        Self::resolve(raw, environment)
    }

    /// Applies the environment and the defaults to a file, and validates the values.
    fn resolve(raw: RawConfig, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let backends = BackendSelection::resolve(environment, &raw)?;
        let in_cloud = backends.cluster.is_cloud();
        let scheme = raw.site.scheme(environment).checked_by(|scheme| match scheme {
            "http" | "https" => Ok(()),
            _ => Err(format!("`{scheme}` is neither `http` nor `https`")),
        })?;
        let concurrency = raw.concurrency(environment).renamed_from(raw.workers(environment))?;
        let concurrency =
            concurrency.parsed("64", "a number from 1 to 1024", |count| (1..=1024).contains(count))?;
        let limits = &raw.limits;
        let failures =
            limits.auth_failures_per_minute(environment).renamed_from(limits.failures(environment))?;
        let receivers = raw.webhooks.allowed_receivers(environment);
        let receivers = receivers.renamed_from(raw.webhooks.allow(environment))?;
        let address = |setting: Setting, default: &str| {
            setting.parsed(default, "an address and a port, such as 127.0.0.1:8080", |_| true)
        };
        let data_dir = raw.data_dir(environment);
        let data_dir = match data_dir.text() {
            Some(path) => PathBuf::from(path),
            // A container has no home directory.
            None if backends.is_all_cloud() => PathBuf::new(),
            None => default_data_dir(&data_dir)?,
        };
        let image_repository = raw.image_repository(environment);
        let admin_email = raw.site.admin_email(environment);
        let site_admin_email = admin_email.checked_by(administrator::judge_email)?;
        let site_admin_user = raw.site.admin_user(environment).checked_by(administrator::judge_name)?;
        if in_cloud && image_repository.text().is_none() {
            return Err(image_repository.missing("the repository of the image, without a tag"));
        }
        if in_cloud && site_admin_email.is_none() {
            return Err(admin_email.missing("the email address of the administrator of new sites"));
        }
        // Both keys set one value, and `oidc.public_url` overrides `public_url`.
        let public_url = raw.oidc.public_url(environment).or(raw.public_url(environment));
        let oidc = OidcConfig::resolve(environment, &raw.oidc, &public_url)?;
        let millis = |millis: Option<u64>, default| Duration::from_millis(millis.unwrap_or(default));
        Ok(Self {
            http: HttpConfig::resolve(environment, &raw, &public_url)?,
            listen: address(raw.listen(environment), "127.0.0.1:8080")?,
            router_listen: address(raw.router_listen(environment), "127.0.0.1:8088")?,
            data_dir,
            backends,
            admin_token: admin_token(environment, &raw.admin_token_file(environment))?,
            image_repository: image_repository.text(),
            site_scheme: scheme.unwrap_or_else(|| if in_cloud { "https" } else { "http" }.to_owned()),
            site_admin_user: site_admin_user.unwrap_or_else(|| "admin".to_owned()),
            site_admin_email: site_admin_email.unwrap_or_else(|| "admin@example.com".to_owned()),
            concurrency,
            rate: limits.rate,
            burst: limits.burst,
            failures: failures.parsed_by(str::parse)?,
            log: raw.log(environment).text_or("info"),
            log_format: raw.log_format(environment).parsed_by(LogFormat::parse)?,
            allowed_receivers: receivers.list(Allowed::parse)?,
            sign_in: SignInConfig::resolve(environment, &raw, oidc.is_some())?,
            oidc,
            retention: retention::resolve(environment, &raw.retention)?,
            retry: RetryConfig::resolve(environment, &raw.retry)?,
            pod_start: millis(raw.local.pod_start_ms, 400),
            progress_deadline: millis(raw.local.progress_deadline_ms, 5_000),
            job: millis(raw.local.job_ms, 150),
            cloud: CloudConfig::resolve(environment, raw, &backends)?,
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

fn admin_token(environment: Environment<'_>, file: &Setting) -> Result<Option<SecretString>, ConfigError> {
    let token = file.secret(environment)?;
    if let Some(value) = &token.value
        && let Err(broken) = judge_bootstrap(value.expose_secret())
    {
        return Err(ConfigError::new(token.name, format!("{}: {}", broken.what(), broken.rule())));
    }
    Ok(token.value)
}

fn default_data_dir(setting: &Setting) -> Result<PathBuf, ConfigError> {
    let dirs = directories::ProjectDirs::from("", "", "cdm");
    let missing = || {
        setting.error("is not set, and this user has no home directory; set it to a directory for the data")
    };
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
    fn an_invalid_value_of_the_file_is_rejected_with_its_key() {
        let provider = "[oidc]\nissuer = 'https://id.example.com'\nclient_id = 'cdm'\n\
                        public_url = 'https://cdm.example.com'\nclaim = 'name'";
        for (file, key) in [
            ("listen = 'nowhere'", "listen"),
            ("trusted_proxies = ['10.0.0.1', 'nginx']", "trusted_proxies"),
            ("admin_token_file = '/nowhere/token'", "admin_token_file"),
            ("[backends]\nstore = 'clouds'", "backends.store"),
            ("[gate]\nblue = 'blue:80'", "gate.blue"),
            ("[kubernetes.flush]\npods = 0", "kubernetes.flush.pods"),
            ("[kubernetes.jobs]\nsecurity = 'none'", "kubernetes.jobs.security"),
            ("[oidc]\npublic_url = 'cdm.example.com'", "oidc.public_url"),
            (provider, "oidc.claim"),
        ] {
            assert_eq!(load(file, &[("CDM_DATA_DIR", "/data")]).unwrap_err().key, key, "{file}");
        }
    }

    #[test]
    fn the_public_url_of_the_provider_overrides_the_general_one() {
        let file = "public_url = 'https://example.com/a'\n[oidc]\npublic_url = 'https://example.com/b'";
        let dir = ("CDM_DATA_DIR", "/data");
        assert_eq!(load(file, &[dir]).unwrap().http.root, "/b");
        let variable = ("CDM_PUBLIC_URL", "https://example.com/c");
        assert_eq!(load(file, &[dir, variable]).unwrap().http.root, "/c");
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

//! Configuration: defaults, then a TOML file, then environment variables; judged once, plain values afterwards.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use super::raw::Raw;

/// What a process is configured with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the API. `CDM_LISTEN`, `listen`.
    pub listen: SocketAddr,
    /// Address of the local cluster's router. `CDM_ROUTER_LISTEN`, `router_listen`.
    pub router_listen: SocketAddr,
    /// Where everything embedded lies. `CDM_DATA_DIR`, `data_dir`.
    pub data_dir: PathBuf,
    /// Which backends. `CDM_BACKEND`, `backend`.
    pub backend: Backend,
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
    /// Whether an image may be named by a tag that can move. `CDM_ALLOW_TAGS`, `allow_tags`.
    pub allow_tags: bool,
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
    /// How long a pod of the local cluster takes to start. `local.pod_start_ms`.
    pub pod_start: Duration,
    /// How long the local cluster waits for an image to get ready. `local.progress_deadline_ms`.
    pub progress_deadline: Duration,
    /// How long a job of the local cluster takes. `local.job_ms`.
    pub job: Duration,
}

/// Which backends a process works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Everything in one directory.
    Embedded,
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
                let text = read(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
                toml::from_str(&text).map_err(|error| refuse(error.to_string().trim().replace('\n', " ")))?
            }
        };
        Self::of(raw, environment)
    }

    fn of(raw: Raw, environment: Environment<'_>) -> Result<Self, ConfigError> {
        let pick = |variable: &str, key: &str, of_file: Option<String>| {
            let of_environment = environment(variable).filter(|value| !value.is_empty());
            match of_environment {
                Some(value) => Some((variable.to_owned(), value)),
                None => of_file.map(|value| (key.to_owned(), value)),
            }
        };
        let site = raw.site.unwrap_or_default();
        let local = raw.local.unwrap_or_default();
        let limits = raw.limits.unwrap_or_default();
        let text = |variable: &str, key: &str, of_file, default: &str| {
            pick(variable, key, of_file).map_or_else(|| default.to_owned(), |(_, value)| value)
        };
        let backend = match pick("CDM_BACKEND", "backend", raw.backend) {
            None => Backend::Embedded,
            Some((key, value)) => Backend::parse(&value).map_err(|message| ConfigError { key, message })?,
        };
        let log_format = pick("CDM_LOG_FORMAT", "log_format", raw.log_format)
            .map(|(key, value)| LogFormat::parse(&value).map_err(|message| ConfigError { key, message }))
            .transpose()?;
        let site_scheme = match pick("CDM_SITE_SCHEME", "site.scheme", site.scheme) {
            None => "http".to_owned(),
            Some((_, value)) if value == "http" || value == "https" => value,
            Some((key, value)) => {
                return Err(ConfigError {
                    key,
                    message: format!("\"{value}\" is neither `http` nor `https`"),
                });
            }
        };
        let workers = pick("CDM_WORKERS", "workers", raw.workers.map(|count| count.to_string()));
        let workers = parsed(workers, "64", "a number from 1 to 1024", |count| (1..=1024).contains(count))?;
        let allow_tags = pick("CDM_ALLOW_TAGS", "allow_tags", raw.allow_tags.map(|yes| yes.to_string()));
        let address = "an address and a port, such as 127.0.0.1:8080";
        let listen = pick("CDM_LISTEN", "listen", raw.listen);
        let router = pick("CDM_ROUTER_LISTEN", "router_listen", raw.router_listen);
        let data_dir = match pick("CDM_DATA_DIR", "data_dir", raw.data_dir) {
            Some((_, path)) => PathBuf::from(path),
            None => default_data_dir()?,
        };
        let millis = |given: Option<u64>, default| Duration::from_millis(given.unwrap_or(default));
        Ok(Self {
            listen: parsed(listen, "127.0.0.1:8080", address, |_| true)?,
            router_listen: parsed(router, "127.0.0.1:8088", address, |_| true)?,
            data_dir,
            backend,
            admin_token: admin_token(environment, raw.admin_token_file)?,
            image_repository: pick("CDM_IMAGE_REPOSITORY", "image_repository", raw.image_repository)
                .map(|(_, value)| value),
            site_scheme,
            site_admin_user: text("CDM_SITE_ADMIN_USER", "site.admin_user", site.admin_user, "admin"),
            site_admin_email: text(
                "CDM_SITE_ADMIN_EMAIL",
                "site.admin_email",
                site.admin_email,
                "admin@example.com",
            ),
            workers,
            allow_tags: parsed(allow_tags, "false", "`true` or `false`", |_| true)?,
            rate: limits.rate,
            burst: limits.burst,
            failures: limits.failures,
            log: text("CDM_LOG", "log", raw.log, "info"),
            log_format,
            pod_start: millis(local.pod_start_ms, 400),
            progress_deadline: millis(local.progress_deadline_ms, 5_000),
            job: millis(local.job_ms, 150),
        })
    }
}

impl Backend {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "cloud" => Err("this build has no cloud backends; use `embedded`".to_owned()),
            other => Err(format!("\"{other}\" is no backend; use `embedded`")),
        }
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

/// What was given under a key, or the default.
fn parsed<T: FromStr>(
    given: Option<(String, String)>,
    default: &str,
    rule: &str,
    fits: impl Fn(&T) -> bool,
) -> Result<T, ConfigError> {
    let (key, text) = given.unwrap_or_else(|| (String::new(), default.to_owned()));
    let value = text.trim().parse().ok().filter(fits);
    value.ok_or_else(|| ConfigError { key, message: format!("\"{text}\" is not {rule}") })
}

fn admin_token(
    environment: Environment<'_>,
    of_file: Option<String>,
) -> Result<Option<SecretString>, ConfigError> {
    let given = environment("CDM_ADMIN_TOKEN").filter(|value| !value.is_empty());
    let path = environment("CDM_ADMIN_TOKEN_FILE").filter(|value| !value.is_empty());
    let (key, text) = match (given, path.map(|path| ("CDM_ADMIN_TOKEN_FILE", path)), of_file) {
        (Some(text), _, _) => ("CDM_ADMIN_TOKEN", text),
        (None, Some((key, path)), _) => (key, secret_file(key, &path)?),
        (None, None, Some(path)) => ("admin_token_file", secret_file("admin_token_file", &path)?),
        (None, None, None) => return Ok(None),
    };
    if text.len() < 32 {
        let message = "an administrator's token has at least 32 characters".to_owned();
        return Err(ConfigError { key: key.to_owned(), message });
    }
    Ok(Some(SecretString::from(text)))
}

fn secret_file(key: &str, path: &str) -> Result<String, ConfigError> {
    let text = read(Path::new(path)).map_err(|error| ConfigError {
        key: key.to_owned(),
        message: format!("`{path}` cannot be read: {error}"),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(path: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(path)
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
        assert_eq!(key(&[dir, ("CDM_BACKEND", "cloud")]), "CDM_BACKEND");
        assert_eq!(key(&[dir, ("CDM_ADMIN_TOKEN", "short")]), "CDM_ADMIN_TOKEN");
        assert_eq!(key(&[dir, ("CDM_SITE_SCHEME", "ftp")]), "CDM_SITE_SCHEME");
        assert!(toml::from_str::<Raw>("colour = 'blue'").is_err(), "an unknown key");
        assert!(toml::from_str::<Raw>("[limits]\nrate = 0").is_err(), "no request at all");
    }
}

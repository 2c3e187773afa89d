//! Selects the embedded or the cloud backend for each port.

use super::config::{ConfigError, Environment};
use super::file::RawBackends;
use super::sources::{Setting, pick};

/// The kind of backend behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// Stores everything in one directory of this machine.
    Embedded,
    /// Uses DynamoDB, AWS Secrets Manager, S3, MySQL or MariaDB, or Kubernetes, according to the port.
    #[cfg(feature = "cloud")]
    Cloud,
}

impl BackendKind {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            #[cfg(feature = "cloud")]
            "cloud" => Ok(Self::Cloud),
            #[cfg(not(feature = "cloud"))]
            "cloud" => {
                Err("this program was built without the cloud backends; build it with `--features cloud`, \
                     or use `embedded`"
                    .to_owned())
            }
            other => Err(format!("`{other}` is neither `embedded` nor `cloud`")),
        }
    }

    /// Returns whether the backend is in the cloud.
    pub(super) const fn is_cloud(self) -> bool {
        match self {
            Self::Embedded => false,
            #[cfg(feature = "cloud")]
            Self::Cloud => true,
        }
    }
}

/// The backend of each port. `CDM_BACKEND` or `backend` sets all of them, by default to embedded; `backends.<port>`
/// overrides one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendSelection {
    /// The backend of records, the journal and tokens. `backends.store`.
    pub store: BackendKind,
    /// The backend of credentials. `backends.secrets`.
    pub secrets: BackendKind,
    /// The backend of site files. `backends.objects`.
    pub objects: BackendKind,
    /// The backend of services, routes and jobs, and of the databases that their pods use. `backends.cluster`.
    pub cluster: BackendKind,
}

impl BackendSelection {
    /// Returns whether no backend stores data on this machine.
    pub(super) fn is_all_cloud(&self) -> bool {
        [self.store, self.secrets, self.objects, self.cluster].into_iter().all(BackendKind::is_cloud)
    }

    /// Reads the backend of all ports (`CDM_BACKEND`, `backend`), and the ports for which the file names another.
    pub(super) fn resolve(
        environment: Environment<'_>,
        all: Option<String>,
        overrides: RawBackends,
    ) -> Result<Self, ConfigError> {
        let parse =
            |(key, text): Setting| BackendKind::parse(&text).map_err(|message| ConfigError { key, message });
        let all = pick(environment, "CDM_BACKEND", "backend", all).map(parse).transpose()?;
        let all = all.unwrap_or(BackendKind::Embedded);
        let backend_of = |port: &str, text: Option<String>| {
            text.map_or(Ok(all), |text| parse((format!("backends.{port}"), text)))
        };
        Ok(Self {
            store: backend_of("store", overrides.store)?,
            secrets: backend_of("secrets", overrides.secrets)?,
            objects: backend_of("objects", overrides.objects)?,
            cluster: backend_of("cluster", overrides.cluster)?,
        })
    }
}

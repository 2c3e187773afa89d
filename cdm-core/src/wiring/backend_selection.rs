//! Selects the embedded or the cloud backend for each port.

use super::file::RawConfig;
use super::sources::{ConfigError, Environment, Setting};

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
    pub(super) fn resolve(environment: Environment<'_>, raw: &RawConfig) -> Result<Self, ConfigError> {
        let all = raw.backend(environment).parsed_by(BackendKind::parse)?.unwrap_or(BackendKind::Embedded);
        let backend_of = |port: Setting| Ok(port.parsed_by(BackendKind::parse)?.unwrap_or(all));
        Ok(Self {
            store: backend_of(raw.backends.store(environment))?,
            secrets: backend_of(raw.backends.secrets(environment))?,
            objects: backend_of(raw.backends.objects(environment))?,
            cluster: backend_of(raw.backends.cluster(environment))?,
        })
    }
}

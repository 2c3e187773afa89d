//! Which backends a process works on.

use super::config::{ConfigError, Environment};
use super::given::pick;
use super::raw::RawBackends;

/// Where the things of one port are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// In one directory of this machine.
    Embedded,
    /// DynamoDB, AWS Secrets Manager, S3, MySQL or MariaDB, Kubernetes.
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
                Err("this program was built without its cloud backends; build it with `--features cloud`, \
                            or use `embedded`"
                    .to_owned())
            }
            other => Err(format!("\"{other}\" is neither `embedded` nor `cloud`")),
        }
    }

    /// Whether it is in the cloud.
    pub(super) const fn is_cloud(self) -> bool {
        match self {
            Self::Embedded => false,
            #[cfg(feature = "cloud")]
            Self::Cloud => true,
        }
    }
}

/// A backend for each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendSelection {
    /// Records, the journal and tokens. `backends.store`.
    pub store: BackendKind,
    /// Credentials. `backends.secrets`.
    pub secrets: BackendKind,
    /// Site files. `backends.objects`.
    pub objects: BackendKind,
    /// Services, routes and jobs, with the databases that their pods use. `backends.cluster`.
    pub cluster: BackendKind,
}

impl BackendSelection {
    /// Whether nothing lies on this machine.
    pub(super) fn is_all_cloud(&self) -> bool {
        [self.store, self.secrets, self.objects, self.cluster].into_iter().all(BackendKind::is_cloud)
    }

    /// `CDM_BACKEND`, `backend` for all of them; the file may name another for each.
    pub(super) fn of(
        environment: Environment<'_>,
        backend: Option<String>,
        each: RawBackends,
    ) -> Result<Self, ConfigError> {
        let parse = |(key, text): (String, String)| {
            BackendKind::parse(&text).map_err(|message| ConfigError { key, message })
        };
        let all = pick(environment, "CDM_BACKEND", "backend", backend).map(parse).transpose()?;
        let all = all.unwrap_or(BackendKind::Embedded);
        let one = |key: &str, text: Option<String>| {
            text.map_or(Ok(all), |text| parse((format!("backends.{key}"), text)))
        };
        Ok(Self {
            store: one("store", each.store)?,
            secrets: one("secrets", each.secrets)?,
            objects: one("objects", each.objects)?,
            cluster: one("cluster", each.cluster)?,
        })
    }
}

//! From configuration to a running process. The only module that names an adapter.

mod backend_selection;
mod backends;
#[cfg(feature = "cloud")]
mod cloud;
mod cloud_config;
mod config;
mod descriptors;
mod embedded;
mod file;
mod hardening;
mod http;
mod oidc;
mod process;
mod readiness;
mod retention;
mod retry;
mod sign_in;
mod signals;
mod sources;
mod variables;

pub use backend_selection::{BackendKind, BackendSelection};
pub use backends::{BackendState, StartError};
pub use cloud_config::{AwsConfig, CloudConfig, KubernetesConfig, Routes};
pub use config::{Config, LogFormat};
pub use descriptors::Descriptors;
pub use embedded::rotate_key;
pub use hardening::harden_process;
pub use http::{HttpConfig, TlsFiles};
pub use oidc::OidcConfig;
pub use process::Process;
pub use retry::RetryConfig;
pub use sign_in::{SecondFactorRule, SignInConfig};
pub use signals::{EndSignal, end_signal};
pub use sources::{ConfigError, Environment};
pub use variables::unknown_variables;

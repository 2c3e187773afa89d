//! From configuration to a running platform. The only room that names an adapter.

mod backends;
mod choice;
#[cfg(feature = "cloud")]
mod cloud;
mod cloud_config;
mod config;
mod descriptors;
mod given;
mod hardening;
mod http;
mod machine;
mod oidc;
mod process;
mod raw;
mod readiness;
mod retention;
mod retry;
mod sign_in;
mod signals;
mod variables;

pub use backends::{BackendState, StartError};
pub use choice::{BackendKind, BackendSelection};
pub use cloud_config::{AwsConfig, CloudConfig, KubernetesConfig, Routes};
pub use config::{Config, ConfigError, Environment, LogFormat};
pub use descriptors::Descriptors;
pub use hardening::harden_process;
pub use http::{HttpConfig, TlsFiles};
pub use machine::rotate_key;
pub use oidc::OidcConfig;
pub use process::Process;
pub use retry::RetryConfig;
pub use sign_in::{SecondFactorRule, SignInConfig};
pub use signals::{EndSignal, end_signal};
pub use variables::unknown_variables;

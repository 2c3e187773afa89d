//! The real `cdm-server` over real HTTP on free ports, as its users run it.

mod clients;
mod connections;
mod console;
mod coverage;
mod file_permissions;
mod gates;
mod lifecycle;
mod logging;
#[cfg(feature = "oidc")]
mod oidc;
mod outages;
mod passwords;
#[cfg(feature = "oidc")]
mod provider;
mod refusals;
mod second_factor;
mod server;
mod shutdown;
mod startup;
mod storage;
mod streams;
mod webhooks;

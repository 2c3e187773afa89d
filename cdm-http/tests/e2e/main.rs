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
mod refusals;
mod second_factor;
mod shutdown;
mod startup;
mod storage;
mod streams;
mod webhooks;

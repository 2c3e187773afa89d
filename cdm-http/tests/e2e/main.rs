//! The real `cdm-server`, over real HTTP on free ports, as its users meet it.

mod clients;
mod connections;
mod console;
mod coverage;
mod gates;
mod life;
mod logging;
#[cfg(feature = "oidc")]
mod oidc;
mod outages;
mod passwords;
mod private;
#[cfg(feature = "oidc")]
mod provider;
mod refusals;
mod second_factor;
mod server;
mod shutdown;
mod starting;
mod storage;
mod streams;
mod webhooks;

//! The REST server and the console as a library: [`router`] returns the routes, and [`serve`] serves them on a socket.

pub mod api;
mod app;
mod auth;
mod client;
mod console;
mod error;
mod events;
mod extract;
mod hashing;
mod host;
mod limits;
pub mod log;
mod metrics;
mod middleware;
#[cfg(feature = "oidc")]
mod oidc_metadata;
mod openapi;
mod password;
mod permissions;
mod request_id;
mod root;
mod router;
mod routes;
mod second_factor;
mod serve;
mod settings;
mod stream;
mod stream_permits;

pub use api::problem::{FieldError, Problem};
pub use permissions::{ROUTES, Route};
pub use router::{local_router, router};
pub use serve::{ConnectionLimits, Tls, TlsError, serve};
pub use settings::{App, Backend, Health, HttpSettings, SetupLink};

//! The REST server as a library: [`router`] over the services, [`serve`] on a socket.

pub mod api;
mod app;
mod auth;
mod client;
mod console;
mod error;
mod events;
mod hashing;
mod host;
mod input;
mod limits;
pub mod log;
mod metrics;
mod openapi;
mod outlet;
mod password;
mod permissions;
mod request;
mod root;
mod router;
mod routes;
mod seats;
mod second_factor;
mod serve;

pub use app::{App, Backend, Health, HttpSettings, SetupLink};
pub use error::{FieldError, Problem};
pub use permissions::{ROUTES, Route};
pub use router::{local_router, router};
pub use serve::{ConnectionLimits, Tls, TlsError, serve};

//! The server's routes on fakes: responses, errors, and limits.

mod audit;
mod compatibility;
mod console;
mod document;
mod listener;
#[cfg(feature = "oidc")]
mod oidc;
mod postman;
mod refusals;
mod responses;
mod roles;
mod streams;
mod support;
mod tokens;

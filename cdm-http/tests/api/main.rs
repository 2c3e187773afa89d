//! The server's routes over fakes: what is refused, what is answered, and how.

mod answers;
mod audit;
mod compatibility;
mod console;
mod document;
mod listener;
#[cfg(feature = "oidc")]
mod oidc;
mod postman;
#[cfg(feature = "oidc")]
#[path = "../e2e/provider.rs"]
mod provider;
mod refusals;
mod roles;
mod streams;
mod support;
mod tokens;

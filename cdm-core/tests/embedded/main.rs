//! The embedded adapters keep the promises of their ports: the same suites as the fakes, and what only they can show.

mod cluster;
mod store;
mod support;
mod things;

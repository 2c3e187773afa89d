//! The embedded adapters fulfill the contracts of their ports: the same suites as the fakes, and tests of their own.

mod cluster;
mod site_resources;
mod store;
mod support;

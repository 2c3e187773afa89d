//! The platform as in production: the real server on DynamoDB, Secrets Manager, S3, MariaDB and Kubernetes, as far as
//! these are available on one machine.

mod costs;
mod faults;
mod lifecycle;
mod outages;
#[path = "../../../cdm-core/tests/parts/mod.rs"]
#[allow(dead_code, reason = "the adapter suites use more of this module")]
mod parts;
mod platform;
mod replicas;
#[path = "../e2e/server.rs"]
#[allow(dead_code, reason = "other tests of the server use more of this module")]
mod server;

//! The platform as it is in production: the real server on DynamoDB, Secrets Manager, S3, MariaDB and Kubernetes, as far
//! as these can be had on one machine.

mod costs;
mod faults;
mod life;
mod outages;
#[path = "../../../cdm-core/tests/parts/mod.rs"]
#[allow(dead_code, reason = "the suites of the adapters need more of it")]
mod parts;
mod place;
mod replicas;
#[path = "../e2e/server.rs"]
#[allow(dead_code, reason = "the other tests of the server ask it for more")]
mod server;

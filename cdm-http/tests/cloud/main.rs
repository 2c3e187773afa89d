//! The platform as in production: the real server on DynamoDB, Secrets Manager, S3, MariaDB and Kubernetes, as far as
//! these are available on one machine.

mod costs;
mod faults;
mod lifecycle;
mod outages;
mod platform;
mod replicas;

//! Stateful in-memory fakes of every port. Each fake passes the contract suite of its port.

mod cluster;
mod databases;
mod objects;
mod probe;
mod secrets;
mod store;
mod tokens;
mod webhook_sender;

pub use cluster::{FakeCluster, ImageScript, JobScript};
pub use databases::FakeDatabases;
pub use objects::FakeObjects;
pub use probe::{FakeProbe, Unreachable};
pub use secrets::FakeSecrets;
pub use store::FakeStore;
pub use tokens::FakeTokens;
pub use webhook_sender::{FakeWebhookSender, ReceiverBehavior};

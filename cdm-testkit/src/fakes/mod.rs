//! Stateful fakes of every port, in memory. Each passes its port's contract suite.

mod cluster;
mod databases;
mod jobs;
mod objects;
mod postman;
mod probe;
mod script;
mod secrets;
mod store;
mod tokens;

pub use cluster::FakeCluster;
pub use databases::FakeDatabases;
pub use objects::FakeObjects;
pub use postman::{Answer, FakePostman};
pub use probe::{Away, FakeProbe};
pub use script::{ImageScript, JobScript};
pub use secrets::FakeSecrets;
pub use store::FakeStore;
pub use tokens::FakeTokens;

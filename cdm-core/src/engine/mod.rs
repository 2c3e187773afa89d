//! Runs operations so that none is lost, none runs twice at once, and none waits silently.
//!
//! [`plan`] decides, synchronously; the [`Runner`] does, and is the only loop that does. A [`Worker`] finds what is to
//! be run, takes what a lost worker left, and keeps the lease under which all of it happens. A [`Courier`] beside it brings
//! to receivers what the feed tells, and [`Retention`] deletes what is kept no longer. The engine knows lists of
//! named steps; what a step does to a site it does not know.

pub mod plan;

mod bell;
mod beside;
mod budget;
mod courier;
mod lease;
mod pipeline;
mod record;
mod retention;
mod runner;
mod settings;
mod worker;

pub(crate) use beside::{beside, next};
pub use budget::RetryBudget;
pub use courier::Courier;
pub use lease::{Lease, Lost};
pub use pipeline::{Change, Context, Done, Pipeline, Registry, Stop};
pub use record::Record;
pub use retention::{Kept, Retention};
pub use runner::{Later, Left, Runner};
pub use settings::{Patience, Settings};
pub use worker::{RolloutDriver, Turn, Worker};

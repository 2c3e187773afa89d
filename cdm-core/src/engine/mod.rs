//! Runs operations so that none is lost, none runs twice at once, and none waits silently.
//!
//! [`plan`] decides, synchronously; the [`Runner`] does, and is the only loop that does. A [`Worker`] finds what is to
//! be run, takes what a lost worker left, and keeps the lease under which all of it happens. A [`WebhookDispatcher`] beside it brings
//! to receivers what the feed tells, and [`Retention`] deletes what is kept no longer. The engine knows lists of
//! named steps; what a step does to a site it does not know.

pub mod plan;

mod budget;
mod dispatcher;
mod lease;
mod pipeline;
mod poll_while;
mod record;
mod retention;
mod retry;
mod runner;
mod settings;
mod wake_signal;
mod worker;

pub use budget::RetryBudget;
pub use dispatcher::WebhookDispatcher;
pub use lease::{Lease, Lost};
pub use pipeline::{
    Attempt, Cancel, Change, Lock, Pipeline, Registry, Run, Step, StepContext, StepError, StepOutput,
    StepResult, Undo,
};
pub(crate) use poll_while::{next, poll_while};
pub use record::Record;
pub use retention::{Kept, Retention};
pub(crate) use retry::{Backoff, Pauses, Unwritten, is_transient, retry_write};
pub use runner::{NextPoll, RunOutcome, Runner};
pub use settings::{PipelineSettings, Settings, StepTimeouts};
pub use worker::{RolloutDriver, RunSummary, Worker};

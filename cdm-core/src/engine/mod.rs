//! Runs operations: each one completes or states why it waits, and no two workers run the same one concurrently.
//!
//! [`plan`] contains the decisions, as synchronous functions. The [`Runner`] executes them, and is the only loop that
//! runs operations. A [`Worker`] finds pending work, takes over the work of lost workers, and renews the lease for all
//! calls. A [`WebhookDispatcher`] sends the events of the feed to webhooks, and [`Retention`] deletes audit entries and
//! events after their retention period. The engine runs tables of named steps, and does not depend on what they do.

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
pub(crate) use poll_while::poll_while;
pub use record::Record;
pub use retention::{Retention, RetentionPeriods};
pub(crate) use retry::{Backoff, Pauses, Unwritten, is_transient, retry_write};
pub use runner::{NextPoll, RunOutcome, Runner};
pub use settings::{PipelineSettings, Settings, StepTimeouts};
pub use worker::{RolloutDriver, RunSummary, Worker};

//! The lease of a worker: the time until which the worker may make calls.
//!
//! A lease alone does not exclude a second owner: a process can be suspended between the check of its lease and a call.
//! Therefore each target also checks the fence of a call. The lease makes such late calls rare.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Settings;
use crate::domain::{Fence, MonotonicTime, WorkerId};
use crate::ports::{CallContext, Ports};

/// The worker has lost its lease, or the record that it works on. The caller stops at once and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease is lost")]
pub struct Lost;

/// The lease of a worker.
#[derive(Debug)]
pub struct Lease {
    worker: WorkerId,
    until: AtomicU64,
    call: Duration,
    margin: Duration,
    length: Duration,
}

impl Lease {
    /// Creates a lease that has expired. The first heartbeat renews it.
    pub fn new(worker: WorkerId, settings: &Settings) -> Self {
        Self {
            worker,
            until: AtomicU64::new(0),
            call: settings.call,
            margin: settings.margin,
            length: settings.lease,
        }
    }

    /// Returns the worker that has the lease.
    pub const fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// Renews the lease after the store has applied a heartbeat that was sent at `sent`.
    pub fn renewed(&self, sent: MonotonicTime) {
        self.until.fetch_max(sent.after(self.length).millis(), Ordering::SeqCst);
    }

    /// Returns the context of a new call with `fence`. The deadline of the call is at least [`Settings::margin`] before
    /// the end of the lease.
    ///
    /// # Errors
    /// [`Lost`] if the remaining lease is too short for a call.
    pub fn call(&self, ports: &Ports, fence: Fence) -> Result<CallContext, Lost> {
        let deadline = ports.clock.monotonic().after(self.call);
        let until = MonotonicTime::from_millis(self.until.load(Ordering::SeqCst));
        if deadline.after(self.margin) > until && !crate::bug!(LeaseIgnored) {
            return Err(Lost);
        }
        Ok(CallContext { deadline, write: ports.entropy.write(), fence })
    }
}

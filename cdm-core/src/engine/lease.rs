//! The lease of a worker: until when it may act.
//!
//! A lease is not mutual exclusion: a process can be stopped between the look at its lease and the call. So every
//! effect is fenced at its target besides; the lease only keeps the fences from having much to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Settings;
use crate::domain::{Fence, MonotonicTime, WorkerId};
use crate::ports::{CallContext, Ports};

/// The worker has no right to act any more. Whoever gets this stops at once and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease is lost")]
pub struct Lost;

/// Until when a worker may act.
#[derive(Debug)]
pub struct Lease {
    worker: WorkerId,
    until: AtomicU64,
    call: Duration,
    margin: Duration,
    length: Duration,
}

impl Lease {
    /// A lease that has still to be taken.
    pub fn new(worker: WorkerId, settings: &Settings) -> Self {
        Self {
            worker,
            until: AtomicU64::new(0),
            call: settings.call,
            margin: settings.margin,
            length: settings.lease,
        }
    }

    /// Whose lease it is.
    pub const fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// A sign of life that was sent at `sent` has arrived.
    pub fn renewed(&self, sent: MonotonicTime) {
        self.until.fetch_max(sent.after(self.length).millis(), Ordering::SeqCst);
    }

    /// The context of a new call by `fence`, whose deadline leaves the margin of the lease.
    ///
    /// # Errors
    /// [`Lost`] when too little of the lease is left for a call.
    pub fn call(&self, ports: &Ports, fence: Fence) -> Result<CallContext, Lost> {
        let deadline = ports.clock.monotonic().after(self.call);
        let until = MonotonicTime::from_millis(self.until.load(Ordering::SeqCst));
        if deadline.after(self.margin) > until && !crate::bug!(LeaseIgnored) {
            return Err(Lost);
        }
        Ok(CallContext { deadline, write: ports.entropy.write(), fence })
    }
}

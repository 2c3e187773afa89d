//! The faults that a port call can have.

/// A fault of one port call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The process crashes before the call is sent.
    CrashBefore,
    /// The call takes effect, and the process crashes before it receives the response.
    CrashAfterEffect,
    /// The process receives the response, and crashes before its next call.
    CrashAfterAnswer,
    /// The call takes effect, and its response is lost.
    LostAnswer,
    /// The call has no effect, and its outcome is unknown.
    LostCall,
    /// The backend is temporarily unavailable and rejects the call.
    Transient,
    /// The backend throttles the call.
    Throttled,
    /// The backend reports a conflict, although the record has not changed.
    Conflict,
    /// The call is delivered twice.
    Duplicate,
    /// The response is lost, and the call takes effect that many calls later.
    Delayed(u8),
    /// The process pauses before the call. It resumes after that many calls, or, with [`u8::MAX`], on
    /// [`release`](super::FaultInjector::release).
    Paused(u8),
    /// The read returns the previous value.
    Stale,
    /// The backend denies this call and every later call of the same method until [`heal`](super::FaultInjector::heal).
    Permanent,
}

impl Fault {
    /// One fault of each kind.
    pub const KINDS: [Self; 13] = [
        Self::CrashBefore,
        Self::CrashAfterEffect,
        Self::CrashAfterAnswer,
        Self::LostAnswer,
        Self::LostCall,
        Self::Transient,
        Self::Throttled,
        Self::Conflict,
        Self::Duplicate,
        Self::Delayed(2),
        Self::Paused(3),
        Self::Stale,
        Self::Permanent,
    ];
}

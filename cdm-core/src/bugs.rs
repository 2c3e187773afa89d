//! The catalog of seeded bugs. Each entry stands for one place in this crate that behaves incorrectly while the bug
//! is switched on.
//!
//! The catalog is compiled only with the feature `seeded-bugs`. A test campaign switches one bug on at a time and
//! fails if no test catches it. The switch is per thread, so that campaigns can run in parallel.

/// Returns `true` while the named bug is switched on in this thread. Without the feature `seeded-bugs` the macro
/// expands to `false`.
#[cfg(feature = "seeded-bugs")]
macro_rules! bug {
    ($name:ident) => {
        $crate::bugs::planted($crate::bugs::Bug::$name)
    };
}
#[cfg(not(feature = "seeded-bugs"))]
macro_rules! bug {
    ($name:ident) => {
        false
    };
}
pub(crate) use bug;

#[cfg(feature = "seeded-bugs")]
pub use catalogue::{Bug, plant, planted};

#[cfg(feature = "seeded-bugs")]
mod catalogue {
    use std::cell::Cell;

    macro_rules! catalogue {
        ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
            /// One incorrect behavior that a test campaign has to catch.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Bug { $($(#[doc = $doc])+ $name,)+ }

            impl Bug {
                /// Lists every bug in declaration order.
                pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            }
        };
    }

    catalogue! {
        /// A rollout claims a site although the site has already accepted a higher claim token.
        ClaimIgnoresGrant,
        /// Releasing a claim does not compare the claim's fence.
        CompleteIgnoresFence,
        /// The object prefix of a site lacks its trailing slash and the last letter of the uid, so that it matches
        /// other prefixes.
        PrefixWithoutSlash,
        /// A lock on a service is granted to every caller.
        HoldIgnored,
        /// A rollback chooses the newest digest regardless of its verdict.
        RollbackTakesAny,
        /// A digest that was rolled back keeps the verdict it had before.
        RolledBackIsHealthy,
        /// A gate's verdict is written to the digest that the rollout was started for instead of the digest that ran.
        VerdictOnRolloutsDigest,
        /// The sites of a window move regardless of the digest that the target runs.
        WindowIgnoresDigest,
        /// A request to pause a rollout is lost.
        PauseForgotten,
        /// A rollout continues although its failure budget is used up.
        BudgetIgnored,
        /// A side effect happens before its intent is stored.
        JournalAfterEffect,
        /// A timeout is treated as a definite failure.
        TimeoutIsFailure,
        /// Taking over an operation does not raise its epoch.
        TakeOverKeepsEpoch,
        /// A worker does not check its lease before a call.
        LeaseIgnored,
        /// Attempts are not counted.
        AttemptsUncounted,
        /// Waiting for an unavailable backend counts as an attempt.
        WaitCountsAttempts,
        /// An event that the status table does not allow is ignored instead of rejected.
        IllegalTransitionSwallowed,
        /// A waiting operation is stored at every poll even if nothing changed.
        WaitAlwaysStored,
        /// The pause between retries of an unavailable backend does not grow.
        PauseDoesNotGrow,
        /// A worker runs an operation whose pipeline version it does not support.
        UnknownVersionRun,
        /// After a conflict, a worker overwrites the stored record with its own copy.
        ConflictOverwritten,
        /// A cancel request is ignored.
        CancelIgnored,
        /// A route is moved to a service that is not ready.
        RouteBeforeReady,
        /// A route is moved regardless of the fence it carries.
        RouteFenceIgnored,
        /// A new password is generated although one is stored.
        SecretRedrawn,
        /// Only half of a page of keys is deleted from the bucket.
        HalfDeletePage,
        /// Errors of individual keys in a delete are ignored.
        DeleteErrorsIgnored,
        /// Data is deleted before the route is removed.
        DataBeforeRoute,
        /// A running job is started again under another name.
        JobRestarted,
        /// A job counts as successful before it has ended.
        JobNotAwaited,
        /// A canceled promote leaves the route on the target.
        UndoLeavesRoute,
        /// An image that does not become ready is not rolled back.
        FailedImageStays,
        /// The reason of a parked operation contains the value of a secret.
        SecretInReason,
        /// A new owner restarts a window from the beginning without resolving the sites that the lost owner had
        /// claimed.
        WindowNotSettled,
        /// A rollout's owner moves sites beyond the end of its window.
        WindowOverrun,
        /// A site with the same id but another uid is claimed.
        NameNotUid,
        /// The hostnames of a terminated site stay claimed.
        HostnamesKept,
        /// A response of the service that a site came from counts as a response of the target.
        OldAnswerCounts,
        /// A site that fails the health gate stays on the target.
        UnhealthyStays,
        /// An inconclusive probe counts as a failed one.
        InconclusiveIsFailure,
        /// A gate that halts a rollout does not mark the digest as bad.
        GateAcquits,
        /// Moves continue during a freeze.
        FreezeIgnored,
        /// The next wave starts without a bake time.
        BakeSkipped,
        /// A window whose caches are not flushed yet is forgotten.
        TrailingForgotten,
        /// A site with the correct address counts as installed even if it has no administrator.
        AddressProvesInstall,
        /// A job that ended without an error counts as successful regardless of its output.
        ExitProvesFlush,
        /// The database of a site that was active is renewed as if the site had never been active.
        ActiveDatabaseRenewed,
        /// A failed delivery is retried immediately.
        WebhookImpatient,
        /// A webhook's cursor advances before its message is delivered.
        WebhookPlaceFirst,
    }

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches `bug` on in this thread, or switches every bug off with `None`.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Returns whether `bug` is on in this thread.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

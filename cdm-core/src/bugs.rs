//! The catalogue of planted bugs: each is one line somewhere in this crate that is wrong while the bug is switched on.
//!
//! It is compiled only for the test campaigns, which switch one on at a time and demand that it is caught. The switch
//! is per thread, so that campaigns can run side by side.

/// `true` while the named bug is switched on; `false`, at no cost, in every build without the test feature.
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
            /// One way to be wrong.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Bug { $($(#[doc = $doc])+ $name,)+ }

            impl Bug {
                /// Every one of them.
                pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            }
        };
    }

    catalogue! {
        /// A rollout's claim does not look at the grant a site has seen.
        ClaimIgnoresGrant,
        /// A rollout's completion does not look at the claim's fence.
        CompleteIgnoresFence,
        /// The prefix of a site's objects lacks its slash (and the last letter, as if names could be prefixes).
        PrefixWithoutSlash,
        /// A hold on a colour is given to everyone.
        HoldIgnored,
        /// A rollback takes the newest digest whatever its verdict.
        RollbackTakesAny,
        /// What was rolled back is as healthy as before.
        RolledBackIsHealthy,
        /// A gate's verdict falls on the digest that the rollout was started for, whatever ran.
        VerdictOnRolloutsDigest,
        /// A window's sites are moved whatever digest the target runs.
        WindowIgnoresDigest,
        /// A request to pause a rollout is lost.
        PauseForgotten,
        /// A rollout goes on whatever its budget says.
        BudgetIgnored,
        /// An effect is made before its intent is stored.
        JournalAfterEffect,
        /// A timeout is taken for a failure.
        TimeoutIsFailure,
        /// A take-over leaves the epoch as it was.
        TakeOverKeepsEpoch,
        /// A worker does not look at its lease before a call.
        LeaseIgnored,
        /// Attempts are not counted.
        AttemptsUncounted,
        /// An attempt is counted whenever a backend is away.
        WaitCountsAttempts,
        /// An event that the table of statuses does not have is passed over in silence.
        IllegalTransitionSwallowed,
        /// A wait is stored again each time that it is looked at, whatever has changed.
        WaitAlwaysStored,
        /// A backend that is away is asked again without a pause that grows.
        PauseDoesNotGrow,
        /// A worker runs an operation of a pipeline version that it does not know.
        UnknownVersionRun,
        /// A conflict in the store is overwritten with what this worker has in mind.
        ConflictOverwritten,
        /// A request to cancel is not looked at.
        CancelIgnored,
        /// A route is pointed to a service that is not ready.
        RouteBeforeReady,
        /// A route is moved whatever fence it carries.
        RouteFenceIgnored,
        /// A new password is drawn where a stored one exists.
        SecretRedrawn,
        /// The rest of a page of keys is left in the bucket.
        HalfDeletePage,
        /// Errors of single keys in a delete are ignored.
        DeleteErrorsIgnored,
        /// Data is deleted before the route is gone.
        DataBeforeRoute,
        /// A job that runs is started again under another name.
        JobRestarted,
        /// A job's success is taken on trust, before it ended.
        JobNotAwaited,
        /// A cancelled promotion leaves the route where it is.
        UndoLeavesRoute,
        /// An image that does not get ready is left in place.
        FailedImageStays,
        /// A secret's value goes into the reason of a parked operation.
        SecretInReason,
        /// A new owner of a rollout starts from the beginning of the window without asking the sites.
        WindowNotSettled,
        /// A rollout's owner reaches over the end of its window.
        WindowOverrun,
        /// A site of another uid under the same id is claimed.
        NameNotUid,
        /// A terminated site's hostnames stay taken.
        HostnamesKept,
        /// An answer of the service that a site came from is taken for one of the service it went to.
        OldAnswerCounts,
        /// A site that the gate speaks against stays where it was moved.
        UnhealthyStays,
        /// A site that could not be asked is taken for one that does not work.
        InconclusiveIsFailure,
        /// A gate that halts a rollout leaves the image without a verdict.
        GateAcquits,
        /// Moves go on in a freeze.
        FreezeIgnored,
        /// The next wave does not wait.
        BakeSkipped,
        /// A window whose caches are still to be flushed is forgotten.
        TrailingForgotten,
        /// A site whose address is right counts as installed, whoever can sign in to it.
        AddressProvesInstall,
        /// A job that ended without an error counts as done, whatever it printed.
        ExitProvesFlush,
        /// The database of a site that was active is made anew like that of one that never was.
        ActiveDatabaseRenewed,
        /// A receiver that fails is asked again at once.
        WebhookImpatient,
        /// A webhook's place moves before its message has arrived.
        WebhookPlaceFirst,
    }

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches `bug` on in this thread, or all off with `None`.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether `bug` is on in this thread.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

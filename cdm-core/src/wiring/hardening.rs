//! What a program that works with secrets sets for its whole process, first of all.

use std::io;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal, setrlimit, umask};
use tokio::signal::unix::{SignalKind, signal};

/// Sets this process up for work with secrets on a disk that may be full. To be called within a runtime, before anything
/// is opened.
///
/// - Files and directories are made for their owner alone (umask 077).
/// - There is no core dump (`RLIMIT_CORE` 0), and on Linux no other process of the same user reads the memory
///   (`PR_SET_DUMPABLE` 0): tokens and keys are there in the clear.
/// - A write beyond a limit of a file's size fails instead of ending the process (SIGXFSZ).
///
/// # Errors
/// What the system refuses.
pub fn harden_process() -> io::Result<()> {
    umask(Mode::from_raw_mode(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    // The handler stays when what it returns is dropped.
    drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
    Ok(())
}

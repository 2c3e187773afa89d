//! Process-wide protections, which a program sets before anything else.

use std::io;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal, setrlimit, umask};
use tokio::signal::unix::{SignalKind, signal};

/// Prepares this process for work with secrets, and for a disk that may be full. Call this function within a runtime, before
/// the process opens anything.
///
/// - New files and directories are accessible only to their owner (umask 077).
/// - The process writes no core dump (`RLIMIT_CORE` 0), and on Linux no other process of the same user can read its memory
///   (`PR_SET_DUMPABLE` 0), which contains tokens and keys in plaintext.
/// - A write beyond the limit of a file's size fails, and does not end the process (SIGXFSZ).
///
/// # Errors
/// The system rejects one of these settings.
pub fn harden_process() -> io::Result<()> {
    umask(Mode::from_raw_mode(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    // The handler stays installed after the stream of signals is dropped.
    drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
    Ok(())
}

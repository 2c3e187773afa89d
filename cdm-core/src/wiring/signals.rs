//! The signals that stop a process gracefully.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// A signal that requests a process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGINT, which Ctrl-C sends.
    Interrupt,
    /// SIGTERM, which service managers and `kill` send.
    Terminate,
    /// SIGHUP, which a closed terminal sends.
    Hangup,
}

/// Installs handlers for SIGINT, SIGTERM and SIGHUP at once, and returns a future that completes with the first of these
/// signals. SIGHUP stays ignored if it was ignored when the process started, as under `nohup`.
///
/// # Errors
/// The system rejects a handler.
pub fn end_signal() -> io::Result<impl Future<Output = EndSignal> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = if is_ignored(HANGUP) { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => EndSignal::Terminate,
            _ = interrupt.recv() => EndSignal::Interrupt,
            _ = hung_up => EndSignal::Hangup,
        }
    })
}

/// The number of SIGHUP.
const HANGUP: u32 = 1;

/// Returns whether this process ignores a signal. Known on Linux only; `false` elsewhere.
fn is_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

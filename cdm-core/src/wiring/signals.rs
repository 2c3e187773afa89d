//! The signals that end a process in good order.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// A signal that asks a process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal was closed.
    Hangup,
}

/// Listens from now on; the future is done when the first of these signals has come. SIGHUP stays ignored where whoever
/// started the process had it ignored, as `nohup` does.
///
/// # Errors
/// When the system does not let the process listen.
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

/// Whether whoever started this process had it ignore a signal. Known on Linux alone.
fn is_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

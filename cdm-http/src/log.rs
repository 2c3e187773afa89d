//! Writes the log to standard error without blocking requests, even if the reader of standard error is slow or gone.
//!
//! A thread writes the lines. A line is dropped and counted if the queue of the thread is full or the write fails; the next
//! successful write is preceded by a line with the number of dropped lines.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The maximum number of queued lines: some seconds of a busy server, a few megabytes.
const QUEUE: usize = 8_192;
/// How long [`LossyLog::flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of lines that this process has dropped.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns the number of log lines that this process has dropped, for the metrics.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Returns writers of single lines to `tracing_subscriber`; the writers never block or fail. Clones share one thread.
#[derive(Clone, Debug)]
pub struct LossyLog {
    lines: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Acknowledged when all earlier lines are written.
    Flush(SyncSender<()>),
}

impl LossyLog {
    /// Returns a log that writes to standard error.
    ///
    /// # Errors
    /// If the process cannot open another file descriptor or start another thread.
    pub fn to_stderr() -> io::Result<Self> {
        // A separate descriptor, since a blocked write would hold the lock of `std::io::stderr`.
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(writer, &queue))?;
        Ok(Self { lines })
    }

    /// Waits until all earlier lines are written, for at most one second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            // The caller continues in both cases.
            let _: Result<(), RecvTimeoutError> = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

fn write_lines(mut writer: impl Write, queue: &Receiver<Message>) {
    let mut reported = dropped();
    for message in queue {
        match message {
            Message::Line(line) => {
                let missing = dropped() - reported;
                let notice = if missing > 0 { notice(missing) } else { String::new() };
                match writer.write_all(notice.as_bytes()).and_then(|()| writer.write_all(&line)) {
                    Ok(()) => reported += missing,
                    Err(_) => drop(DROPPED.fetch_add(1, Ordering::Relaxed)),
                }
            }
            Message::Flush(done) => {
                // The flush may have timed out.
                let _ = done.send(());
            }
        }
    }
}

/// Returns the line that reports missing lines; valid as text and as JSON.
fn notice(missing: u64) -> String {
    let message = "log lines before this line were dropped, because standard error was blocked or closed";
    format!(
        "{{\"level\":\"WARN\",\"fields\":{{\"message\":\"{message}\",\"dropped\":{missing}}},\"target\":\"cdm_http::log\"}}\n"
    )
}

impl<'a> MakeWriter<'a> for LossyLog {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { text: Vec::new(), lines: self.lines.clone() }
    }
}

/// A line of the log, which is queued on drop.
#[derive(Debug)]
pub struct Line {
    text: Vec<u8>,
    lines: SyncSender<Message>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() && self.lines.try_send(Message::Line(text)).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes the last message of a program to standard error, unless standard error is blocked for more than one second.
pub fn write_to_stderr(text: &str) {
    if let Ok(log) = LossyLog::to_stderr() {
        // The line is queued on drop.
        drop(Line { text: format!("{text}\n").into_bytes(), lines: log.lines.clone() });
        log.flush();
    }
}

/// Logs panics as errors. The default hook writes to standard error itself, and blocks if standard error is blocked.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            panic = panic.payload_as_str().unwrap_or("no message"),
            location,
            thread = thread.name(),
            "a thread panicked"
        );
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Blocks each write until the test lets it succeed or fail, and stores the written text.
    struct BlockingWriter {
        writes: Sender<()>,
        results: Receiver<bool>,
        written: Arc<Mutex<String>>,
    }

    impl Write for BlockingWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The test may have dropped the receiver.
            let _ = self.writes.send(());
            match self.results.recv() {
                Ok(true) | Err(_) => {
                    self.written.lock().expect("the written text").push_str(&String::from_utf8_lossy(bytes));
                    Ok(bytes.len())
                }
                Ok(false) => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn blocking_log() -> (LossyLog, Receiver<()>, Sender<bool>, Arc<Mutex<String>>) {
        let (writes, started) = std::sync::mpsc::channel();
        let (finish, results) = std::sync::mpsc::channel();
        let written = Arc::<Mutex<String>>::default();
        let writer = BlockingWriter { writes, results, written: Arc::clone(&written) };
        (LossyLog::to(writer).expect("a thread"), started, finish, written)
    }

    fn line(log: &LossyLog, text: &str) {
        log.make_writer().write_all(text.as_bytes()).expect("a writer that never fails");
    }

    // One test, since the whole process shares the count.
    #[test]
    fn dropped_lines_are_counted_and_reported_once() {
        let (log, started, finish, written) = blocking_log();
        let before = dropped();
        line(&log, "line 0\n");
        started.recv().expect("the first line is being written");
        for number in 1..2 * QUEUE {
            line(&log, &format!("line {number}\n"));
        }
        let lost = dropped() - before;
        assert!((1..=u64::try_from(QUEUE).expect("a number")).contains(&lost), "{lost}");
        // A failed write drops its line too, and the next line reports it.
        finish.send(false).expect("a writer");
        drop(finish);
        for _ in 0..=QUEUE {
            started.recv().expect("the notice and the queued lines are written");
        }
        log.flush();
        let written = written.lock().expect("the written text").clone();
        assert_eq!(dropped() - before, lost + 1);
        assert_eq!(written.matches("were dropped").count(), 1, "reported once");
        let notice: serde_json::Value =
            serde_json::from_str(written.lines().next().expect("a line")).expect("a line of JSON");
        assert_eq!(notice["fields"]["dropped"], lost + 1);
        assert_eq!(written.lines().nth(1), Some("line 1"));
    }
}

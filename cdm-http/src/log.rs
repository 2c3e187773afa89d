//! Log lines to standard error, as far as somebody takes them: a reader that is gone or does not read stops no request.
//!
//! A thread writes. What finds its queue full, or cannot be written, is dropped and counted; once lines go through again,
//! one of them says how many are missing.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for the thread at most: some seconds of a busy server, a few megabytes.
const QUEUE: usize = 8_192;
/// How long the last lines of a process may take.
const LAST: Duration = Duration::from_secs(1);

/// Lines that were dropped since the process began.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many log lines of this process were dropped, for its metrics.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Makes writers of single lines for `tracing_subscriber`; none of them waits or fails. Clones share one thread.
#[derive(Clone, Debug)]
pub struct LossyLog {
    lines: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it was written.
    Flush(SyncSender<()>),
}

impl LossyLog {
    /// Writes to this process's standard error.
    ///
    /// # Errors
    /// When the process can have no further file descriptor or thread.
    pub fn to_stderr() -> io::Result<Self> {
        // A descriptor of its own: the lock of `std::io::stderr` would be held by a write that blocks.
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(QUEUE);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || keep(writer, &waiting))?;
        Ok(Self { lines })
    }

    /// Waits until what was logged so far is written, at most for a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            // Whether it was done or not: the process ends.
            let _: Result<(), RecvTimeoutError> = wait.recv_timeout(LAST);
        }
    }
}

fn keep(mut writer: impl Write, waiting: &Receiver<Message>) {
    let mut said = dropped();
    for message in waiting {
        match message {
            Message::Line(line) => {
                let missing = dropped() - said;
                let notice = if missing > 0 { notice(missing) } else { String::new() };
                match writer.write_all(notice.as_bytes()).and_then(|()| writer.write_all(&line)) {
                    Ok(()) => said += missing,
                    Err(_) => drop(DROPPED.fetch_add(1, Ordering::Relaxed)),
                }
            }
            Message::Flush(done) => {
                // Who waited may have given up.
                let _ = done.send(());
            }
        }
    }
}

/// What stands in the place of lines that are missing; valid as text and as JSON.
fn notice(missing: u64) -> String {
    let words = "log lines before this one were dropped: standard error did not take them";
    format!(
        "{{\"level\":\"WARN\",\"fields\":{{\"message\":\"{words}\",\"dropped\":{missing}}},\"target\":\"cdm_http::log\"}}\n"
    )
}

impl<'a> MakeWriter<'a> for LossyLog {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { text: Vec::new(), lines: self.lines.clone() }
    }
}

/// One line, sent when it is dropped.
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

/// Writes a program's last words to standard error, as far as somebody takes them within a second.
pub fn last_words(text: &str) {
    if let Ok(log) = LossyLog::to_stderr() {
        // Sent when it is dropped.
        drop(Line { text: format!("{text}\n").into_bytes(), lines: log.lines.clone() });
        log.flush();
    }
}

/// Has panics logged as errors. The usual hook writes to standard error itself, and waits for its reader.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            panic = panic.payload_as_str().unwrap_or("of no text"),
            location,
            thread = thread.name(),
            "a panic"
        );
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Takes writes when it is let, fails when it shall, and keeps what it took.
    struct Reader {
        asked: Sender<()>,
        gate: Receiver<bool>,
        taken: Arc<Mutex<String>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Nobody listens for more than the first.
            let _ = self.asked.send(());
            match self.gate.recv() {
                Ok(true) | Err(_) => {
                    self.taken.lock().expect("what was taken").push_str(&String::from_utf8_lossy(bytes));
                    Ok(bytes.len())
                }
                Ok(false) => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reader() -> (LossyLog, Receiver<()>, Sender<bool>, Arc<Mutex<String>>) {
        let (asked, writes) = std::sync::mpsc::channel();
        let (open, gate) = std::sync::mpsc::channel();
        let taken = Arc::<Mutex<String>>::default();
        let log = LossyLog::to(Reader { asked, gate, taken: Arc::clone(&taken) }).expect("a thread");
        (log, writes, open, taken)
    }

    fn line(log: &LossyLog, text: &str) {
        log.make_writer().write_all(text.as_bytes()).expect("a writer that takes everything");
    }

    // One test, since the count is the process's.
    #[test]
    fn lines_that_nobody_takes_are_dropped_counted_and_said_once() {
        let (log, writes, open, taken) = reader();
        let before = dropped();
        line(&log, "line 0\n");
        writes.recv().expect("the first line is being written");
        for number in 1..2 * QUEUE {
            line(&log, &format!("line {number}\n"));
        }
        let lost = dropped() - before;
        assert!((1..=u64::try_from(QUEUE).expect("a number")).contains(&lost), "{lost}");
        // A write that fails loses its line too, and the next one says so.
        open.send(false).expect("a writer");
        drop(open);
        for _ in 0..=QUEUE {
            writes.recv().expect("the notice and the lines that waited are written");
        }
        log.flush();
        let taken = taken.lock().expect("what was taken").clone();
        assert_eq!(dropped() - before, lost + 1);
        assert_eq!(taken.matches("were dropped").count(), 1, "said once");
        let said: serde_json::Value =
            serde_json::from_str(taken.lines().next().expect("a line")).expect("a line of JSON");
        assert_eq!(said["fields"]["dropped"], lost + 1);
        assert_eq!(taken.lines().nth(1), Some("line 1"));
    }
}

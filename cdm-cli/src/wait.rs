//! Waiting for an operation or a rollout: the server's events trigger a poll, and each poll reads the current state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdm_core::domain::MonotonicTime;
use cdm_core::ports::Clock;
use cdm_http::api::event::FrameKind;
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt};

use crate::client::{Client, Received};
use crate::error::{CliError, Subject};
use crate::exit::Exit;
use crate::io::Interrupt;
use crate::printer::Printer;
use crate::progress::Progress;
use crate::transport::{Event, EventStream, Events};
use crate::work::{Goal, State, Work};

/// Minimum time between two polls, however many events arrive.
const MIN_POLL: Duration = Duration::from_millis(200);
/// Time without an event after which the state is polled anyway, since a dead connection may go unnoticed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// First pause between two attempts when the server does not respond or provides no events; doubles up to
/// `LAST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Settings of a wait.
#[derive(Debug)]
pub struct Wait<'a> {
    /// Client for the API.
    pub client: Client<'a>,
    /// Clock for pauses and the timeout.
    pub clock: Arc<dyn Clock>,
    /// Maximum duration of the wait.
    pub timeout: Duration,
    /// Resolves on Ctrl-C or another signal that ends the process.
    pub interrupt: Interrupt,
    /// When the state is written to standard output.
    pub emit: EmitMode,
}

/// When the state is written to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitMode {
    /// Once, at the end, by the caller.
    AtEnd,
    /// On each change, as one line.
    OnChange,
}

impl Wait<'_> {
    /// Waits until the work has ended or stopped, and returns its last state. `first` is the state that is already
    /// known.
    ///
    /// # Errors
    /// When the timeout expires, a signal arrives, the server rejects a request, or the server did not respond until
    /// the timeout. The work continues in each case.
    pub async fn until_settled<W: Work>(
        &self,
        subject: &Subject,
        first: Received<W>,
        goal: Goal,
        printer: &mut Printer,
    ) -> Result<Received<W>, CliError> {
        let deadline = self.clock.monotonic().after(self.timeout);
        let mut progress = Progress::new(subject, printer);
        let outage = Mutex::new(None);
        let ended = {
            let work = std::pin::pin!(self.follow(subject, first, goal, &outage, &mut progress, printer));
            let interruption = std::pin::pin!(async {
                match select(self.interrupt.clone(), self.clock.sleep_until(deadline)).await {
                    Either::Left((by, _)) => CliError::Interrupted { by, subject: Some(subject.clone()) },
                    Either::Right(_) => CliError::WaitTimedOut { subject: subject.clone() },
                }
            });
            match select(work, interruption).await {
                Either::Left((ended, _)) => ended,
                Either::Right((why @ CliError::WaitTimedOut { .. }, _)) => {
                    // The server did not respond in that time, so that error is the one to report.
                    Err(outage.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(why))
                }
                Either::Right((why, _)) => Err(why),
            }
        };
        progress.finish();
        ended
    }

    async fn follow<W: Work>(
        &self,
        subject: &Subject,
        first: Received<W>,
        goal: Goal,
        outage: &Mutex<Option<CliError>>,
        progress: &mut Progress,
        printer: &mut Printer,
    ) -> Result<Received<W>, CliError> {
        let outage = |error| *outage.lock().unwrap_or_else(PoisonError::into_inner) = error;
        let mut stream = Stream::new(subject);
        let mut work = first;
        let mut failures = 0_u32;
        progress.show(work.value.state(), printer);
        self.emit_state(&work, progress, printer)?;
        while !work.value.state().is_settled(goal) {
            stream.wait_for_poll(self).await;
            let polled_at = self.clock.monotonic();
            match self.client.get(&subject.path()).await {
                Ok(now) => {
                    let changed = work.json != now.json;
                    (work, failures) = (now, 0);
                    outage(None);
                    progress.show(work.value.state(), printer);
                    if changed {
                        self.emit_state(&work, progress, printer)?;
                    }
                }
                // A server that restarts is retried until the timeout.
                Err(error) if Exit::from(&error) == Exit::Unreachable => {
                    failures = failures.saturating_add(1);
                    outage(Some(error));
                    self.pause(self.clock.monotonic(), pause_after(failures)).await;
                }
                Err(error) => return Err(error),
            }
            stream.polled_at = Some(polled_at);
        }
        Ok(work)
    }

    /// Writes the current state to standard output, if the mode is `OnChange`.
    fn emit_state<W: Work>(
        &self,
        work: &Received<W>,
        progress: &Progress,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        match (self.emit, work.value.state()) {
            (EmitMode::OnChange, State::Rollout(rollout)) => {
                printer.event(&progress.line(&work.json, rollout, printer))
            }
            (EmitMode::OnChange, State::Operation(_)) => printer.event(&work.json),
            (EmitMode::AtEnd, _) => Ok(()),
        }
    }

    async fn pause(&self, from: MonotonicTime, span: Duration) {
        self.clock.sleep_until(from.after(span)).await;
    }
}

/// Returns the pause before the next attempt, after that many failed ones.
pub(crate) fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LAST_PAUSE)
}

/// The events of a subject; reconnects after the last event when the connection breaks.
struct Stream {
    path: String,
    events: Source,
    last_id: Option<String>,
    polled_at: Option<MonotonicTime>,
    failures: u32,
}

enum Source {
    /// No connection yet, or the last one has ended: connect next.
    Disconnected,
    /// An open event stream.
    Open(Events),
    /// No events are available, or no further ones: poll periodically.
    Poll,
}

impl Stream {
    fn new(subject: &Subject) -> Self {
        Self {
            path: format!("{}/events", subject.path()),
            events: Source::Disconnected,
            last_id: None,
            polled_at: None,
            failures: 0,
        }
    }

    /// Returns when the next poll should happen: after a new connection, an event, a pause, or a long time without
    /// events.
    async fn wait_for_poll(&mut self, wait: &Wait<'_>) {
        let now = wait.clock.monotonic();
        match &mut self.events {
            Source::Disconnected => self.connect(wait).await,
            Source::Poll => {
                self.failures += 1;
                wait.pause(now, pause_after(self.failures.saturating_sub(1))).await;
            }
            Source::Open(events) => {
                let idle = wait.clock.sleep_until(now.after(IDLE_TIMEOUT));
                let item = match select(events.next(), idle).await {
                    Either::Left((item, _)) => item,
                    Either::Right(_) => return,
                };
                self.record(item);
                if let Some(polled_at) = self.polled_at {
                    wait.pause(polled_at, MIN_POLL).await;
                }
                // The same poll covers the events that have arrived in the meantime.
                while let Source::Open(events) = &mut self.events {
                    match events.next().now_or_never() {
                        Some(item) => self.record(item),
                        None => break,
                    }
                }
            }
        }
    }

    fn record(&mut self, item: Option<Result<Event, crate::transport::TransportError>>) {
        match item {
            Some(Ok(event)) => {
                self.failures = 0;
                self.last_id = event.id.or_else(|| self.last_id.take());
                if event.event == FrameKind::End.as_str() {
                    self.events = Source::Poll;
                }
            }
            Some(Err(_)) | None => self.events = Source::Disconnected,
        }
    }

    async fn connect(&mut self, wait: &Wait<'_>) {
        if self.failures > 0 {
            wait.pause(wait.clock.monotonic(), pause_after(self.failures - 1)).await;
        }
        // Counts as a failure until an event arrives, since a connection may open and close at once.
        self.failures += 1;
        self.events = match wait.client.transport.events(&self.path, self.last_id.as_deref()).await {
            Ok(EventStream::Open(events)) => Source::Open(events),
            Ok(EventStream::Rejected(response)) if Exit::of_status(response.status) != Exit::Unreachable => {
                Source::Poll
            }
            Ok(EventStream::Rejected(_)) | Err(_) => Source::Disconnected,
        };
    }
}

//! Waiting for work: the server's events say when to look, looking says how it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdm_core::domain::MonotonicTime;
use cdm_core::ports::Clock;
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt};
use serde_json::Value;

use crate::client::Client;
use crate::error::{CliError, Subject, SubjectKind};
use crate::exit::Exit;
use crate::printer::Printer;
use crate::progress::Progress;
use crate::transport::{Event, Events, Listening};
use crate::world::Interrupt;

/// Between two looks, however many events come.
const BREATH: Duration = Duration::from_millis(200);
/// A connection may be dead without saying so: after this long without an event, look all the same.
const SILENCE: Duration = Duration::from_secs(15);
/// Between two tries when the server does not answer, or gives no events.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What is hoped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// That the work succeeds.
    Success,
    /// That it ends, since that is what was asked for.
    End,
}

/// How work came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As hoped for.
    Done,
    /// Failed, cancelled or parked.
    Failed,
    /// Some sites were moved, others were not.
    Partly,
}

/// What a wait needs.
#[derive(Debug)]
pub struct Wait<'a> {
    /// The API.
    pub client: Client<'a>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How long at most.
    pub timeout: Duration,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// Whether standard output has what work is each time that it has changed, or in the end alone.
    pub told: Told,
}

/// When standard output is told what work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// In the end, by whoever waits.
    InTheEnd,
    /// Each time that it has changed, a line each.
    EachTime,
}

impl Wait<'_> {
    /// Waits until the work rests and gives what it is then, `first` being what is known of it.
    ///
    /// # Errors
    /// When the time is up, Ctrl-C is pressed, or the server stays away; the work goes on all the same.
    pub async fn until_rest(
        &self,
        subject: &Subject,
        first: Value,
        goal: Goal,
        printer: &mut Printer,
    ) -> Result<Value, CliError> {
        let deadline = self.clock.monotonic().after(self.timeout);
        let mut progress = Progress::new(subject, printer);
        let away = Mutex::new(None);
        let ended = {
            let work = std::pin::pin!(self.follow(subject, first, goal, &away, &mut progress, printer));
            let up = std::pin::pin!(async {
                match select(self.interrupt.clone(), self.clock.sleep_until(deadline)).await {
                    Either::Left((by, _)) => CliError::Interrupted { by, subject: Some(subject.clone()) },
                    Either::Right(_) => CliError::WaitTimedOut { subject: subject.clone() },
                }
            });
            match select(work, up).await {
                Either::Left((ended, _)) => ended,
                Either::Right((why @ CliError::WaitTimedOut { .. }, _)) => {
                    // The time was spent on a server that does not answer: that is what there is to say.
                    Err(away.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(why))
                }
                Either::Right((why, _)) => Err(why),
            }
        };
        progress.finish();
        ended
    }

    async fn follow(
        &self,
        subject: &Subject,
        first: Value,
        goal: Goal,
        away: &Mutex<Option<CliError>>,
        progress: &mut Progress,
        printer: &mut Printer,
    ) -> Result<Value, CliError> {
        let away = |error| *away.lock().unwrap_or_else(PoisonError::into_inner) = error;
        let mut stream = Stream::new(subject);
        let mut value = first;
        let mut failures = 0_u32;
        progress.show(&value, printer);
        self.tell(subject, &value, progress, printer)?;
        while !rests(subject.kind, &value, goal) {
            stream.news(self).await;
            let looked = self.clock.monotonic();
            match self.client.get(&subject.path()).await {
                Ok(now) => {
                    let changed = value != now;
                    (value, failures) = (now, 0);
                    away(None);
                    progress.show(&value, printer);
                    if changed {
                        self.tell(subject, &value, progress, printer)?;
                    }
                }
                // A server that is restarted is waited for, as long as the work is.
                Err(error) if Exit::from(&error) == Exit::Unreachable => {
                    failures = failures.saturating_add(1);
                    away(Some(error));
                    self.pause(self.clock.monotonic(), pause_after(failures)).await;
                }
                Err(error) => return Err(error),
            }
            stream.looked = Some(looked);
        }
        Ok(value)
    }

    /// A line of the work as it is now, where that is wanted.
    fn tell(
        &self,
        subject: &Subject,
        value: &Value,
        progress: &Progress,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        match (self.told, subject.kind) {
            (Told::EachTime, SubjectKind::Rollout) => printer.event(&progress.line(value, printer)),
            (Told::EachTime, SubjectKind::Operation) => printer.event(value),
            (Told::InTheEnd, _) => Ok(()),
        }
    }

    async fn pause(&self, from: MonotonicTime, span: Duration) {
        self.clock.sleep_until(from.after(span)).await;
    }
}

/// How long to wait before the next try, after so many that failed.
pub(crate) fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LAST_PAUSE)
}

/// The subject's events, connected anew where the last connection broke.
struct Stream {
    path: String,
    events: Source,
    last_id: Option<String>,
    looked: Option<MonotonicTime>,
    failures: u32,
}

enum Source {
    /// Not connected.
    Away,
    /// Connected.
    Open(Events),
    /// There are none to be had, or no more: look now and then.
    Poll,
}

impl Stream {
    fn new(subject: &Subject) -> Self {
        Self {
            path: format!("{}/events", subject.path()),
            events: Source::Away,
            last_id: None,
            looked: None,
            failures: 0,
        }
    }

    /// Returns when there is reason to look: something happened, or nothing was heard for long.
    async fn news(&mut self, wait: &Wait<'_>) {
        let now = wait.clock.monotonic();
        match &mut self.events {
            Source::Away => self.connect(wait).await,
            Source::Poll => {
                self.failures += 1;
                wait.pause(now, pause_after(self.failures.saturating_sub(1))).await;
            }
            Source::Open(events) => {
                let silence = wait.clock.sleep_until(now.after(SILENCE));
                let heard = match select(events.next(), silence).await {
                    Either::Left((heard, _)) => heard,
                    Either::Right(_) => return,
                };
                self.hear(heard);
                if let Some(looked) = self.looked {
                    wait.pause(looked, BREATH).await;
                }
                // What has come meanwhile is seen by the same look.
                while let Source::Open(events) = &mut self.events {
                    match events.next().now_or_never() {
                        Some(heard) => self.hear(heard),
                        None => break,
                    }
                }
            }
        }
    }

    fn hear(&mut self, heard: Option<Result<Event, crate::transport::TransportError>>) {
        match heard {
            Some(Ok(event)) => {
                self.failures = 0;
                self.last_id = event.id.or_else(|| self.last_id.take());
                if event.event == "end" {
                    self.events = Source::Poll;
                }
            }
            Some(Err(_)) | None => self.events = Source::Away,
        }
    }

    async fn connect(&mut self, wait: &Wait<'_>) {
        if self.failures > 0 {
            wait.pause(wait.clock.monotonic(), pause_after(self.failures - 1)).await;
        }
        // Counted as a failure until an event has come: a connection that opens and closes is none.
        self.failures += 1;
        self.events = match wait.client.transport.events(&self.path, self.last_id.as_deref()).await {
            Ok(Listening::Open(events)) => Source::Open(events),
            Ok(Listening::Refused(response)) if Exit::of_status(response.status) != Exit::Unreachable => {
                Source::Poll
            }
            Ok(Listening::Refused(_)) | Err(_) => Source::Away,
        };
    }
}

/// Whether nothing more happens by itself.
pub fn rests(kind: SubjectKind, value: &Value, goal: Goal) -> bool {
    let status = status(value);
    match (kind, goal) {
        (SubjectKind::Operation, Goal::Success) => {
            matches!(status, "succeeded" | "failed" | "parked" | "cancelled")
        }
        // A parked operation may take a moment to see that it is cancelled.
        (SubjectKind::Operation, Goal::End) => matches!(status, "succeeded" | "failed" | "cancelled"),
        (SubjectKind::Rollout, Goal::Success) => {
            let changed = status == "waiting"
                && value.pointer("/reason/code").and_then(Value::as_str) == Some("digest_changed");
            changed || matches!(status, "succeeded" | "failed" | "halted" | "paused" | "aborted")
        }
        (SubjectKind::Rollout, Goal::End) => matches!(status, "succeeded" | "failed" | "aborted"),
    }
}

/// How work that rests has ended.
pub fn ending(kind: SubjectKind, value: &Value, goal: Goal) -> Ending {
    let count = |key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    match (kind, goal, status(value)) {
        (SubjectKind::Operation, Goal::Success, "succeeded")
        | (SubjectKind::Operation, Goal::End, "cancelled")
        | (SubjectKind::Rollout, Goal::End, "aborted") => Ending::Done,
        (SubjectKind::Operation, _, _) => Ending::Failed,
        (SubjectKind::Rollout, _, "succeeded") => {
            match count("failed") + count("parked") + count("skipped") {
                0 => Ending::Done,
                _ => Ending::Partly,
            }
        }
        (SubjectKind::Rollout, _, _) => match count("succeeded") {
            0 => Ending::Failed,
            _ => Ending::Partly,
        },
    }
}

fn status(value: &Value) -> &str {
    value.get("status").and_then(Value::as_str).unwrap_or_default()
}

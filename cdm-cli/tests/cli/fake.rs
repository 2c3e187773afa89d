//! A server with scripted responses that records its requests, and a command run against it.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, Cursor, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cdm_cli::invocation::Invocation;
use cdm_cli::io::{Interrupt, Io, Paint, Prompter, Screen, TokenSource};
use cdm_cli::transport::{
    Event, EventStream, Request, Response, Transport, TransportError, TransportErrorKind, target,
};
use cdm_cli::{Cli, Exit};
use cdm_core::adapters::SystemClock;
use cdm_core::domain::{MonotonicTime, Timestamp};
use cdm_core::ports::Clock;
use clap::Parser;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::Value;

/// One connection for events.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Sends these events, then closes.
    Cut(Vec<Event>),
    /// Sends these events, then hangs.
    Hang(Vec<Event>),
    /// Is rejected with this status.
    Rejected(u16),
    /// Does not connect.
    Unreachable,
}

/// Scripted responses, and recorded requests.
#[derive(Debug, Default)]
pub(crate) struct FakeServer {
    responses: Mutex<HashMap<String, VecDeque<Option<Response>>>>,
    streams: Mutex<VecDeque<Script>>,
    requests: Mutex<Vec<Request>>,
    event_requests: Mutex<Vec<(String, Option<String>)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeServer {
    /// Adds a response to `METHOD /path`; the last response repeats.
    pub(crate) fn responds(self, what: &str, status: u16, body: Value) -> Self {
        let body = body.to_string().into_bytes();
        let response = Response { status, headers: Vec::new(), body };
        locked(&self.responses).entry(what.into()).or_default().push_back(Some(response));
        self
    }

    /// Adds a response with headers to `METHOD /path`.
    pub(crate) fn responds_with_headers(self, what: &str, status: u16, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let response = Response { status, headers: headers.collect(), body: b"{}".to_vec() };
        locked(&self.responses).entry(what.into()).or_default().push_back(Some(response));
        self
    }

    /// Adds a missing response to `METHOD /path`.
    pub(crate) fn silent(self, what: &str) -> Self {
        locked(&self.responses).entry(what.into()).or_default().push_back(None);
        self
    }

    /// Adds a connection for events.
    pub(crate) fn streams(self, script: Script) -> Self {
        locked(&self.streams).push_back(script);
        self
    }

    /// Returns the requests, as `METHOD /path?query body`.
    pub(crate) fn requests(&self) -> Vec<String> {
        let line = |request: &Request| {
            let target = target(&request.path, &request.query);
            let body = request.body.as_ref().map(|body| format!(" {body}")).unwrap_or_default();
            format!("{} {target}{body}", request.method.as_str())
        };
        locked(&self.requests).iter().map(line).collect()
    }

    /// Returns the headers of the first request.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        locked(&self.requests)[0].headers.clone()
    }

    /// Returns the paths of the event requests, with their last event ids.
    pub(crate) fn event_requests(&self) -> Vec<(String, Option<String>)> {
        locked(&self.event_requests).clone()
    }
}

fn unreachable() -> TransportError {
    let source = std::io::Error::other("connection refused");
    TransportError {
        server: "http://fake".into(),
        kind: TransportErrorKind::Unreachable,
        source: Box::new(source),
    }
}

#[async_trait]
impl Transport for FakeServer {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let what = format!("{} {}", request.method.as_str(), request.path);
        locked(&self.requests).push(request);
        let mut responses = locked(&self.responses);
        let queue = responses.get_mut(&what).unwrap_or_else(|| panic!("no response to {what} is scripted"));
        let response = if queue.len() > 1 { queue.pop_front().unwrap() } else { queue[0].clone() };
        response.ok_or_else(unreachable)
    }

    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<EventStream, TransportError> {
        locked(&self.event_requests).push((path.into(), last_event_id.map(str::to_owned)));
        let script = locked(&self.streams).pop_front().unwrap_or(Script::Rejected(404));
        let some = |events: Vec<Event>| stream::iter(events.into_iter().map(Ok));
        match script {
            Script::Cut(events) => Ok(EventStream::Open(some(events).boxed())),
            Script::Hang(events) => Ok(EventStream::Open(some(events).chain(stream::pending()).boxed())),
            Script::Rejected(status) => Ok(EventStream::Rejected(Response { status, ..Response::default() })),
            Script::Unreachable => Err(unreachable()),
        }
    }
}

/// An event with this id and type.
pub(crate) fn event(id: &str, kind: &str) -> Event {
    Event { id: Some(id.into()), event: kind.into(), data: "{}".into() }
}

/// A clock with a fixed time of day; its monotonic time is that of the runtime, which tests pause.
#[derive(Debug)]
struct FixedTime(SystemClock);

#[async_trait]
impl Clock for FixedTime {
    fn wall(&self) -> Timestamp {
        // 2030-01-01T00:00:00Z
        Timestamp::from_millis(1_893_456_000_000)
    }

    fn monotonic(&self) -> MonotonicTime {
        self.0.monotonic()
    }

    async fn sleep_until(&self, until: MonotonicTime) {
        self.0.sleep_until(until).await;
    }
}

#[derive(Clone, Debug, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        locked(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(locked(&self.0).clone()).unwrap()
    }
}

struct ClosedOutput;

impl Write for ClosedOutput {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Result of a command.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) fake: Arc<FakeServer>,
}

/// How the surroundings differ from a pipe without a terminal.
pub(crate) struct Setting {
    pub(crate) types: Option<&'static str>,
    pub(crate) width: Option<usize>,
    pub(crate) interrupt: Interrupt,
    pub(crate) closed: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self { types: None, width: None, interrupt: std::future::pending().boxed().shared(), closed: false }
    }
}

/// Runs a command line against the server.
pub(crate) async fn run(fake: FakeServer, line: &[&str]) -> Outcome {
    run_in(fake, line, Setting::default()).await
}

/// Runs a command line against the server in these surroundings.
pub(crate) async fn run_in(fake: FakeServer, line: &[&str], setting: Setting) -> Outcome {
    let cli = Cli::try_parse_from([&["cdm"], line].concat()).expect("a valid command line");
    let (fake, out, err) = (Arc::new(fake), Buffer::default(), Buffer::default());
    let io = Io {
        clock: Arc::new(FixedTime(SystemClock::new())),
        out: if setting.closed { Box::new(ClosedOutput) } else { Box::new(out.clone()) },
        err: Box::new(err.clone()),
        width: setting.width,
        screen: Screen::Plain,
        paint: Paint::Plain,
        prompter: match setting.types {
            Some(text) => {
                // Both ways of reading return the same lines.
                let mut read_hidden = Cursor::new(text);
                let read_hidden = move || {
                    let mut line = String::new();
                    read_hidden.read_line(&mut line).map(|_| line.trim_end().to_owned())
                };
                Prompter::Interactive {
                    input: Box::new(Cursor::new(text)),
                    read_hidden: Box::new(read_hidden),
                }
            }
            None => Prompter::NonInteractive,
        },
        interrupt: setting.interrupt,
        token: TokenSource::default(),
        invocation: Invocation::default(),
        transport: Some(fake.clone()),
    };
    let exit = cdm_cli::run(cli, io).await;
    Outcome { exit, out: out.text(), err: err.text(), fake }
}

//! A server that answers as scripted and remembers what it was asked, and a command run against it.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, Cursor, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cdm_cli::transport::{Event, Listening, Request, Response, Transport, TransportError, Trouble, target};
use cdm_cli::way::Way;
use cdm_cli::world::{Interrupt, Paint, Person, Screen, TokenSource, World};
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
    /// These come, then it closes.
    Cut(Vec<Event>),
    /// These come, then it hangs.
    Hang(Vec<Event>),
    /// It is refused.
    Refused(u16),
    /// Nobody answers.
    Away,
}

/// What the server says and was asked.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    answers: Mutex<HashMap<String, VecDeque<Option<Response>>>>,
    streams: Mutex<VecDeque<Script>>,
    asked: Mutex<Vec<Request>>,
    listened: Mutex<Vec<(String, Option<String>)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// Answers `METHOD /path` with this next; the last answer stays.
    pub(crate) fn says(self, what: &str, status: u16, body: Value) -> Self {
        let body = body.to_string().into_bytes();
        let answer = Response { status, headers: Vec::new(), body };
        locked(&self.answers).entry(what.into()).or_default().push_back(Some(answer));
        self
    }

    /// Answers `METHOD /path` with this and these headers next.
    pub(crate) fn says_with(self, what: &str, status: u16, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let answer = Response { status, headers: headers.collect(), body: b"{}".to_vec() };
        locked(&self.answers).entry(what.into()).or_default().push_back(Some(answer));
        self
    }

    /// Does not answer `METHOD /path` the next time.
    pub(crate) fn silent(self, what: &str) -> Self {
        locked(&self.answers).entry(what.into()).or_default().push_back(None);
        self
    }

    /// The next connection for events.
    pub(crate) fn streams(self, script: Script) -> Self {
        locked(&self.streams).push_back(script);
        self
    }

    /// What was asked, as `METHOD /path?query body`.
    pub(crate) fn asked(&self) -> Vec<String> {
        let line = |request: &Request| {
            let target = target(&request.path, &request.query);
            let body = request.body.as_ref().map(|body| format!(" {body}")).unwrap_or_default();
            format!("{} {target}{body}", request.method.as_str())
        };
        locked(&self.asked).iter().map(line).collect()
    }

    /// The headers of the first request.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        locked(&self.asked)[0].headers.clone()
    }

    /// Where events were asked for, and after which.
    pub(crate) fn listened(&self) -> Vec<(String, Option<String>)> {
        locked(&self.listened).clone()
    }
}

fn away() -> TransportError {
    let source = std::io::Error::other("connection refused");
    TransportError { server: "http://fake".into(), trouble: Trouble::Away, source: Box::new(source) }
}

#[async_trait]
impl Transport for Fake {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let what = format!("{} {}", request.method.as_str(), request.path);
        locked(&self.asked).push(request);
        let mut answers = locked(&self.answers);
        let queue = answers.get_mut(&what).unwrap_or_else(|| panic!("nobody scripted {what}"));
        let answer = if queue.len() > 1 { queue.pop_front().unwrap() } else { queue[0].clone() };
        answer.ok_or_else(away)
    }

    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<Listening, TransportError> {
        locked(&self.listened).push((path.into(), last_event_id.map(str::to_owned)));
        let script = locked(&self.streams).pop_front().unwrap_or(Script::Refused(404));
        let some = |events: Vec<Event>| stream::iter(events.into_iter().map(Ok));
        match script {
            Script::Cut(events) => Ok(Listening::Open(some(events).boxed())),
            Script::Hang(events) => Ok(Listening::Open(some(events).chain(stream::pending()).boxed())),
            Script::Refused(status) => Ok(Listening::Refused(Response { status, ..Response::default() })),
            Script::Away => Err(away()),
        }
    }
}

/// An event of that id and kind.
pub(crate) fn event(id: &str, kind: &str) -> Event {
    Event { id: Some(id.into()), event: kind.into(), data: "{}".into() }
}

/// A clock that shows one time of day; what it measures is the runtime's own, which tests pause.
#[derive(Debug)]
struct Still(SystemClock);

#[async_trait]
impl Clock for Still {
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
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        locked(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(locked(&self.0).clone()).unwrap()
    }
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) fake: Arc<Fake>,
}

/// What is different from a pipe with nobody there.
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
pub(crate) async fn run(fake: Fake, line: &[&str]) -> Ran {
    run_in(fake, line, Setting::default()).await
}

/// Runs a command line against the server in that setting.
pub(crate) async fn run_in(fake: Fake, line: &[&str], setting: Setting) -> Ran {
    let cli = Cli::try_parse_from([&["cdm"], line].concat()).expect("the command line is one");
    let (fake, out, err) = (Arc::new(fake), Paper::default(), Paper::default());
    let world = World {
        clock: Arc::new(Still(SystemClock::new())),
        out: if setting.closed { Box::new(Closed) } else { Box::new(out.clone()) },
        err: Box::new(err.clone()),
        width: setting.width,
        screen: Screen::Plain,
        paint: Paint::Plain,
        person: match setting.types {
            Some(text) => {
                // The same lines, whichever way they are read.
                let mut unseen = Cursor::new(text);
                let unseen = move || {
                    let mut line = String::new();
                    unseen.read_line(&mut line).map(|_| line.trim_end().to_owned())
                };
                Person::Present { typed: Box::new(Cursor::new(text)), unseen: Box::new(unseen) }
            }
            None => Person::Absent,
        },
        interrupt: setting.interrupt,
        token: TokenSource::default(),
        way: Way::default(),
        transport: Some(fake.clone()),
    };
    let exit = cdm_cli::run(cli, world).await;
    Ran { exit, out: out.text(), err: err.text(), fake }
}

//! An HTTP server of a test's own on loopback, that answers by a function or passes on to a real part; it counts what it
//! is asked, and can refuse a request, lose an answer, or keep one back.
#![expect(
    clippy::disallowed_methods,
    reason = "a test's server stands outside of the core and of its runtime"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a query's parameter as it was written; empty where it has none.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The operation's name in AWS's documentation, as far as the tests meet it.
    pub(crate) fn operation(&self) -> String {
        if let Some(target) = self.header("x-amz-target") {
            return target.rsplit('.').next().unwrap_or_default().to_owned();
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let of_object = path.trim_matches('/').contains('/');
        let has = |name| self.query(name).is_some();
        match self.method.as_str() {
            "GET" if has("versions") => "ListObjectVersions",
            "GET" if has("uploads") => "ListMultipartUploads",
            "POST" if has("delete") => "DeleteObjects",
            "DELETE" if has("uploadId") => "AbortMultipartUpload",
            "DELETE" if of_object => "DeleteObject",
            "PUT" if of_object => "PutObject",
            "PUT" if has("publicAccessBlock") => "PutPublicAccessBlock",
            "PUT" if has("versioning") => "PutBucketVersioning",
            "PUT" => "CreateBucket",
            "HEAD" => "HeadBucket",
            _ => "?",
        }
        .to_owned()
    }

    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Self { method, target, headers: Vec::new(), body: Vec::new() };
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        request.body.resize(length, 0);
        from.read_exact(&mut request.body)?;
        Ok(Some(request))
    }
}

/// An answer as it goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    pub(crate) fn new(status: u16, kind: &str, body: &str) -> Self {
        let length = body.len();
        Self(
            format!(
                "HTTP/1.1 {status} as told\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
                 connection: close\r\n\r\n{body}"
            )
            .into_bytes(),
        )
    }

    /// The answer without its last bytes.
    pub(crate) fn cut(mut self) -> Self {
        self.0.truncate(self.0.len() - 5);
        self
    }
}

/// What happens to the next request of an operation.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is served, and the connection ends before the answer is sent.
    LoseAnswer,
    /// It is not served, and this is answered.
    Say(Answer),
    /// It is served, and never answered.
    KeepBack,
}

#[derive(Debug, Default)]
struct State {
    asked: Vec<Request>,
    faults: Vec<(String, Fault)>,
    kept: Vec<TcpStream>,
}

/// A running server; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Wire {
    /// A server that answers by `serve`, a request at a time on each connection. It ends with the tests.
    pub(crate) fn start(serve: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("its address").to_string();
        let wire = Self { address, state: Arc::default() };
        let (serve, served) = (Arc::new(serve), wire.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (wire, serve) = (served.clone(), Arc::clone(&serve));
                std::thread::spawn(move || wire.serve(stream, &*serve));
            }
        });
        wire
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets the fault happen to the next request of that operation.
    pub(crate) fn next(&self, operation: &str, fault: Fault) {
        self.lock().faults.push((operation.to_owned(), fault));
    }

    /// What was asked since this was called last.
    pub(crate) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().asked)
    }

    /// The names of what was asked since then.
    pub(crate) fn operations(&self) -> Vec<String> {
        self.asked().iter().map(Request::operation).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream, serve: &(dyn Fn(&Request) -> Answer + Send + Sync)) {
        let mut from = BufReader::new(&stream);
        let Ok(Some(request)) = Request::read(&mut from) else { return };
        let fault = {
            let (mut state, operation) = (self.lock(), request.operation());
            state.asked.push(request.clone());
            let at = state.faults.iter().position(|(planned, _)| *planned == operation);
            at.map(|at| state.faults.remove(at).1)
        };
        let answer = match fault {
            None => serve(&request),
            Some(Fault::Say(answer)) => answer,
            Some(Fault::LoseAnswer) => return drop(serve(&request)),
            Some(Fault::KeepBack) => {
                serve(&request);
                return self.lock().kept.push(stream);
            }
        };
        // Whoever asked may be gone.
        let _gone = (&stream).write_all(&answer.0);
    }
}

/// What the part at this address answers.
pub(crate) fn passed_on(endpoint: &str, request: &Request) -> Answer {
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let mut to = TcpStream::connect(address).expect("the part listens");
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "connection") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    to.write_all(head.as_bytes()).and_then(|()| to.write_all(&request.body)).expect("the part is told");
    let mut answer = Vec::new();
    to.read_to_end(&mut answer).expect("the part answers");
    Answer(answer)
}

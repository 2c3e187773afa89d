//! An HTTP stub server on loopback, which responds by a function or forwards to a real backend; it records requests,
//! and can reject a request, lose a response, or never send one.
#![expect(clippy::disallowed_methods, reason = "the stub server is not part of the core and its runtime")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A recorded request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Header names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a query parameter as it was sent; empty if the parameter has no value.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Returns the name of the operation in the documentation of AWS, for the operations that the tests use.
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

/// A response as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Response(Vec<u8>);

impl Response {
    pub(crate) fn new(status: u16, kind: &str, body: &str) -> Self {
        let length = body.len();
        Self(
            format!(
                "HTTP/1.1 {status} Stub\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
                 connection: close\r\n\r\n{body}"
            )
            .into_bytes(),
        )
    }

    /// Returns the response without its last bytes.
    pub(crate) fn cut(mut self) -> Self {
        self.0.truncate(self.0.len() - 5);
        self
    }
}

/// The fault of the next request of an operation.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The request is served, and the connection is closed before the response is sent.
    LoseResponse,
    /// The request is not served, and this response is sent.
    Respond(Response),
    /// The request is served, and no response is sent.
    NeverRespond,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    faults: Vec<(String, Fault)>,
    kept: Vec<TcpStream>,
}

/// A running server; clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct HttpStub {
    address: String,
    state: Arc<Mutex<State>>,
}

impl HttpStub {
    /// Starts a server that responds by `serve`, one request at a time on each connection. The server ends with the
    /// test process.
    pub(crate) fn start(serve: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("its address").to_string();
        let http_stub = Self { address, state: Arc::default() };
        let (serve, served) = (Arc::new(serve), http_stub.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (http_stub, serve) = (served.clone(), Arc::clone(&serve));
                std::thread::spawn(move || http_stub.serve(stream, &*serve));
            }
        });
        http_stub
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the fault of the next request of that operation.
    pub(crate) fn next(&self, operation: &str, fault: Fault) {
        self.lock().faults.push((operation.to_owned(), fault));
    }

    /// Returns the requests since the last call of this function.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().requests)
    }

    /// Returns the operations of those requests.
    pub(crate) fn operations(&self) -> Vec<String> {
        self.take_requests().iter().map(Request::operation).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream, serve: &(dyn Fn(&Request) -> Response + Send + Sync)) {
        let mut from = BufReader::new(&stream);
        let Ok(Some(request)) = Request::read(&mut from) else { return };
        let fault = {
            let (mut state, operation) = (self.lock(), request.operation());
            state.requests.push(request.clone());
            let at = state.faults.iter().position(|(planned, _)| *planned == operation);
            at.map(|at| state.faults.remove(at).1)
        };
        let response = match fault {
            None => serve(&request),
            Some(Fault::Respond(response)) => response,
            Some(Fault::LoseResponse) => return drop(serve(&request)),
            Some(Fault::NeverRespond) => {
                serve(&request);
                return self.lock().kept.push(stream);
            }
        };
        // The client may have closed the connection.
        let _gone = (&stream).write_all(&response.0);
    }
}

/// Forwards a request to the backend at this address, and returns its response.
pub(crate) fn forward(endpoint: &str, request: &Request) -> Response {
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let mut to = TcpStream::connect(address).expect("the backend accepts connections");
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "connection") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    to.write_all(head.as_bytes())
        .and_then(|()| to.write_all(&request.body))
        .expect("the request is forwarded");
    let mut response = Vec::new();
    to.read_to_end(&mut response).expect("the backend responds");
    Response(response)
}

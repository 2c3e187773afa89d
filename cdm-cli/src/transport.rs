//! How the API is asked: over the network, or in this process.

use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde_json::Value;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The path, with its segments encoded.
    pub path: String,
    /// The query, not encoded.
    pub query: Vec<(String, String)>,
    /// The JSON body.
    pub body: Option<Value>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

/// An HTTP method that the API has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    #[default]
    Get,
    /// Makes something new.
    Post,
    /// Changes something.
    Put,
    /// Removes something.
    Delete,
}

impl Method {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// What was answered.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The API could not be asked, or its answer broke off.
#[derive(Debug, thiserror::Error)]
#[error("{}", .trouble.said(.server))]
pub struct TransportError {
    /// Who was asked.
    pub server: String,
    /// What kind of trouble it is.
    pub trouble: Trouble,
    /// What happened, in words.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a server could not be asked, as far as something else is to be done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// The server does not answer, or its answer was cut off.
    #[default]
    Away,
    /// The certificate was signed by an authority that is not trusted here.
    Untrusted,
    /// Its certificate is another name's.
    OtherName,
    /// Its certificate has expired, or is not valid yet.
    OutOfDate,
    /// What it shows as its own is the certificate of an authority.
    Authority,
    /// It speaks no TLS on this port.
    Plaintext,
    /// TLS fails for another reason.
    Tls,
    /// It does not speak HTTP in the clear on this port.
    NoHttp,
}

impl Trouble {
    /// What happened.
    fn said(self, server: &str) -> String {
        match self {
            Self::Away => format!("{server} does not answer"),
            Self::Untrusted => {
                format!("the certificate of {server} was issued by an authority that is not trusted here")
            }
            Self::OtherName => format!("the certificate of {server} is for another name"),
            Self::OutOfDate => format!("the certificate of {server} has expired or is not valid yet"),
            Self::Authority => {
                format!("{server} shows the certificate of an authority in place of one of its own")
            }
            Self::Plaintext => format!("{server} does not speak TLS"),
            Self::Tls => format!("cannot establish a TLS connection to {server}"),
            Self::NoHttp => format!("{server} does not answer in HTTP"),
        }
    }
}

/// One of the server's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Where a later stream may go on after it.
    pub id: Option<String>,
    /// What kind.
    pub event: String,
    /// What it says.
    pub data: String,
}

/// Events as they come. It ends when the connection does.
pub type Events = BoxStream<'static, Result<Event, TransportError>>;

/// What came of asking for events.
pub enum Listening {
    /// They come.
    Open(Events),
    /// The server refused.
    Refused(Response),
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Refused(response) => f.debug_tuple("Refused").field(&response.status).finish(),
        }
    }
}

/// A way to the API. It adds the token; it retries nothing and judges no status.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    /// Asks once.
    ///
    /// # Errors
    /// When no whole answer came. The request may have been carried out.
    async fn send(&self, request: Request) -> Result<Response, TransportError>;

    /// Opens a stream of events, those after `last_event_id` first.
    ///
    /// # Errors
    /// When no answer came.
    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<Listening, TransportError>;
}

/// A text as one segment of a path.
pub fn segment(text: &str) -> String {
    encode(text)
}

/// A query string, without the question mark.
pub fn query_string(pairs: &[(String, String)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

/// The path and query of a request.
pub fn target(path: &str, query: &[(String, String)]) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query_string(query)) }
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    // A segment of dots alone would be taken for a way up.
    if !out.is_empty() && out.bytes().all(|byte| byte == b'.') { out.replace('.', "%2E") } else { out }
}

//! The interface to the API, over the network or in this process.

use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// A request to the API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// HTTP method; default: `GET`.
    pub method: Method,
    /// Path, with its segments percent-encoded.
    pub path: String,
    /// Query parameters, not encoded.
    pub query: Vec<(String, String)>,
    /// JSON body, if any.
    pub body: Option<Value>,
    /// Headers in addition to the authorization, which the transport adds.
    pub headers: Vec<(&'static str, String)>,
}

/// An HTTP method that the API uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Reads a resource or a list.
    #[default]
    Get,
    /// Creates a resource, or starts work.
    Post,
    /// Changes a resource.
    Put,
    /// Deletes a resource.
    Delete,
}

impl Method {
    /// Returns the name of the method, such as `GET`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// A complete response of the API.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The HTTP status, which can be that of an error.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The bytes of the body, which need not be JSON.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the value of a header; `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The API could not be reached, or its response was cut off.
#[derive(Debug, thiserror::Error)]
#[error("{}", .kind.message(.server))]
pub struct TransportError {
    /// Address of the server.
    pub server: String,
    /// What kind of failure it is.
    pub kind: TransportErrorKind,
    /// Cause, without the address of the server.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a request failed; one kind for each different remedy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// The server does not respond, or its response was cut off.
    #[default]
    Unreachable,
    /// The certificate was issued by an authority that is not trusted.
    UntrustedIssuer,
    /// The certificate is for another name.
    WrongName,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The server presents the certificate of an authority as its own.
    CaCertificate,
    /// The server does not use TLS on this port.
    NoTls,
    /// TLS fails for another reason.
    Tls,
    /// The server does not speak plain HTTP on this port.
    NotHttp,
}

impl TransportErrorKind {
    /// Returns the error message for a server address.
    fn message(self, server: &str) -> String {
        match self {
            Self::Unreachable => format!("`{server}` does not respond"),
            Self::UntrustedIssuer => {
                format!("the certificate of `{server}` was issued by an authority that is not trusted")
            }
            Self::WrongName => format!("the certificate of `{server}` is for another name"),
            Self::Expired => format!("the certificate of `{server}` has expired or is not valid yet"),
            Self::CaCertificate => {
                format!("`{server}` presents the certificate of an authority instead of a server certificate")
            }
            Self::NoTls => format!("`{server}` does not use TLS"),
            Self::Tls => format!("cannot establish a TLS connection to `{server}`"),
            Self::NotHttp => format!("`{server}` does not respond with HTTP"),
        }
    }
}

/// A Server-Sent Event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Event id; a later stream can resume after it.
    pub id: Option<String>,
    /// Event type, such as `step` or `end`.
    pub event: String,
    /// Event data, usually JSON.
    pub data: String,
}

/// A stream of events; it ends when the connection ends.
pub type Events = BoxStream<'static, Result<Event, TransportError>>;

/// The response to a request for events.
pub enum EventStream {
    /// The stream is open.
    Open(Events),
    /// The server rejected the request.
    Rejected(Response),
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Rejected(response) => f.debug_tuple("Rejected").field(&response.status).finish(),
        }
    }
}

/// A connection to the API. It adds the token, retries nothing, and does not interpret the status. The only exception
/// is the transport that waits for rate limits and repeats requests rejected with 429.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    /// Sends a request and returns its response, for every status.
    ///
    /// # Errors
    /// When no complete response arrives. The server may have executed the request.
    async fn send(&self, request: Request) -> Result<Response, TransportError>;

    /// Opens a stream of events, beginning after `last_event_id`, or with the present if it is `None`.
    ///
    /// # Errors
    /// When no response arrives.
    async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<EventStream, TransportError>;
}

/// Encodes a text as one segment of a path.
pub fn segment(text: &str) -> String {
    encode(text)
}

/// Returns an encoded query string, without the question mark.
pub fn query_string(pairs: &[(String, String)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

/// Returns the path and query of a request.
pub fn target(path: &str, query: &[(String, String)]) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query_string(query)) }
}

/// The characters that are encoded in a segment or a query: all but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encode(text: &str) -> String {
    let encoded = utf8_percent_encode(text, RESERVED).to_string();
    // A segment of dots only would be interpreted as a parent directory.
    if encoded.bytes().all(|byte| byte == b'.') { encoded.replace('.', "%2E") } else { encoded }
}

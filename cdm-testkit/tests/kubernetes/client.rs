//! A client that uses only HTTP and JSON.

use cdm_testkit::kubernetes::KubernetesApi;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A client with a bearer token.
pub(super) struct Client {
    http: Hyper<HttpConnector, Full<Bytes>>,
    url: String,
    token: String,
}

/// A watch, line by line.
pub(super) struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Client {
    pub(super) fn of(api: &KubernetesApi) -> Self {
        Self::with_token(api, api.token())
    }

    pub(super) fn with_token(api: &KubernetesApi, token: &str) -> Self {
        let http = Hyper::builder(TokioExecutor::new()).build_http();
        Self { http, url: api.url(), token: token.to_owned() }
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header("user-agent", "plain/1")
            .header("content-type", kind)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .expect("a valid request");
        self.http.request(request).await
    }

    /// Returns the status code and the object of a response.
    pub(super) async fn request(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        read(self.send(method, path, "application/json", &body).await.expect("a response")).await
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path, &Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.request("POST", path, body).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.request("PUT", path, body).await
    }

    pub(super) async fn delete(&self, path: &str) -> (u16, Value) {
        self.request("DELETE", path, &Value::Null).await
    }

    /// Sends a patch with a media type such as `merge-patch+json`.
    pub(super) async fn patch(&self, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let kind = format!("application/{kind}");
        read(self.send("PATCH", path, &kind, &body.to_string()).await.expect("a response")).await
    }

    pub(super) async fn watch(&self, path: &str) -> Lines {
        let response = self.send("GET", path, "application/json", "").await.expect("a response");
        assert_eq!(response.status().as_u16(), 200);
        Lines { body: response.into_body(), rest: Vec::new() }
    }
}

impl Lines {
    /// Returns the next event, `None` at the end, or an error if the connection broke.
    pub(super) async fn next(&mut self) -> Option<Result<Value, hyper::Error>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(Ok(serde_json::from_slice(&line).expect("an event")));
            }
            match self.body.frame().await? {
                Ok(frame) => self.rest.extend(frame.into_data().expect("data")),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    pub(super) async fn event(&mut self) -> Value {
        self.next().await.expect("an event").expect("a connection")
    }

    /// Returns type, name and version of the next event.
    pub(super) async fn next_summary(&mut self) -> (String, String, String) {
        let event = self.event().await;
        let text =
            |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("/type"), text("/object/metadata/name"), text("/object/metadata/resourceVersion"))
    }
}

async fn read(response: Response<Incoming>) -> (u16, Value) {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (code, value)
}

//! A client that knows HTTP and JSON and nothing else.

use cdm_testkit::kubernetes::KubernetesApi;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A client with somebody's token.
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
            .expect("a request");
        self.http.request(request).await
    }

    /// Code and object of an answer.
    pub(super) async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        read(self.send(method, path, "application/json", &body).await.expect("an answer")).await
    }

    pub(super) async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, &Value::Null).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, body).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("PUT", path, body).await
    }

    pub(super) async fn delete(&self, path: &str) -> (u16, Value) {
        self.ask("DELETE", path, &Value::Null).await
    }

    /// A patch of a kind, such as `merge-patch+json`.
    pub(super) async fn patch(&self, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let kind = format!("application/{kind}");
        read(self.send("PATCH", path, &kind, &body.to_string()).await.expect("an answer")).await
    }

    pub(super) async fn watch(&self, path: &str) -> Lines {
        let answer = self.send("GET", path, "application/json", "").await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        Lines { body: answer.into_body(), rest: Vec::new() }
    }
}

impl Lines {
    /// The next event; `None` at the end; an error where the connection broke.
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

    /// Type, name and version of the next event.
    pub(super) async fn told(&mut self) -> (String, String, String) {
        let event = self.event().await;
        let text =
            |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("/type"), text("/object/metadata/name"), text("/object/metadata/resourceVersion"))
    }
}

async fn read(answer: Response<Incoming>) -> (u16, Value) {
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (code, value)
}

//! Request by request: forwards what it hears, and streams what it is told.

use std::sync::{Arc, Mutex};

use cdm_core::ports::Clock;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::uri::{Authority, Scheme};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Ledger, Trouble, enter, next};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<BoxBody<Bytes, Failure>>;

/// What every connection has.
#[derive(Clone)]
struct Way {
    upstream: String,
    client: Client<HttpConnector, Incoming>,
    ledger: Arc<Mutex<Ledger>>,
    clock: Arc<dyn Clock>,
}

pub(super) async fn serve(
    listener: TcpListener,
    upstream: String,
    ledger: Arc<Mutex<Ledger>>,
    clock: Arc<dyn Clock>,
) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let way = Way { upstream, client, ledger, clock };
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let way = way.clone();
        connections.spawn(async move {
            let service = service_fn(|request| pass(way.clone(), request));
            // A connection that breaks is what this is for.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// An error breaks the connection.
async fn pass(way: Way, request: Request<Incoming>) -> Result<Answer, Failure> {
    if changes(&request) {
        enter(&way.ledger).changes += 1;
    }
    match next(&way.ledger) {
        None => forward(&way, request).await,
        Some(Trouble::Refused) => Err("refused as planned".into()),
        Some(Trouble::LostAnswer) => {
            forward(&way, request).await?.into_body().collect().await?;
            Err("lost as planned".into())
        }
        Some(Trouble::Delay(span)) => {
            way.clock.sleep_until(way.clock.monotonic().after(span)).await;
            forward(&way, request).await
        }
        Some(Trouble::Answer(status, body)) => answer(status, "application/json", body),
        Some(Trouble::Throttled) => throttled(&request),
    }
}

/// The operations that are asked for by POST and change nothing.
const READS: [&str; 7] = [
    "BatchGetItem",
    "DescribeSecret",
    "DescribeTable",
    "GetItem",
    "GetSecretValue",
    "Query",
    "TransactGetItems",
];

fn changes(request: &Request<Incoming>) -> bool {
    let operation = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok());
    match operation {
        Some(operation) => !READS.iter().any(|read| operation.ends_with(&format!(".{read}"))),
        None => request.method() != Method::GET && request.method() != Method::HEAD,
    }
}

fn answer(status: u16, kind: &str, body: String) -> Result<Answer, Failure> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
    let answer = Response::builder().status(StatusCode::from_u16(status)?).header("content-type", kind);
    Ok(answer.header("retry-after", "1").body(body)?)
}

/// DynamoDB and Secrets Manager name the operation in a header; S3 signs likewise and does not; Kubernetes does neither.
fn throttled(request: &Request<Incoming>) -> Result<Answer, Failure> {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !header("x-amz-target").is_empty() {
        let body = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
        return answer(400, "application/x-amz-json-1.0", body.to_owned());
    }
    if header("authorization").starts_with("AWS4") {
        let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
        return answer(503, "application/xml", body.to_owned());
    }
    let body =
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"TooManyRequests","code":429}"#;
    answer(429, "application/json", body.to_owned())
}

async fn forward(way: &Way, mut request: Request<Incoming>) -> Result<Answer, Failure> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(way.upstream.parse::<Authority>()?);
    *request.uri_mut() = Uri::from_parts(parts)?;
    let answer = way.client.request(request).await?;
    Ok(answer.map(|body| body.map_err(Failure::from).boxed()))
}

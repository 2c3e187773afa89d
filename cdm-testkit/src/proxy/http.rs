//! The HTTP proxy: handles one request at a time and streams response bodies.

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

use super::{HttpFault, ProxyState, lock, take_fault};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ProxyResponse = Response<BoxBody<Bytes, BoxError>>;

/// State that all connections share.
#[derive(Clone)]
struct ProxyContext {
    upstream: String,
    client: Client<HttpConnector, Incoming>,
    state: Arc<Mutex<ProxyState>>,
    clock: Arc<dyn Clock>,
}

pub(super) async fn serve(
    listener: TcpListener,
    upstream: String,
    state: Arc<Mutex<ProxyState>>,
    clock: Arc<dyn Clock>,
) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let context = ProxyContext { upstream, client, state, clock };
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let context = context.clone();
        connections.spawn(async move {
            let service = service_fn(|request| handle(context.clone(), request));
            // The proxy breaks connections on purpose.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Handles one request. An error closes the connection.
async fn handle(context: ProxyContext, request: Request<Incoming>) -> Result<ProxyResponse, BoxError> {
    if changes(&request) {
        lock(&context.state).changes += 1;
    }
    match take_fault(&context.state) {
        None => forward(&context, request).await,
        Some(HttpFault::Refused) => Err("refused by plan".into()),
        Some(HttpFault::LostAnswer) => {
            forward(&context, request).await?.into_body().collect().await?;
            Err("response lost by plan".into())
        }
        Some(HttpFault::Delay(span)) => {
            context.clock.sleep_until(context.clock.monotonic().after(span)).await;
            forward(&context, request).await
        }
        Some(HttpFault::Respond(status, body)) => respond(status, "application/json", body),
        Some(HttpFault::Throttled) => throttled(&request),
    }
}

/// DynamoDB and Secrets Manager operations that are sent by POST and only read.
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

fn respond(status: u16, kind: &str, body: String) -> Result<ProxyResponse, BoxError> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
    let response = Response::builder().status(StatusCode::from_u16(status)?).header("content-type", kind);
    Ok(response.header("retry-after", "1").body(body)?)
}

/// Returns the throttling error of the target service. DynamoDB and Secrets Manager name the operation in a
/// header; S3 signs its requests without that header; Kubernetes does neither.
fn throttled(request: &Request<Incoming>) -> Result<ProxyResponse, BoxError> {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !header("x-amz-target").is_empty() {
        let body = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
        return respond(400, "application/x-amz-json-1.0", body.to_owned());
    }
    if header("authorization").starts_with("AWS4") {
        let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
        return respond(503, "application/xml", body.to_owned());
    }
    let body =
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"TooManyRequests","code":429}"#;
    respond(429, "application/json", body.to_owned())
}

async fn forward(context: &ProxyContext, mut request: Request<Incoming>) -> Result<ProxyResponse, BoxError> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(context.upstream.parse::<Authority>()?);
    *request.uri_mut() = Uri::from_parts(parts)?;
    let response = context.client.request(request).await?;
    Ok(response.map(|body| body.map_err(BoxError::from).boxed()))
}

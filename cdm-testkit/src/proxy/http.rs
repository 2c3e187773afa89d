//! The HTTP side of a proxy: collects each request, and streams response bodies.

use std::future;
use std::sync::Arc;

use cdm_core::ports::Clock;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, Scheme};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::{self, JoinSet};

use super::{HttpFault, HttpRequest, HttpResponse, Shared};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ProxyResponse = Response<UnsyncBoxBody<Bytes, BoxError>>;
type Handler = dyn Fn(&HttpRequest) -> Option<HttpResponse> + Send + Sync;

/// Responds to requests, or forwards them.
#[derive(Clone)]
pub(super) struct HttpServer {
    /// The server behind the proxy, as `host:port`.
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    handler: Option<Arc<Handler>>,
    clock: Arc<dyn Clock>,
}

impl HttpServer {
    pub(super) fn forwarding(upstream: &str, clock: Arc<dyn Clock>) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { upstream, client, handler: None, clock }
    }

    pub(super) fn with_handler(
        self,
        handler: impl Fn(&HttpRequest) -> Option<HttpResponse> + Send + Sync + 'static,
    ) -> Self {
        Self { handler: Some(Arc::new(handler)), ..self }
    }

    pub(super) async fn serve(self, listener: TcpListener, shared: Arc<Shared>) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (server, shared) = (self.clone(), Arc::clone(&shared));
            connections.spawn(async move {
                let service = service_fn(|request| server.handle(&shared, request));
                // The proxy breaks connections on purpose.
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
            while connections.try_join_next().is_some() {}
        }
    }

    /// Handles one request. An error closes the connection.
    async fn handle(&self, shared: &Shared, request: Request<Incoming>) -> Result<ProxyResponse, BoxError> {
        let (parts, body) = request.into_parts();
        let request = message(&parts, &body.collect().await?.to_bytes());
        match shared.request_fault(&request) {
            None => self.respond(parts, &request).await,
            Some(HttpFault::LoseRequest) => Err("the request is lost by plan".into()),
            Some(HttpFault::LoseResponse) => {
                self.respond(parts, &request).await?.into_body().collect().await?;
                Err("the response is lost by plan".into())
            }
            Some(HttpFault::Delay(span)) => {
                self.clock.sleep_until(self.clock.monotonic().after(span)).await;
                self.respond(parts, &request).await
            }
            Some(HttpFault::Hold(permits)) => {
                permits.acquire().await?.forget();
                self.respond(parts, &request).await
            }
            Some(HttpFault::NeverRespond) => {
                self.respond(parts, &request).await?.into_body().collect().await?;
                future::pending().await
            }
            Some(HttpFault::Respond(response)) => encoded(response),
            Some(HttpFault::Throttle) => encoded(HttpResponse::throttling(&request)),
        }
    }

    /// Returns the response of the handler, or of the server behind the proxy.
    async fn respond(&self, mut parts: Parts, request: &HttpRequest) -> Result<ProxyResponse, BoxError> {
        if let Some(response) = self.handler.as_deref().and_then(|handler| handler(request)) {
            return encoded(response);
        }
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.upstream.parse::<Authority>()?);
        parts.uri = Uri::from_parts(uri)?;
        let body = Full::new(Bytes::from(request.body.clone()));
        let response = self.client.request(Request::from_parts(parts, body)).await?;
        Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}

fn message(parts: &Parts, body: &[u8]) -> HttpRequest {
    let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let headers = parts.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    HttpRequest { method: parts.method.to_string(), target, headers: headers.collect(), body: body.to_vec() }
}

fn encoded(response: HttpResponse) -> Result<ProxyResponse, BoxError> {
    let HttpResponse { status, content_type, body, retry_after, truncated } = response;
    let mut head =
        Response::builder().status(StatusCode::from_u16(status)?).header("content-type", content_type);
    if let Some(seconds) = retry_after {
        head = head.header("retry-after", seconds.to_string());
    }
    if truncated == 0 {
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        return Ok(head.body(body)?);
    }
    let head = head.header("content-length", body.len().to_string());
    let mut sent = Bytes::from(body);
    sent.truncate(sent.len().saturating_sub(truncated));
    let sent = stream::once(future::ready(Ok(Frame::data(sent))));
    let end = stream::once(async {
        // The connection sends what it has while this waits.
        task::yield_now().await;
        Err::<Frame<Bytes>, BoxError>("the response is truncated by plan".into())
    });
    Ok(head.body(StreamBody::new(sent.chain(end)).boxed_unsync())?)
}

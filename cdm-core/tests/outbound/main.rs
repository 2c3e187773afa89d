//! Requests to addresses that were resolved and checked before: real connections on loopback.

mod gates;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::adapters::SystemClock;
use cdm_core::adapters::outbound::{Outbound, OutboundError, OutboundRequest, OutboundResponse};
use cdm_testkit::clock::SimClock;
use hyper::Method;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const LONG: Duration = Duration::from_secs(30);

fn outbound() -> Outbound {
    Outbound::new(Arc::new(SystemClock::new()))
}

fn request_to(to: SocketAddr) -> OutboundRequest {
    OutboundRequest {
        to,
        tls: false,
        name: "rrr.example.com".to_owned(),
        port: None,
        method: Method::GET,
        target: "/health?deep=1".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    }
}

/// Reads the head and the body of one request, and sends these bytes.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, response: &[u8]) -> String {
    let mut received = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.expect("a request");
        received.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&received).into_owned();
        let length =
            text.to_lowercase().split("content-length: ").nth(1).map_or(0, |rest| {
                rest.split("\r\n").next().and_then(|length| length.parse().ok()).unwrap_or(0)
            });
        if read == 0 || text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length) {
            break;
        }
    }
    stream.write_all(response).await.expect("the response is sent");
    // The client may have closed the connection already.
    drop(stream.shutdown().await);
    String::from_utf8(received).expect("a request in ASCII")
}

/// Starts a peer that sends `response` on one connection, and returns the request that it received.
async fn peer(response: &'static [u8]) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = Handle::current().spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        serve(stream, response).await
    });
    (address, served)
}

async fn send(response: &'static [u8], most: usize) -> Result<OutboundResponse, OutboundError> {
    let (address, served) = peer(response).await;
    let response = outbound().send(request_to(address), most, LONG).await;
    served.await.expect("the peer ends");
    response
}

/// Returns an acceptor with a self-signed certificate for `name`, and the certificate in DER format.
fn tls_acceptor(name: &str) -> (TlsAcceptor, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (chain, key) =
        (vec![made.cert.der().clone()], PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from(key))
        .expect("a key of the certificate");
    (TlsAcceptor::from(Arc::new(config)), made.cert.der().to_vec())
}

/// Starts a TLS peer with a certificate for that name, and returns its root certificate.
async fn tls_peer(name: &str) -> (SocketAddr, Vec<u8>, JoinHandle<Option<String>>) {
    let (acceptor, root) = tls_acceptor(name);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = Handle::current().spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let stream = acceptor.accept(stream).await.ok()?;
        Some(serve(stream, b"HTTP/1.1 204 No Content\r\n\r\n").await)
    });
    (address, root, served)
}

#[tokio::test]
async fn the_request_contains_the_name_and_is_sent_to_the_address() {
    let (address, served) =
        peer(b"HTTP/1.1 200 OK\r\nx-cdm-service: green\r\ncontent-length: 5\r\n\r\nhello").await;
    let mut request = request_to(address);
    request.method = Method::POST;
    request.port = Some(8443);
    request.body = "{}".into();
    let response = outbound().send(request, 100, LONG).await.expect("a response");
    assert_eq!((response.status, &response.body[..], response.truncated), (200, &b"hello"[..], false));
    assert_eq!(response.headers["x-cdm-service"], "green");
    let request = served.await.expect("the peer ends").to_lowercase();
    assert!(request.starts_with("post /health?deep=1 http/1.1\r\n"), "{request}");
    assert!(request.contains("host: rrr.example.com:8443\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{}"), "{request}");
}

#[tokio::test]
async fn a_redirect_is_a_response() {
    let response =
        send(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 10).await;
    assert_eq!(response.expect("a response").status, 302);
}

#[tokio::test]
async fn the_size_of_a_body_is_limited() {
    let long: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n0123456789";
    let response = send(long, 4).await.expect("a response");
    assert_eq!((&response.body[..], response.truncated), (&b"0123"[..], true));
    let complete = send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n0123", 4).await.expect("a response");
    assert_eq!((&complete.body[..], complete.truncated), (&b"0123"[..], false));
}

#[tokio::test]
async fn incomplete_and_invalid_responses_are_errors() {
    for wrong in [
        &b""[..],
        b"HTTP/1.1 200",
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
    ] {
        assert_eq!(send(wrong, 100).await.expect_err("no response"), OutboundError::Broken);
    }
}

#[tokio::test]
async fn a_closed_port_and_a_silent_server_are_distinct_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let silent = outbound().send(request_to(address), 10, Duration::from_millis(50)).await;
    assert_eq!(silent.expect_err("no response"), OutboundError::TimedOut);
    drop(listener);
    let closed = outbound().send(request_to(address), 10, LONG).await;
    assert_eq!(closed.expect_err("no response"), OutboundError::Unreachable);
}

#[tokio::test]
async fn a_certificate_must_match_the_name_and_be_trusted() {
    let clock = || Arc::new(SystemClock::new());
    let (address, root, served) = tls_peer("rrr.example.com").await;
    let secure = |address| OutboundRequest { tls: true, ..request_to(address) };
    let trusting = Outbound::trusting(clock(), &[root]);
    assert_eq!(trusting.send(secure(address), 10, LONG).await.expect("a response").status, 204);
    assert!(
        served.await.expect("the peer ends").is_some_and(|received| received.contains("rrr.example.com"))
    );

    let (address, root, served) = tls_peer("other.example.com").await;
    let response = Outbound::trusting(clock(), &[root]).send(secure(address), 10, LONG).await;
    assert_eq!(response.expect_err("a certificate for another name"), OutboundError::Tls);
    assert_eq!(served.await.expect("the peer ends"), None);

    let (address, _, served) = tls_peer("rrr.example.com").await;
    assert_eq!(
        outbound().send(secure(address), 10, LONG).await.expect_err("an untrusted certificate"),
        OutboundError::Tls
    );
    assert_eq!(served.await.expect("the peer ends"), None);
}

#[tokio::test]
async fn a_name_without_an_address_is_an_error() {
    let addresses = outbound().resolve("127.0.0.1", 80, LONG).await.expect("an address");
    assert_eq!(addresses, ["127.0.0.1:80".parse().expect("an address")]);
    let none = outbound().resolve("no such name", 80, LONG).await;
    assert_eq!(none.expect_err("no name"), OutboundError::NoAddress);
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_a_tls_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = Handle::current().spawn(async move { drop(listener.accept().await.expect("a connection")) });
    let result = outbound().send(OutboundRequest { tls: true, ..request_to(address) }, 10, LONG).await;
    assert_eq!(result.expect_err("no certificate"), OutboundError::Tls);
    served.await.expect("the peer ends");
}

#[tokio::test]
async fn a_name_that_is_another_ip_address_is_invalid() {
    let (listener, address) = webhooks::listener();
    for name in ["127.0.0.2", "127.1", "2130706433", "0x7f.1", "::1", "a@b", "a/b", "a:80", ""] {
        for tls in [false, true] {
            let request = OutboundRequest { name: name.to_owned(), tls, ..request_to(address) };
            let result = outbound().send(request, 10, LONG).await;
            assert_eq!(result.expect_err(name), OutboundError::InvalidRequest, "{name}");
        }
        assert!(webhooks::no_connection(&listener), "{name}");
    }
    let (address, served) = peer(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let request = OutboundRequest { name: "127.0.0.1".to_owned(), ..request_to(address) };
    assert_eq!(outbound().send(request, 10, LONG).await.expect("a response").status, 204);
    assert!(served.await.expect("the peer ends").contains("host: 127.0.0.1\r\n"));
}

#[tokio::test]
async fn headers_over_the_limit_are_an_error() {
    let head = format!("HTTP/1.1 200 OK\r\nx-large: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(33 << 10));
    let result = send(head.leak().as_bytes(), 10).await;
    assert_eq!(result.expect_err("too many bytes"), OutboundError::Broken);
}

#[tokio::test]
async fn the_latency_does_not_include_the_connection() {
    let clock = SimClock::new();
    let (acceptor, root) = tls_acceptor("rrr.example.com");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let peer_clock = clock.clone();
    let served = Handle::current().spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        peer_clock.advance(Duration::from_secs(5));
        let mut stream = acceptor.accept(stream).await.expect("a handshake");
        let mut first = [0];
        stream.read_exact(&mut first).await.expect("a request");
        peer_clock.advance(Duration::from_secs(2));
        serve(stream, b"HTTP/1.1 204 No Content\r\n\r\n").await
    });
    let outbound = Outbound::trusting(Arc::new(clock), &[root]);
    let response = outbound.send(OutboundRequest { tls: true, ..request_to(address) }, 10, LONG).await;
    assert_eq!(response.expect("a response").took, Duration::from_secs(2));
    served.await.expect("the peer ends");
}

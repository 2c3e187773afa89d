//! Requests to addresses that were looked at before: real connections on loopback.

mod gates;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cdm_core::adapters::SystemClock;
use cdm_core::adapters::outbound::{Answered, Asked, Outbound, OutboundError};
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

fn asked(to: SocketAddr) -> Asked {
    Asked {
        to,
        tls: false,
        name: "rrr.example.com".to_owned(),
        port: None,
        method: Method::GET,
        target: "/health?deep=1".to_owned(),
        headers: Vec::new(),
        body: hyper::body::Bytes::new(),
    }
}

/// Reads one request's head and body, and sends these bytes.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> String {
    let mut got = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.expect("a request");
        got.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&got).into_owned();
        let length =
            text.to_lowercase().split("content-length: ").nth(1).map_or(0, |rest| {
                rest.split("\r\n").next().and_then(|length| length.parse().ok()).unwrap_or(0)
            });
        if read == 0 || text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length) {
            break;
        }
    }
    stream.write_all(answer).await.expect("an answer is taken");
    // Whoever asked may have left already.
    drop(stream.shutdown().await);
    String::from_utf8(got).expect("a request in ASCII")
}

/// A peer that answers one connection so; it gives the request that it got.
async fn peer(answer: &'static [u8]) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = Handle::current().spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        serve(stream, answer).await
    });
    (address, served)
}

async fn ask(answer: &'static [u8], most: usize) -> Result<Answered, OutboundError> {
    let (address, served) = peer(answer).await;
    let answered = outbound().ask(asked(address), most, LONG).await;
    served.await.expect("the peer ends");
    answered
}

/// A peer that speaks TLS under a certificate of that name, and the root that signed it.
async fn tls_peer(name: &str) -> (SocketAddr, Vec<u8>, JoinHandle<Option<String>>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (chain, key) =
        (vec![made.cert.der().clone()], PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from(key))
        .expect("a key of the certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = Handle::current().spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let stream = acceptor.accept(stream).await.ok()?;
        Some(serve(stream, b"HTTP/1.1 204 No Content\r\n\r\n").await)
    });
    (address, made.cert.der().to_vec(), served)
}

#[tokio::test]
async fn the_name_goes_into_the_request_and_the_bytes_to_the_address() {
    let (address, served) =
        peer(b"HTTP/1.1 200 OK\r\nx-cdm-service: green\r\ncontent-length: 5\r\n\r\nhello").await;
    let mut asked = asked(address);
    asked.method = Method::POST;
    asked.port = Some(8443);
    asked.body = "{}".into();
    let answered = outbound().ask(asked, 100, LONG).await.expect("an answer");
    assert_eq!((answered.status, &answered.body[..], answered.cut), (200, &b"hello"[..], false));
    assert_eq!(answered.headers["x-cdm-service"], "green");
    let request = served.await.expect("the peer ends").to_lowercase();
    assert!(request.starts_with("post /health?deep=1 http/1.1\r\n"), "{request}");
    assert!(request.contains("host: rrr.example.com:8443\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{}"), "{request}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let answered =
        ask(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 10).await;
    assert_eq!(answered.expect("an answer").status, 302);
}

#[tokio::test]
async fn only_so_much_of_a_body_is_read() {
    let long: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n0123456789";
    let answered = ask(long, 4).await.expect("an answer");
    assert_eq!((&answered.body[..], answered.cut), (&b"0123"[..], true));
    let whole = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n0123", 4).await.expect("an answer");
    assert_eq!((&whole.body[..], whole.cut), (&b"0123"[..], false));
}

#[tokio::test]
async fn what_breaks_off_or_is_no_http_is_no_answer() {
    for wrong in [
        &b""[..],
        b"HTTP/1.1 200",
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
    ] {
        assert_eq!(ask(wrong, 100).await.expect_err("no answer"), OutboundError::Broken);
    }
}

#[tokio::test]
async fn nobody_there_and_nobody_who_speaks_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let silent = outbound().ask(asked(address), 10, Duration::from_millis(50)).await;
    assert_eq!(silent.expect_err("no answer"), OutboundError::TimedOut);
    drop(listener);
    let nobody = outbound().ask(asked(address), 10, LONG).await;
    assert_eq!(nobody.expect_err("no answer"), OutboundError::Unreachable);
}

#[tokio::test]
async fn a_certificate_has_to_be_of_the_name_and_trusted() {
    let clock = || Arc::new(SystemClock::new());
    let (address, root, served) = tls_peer("rrr.example.com").await;
    let secure = |address| Asked { tls: true, ..asked(address) };
    let trusting = Outbound::trusting(clock(), &[root]);
    assert_eq!(trusting.ask(secure(address), 10, LONG).await.expect("an answer").status, 204);
    assert!(served.await.expect("the peer ends").is_some_and(|got| got.contains("rrr.example.com")));

    let (address, root, served) = tls_peer("other.example.com").await;
    let answered = Outbound::trusting(clock(), &[root]).ask(secure(address), 10, LONG).await;
    assert_eq!(answered.expect_err("another's certificate"), OutboundError::Tls);
    assert_eq!(served.await.expect("the peer ends"), None);

    let (address, _, served) = tls_peer("rrr.example.com").await;
    assert_eq!(
        outbound().ask(secure(address), 10, LONG).await.expect_err("a stranger's"),
        OutboundError::Tls
    );
    assert_eq!(served.await.expect("the peer ends"), None);
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let addresses = outbound().resolve("127.0.0.1", 80, LONG).await.expect("an address");
    assert_eq!(addresses, ["127.0.0.1:80".parse().expect("an address")]);
    let none = outbound().resolve("no such name", 80, LONG).await;
    assert_eq!(none.expect_err("no name"), OutboundError::NoAddress);
}

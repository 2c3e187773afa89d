//! The listener over real sockets, with a clock that the test controls: limits of time and number, TLS, and shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdm_core::domain::token::Role;
use cdm_core::ports::Clock;
use cdm_core::wiring::TlsFiles;
use cdm_http::{App, ConnectionLimits, HttpSettings, Tls};
use cdm_testkit::clock::SimClock;
use rcgen::CertifiedKey;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::support::TestEnv;

/// A server on a socket, with a separate clock for the connections.
struct ListeningServer {
    env: TestEnv,
    address: SocketAddr,
    clock: SimClock,
    shutdown: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: cdm.example.com\r\n\r\n";

impl ListeningServer {
    async fn with(settings: HttpSettings) -> Self {
        let env = TestEnv::with(settings).await;
        let clock = SimClock::new();
        let app = App { clock: Arc::new(clock.clone()) as Arc<dyn Clock>, ..env.app.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(cdm_http::serve(listener, app, shutdown.clone(), Duration::from_secs(10)));
        Self { env, address, clock, shutdown, served }
    }

    async fn new() -> Self {
        Self::with(HttpSettings::default()).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends a request on a new connection, and returns everything until the server closes it.
    async fn sent(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("a request");
        read_to_end(&mut stream).await
    }

    /// Advances the clock of the connections, and yields to all tasks after each second.
    async fn advance(&self, seconds: u64) {
        for _ in 0..seconds {
            for _ in 0..256 {
                tokio::task::yield_now().await;
            }
            self.clock.advance(Duration::from_secs(1));
        }
    }

    /// Returns everything received on a connection that the server closes within this number of seconds.
    async fn closed(&self, stream: &mut TcpStream, seconds: u64) -> String {
        tokio::select! {
            text = read_to_end(stream) => text,
            () = self.advance(seconds + 2) => panic!("the connection is still open after {seconds} s"),
        }
    }
}

/// Returns everything received until the other side closes or resets the connection.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends the connection as a close does.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one response with a `content-length` from a connection that stays open.
async fn read_response<S: AsyncReadExt + Unpin>(stream: &mut S) -> String {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").parse().expect("a number");
            if body.len() >= length {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.expect("a response");
        assert!(count > 0, "the connection ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[tokio::test]
async fn a_header_must_arrive_in_time() {
    let server = ListeningServer::new().await;
    for sent in [&b""[..], b"GET /heal", b"GET /healthz HTTP/1.1\r\nhost: a\r\n", b"PRI * HTTP/2.0\r\n\r\nSM"]
    {
        let mut stream = server.connect().await;
        stream.write_all(sent).await.expect("a part of a header");
        assert_eq!(server.closed(&mut stream, 15).await, "", "{sent:?}");
    }
}

#[tokio::test]
async fn idle_connections_are_closed_and_active_ones_are_not() {
    let server = ListeningServer::new().await;
    let mut idle = server.connect().await;
    idle.write_all(HEALTHZ).await.expect("a request");
    assert!(read_response(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut working = server.connect().await;
    let events = format!(
        "GET /events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        server.env.token(Role::Viewer)
    );
    working.write_all(events.as_bytes()).await.expect("a request");
    let mut buffer = [0; 1024];
    assert!(working.read(&mut buffer).await.expect("a stream") > 0);
    assert_eq!(server.closed(&mut idle, 30).await, "");
    server.advance(300).await;
    assert!(working.read(&mut buffer).await.expect("an open stream") > 0);
}

/// A client that does not read its responses holds a connection no longer than the write timeout.
#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let server = ListeningServer::new().await;
    let one = server.sent(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(one.starts_with("HTTP/1.1 200"), "{one}");
    // More than the buffers of both sockets hold, including Linux's maximum send buffer of 4 MiB.
    let requests = 16 * 1024 * 1024 / one.len();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
    let mut stream = socket.connect(server.address).await.expect("a connection");
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(requests);
    stream.write_all(&request).await.expect("requests");
    server.advance(120).await;
    let received = read_to_end(&mut stream).await.len();
    assert!(received < requests * one.len() / 2, "{received} bytes of {}", requests * one.len());
}

#[tokio::test]
async fn a_header_that_is_too_long_or_has_too_many_lines_is_rejected() {
    let server = ListeningServer::new().await;
    let long = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "x".repeat(40 * 1024));
    let many = format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{}\r\n", "x-many: 1\r\n".repeat(101));
    for request in [long, many] {
        let read_response = server.sent(request.as_bytes()).await;
        assert!(read_response.is_empty() || read_response.starts_with("HTTP/1.1 431"), "{read_response}");
    }
    assert!(server.sent(b"GET /healthz HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200"));
}

#[tokio::test]
async fn idle_connections_are_closed_for_new_ones_and_active_ones_stay() {
    let connections = ConnectionLimits { total: 4, reserved: 2, ..ConnectionLimits::default() };
    let server = ListeningServer::with(HttpSettings { connections, ..HttpSettings::default() }).await;
    let events = format!(
        "GET /events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        server.env.token(Role::Viewer)
    );
    let mut working = server.connect().await;
    working.write_all(events.as_bytes()).await.expect("a request");
    let mut buffer = [0; 1024];
    assert!(working.read(&mut buffer).await.expect("a stream") > 0);
    let mut idle_connection = Vec::new();
    for _ in 0..20 {
        idle_connection.push(server.connect().await);
        // Each connection is accepted before the next one is opened.
        let mut client = server.connect().await;
        client.write_all(HEALTHZ).await.expect("a request");
        assert!(read_response(&mut client).await.starts_with("HTTP/1.1 200"));
    }
    let mut first = idle_connection.swap_remove(0);
    assert_eq!(read_to_end(&mut first).await, "", "the oldest silent connection was closed");
    server.shutdown.cancel();
    let stream = read_to_end(&mut working).await;
    assert!(
        stream.ends_with("0\r\n\r\n"),
        "the stream was open until the shutdown, and ended cleanly: {stream}"
    );
}

#[tokio::test]
async fn while_all_connections_are_active_a_new_one_is_rejected() {
    let connections = ConnectionLimits { total: 2, reserved: 0, ..ConnectionLimits::default() };
    let server = ListeningServer::with(HttpSettings { connections, ..HttpSettings::default() }).await;
    let events = format!(
        "GET /events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        server.env.token(Role::Viewer)
    );
    let mut working = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(events.as_bytes()).await.expect("a request");
        assert!(stream.read(&mut [0; 1024]).await.expect("a stream") > 0);
        working.push(stream);
    }
    let mut refused = server.connect().await;
    let read_response = read_to_end(&mut refused).await;
    assert!(read_response.is_empty() || read_response.starts_with("HTTP/1.1 503"), "{read_response}");
    drop(working);
}

#[tokio::test]
async fn a_request_must_name_exactly_one_host() {
    let server = ListeningServer::new().await;
    for hosts in ["", "host: a.example\r\nhost: b.example\r\n", "host: a b\r\n", "host: u@a.example\r\n"] {
        let request = format!("GET /healthz HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let read_response = server.sent(request.as_bytes()).await;
        assert!(read_response.starts_with("HTTP/1.1 400"), "{hosts:?}: {read_response}");
        assert!(read_response.contains("\"code\":\"invalid_host\""), "{hosts:?}: {read_response}");
    }
}

#[tokio::test]
async fn shutdown_waits_for_requests_but_not_for_idle_connections() {
    let server = ListeningServer::new().await;
    let mut idle = server.connect().await;
    idle.write_all(HEALTHZ).await.expect("a request");
    read_response(&mut idle).await;
    let mut idle_connection = server.connect().await;
    idle.write_all(HEALTHZ).await.expect("a request");
    read_response(&mut idle).await;
    server.shutdown.cancel();
    // The clock does not advance: no connection here ends because of a timeout.
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut idle_connection).await, "");
    server.served.await.expect("the task ends").expect("a clean shutdown");
}

/// Returns a certificate for `localhost` and its key, as PEM, and the roots that a client trusts.
fn pair() -> (String, String, rustls::RootCertStore) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let pem = |kind: &str, der: &[u8]| {
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
    };
    (pem("CERTIFICATE", cert.der()), pem("PRIVATE KEY", &signing_key.serialize_der()), roots)
}

async fn handshake(
    address: SocketAddr,
    roots: &rustls::RootCertStore,
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A directory with the layout of a mounted Kubernetes Secret: the files are links through a link that is replaced.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(cert: &str, key: &str) -> Self {
        let mounted = Self(tempfile::tempdir().expect("a directory"));
        mounted.replace("one", cert, key);
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), mounted.0.path().join(name))
                .expect("a link");
        }
        mounted
    }

    fn replace(&self, version: &str, cert: &str, key: &str) {
        let dir = self.0.path().join(version);
        std::fs::create_dir(&dir).expect("a directory");
        std::fs::write(dir.join("tls.crt"), cert).expect("a file");
        std::fs::write(dir.join("tls.key"), key).expect("a file");
        let link = self.0.path().join("..new");
        std::os::unix::fs::symlink(version, &link).expect("a link");
        std::fs::rename(link, self.0.path().join("..data")).expect("a rename");
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { cert: self.0.path().join("tls.crt"), key: self.0.path().join("tls.key") }
    }
}

#[tokio::test]
async fn tls_is_served_and_certificate_files_are_reloaded() {
    let (cert, key, roots) = pair();
    let mounted = Mounted::new(&cert, &key);
    let tls = Some(Tls::load(&mounted.files()).expect("a pair"));
    let server = ListeningServer::with(HttpSettings { tls, ..HttpSettings::default() }).await;
    let mut stream = handshake(server.address, &roots, b"http/1.1").await.expect("a handshake");
    stream.write_all(HEALTHZ).await.expect("a request");
    let expected = read_response(&mut stream).await;
    assert!(
        expected.starts_with("HTTP/1.1 200")
            && expected.contains("strict-transport-security: max-age=31536000"),
        "{expected}"
    );
    let h2 = handshake(server.address, &roots, b"h2").await.expect("a handshake");
    assert_eq!(h2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    // An invalid pair or a missing file does not change the certificate.
    let (other_cert, other_key, other_roots) = pair();
    mounted.replace("two", &other_cert, &key);
    server.advance(11).await;
    handshake(server.address, &roots, b"h2").await.expect("the first certificate");
    mounted.replace("three", &other_cert, &other_key);
    // The files are read on another thread, so a check may run during a handshake.
    let mut attempts = 0;
    while handshake(server.address, &other_roots, b"h2").await.is_err() {
        attempts += 1;
        assert!(attempts < 1_000, "the new certificate is not served");
        server.advance(11).await;
    }
    handshake(server.address, &roots, b"h2").await.expect_err("the first certificate is gone");
}

#[tokio::test]
async fn a_handshake_must_finish_in_time() {
    let (cert, key, _) = pair();
    let mounted = Mounted::new(&cert, &key);
    let tls = Some(Tls::load(&mounted.files()).expect("a pair"));
    let server = ListeningServer::with(HttpSettings { tls, ..HttpSettings::default() }).await;
    for sent in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = server.connect().await;
        stream.write_all(sent).await.expect("a part of a handshake");
        assert_eq!(server.closed(&mut stream, 15).await, "");
    }
    assert!(!server.sent(HEALTHZ).await.contains("HTTP/1.1"), "plaintext gets no response");
}

#[test]
fn certificate_pairs_are_validated() {
    let ((cert, key, _), (other, ..)) = (pair(), pair());
    for (cert, key, expected) in [
        ("", key.as_str(), "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nx", &key, "PEM"),
        (cert.as_str(), "", "no private key"),
        (other.as_str(), &key, "does not belong"),
    ] {
        let error = Tls::load(&Mounted::new(cert, key).files()).expect_err("an invalid pair").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
    let missing = TlsFiles { cert: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
    assert!(Tls::load(&missing).expect_err("no files").to_string().contains("/nowhere/tls.crt"));
}

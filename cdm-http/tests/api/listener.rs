//! The listener over real sockets, on a clock that the test moves: limits of time and number, TLS, and the end.

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

use crate::support::Bed;

/// A server on a socket, with a clock of its own for the connections.
struct Listening {
    bed: Bed,
    address: SocketAddr,
    clock: SimClock,
    shutdown: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: cdm.example.com\r\n\r\n";

impl Listening {
    async fn with(settings: HttpSettings) -> Self {
        let bed = Bed::with(settings).await;
        let clock = SimClock::new();
        let app = App { clock: Arc::new(clock.clone()) as Arc<dyn Clock>, ..bed.app.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(cdm_http::serve(listener, app, shutdown.clone(), Duration::from_secs(10)));
        Self { bed, address, clock, shutdown, served }
    }

    async fn new() -> Self {
        Self::with(HttpSettings::default()).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends a request on a fresh connection, and gives all that comes until the server closes it.
    async fn sent(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("a request");
        rest(&mut stream).await
    }

    /// Lets seconds pass on the connections' clock, and everyone have a turn in each.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            for _ in 0..256 {
                tokio::task::yield_now().await;
            }
            self.clock.advance(Duration::from_secs(1));
        }
    }

    /// All that comes on a connection that the server closes within so many seconds.
    async fn closed(&self, stream: &mut TcpStream, seconds: u64) -> String {
        tokio::select! {
            text = rest(stream) => text,
            () = self.pass(seconds + 2) => panic!("the connection is still open after {seconds} s"),
        }
    }
}

/// All that comes until the other side closes the connection, or resets it.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends it as well as a close.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One answer with a `content-length`, off a connection that stays open.
async fn answer<S: AsyncReadExt + Unpin>(stream: &mut S) -> String {
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
        let count = stream.read(&mut buffer).await.expect("an answer");
        assert!(count > 0, "the connection ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[tokio::test]
async fn a_header_has_to_arrive_in_time() {
    let server = Listening::new().await;
    for sent in [&b""[..], b"GET /heal", b"GET /healthz HTTP/1.1\r\nhost: a\r\n", b"PRI * HTTP/2.0\r\n\r\nSM"]
    {
        let mut stream = server.connect().await;
        stream.write_all(sent).await.expect("a part of a header");
        assert_eq!(server.closed(&mut stream, 15).await, "", "{sent:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_at_work_is_not() {
    let server = Listening::new().await;
    let mut idle = server.connect().await;
    idle.write_all(HEALTHZ).await.expect("a request");
    assert!(answer(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut working = server.connect().await;
    let events = format!(
        "GET /events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        server.bed.token(Role::Viewer)
    );
    working.write_all(events.as_bytes()).await.expect("a request");
    let mut buffer = [0; 1024];
    assert!(working.read(&mut buffer).await.expect("a stream") > 0);
    assert_eq!(server.closed(&mut idle, 30).await, "");
    server.pass(300).await;
    assert!(working.read(&mut buffer).await.expect("a stream that lives") > 0);
}

/// A client that takes nothing of its answers holds a connection no longer than the limit of time for writing.
#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off() {
    let server = Listening::new().await;
    let one = server.sent(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(one.starts_with("HTTP/1.1 200"), "{one}");
    // More than the buffers of both sockets hold, Linux's largest of 4 MiB for sending included.
    let requests = 16 * 1024 * 1024 / one.len();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
    let mut stream = socket.connect(server.address).await.expect("a connection");
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(requests);
    stream.write_all(&request).await.expect("requests");
    server.pass(120).await;
    let received = rest(&mut stream).await.len();
    assert!(received < requests * one.len() / 2, "{received} bytes of {}", requests * one.len());
}

#[tokio::test]
async fn a_header_that_is_too_long_or_has_too_many_lines_is_refused() {
    let server = Listening::new().await;
    let long = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "x".repeat(40 * 1024));
    let many = format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{}\r\n", "x-many: 1\r\n".repeat(101));
    for request in [long, many] {
        let answer = server.sent(request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert!(server.sent(b"GET /healthz HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200"));
}

#[tokio::test]
async fn silent_connections_make_way_and_those_at_work_stay() {
    let connections = ConnectionLimits { total: 4, reserved: 2, ..ConnectionLimits::default() };
    let server = Listening::with(HttpSettings { connections, ..HttpSettings::default() }).await;
    let events = format!(
        "GET /events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        server.bed.token(Role::Viewer)
    );
    let mut working = server.connect().await;
    working.write_all(events.as_bytes()).await.expect("a request");
    let mut buffer = [0; 1024];
    assert!(working.read(&mut buffer).await.expect("a stream") > 0);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(server.connect().await);
        // Each is seen before the next one comes.
        let mut asking = server.connect().await;
        asking.write_all(HEALTHZ).await.expect("a request");
        assert!(answer(&mut asking).await.starts_with("HTTP/1.1 200"));
    }
    let mut first = silent.swap_remove(0);
    assert_eq!(rest(&mut first).await, "", "the oldest silent connection was closed");
    server.shutdown.cancel();
    let stream = rest(&mut working).await;
    assert!(stream.ends_with("0\r\n\r\n"), "the stream was open until the end, and ended in order: {stream}");
}

#[tokio::test]
async fn while_all_connections_work_a_further_one_is_refused_at_once() {
    let connections = ConnectionLimits { total: 2, reserved: 0, ..ConnectionLimits::default() };
    let server = Listening::with(HttpSettings { connections, ..HttpSettings::default() }).await;
    let events = format!(
        "GET /events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        server.bed.token(Role::Viewer)
    );
    let mut working = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(events.as_bytes()).await.expect("a request");
        assert!(stream.read(&mut [0; 1024]).await.expect("a stream") > 0);
        working.push(stream);
    }
    let mut refused = server.connect().await;
    let answer = rest(&mut refused).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(working);
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = Listening::new().await;
    for hosts in ["", "host: a.example\r\nhost: b.example\r\n", "host: a b\r\n", "host: u@a.example\r\n"] {
        let request = format!("GET /healthz HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = server.sent(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{hosts:?}: {answer}");
        assert!(answer.contains("\"code\":\"invalid_host\""), "{hosts:?}: {answer}");
    }
}

#[tokio::test]
async fn the_end_waits_for_requests_and_for_no_idle_connection() {
    let server = Listening::new().await;
    let mut idle = server.connect().await;
    idle.write_all(HEALTHZ).await.expect("a request");
    answer(&mut idle).await;
    let mut silent = server.connect().await;
    idle.write_all(HEALTHZ).await.expect("a request");
    answer(&mut idle).await;
    server.shutdown.cancel();
    // The clock stands still: nothing that ends here has waited for time to pass.
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    server.served.await.expect("an end").expect("a good one");
}

/// A certificate for `localhost` and its key, as PEM, and what a client trusts.
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

/// A directory laid out as Kubernetes mounts a Secret: the files are links through a link that is replaced.
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
async fn tls_is_served_and_follows_its_files() {
    let (cert, key, roots) = pair();
    let mounted = Mounted::new(&cert, &key);
    let tls = Some(Tls::load(&mounted.files()).expect("a pair"));
    let server = Listening::with(HttpSettings { tls, ..HttpSettings::default() }).await;
    let mut stream = handshake(server.address, &roots, b"http/1.1").await.expect("a handshake");
    stream.write_all(HEALTHZ).await.expect("a request");
    let told = answer(&mut stream).await;
    assert!(
        told.starts_with("HTTP/1.1 200") && told.contains("strict-transport-security: max-age=31536000"),
        "{told}"
    );
    let h2 = handshake(server.address, &roots, b"h2").await.expect("a handshake");
    assert_eq!(h2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    // A pair that does not hold changes nothing, and neither does a file that is gone.
    let (other_cert, other_key, other_roots) = pair();
    mounted.replace("two", &other_cert, &key);
    server.pass(11).await;
    handshake(server.address, &roots, b"h2").await.expect("the first certificate");
    mounted.replace("three", &other_cert, &other_key);
    // The files are read on another thread: each look may be under way while a handshake is made.
    let mut tries = 0;
    while handshake(server.address, &other_roots, b"h2").await.is_err() {
        tries += 1;
        assert!(tries < 1_000, "the new certificate is not served");
        server.pass(11).await;
    }
    handshake(server.address, &roots, b"h2").await.expect_err("the first certificate is gone");
}

#[tokio::test]
async fn a_handshake_has_to_be_made_in_time() {
    let (cert, key, _) = pair();
    let mounted = Mounted::new(&cert, &key);
    let tls = Some(Tls::load(&mounted.files()).expect("a pair"));
    let server = Listening::with(HttpSettings { tls, ..HttpSettings::default() }).await;
    for sent in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = server.connect().await;
        stream.write_all(sent).await.expect("a part of a handshake");
        assert_eq!(server.closed(&mut stream, 15).await, "");
    }
    assert!(!server.sent(HEALTHZ).await.contains("HTTP/1.1"), "plaintext gets no answer");
}

#[test]
fn a_pair_is_judged() {
    let ((cert, key, _), (other, ..)) = (pair(), pair());
    for (cert, key, told) in [
        ("", key.as_str(), "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nx", &key, "PEM"),
        (cert.as_str(), "", "no private key"),
        (other.as_str(), &key, "does not belong"),
    ] {
        let error =
            Tls::load(&Mounted::new(cert, key).files()).expect_err("a pair that does not hold").to_string();
        assert!(error.contains(told), "{error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
    let missing = TlsFiles { cert: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
    assert!(Tls::load(&missing).expect_err("no files").to_string().contains("/nowhere/tls.crt"));
}

//! Connections of the real server: their number under a limit of open files, and TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use cdm_testkit::server::{LISTEN_TIMEOUT, QUICK, Server, ServerMode, client, command, directory};

/// Raises the limit of open files of this process, which holds both sides of the connections.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the hard limit");
}

/// Returns the same command with a lower limit of open files.
fn limited(command: &Command, descriptors: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -n {descriptors} && exec \"$@\"")).arg("sh");
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdout(Stdio::null()).stderr(Stdio::piped());
    shell
}

fn connect(server: &Server) -> TcpStream {
    let address = server.url.trim_start_matches("http://");
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(LISTEN_TIMEOUT)).expect("a socket");
    stream
}

/// A server with 1,024 file descriptors responds while 1,100 connections are idle.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_block_clients() {
    raise_limit();
    let dir = directory();
    let mut command = limited(&command(dir.path(), QUICK), 1_024);
    let server = Server::listen(command.spawn().expect("the server starts"), ServerMode::ApiAndSites);
    let mut idle = Vec::new();
    for number in 0..1_100 {
        let mut stream = connect(&server);
        if number % 2 == 1 {
            // The write may fail, because the server may have closed the connection.
            let _ = stream.write_all(b"GET /sites HTTP/1.1\r\nhost: a\r\nx-half: ");
        }
        idle.push(stream);
    }
    for path in ["/healthz", "/readyz"] {
        let response = server.ask_as(None, reqwest::Method::GET, path, None).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(server.get("/sites").await["items"], serde_json::json!([]));
    let oldest = tokio::task::spawn_blocking(move || {
        let mut oldest = idle.swap_remove(0);
        // The close may arrive as a reset.
        oldest.read(&mut [0; 64]).unwrap_or(0)
    });
    assert_eq!(oldest.await.expect("a read"), 0, "the connection that was idle longest was closed");
}

/// File descriptors can run out below the server's own limits: then idle connections are closed for new ones, and no
/// request is lost.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_file_descriptors_continues() {
    use rustix::process::{Pid, prlimit};

    let dir = directory();
    let server = Server::start(dir.path());
    let process = Pid::from_raw(server.id().try_into().expect("an id"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.id())).expect("the descriptors");
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let numbers: Vec<u64> = numbers.collect();
    // The pods and jobs of the local cluster need some of the remaining descriptors for their own connections.
    let limit = numbers.iter().max().expect("open descriptors") + 1 + 64;
    let lower = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(process, Resource::Nofile, lower).expect("a lower limit");
    // More connections than there are remaining descriptors.
    let remaining = usize::try_from(limit).expect("a number") - numbers.len();
    let idle: Vec<TcpStream> = (0..remaining + 64).map(|_| connect(&server)).collect();
    for _ in 0..8 {
        let response = client().get(format!("{}/healthz", server.url)).send().await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
    }
    let log = server.log.lock().expect("the log").clone();
    assert!(log.contains("connections cannot be accepted"), "{log}");
    drop(idle);
}

/// Without TLS, the server does not listen on an address that other machines can reach, unless this is requested
/// explicitly.
#[test]
fn plaintext_on_a_public_address_requires_an_explicit_setting() {
    let dir = directory();
    let started = |environment: &[(&str, &str)]| {
        let mut command = command(dir.path(), QUICK);
        command.arg("--check-config").env("CDM_LISTEN", "0.0.0.0:0").envs(environment.iter().copied());
        let output = command.output().expect("the server ends");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (accepted, output) = started(&[]);
    assert!(
        !accepted && output.contains("CDM_TLS_CERT") && output.contains("CDM_ALLOW_PLAINTEXT=true"),
        "{output}"
    );
    assert!(started(&[("CDM_ALLOW_PLAINTEXT", "true")]).0);
    assert!(started(&[("CDM_LISTEN", "127.0.0.1:0")]).0);
    let sites = ("CDM_ROUTER_LISTEN", "0.0.0.0:0");
    let (accepted, output) = started(&[("CDM_LISTEN", "127.0.0.1:0"), sites]);
    assert!(!accepted && output.contains("CDM_ROUTER_LISTEN"), "{output}");
    assert!(started(&[sites, ("CDM_ALLOW_PLAINTEXT", "true")]).0);
    let (accepted, output) =
        started(&[("CDM_TLS_CERT", "/nowhere/tls.crt"), ("CDM_TLS_KEY", "/nowhere/tls.key")]);
    assert!(!accepted && output.contains("/nowhere/tls.crt"), "{output}");
}

/// The server serves TLS with the configured pair, and instructs browsers not to use plaintext again.
#[tokio::test]
async fn a_listener_with_a_certificate_serves_tls() {
    let dir = directory();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let pem = |kind: &str, der: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
    };
    let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let authority = pem("CERTIFICATE", made.cert.der());
    std::fs::write(&cert, &authority).expect("a file");
    std::fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).expect("a file");
    let mut command = command(dir.path(), QUICK);
    command.env("CDM_TLS_CERT", &cert).env("CDM_TLS_KEY", &key).env("CDM_LISTEN", "0.0.0.0:0");
    let server = Server::listen(command.spawn().expect("the server starts"), ServerMode::ApiAndSites);
    let port = server.url.rsplit(':').next().expect("a port");
    let authority = reqwest::Certificate::from_pem(authority.as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([authority]).timeout(Duration::from_secs(60));
    let client = client.build().expect("a client");
    let request = client.get(format!("https://localhost:{port}/healthz")).header("host", "cdm.example.com");
    let response = request.send().await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000; includeSubDomains");
    let plain = server.client.get(format!("http://localhost:{port}/healthz")).send().await;
    assert!(plain.is_err(), "plaintext gets no response");
}

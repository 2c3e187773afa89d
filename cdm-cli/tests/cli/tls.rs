//! Errors for certificates that are not accepted, each by a handshake on a loopback port.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdm_cli::remote::{Remote, RemoteOptions};
use cdm_cli::transport::{Request, Transport, TransportErrorKind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A server that performs a TLS handshake with one client, with this certificate.
fn server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut connection = rustls::ServerConnection::new(Arc::new(config)).expect("a connection");
        // The handshake fails when the client closes the connection.
        while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
    });
    address
}

/// A certificate for these names, signed by the authority if there is one, otherwise self-signed.
fn issued(
    names: &[&str],
    by: Option<&CertifiedIssuer<'_, KeyPair>>,
    edit: impl Fn(&mut CertificateParams),
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    edit(&mut params);
    let made = match by {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    let made = made.expect("a certificate");
    (vec![made.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

async fn failure(address: &str, cacert: Option<&std::path::Path>) -> (TransportErrorKind, String) {
    let options = RemoteOptions { cacert: cacert.map(ToOwned::to_owned), ..RemoteOptions::default() };
    let remote = Remote::new(address, None, &options).expect("a client");
    let error = remote.send(Request::default()).await.expect_err("no response");
    (error.kind, error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_certificate_is_explained() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, authority).expect("an authority");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ca.pem");
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(authority.as_ref().der())
    );
    std::fs::write(&file, pem).expect("a file");
    let trusted = Some(file.as_path());

    let good = || issued(&["localhost"], Some(&authority), |_| {});
    let expired = || {
        issued(&["localhost"], Some(&authority), |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        })
    };
    let of_authority =
        || issued(&["localhost"], None, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let cases = [
        ("not trusted", good(), None, TransportErrorKind::UntrustedIssuer),
        (
            "another name",
            issued(&["cdm.example.com"], Some(&authority), |_| {}),
            trusted,
            TransportErrorKind::WrongName,
        ),
        ("expired", expired(), trusted, TransportErrorKind::Expired),
        ("of an authority", of_authority(), trusted, TransportErrorKind::CaCertificate),
        // The handshake completes, and the server closes the connection.
        ("in order", good(), trusted, TransportErrorKind::Unreachable),
    ];
    for (what, (chain, key), cacert, expected) in cases {
        let port = server(chain, key).port();
        let (found, message) = failure(&format!("https://localhost:{port}"), cacert).await;
        assert_eq!(found, expected, "{what}: {message}");
        assert!(
            message.contains(&format!("https://localhost:{port}")) && !message.contains("CaUsed"),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_to_a_tls_port_is_explained() {
    let (chain, key) = issued(&["localhost"], None, |_| {});
    let port = server(chain, key).port();
    let (found, message) = failure(&format!("http://127.0.0.1:{port}"), None).await;
    assert_eq!(found, TransportErrorKind::NotHttp, "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn https_to_a_port_without_tls_is_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").expect("a response");
    });
    let (found, message) = failure(&format!("https://127.0.0.1:{port}"), None).await;
    assert_eq!(found, TransportErrorKind::NoTls, "{message}");
    assert_eq!(message, format!("`https://127.0.0.1:{port}` does not use TLS"));
}

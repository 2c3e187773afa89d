//! A remote server must prove its name before anything is sent to it.
//!
//! `0.0.0.0` stands for such a server: the address is not a loopback address, and yet a connection to it arrives at
//! this machine.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdm_core::ports::{ErrorKind, PortError, SiteDatabases};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::TestEnv;
use crate::server::Server;

/// Returns the options of a server with a certificate for `name`; its issuer is in `ca.pem` of the directory.
fn certificate(directory: &Path, name: &str) -> [String; 2] {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer_key = KeyPair::generate().expect("a key");
    let root = authority.self_signed(&issuer_key).expect("a root");
    let issuer = Issuer::new(authority, issuer_key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("parameters");
    let leaf = params.signed_by(&key, &issuer).expect("a certificate");
    write(directory, "ca.pem", "CERTIFICATE", root.der());
    let certificate = write(directory, "server.pem", "CERTIFICATE", leaf.der());
    let key = write(directory, "server.key", "PRIVATE KEY", &key.serialize_der());
    [format!("--ssl-cert={certificate}"), format!("--ssl-key={key}")]
}

#[expect(clippy::disallowed_methods, reason = "the server takes its certificate from files")]
fn write(directory: &Path, file: &str, what: &str, der: &[u8]) -> String {
    let path = directory.join(file);
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let text = format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"));
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

/// Returns the result of a check of the server under a remote address.
async fn check(server: &Server, query: &str) -> Result<(), PortError> {
    TestEnv::at(&format!("mysql://root@0.0.0.0:{}/{query}", server.port())).databases.check().await
}

fn assert_rejected(checked: Result<(), PortError>, hint: &str) {
    let error = checked.expect_err("the server is not accepted");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains(hint), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_the_name_by_a_trusted_authority_is_accepted() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = certificate(directory.path(), "0.0.0.0");
    let Some(server) = Server::start(&options.each_ref().map(String::as_str)).await else { return };
    let authority = format!("?ssl-ca={}", directory.path().join("ca.pem").display());
    check(&server, &authority).await.expect("the server is accepted");
    // The connection is encrypted.
    let env = TestEnv::at(&format!("mysql://root@0.0.0.0:{}/{authority}", server.port()));
    let uid = env.suite.cx().uid();
    assert!(env.databases.seen(uid).await.is_ok());
    assert_rejected(check(&server, "").await, "ssl-ca=");
    assert_rejected(check(&server, "?ssl-ca=/nowhere/ca.pem").await, "does not exist");
    // An explicit mode overrides the default.
    check(&server, "?ssl-mode=REQUIRED").await.expect("TLS without verification was requested");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_rejected() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = certificate(directory.path(), "db.internal");
    let Some(server) = Server::start(&options.each_ref().map(String::as_str)).await else { return };
    let authority = format!("?ssl-ca={}", directory.path().join("ca.pem").display());
    assert_rejected(check(&server, &authority).await, "must be for the host name");
    check(&server, &format!("{authority}&ssl-mode=VERIFY_CA")).await.expect("the name is not verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_server_without_tls_is_rejected() {
    let Some(server) = Server::start(&["--skip-ssl"]).await else { return };
    assert_rejected(check(&server, "").await, "does not support TLS");
    check(&server, "?ssl-mode=DISABLED").await.expect("plaintext was requested");
    TestEnv::at(&server.url()).databases.check().await.expect("this machine's own");
}

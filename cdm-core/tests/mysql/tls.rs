//! A server beyond this machine proves its name, or nothing is sent to it.
//!
//! `0.0.0.0` stands for such a server: no name of this machine's own, and yet a connection to it arrives here.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdm_core::ports::{ErrorKind, PortError, SiteDatabases};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::Lab;
use crate::server::Server;

/// The options of a server with a certificate of `name`; who signed it is in `ca.pem` of the directory.
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

/// What a check of the server says to someone for whom it is beyond this machine.
async fn check(server: &Server, query: &str) -> Result<(), PortError> {
    Lab::at(&format!("mysql://root@0.0.0.0:{}/{query}", server.port())).databases.check().await
}

fn refused(checked: Result<(), PortError>, hint: &str) {
    let error = checked.expect_err("it is not accepted");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains(hint), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_name_by_a_named_authority_is_accepted() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = certificate(directory.path(), "0.0.0.0");
    let Some(server) = Server::start(&options.each_ref().map(String::as_str)).await else { return };
    let authority = format!("?ssl-ca={}", directory.path().join("ca.pem").display());
    check(&server, &authority).await.expect("it is accepted");
    // The connection is protected, and not only let through.
    let lab = Lab::at(&format!("mysql://root@0.0.0.0:{}/{authority}", server.port()));
    let uid = lab.bench.cx().uid();
    assert!(lab.databases.seen(uid).await.is_ok());
    refused(check(&server, "").await, "ssl-ca=");
    refused(check(&server, "?ssl-ca=/nowhere/ca.pem").await, "not there");
    // An explicit mode is the administrator's word.
    check(&server, "?ssl-mode=REQUIRED").await.expect("asked for without a proof");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_name_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = certificate(directory.path(), "db.internal");
    let Some(server) = Server::start(&options.each_ref().map(String::as_str)).await else { return };
    let authority = format!("?ssl-ca={}", directory.path().join("ca.pem").display());
    refused(check(&server, &authority).await, "of the host's name");
    check(&server, &format!("{authority}&ssl-mode=VERIFY_CA")).await.expect("the name was waived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_beyond_this_machine() {
    let Some(server) = Server::start(&["--skip-ssl"]).await else { return };
    refused(check(&server, "").await, "offers no TLS");
    check(&server, "?ssl-mode=DISABLED").await.expect("asked for in plain text");
    Lab::at(&server.url()).databases.check().await.expect("this machine's own");
}

//! Arguments, completions and manual pages, without a server.

use cdm_cli::Cli;
use cdm_cli::args::duration;
use cdm_cli::io::TokenSource;
use cdm_cli::remote::{Plaintext, Remote, RemoteOptions};
use clap::{CommandFactory, Parser};
use secrecy::{ExposeSecret, SecretString};

use crate::fake::{FakeServer, run};

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn no_argument_takes_a_token() {
    assert!(Cli::try_parse_from(["cdm", "doctor", "--token", "x"]).is_err());
}

#[test]
fn invalid_addresses_are_rejected_before_a_request() {
    for address in ["localhost:8080", "ftp://x", "http://", "https://user:pass@host"] {
        assert!(Remote::new(address, None, &RemoteOptions::default()).is_err(), "{address}");
    }
    let token = SecretString::from("s3cret");
    let remote = Remote::new("https://example.com/cdm/", Some(&token), &RemoteOptions::default()).unwrap();
    assert!(!format!("{remote:?}").contains("s3cret"));
}

#[test]
fn a_token_is_sent_in_plaintext_to_this_machine_only() {
    let token = SecretString::from("s3cret");
    let usual = RemoteOptions::default();
    let allowed = RemoteOptions { plaintext: Plaintext::Allowed, ..RemoteOptions::default() };
    for address in [
        "http://cdm.example.com",
        "http://10.0.0.7:8080",
        "http://localhost.example.com",
        "http://[fd00::1]:80",
    ] {
        let rejected = Remote::new(address, Some(&token), &usual).unwrap_err().to_string();
        assert!(rejected.contains("not sent") && !rejected.contains("s3cret"), "{rejected}");
        assert!(Remote::new(address, Some(&token), &allowed).is_ok(), "{address}");
        assert!(Remote::new(address, None, &usual).is_ok(), "there is nothing to read: {address}");
    }
    for address in [
        "http://127.0.0.1:8080",
        "http://127.8.9.1",
        "http://[::1]:80",
        "http://localhost",
        "https://x.example",
    ] {
        assert!(Remote::new(address, Some(&token), &usual).is_ok(), "{address}");
    }
}

#[test]
fn authorities_are_read_from_a_pem_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let reach = |path: &std::path::Path| {
        let options = RemoteOptions { cacert: Some(path.to_owned()), ..RemoteOptions::default() };
        Remote::new("https://cdm.example.com", None, &options).map(drop)
    };
    assert!(reach(&file).is_err(), "it is missing");
    std::fs::write(&file, "no certificate\n").unwrap();
    assert!(reach(&file).unwrap_err().to_string().contains("contains no PEM certificate"));
}

#[test]
fn an_option_precedes_the_token_of_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    std::fs::write(&one, "first\n").unwrap();
    std::fs::write(&two, "\n").unwrap();
    let both = TokenSource { token: Some(SecretString::from("second")), file: Some(two.clone()) };
    let read = |source: &TokenSource, file| {
        source.read(file).map(|token| token.map(|it| it.expose_secret().to_owned()))
    };
    assert_eq!(read(&both, Some(one.as_path())).unwrap(), Some("first".into()));
    assert_eq!(read(&both, None).unwrap(), Some("second".into()));
    assert!(read(&TokenSource { token: None, file: Some(two) }, None).is_err());
    assert_eq!(read(&TokenSource::default(), None).unwrap(), None);
}

#[test]
fn durations_have_units_up_to_weeks() {
    for (text, seconds) in [
        ("90s", 90),
        ("15m", 900),
        ("2h", 7_200),
        ("1h30m", 5_400),
        ("3d", 259_200),
        ("1w", 604_800),
        ("1w 2d", 777_600),
    ] {
        assert_eq!(duration(text).map(|span| span.as_secs()), Ok(seconds), "{text}");
    }
    for text in ["2", "0", "600"] {
        let hint = format!("`{text}` has no unit: write {text}s, {text}m, {text}h, {text}d or {text}w");
        assert_eq!(duration(text), Err(hint));
    }
    for text in ["", "soon", "1y", "2mo", "-5m", "5 apples"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn completions_contain_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let result = run(FakeServer::default(), &["completion", shell]).await;
        assert_eq!(result.exit.code(), 0);
        assert!(result.out.contains("rollback"), "{shell}");
    }
}

#[tokio::test]
async fn every_command_has_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("man");
    let result = run(FakeServer::default(), &["man", "--dir", path.to_str().unwrap()]).await;
    assert_eq!(result.exit.code(), 0, "{}", result.err);
    for page in ["cdm.1", "cdm-site.1", "cdm-site-create.1", "cdm-op-watch.1"] {
        assert!(std::fs::metadata(path.join(page)).unwrap().len() > 100, "{page}");
    }
}

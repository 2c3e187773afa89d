//! The arguments themselves, completions and manual pages.

use std::time::Duration;

use cdm_cli::Cli;
use cdm_cli::remote::Remote;
use cdm_cli::world::TokenSource;
use clap::{CommandFactory, Parser};
use secrecy::{ExposeSecret, SecretString};

use crate::fake::{Fake, run};

#[test]
fn the_arguments_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn no_argument_takes_a_token() {
    assert!(Cli::try_parse_from(["cdm", "doctor", "--token", "x"]).is_err());
}

#[test]
fn spans_are_read() {
    let parse = cdm_cli::args::duration;
    assert_eq!(parse("90"), Ok(Duration::from_secs(90)));
    assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5_400)));
    assert!(parse("soon").is_err() && parse("-5m").is_err());
}

#[test]
fn addresses_are_judged_before_they_are_asked() {
    for address in ["localhost:8080", "ftp://x", "http://", "https://user:pass@host"] {
        assert!(Remote::new(address, None).is_err(), "{address}");
    }
    let remote = Remote::new("https://example.com/cdm/", Some(&SecretString::from("s3cret"))).unwrap();
    assert!(!format!("{remote:?}").contains("s3cret"));
}

#[test]
fn the_nearest_token_counts() {
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

#[tokio::test]
async fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ran = run(Fake::default(), &["completion", shell]).await;
        assert_eq!(ran.exit.code(), 0);
        assert!(ran.out.contains("rollback"), "{shell}");
    }
}

#[tokio::test]
async fn every_command_has_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("man");
    let ran = run(Fake::default(), &["man", "--dir", path.to_str().unwrap()]).await;
    assert_eq!(ran.exit.code(), 0, "{}", ran.err);
    for page in ["cdm.1", "cdm-site.1", "cdm-site-create.1", "cdm-op-watch.1"] {
        assert!(std::fs::metadata(path.join(page)).unwrap().len() > 100, "{page}");
    }
}

//! Somebody who has just built it: an empty home, no settings, and every suggestion pasted.

use std::process::Command;

use crate::place::{CDM, Running, Stream, alone, cdm, ran};

#[test]
fn the_first_words_lead_on() {
    let home = tempfile::tempdir().expect("a directory");
    let bare = ran(&mut cdm(home.path(), &[])).ends(2);
    assert!(bare.err.contains("Usage: cdm") && bare.err.contains("cdm demo"), "{}", bare.err);
    let help = ran(&mut cdm(home.path(), &["--help"])).ends(0);
    assert!(help.out.contains("cdm site create shop") && help.out.contains("7 partly done"), "{}", help.out);
    let version = ran(&mut cdm(home.path(), &["--version"])).ends(0);
    assert!(version.out.starts_with("cdm "), "{}", version.out);
    let typo = ran(&mut cdm(home.path(), &["site", "crate"])).ends(2);
    assert!(typo.err.contains("create"), "{}", typo.err);
    let missing = ran(&mut cdm(home.path(), &["site", "create", "shop", "--theme", "plain"])).ends(2);
    assert!(missing.err.contains("--hostname"), "{}", missing.err);
    assert!(std::fs::read_dir(home.path()).expect("home").next().is_none(), "it leaves nothing at home");
}

#[test]
fn a_site_without_any_server_lies_in_the_home_directory() {
    let home = tempfile::tempdir().expect("a directory");
    let create = ["--local", "site", "create", "shop", "--theme", "plain", "--hostname", "shop.example.com"];
    ran(&mut cdm(home.path(), &create)).ends(0);
    ran(&mut cdm(home.path(), &["--local", "site", "provision", "shop"])).ends(0);
    let doctor = ran(&mut cdm(home.path(), &["--local", "doctor", "-o", "json"])).ends(0).json();
    assert_eq!((&doctor["server"], &doctor["token"]), (&"ready".into(), &"accepted".into()), "{doctor}");
    let audit = ran(&mut cdm(home.path(), &["--local", "audit", "-o", "json"])).ends(0).json();
    assert_eq!(audit["items"][0]["actor"], "local", "{audit}");
}

#[test]
fn a_directory_that_is_named_needs_no_home() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data").display().to_string();
    let mut list = cdm(home.path(), &["--local", "--data-dir", &data, "site", "list"]);
    assert!(ran(list.env_clear()).ends(0).err.contains("no sites"));
}

#[test]
fn a_reader_of_the_demo_may_leave() {
    let home = tempfile::tempdir().expect("a directory");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{{ {CDM} demo; echo \"exit $?\" >&2; }} | head -1")]);
    alone(&mut shell, home.path());
    let ran = ran(&mut shell).ends(0);
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (1, "exit 0\n"));
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = cdm(home.path(), &["demo"]);
    let mut demo = Running::start(command.env("TMPDIR", home.path()), Stream::Out);
    demo.until("bakery is created");
    demo.interrupt();
    let (code, said) = demo.end();
    assert_eq!(code, 130, "{said}");
    assert!(std::fs::read_dir(home.path()).expect("home").next().is_none(), "{said}");
}

#[test]
fn what_the_kept_demo_suggests_works_when_it_is_pasted() {
    let home = tempfile::tempdir().expect("a directory");
    let mut demo = Running::start(&mut cdm(home.path(), &["demo", "--keep"]), Stream::Out);
    demo.until("In another terminal:");
    let mut lines = Vec::new();
    loop {
        let line = demo.until("");
        match line.strip_prefix("  ") {
            Some(command) => lines.push(command.to_owned()),
            None if lines.is_empty() => {}
            None => break,
        }
    }
    assert!(lines.iter().any(|line| line.starts_with("cdm ")), "{lines:?}");
    // Each line by itself after what is set before it, so that the failing one is known.
    let (set, tried): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.starts_with("export "));
    for line in &tried {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{}\n{line}", set.join("\n"))]);
        alone(&mut shell, home.path());
        let ran = ran(&mut shell);
        // A shell without curl is not the demo's fault.
        assert!(
            ran.code == 0 || line.starts_with("curl") && ran.code == 127,
            "{line}: {}{}",
            ran.out,
            ran.err
        );
    }
    let data = demo.until("Its data lies in ");
    let data = data.split('`').nth(1).expect("a path").to_owned();
    assert!(std::path::Path::new(&data).exists(), "{data}");
    demo.interrupt();
    let (code, said) = demo.end();
    assert_eq!(code, 0, "{said}");
    assert!(!std::path::Path::new(&data).exists(), "its directory goes with it");
    assert!(std::path::Path::new(CDM).exists());
}

//! First use after a build: an empty home directory, no settings, and every suggestion pasted.

use std::process::Command;

use crate::test_env::{CDM, Running, Stream, cdm, execute, isolate};

#[test]
fn the_first_outputs_name_the_next_command() {
    let home = tempfile::tempdir().expect("a directory");
    let bare = execute(&mut cdm(home.path(), &[])).ends(2);
    assert!(bare.err.contains("Usage: cdm") && bare.err.contains("cdm demo"), "{}", bare.err);
    let help = execute(&mut cdm(home.path(), &["--help"])).ends(0);
    assert!(help.out.contains("cdm site create shop") && help.out.contains("7 partly done"), "{}", help.out);
    let version = execute(&mut cdm(home.path(), &["--version"])).ends(0);
    assert!(version.out.starts_with("cdm "), "{}", version.out);
    let typo = execute(&mut cdm(home.path(), &["site", "crate"])).ends(2);
    assert!(typo.err.contains("create"), "{}", typo.err);
    let missing = execute(&mut cdm(home.path(), &["site", "create", "shop", "--theme", "plain"])).ends(2);
    assert!(missing.err.contains("--hostname"), "{}", missing.err);
    assert!(
        std::fs::read_dir(home.path()).expect("home").next().is_none(),
        "no file is left in the home directory"
    );
}

#[test]
fn a_site_without_a_server_is_stored_in_the_home_directory() {
    let home = tempfile::tempdir().expect("a directory");
    let create = ["--local", "site", "create", "shop", "--theme", "plain", "--hostname", "shop.example.com"];
    execute(&mut cdm(home.path(), &create)).ends(0);
    execute(&mut cdm(home.path(), &["--local", "site", "provision", "shop"])).ends(0);
    let doctor = execute(&mut cdm(home.path(), &["--local", "doctor", "-o", "json"])).ends(0).json();
    assert_eq!((&doctor["server"], &doctor["token"]), (&"ready".into(), &"accepted".into()), "{doctor}");
    let audit = execute(&mut cdm(home.path(), &["--local", "audit", "-o", "json"])).ends(0).json();
    assert_eq!(audit["items"][0]["actor"], "local", "{audit}");
}

#[test]
fn an_explicit_data_directory_needs_no_home() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data").display().to_string();
    let mut list = cdm(home.path(), &["--local", "--data-dir", &data, "site", "list"]);
    assert!(execute(list.env_clear()).ends(0).err.contains("no sites"));
}

#[test]
fn the_demo_ends_when_its_output_is_closed() {
    let home = tempfile::tempdir().expect("a directory");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{{ {CDM} demo; echo \"exit $?\" >&2; }} | head -1")]);
    isolate(&mut shell, home.path());
    let result = execute(&mut shell).ends(0);
    assert_eq!((result.out.lines().count(), result.err.as_str()), (1, "exit 0\n"));
}

#[test]
fn an_interrupted_demo_leaves_no_files() {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = cdm(home.path(), &["demo"]);
    let mut demo = Running::start(command.env("TMPDIR", home.path()), Stream::Out);
    demo.until("bakery is created");
    demo.interrupt();
    let (code, output) = demo.end();
    assert_eq!(code, 130, "{output}");
    assert!(std::fs::read_dir(home.path()).expect("home").next().is_none(), "{output}");
}

#[test]
fn suggestions_of_a_kept_demo_work_when_pasted() {
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
    // Each line runs separately after the exports, so that a failure names the line.
    let (set, tried): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.starts_with("export "));
    for line in &tried {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{}\n{line}", set.join("\n"))]);
        isolate(&mut shell, home.path());
        let result = execute(&mut shell);
        // A machine without curl is not an error of the demo.
        assert!(
            result.code == 0 || line.starts_with("curl") && result.code == 127,
            "{line}: {}{}",
            result.out,
            result.err
        );
    }
    let data = demo.until("The data is in ");
    let data = data.split('`').nth(1).expect("a path").to_owned();
    assert!(std::path::Path::new(&data).exists(), "{data}");
    demo.interrupt();
    let (code, output) = demo.end();
    assert_eq!(code, 0, "{output}");
    assert!(!std::path::Path::new(&data).exists(), "its directory was not deleted");
    assert!(std::path::Path::new(CDM).exists());
}

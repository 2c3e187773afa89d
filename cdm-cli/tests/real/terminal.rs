//! Output on a terminal: tables that fit, and color only where it is wanted.

use std::process::Command;

use cdm_testkit::backends;

use crate::test_env::{CDM, Outcome, TestEnv, execute, image, isolate};

/// An id of the maximum length.
const LONG: &str = "a-site-with-a-name-of-32-letters";

/// Returns whether `script` can create a terminal. Skips the test otherwise.
fn has_terminal() -> bool {
    let version = Command::new("script").arg("--version").output();
    let found = version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("util-linux"));
    if !found {
        backends::skip("the program `script` of util-linux is not installed");
    }
    found
}

/// Runs a command in a terminal of 80 columns; both streams are combined.
fn on_a_terminal(env: &TestEnv, words: &str, no_color: bool) -> Outcome {
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty rows 24 cols 80; {CDM} {words}"), "/dev/null"]);
    isolate(&mut script, env.home());
    script.env("CDM_SERVER", &env.server).env("CDM_TOKEN", &env.token).env("TERM", "xterm");
    if no_color {
        script.env("NO_COLOR", "1");
    }
    execute(&mut script)
}

#[test]
fn tables_fit_into_eighty_columns() {
    if !has_terminal() {
        return;
    }
    let env = TestEnv::new();
    env.site(LONG);
    env.run(&["services", "deploy", &image('a')]).ends(0);
    env.run(&["services", "rollout", "--promote", "--scope", "all"]).ends(0);
    env.run(&["token", "create", &"long name ".repeat(9), "--role", "viewer"]);
    let provision = crate::story::newest(&env, &["op", "list", "--kind", "provision"]);
    let get = format!("op get {provision}");
    let site = format!("site get {LONG}");
    let lines = [
        "site list",
        "op list",
        "rollout list",
        "services show",
        "services history blue",
        "audit",
        "doctor",
        &get,
        &site,
    ];
    for words in lines {
        let shown = on_a_terminal(&env, words, true);
        assert_eq!(shown.code, 0, "{words}: {}", shown.out);
        for line in shown.out.lines() {
            assert!(line.trim_end().chars().count() <= 80, "{words}: {}", shown.out);
        }
        assert!(!shown.out.contains('\u{1b}'), "{words}: {}", shown.out);
    }
    // Ids are not cut, since users copy them.
    let shown = on_a_terminal(&env, "op list", true);
    assert!(shown.out.contains(&format!("{provision} ")), "{}", shown.out);
}

#[test]
fn color_is_for_terminals_without_no_color() {
    if !has_terminal() {
        return;
    }
    let env = TestEnv::new();
    let colored = on_a_terminal(&env, "site get absent", false);
    let plain = on_a_terminal(&env, "site get absent", true);
    assert!(colored.out.contains("\u{1b}["), "{}", colored.out);
    assert!(!plain.out.contains('\u{1b}') && plain.out.contains("error: "), "{}", plain.out);
    let mut piped = env.command(&["site", "get", "absent"]);
    let piped = execute(piped.env("TERM", "xterm")).ends(4);
    assert!(!piped.err.contains('\u{1b}'), "{}", piped.err);
    let asked = env.run(&["site", "get", "absent", "--color", "always"]).ends(4);
    assert!(asked.err.contains("\u{1b}["), "{}", asked.err);
}

#[test]
fn a_freeze_is_shown_with_the_site_the_services_and_the_doctor() {
    let env = TestEnv::new();
    for id in ["shop", "blog"] {
        env.create(id);
    }
    env.run(&["freeze", "create", "--reason", "a launch", "--sites", "shop"]).ends(0);
    for words in [&["site", "get", "shop"][..], &["doctor"], &["services", "show"]] {
        let result = env.run(words).ends(0);
        let output = result.out + &result.err;
        assert!(
            output.contains("moves of shop are frozen by ") && output.contains("a launch"),
            "{words:?}: {output}"
        );
    }
    let other = env.run(&["site", "get", "blog"]).ends(0);
    assert!(!other.err.contains("frozen"), "{}", other.err);
}

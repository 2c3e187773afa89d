//! How it looks on a terminal: tables that fit, colour only where it is wanted.

use std::process::Command;

use crate::place::{CDM, Place, Ran, alone, image, ran};

/// As long as they may be.
const LONG: &str = "a-site-with-a-name-of-32-letters";

/// Runs a line in a terminal of 80 columns, where `script` can make one; both streams come as one.
fn on_a_terminal(place: &Place, words: &str, no_color: bool) -> Option<Ran> {
    let known = Command::new("script").arg("--version").output().ok()?;
    if !String::from_utf8_lossy(&known.stdout).contains("util-linux") {
        return None;
    }
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty rows 24 cols 80; {CDM} {words}"), "/dev/null"]);
    alone(&mut script, place.home());
    script.env("CDM_SERVER", &place.server).env("CDM_TOKEN", &place.token).env("TERM", "xterm");
    if no_color {
        script.env("NO_COLOR", "1");
    }
    Some(ran(&mut script))
}

#[test]
fn tables_fit_into_eighty_columns() {
    let place = Place::new();
    place.site(LONG);
    place.run(&["services", "deploy", &image('a')]).ends(0);
    place.run(&["services", "rollout", "--promote", "--scope", "all"]).ends(0);
    place.run(&["token", "create", &"long name ".repeat(9), "--role", "viewer"]);
    let provision = crate::story::newest(&place, &["op", "list", "--kind", "provision"]);
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
        let Some(shown) = on_a_terminal(&place, words, true) else { return };
        assert_eq!(shown.code, 0, "{words}: {}", shown.out);
        for line in shown.out.lines() {
            assert!(line.trim_end().chars().count() <= 80, "{words}: {}", shown.out);
        }
        assert!(!shown.out.contains('\u{1b}'), "{words}: {}", shown.out);
    }
    // The name of a thing is whole, since it is what one copies.
    let shown = on_a_terminal(&place, "op list", true).expect("a terminal");
    assert!(shown.out.contains(&format!("{provision} ")), "{}", shown.out);
}

#[test]
fn colour_is_for_terminals_without_no_color() {
    let place = Place::new();
    let coloured = on_a_terminal(&place, "site get nobody", false);
    let plain = on_a_terminal(&place, "site get nobody", true);
    if let (Some(coloured), Some(plain)) = (coloured, plain) {
        assert!(coloured.out.contains("\u{1b}["), "{}", coloured.out);
        assert!(!plain.out.contains('\u{1b}') && plain.out.contains("error: "), "{}", plain.out);
    }
    let mut piped = place.command(&["site", "get", "nobody"]);
    let piped = ran(piped.env("TERM", "xterm")).ends(4);
    assert!(!piped.err.contains('\u{1b}'), "{}", piped.err);
    let asked = place.run(&["site", "get", "nobody", "--color", "always"]).ends(4);
    assert!(asked.err.contains("\u{1b}["), "{}", asked.err);
}

#[test]
fn whoever_looks_at_a_frozen_site_or_at_the_platform_is_told_why_nothing_moves() {
    let place = Place::new();
    for id in ["shop", "blog"] {
        place.created(id);
    }
    place.run(&["freeze", "create", "--reason", "a launch", "--sites", "shop"]).ends(0);
    for words in [&["site", "get", "shop"][..], &["doctor"], &["services", "show"]] {
        let ran = place.run(words).ends(0);
        let told = ran.out + &ran.err;
        assert!(
            told.contains("moves of shop are frozen by ") && told.contains("a launch"),
            "{words:?}: {told}"
        );
    }
    let other = place.run(&["site", "get", "blog"]).ends(0);
    assert!(!other.err.contains("frozen"), "{}", other.err);
}

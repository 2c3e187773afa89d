//! Exit codes, each by something that really happens.

use std::net::TcpListener;

use crate::place::{Place, cdm, image, ran};
use crate::story::newest;

#[test]
fn what_is_done_is_0_and_what_is_wrong_with_the_request_is_2() {
    let place = Place::new();
    place.site("shop");
    let wrong: [&[&str]; 10] = [
        &[],
        &["sites"],
        &["site", "lst"],
        &["site", "create", "x", "--theme", "plain"],
        &["site", "create", "Not An Id", "--theme", "plain", "--hostname", "a.example.com"],
        &["site", "list", "--state", "asleep"],
        &["services", "deploy", "dev"],
        &["services", "rollout", "--promote", "--waves", "1"],
        &["services", "rollout"],
        &["doctor", "--token", "secret"],
    ];
    for words in wrong {
        let ran = place.run(words).ends(2);
        assert_eq!(ran.out, "", "{words:?}");
        assert!(!ran.err.is_empty(), "{words:?}");
    }
}

#[test]
fn work_that_fails_is_1() {
    let place = Place::with("[local]\npod_start_ms = 20\nprogress_deadline_ms = 500\n");
    place.never_ready(&image('c'));
    let ran = place.run(&["services", "deploy", &image('c')]).ends(1);
    assert!(ran.err.contains("image_not_ready"), "{}", ran.err);
    let hint = ran.err.lines().last().expect("a hint");
    assert!(hint.contains("op get op-"), "{hint}");
    // What failed before is still a failure to whoever comes later.
    let deploy = newest(&place, &["op", "list", "--kind", "deploy"]);
    place.run(&["op", "watch", &deploy]).ends(1);
}

#[test]
fn a_role_that_does_not_suffice_and_a_token_that_is_none_are_3() {
    let place = Place::new();
    place.created("shop");
    let made = place.run(&["token", "create", "looker", "--role", "viewer"]).ends(0);
    let file = place.home().join("viewer.token");
    std::fs::write(&file, &made.out).expect("a file");
    let file = file.display().to_string();
    let viewer = |words: &[&str]| {
        let mut all = vec!["--server", &place.server, "--token-file", &file];
        all.extend(words);
        ran(&mut cdm(place.home(), &all))
    };
    viewer(&["site", "get", "shop"]).ends(0);
    let refused = viewer(&["site", "provision", "shop"]).ends(3);
    assert!(refused.err.contains("operator") && refused.err.contains("viewer"), "{}", refused.err);

    let nobody = ran(&mut cdm(place.home(), &["--server", &place.server, "site", "list"])).ends(3);
    assert!(nobody.err.contains("no token was sent"), "{}", nobody.err);
    let mut wrong = cdm(place.home(), &["--server", &place.server, "site", "list"]);
    let wrong = ran(wrong.env("CDM_TOKEN", "cdm_0000000000000000000000000000000000000000")).ends(3);
    assert!(wrong.err.contains("the token that was sent"), "{}", wrong.err);
}

#[test]
fn what_is_not_there_is_4_and_what_stands_against_it_is_5() {
    let place = Place::new();
    place.created("shop");
    for words in [["site", "get", "ship"], ["op", "get", "op-9-site-ship"], ["rollout", "get", "rollout-9"]] {
        place.run(&words).ends(4);
    }
    let create = ["site", "create", "shop", "--theme", "plain", "--hostname", "other.example.com"];
    assert!(place.run(&create).ends(5).err.contains("another id"));
    let create = ["site", "create", "ship", "--theme", "plain", "--hostname", "shop.example.com"];
    assert!(place.run(&create).ends(5).err.contains("hostname"));
    place.run(&["services", "rollback"]).ends(5);
    place.run(&["site", "promote", "shop"]).ends(5);

    place.never_ready(&image('c'));
    let begun = place.run(&["services", "deploy", &image('c'), "--no-wait"]).ends(0);
    let id = begun.out.trim();
    let second = place.run(&["services", "deploy", &image('d')]).ends(5);
    assert!(second.err.contains(&format!("op watch {id}")), "{}", second.err);
    // A wait that is over before the work is 6.
    let late = place.run(&["op", "watch", id, "--timeout", "0s"]).ends(6);
    assert!(late.err.contains("it goes on") && late.out.is_empty(), "{late:?}");
    place.run(&["op", "cancel", id]).ends(0);
}

#[test]
fn a_rollout_that_leaves_a_site_behind_is_7() {
    let place = Place::new();
    place.site("shop");
    place.created("empty");
    place.run(&["services", "select", "green"]).ends(0);
    let rollout = ["services", "rollout", "--promote", "--sites", "shop,empty"];
    let ran = place.run(&rollout).ends(7);
    assert!(ran.err.contains("1 skipped"), "{}", ran.err);
    let hint = ran.err.lines().last().expect("a hint");
    assert!(hint.contains("op list --rollout rollout-"), "{hint}");
}

#[test]
fn nobody_at_the_address_is_8() {
    let home = tempfile::tempdir().expect("a directory");
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let server = format!("http://{address}");
    let away = ran(&mut cdm(home.path(), &["site", "list", "--server", &server])).ends(8);
    assert!(away.err.contains(&server) && away.err.contains("--local"), "{}", away.err);
    assert_eq!(away.out, "");
}

#[test]
fn no_token_is_an_argument() {
    let home = tempfile::tempdir().expect("a directory");
    for flag in ["--token", "--password", "--secret", "--bearer"] {
        ran(&mut cdm(home.path(), &["site", "list", flag, "s3cret"])).ends(2);
    }
    let url =
        ran(&mut cdm(home.path(), &["site", "list", "--server", "http://me:s3cret@127.0.0.1:1"])).ends(2);
    assert!(!url.err.contains("s3cret"), "{}", url.err);
}

#[test]
fn a_token_goes_to_another_machine_only_when_that_is_asked_for_and_never_through_a_proxy() {
    let place = Place::new();
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let environment = format!("http://{}", proxy.local_addr().expect("an address"));
    let ask = |server: &str, more: &[&str]| {
        let mut words = vec!["--server", server, "site", "list"];
        words.extend(more);
        let mut command = place.command(&words);
        ran(command.env("http_proxy", &environment).env("HTTP_PROXY", &environment))
    };
    let refused = ask("http://cdm.invalid", &[]).ends(2);
    assert!(refused.err.contains("not sent") && refused.err.contains("--allow-plaintext"), "{}", refused.err);
    ask("http://cdm.invalid", &["--allow-plaintext"]).ends(8);
    ask(&place.server, &[]).ends(0);
    proxy.set_nonblocking(true).expect("a socket");
    assert!(proxy.accept().is_err(), "the proxy was connected to");
}

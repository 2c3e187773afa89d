//! Exit codes, each caused by a real situation.

use std::net::TcpListener;

use crate::story::newest;
use crate::test_env::{TestEnv, cdm, execute, image};

#[test]
fn an_invalid_request_is_2() {
    let env = TestEnv::new();
    env.site("shop");
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
        let result = env.run(words).ends(2);
        assert_eq!(result.out, "", "{words:?}");
        assert!(!result.err.is_empty(), "{words:?}");
    }
}

#[test]
fn a_failed_operation_is_1() {
    let env = TestEnv::with("[local]\npod_start_ms = 20\nprogress_deadline_ms = 500\n");
    env.never_ready(&image('c'));
    let result = env.run(&["services", "deploy", &image('c')]).ends(1);
    assert!(result.err.contains("image_not_ready"), "{}", result.err);
    let hint = result.err.lines().last().expect("a hint");
    assert!(hint.contains("op get op-"), "{hint}");
    // A failed operation is also a failure for a later watch.
    let deploy = newest(&env, &["op", "list", "--kind", "deploy"]);
    env.run(&["op", "watch", &deploy]).ends(1);
}

#[test]
fn an_insufficient_role_and_an_invalid_token_are_3() {
    let env = TestEnv::new();
    env.create("shop");
    let made = env.run(&["token", "create", "looker", "--role", "viewer"]).ends(0);
    let file = env.home().join("viewer.token");
    std::fs::write(&file, &made.out).expect("a file");
    let file = file.display().to_string();
    let viewer = |words: &[&str]| {
        let mut all = vec!["--server", &env.server, "--token-file", &file];
        all.extend(words);
        execute(&mut cdm(env.home(), &all))
    };
    viewer(&["site", "get", "shop"]).ends(0);
    let rejected = viewer(&["site", "provision", "shop"]).ends(3);
    assert!(rejected.err.contains("operator") && rejected.err.contains("viewer"), "{}", rejected.err);

    let anonymous = execute(&mut cdm(env.home(), &["--server", &env.server, "site", "list"])).ends(3);
    assert!(anonymous.err.contains("no token was sent"), "{}", anonymous.err);
    let mut wrong = cdm(env.home(), &["--server", &env.server, "site", "list"]);
    let wrong = execute(wrong.env("CDM_TOKEN", "cdm_0000000000000000000000000000000000000000")).ends(3);
    assert!(wrong.err.contains("the token that was sent"), "{}", wrong.err);
}

#[test]
fn a_missing_object_is_4_and_a_conflict_is_5() {
    let env = TestEnv::new();
    env.create("shop");
    for words in [["site", "get", "ship"], ["op", "get", "op-9-site-ship"], ["rollout", "get", "rollout-9"]] {
        env.run(&words).ends(4);
    }
    let create = ["site", "create", "shop", "--theme", "plain", "--hostname", "other.example.com"];
    assert!(env.run(&create).ends(5).err.contains("another id"));
    let create = ["site", "create", "ship", "--theme", "plain", "--hostname", "shop.example.com"];
    assert!(env.run(&create).ends(5).err.contains("hostname"));
    env.run(&["services", "rollback"]).ends(5);
    env.run(&["site", "promote", "shop"]).ends(5);

    env.never_ready(&image('c'));
    let started = env.run(&["services", "deploy", &image('c'), "--no-wait"]).ends(0);
    let id = started.out.trim();
    let second = env.run(&["services", "deploy", &image('d')]).ends(5);
    assert!(second.err.contains(&format!("op watch {id}")), "{}", second.err);
    // A wait that times out is 6.
    let late = env.run(&["op", "watch", id, "--timeout", "0s"]).ends(6);
    assert!(late.err.contains("the operation continues") && late.out.is_empty(), "{late:?}");
    env.run(&["op", "cancel", id]).ends(0);
}

#[test]
fn a_rollout_that_skips_a_site_is_7() {
    let env = TestEnv::new();
    env.site("shop");
    env.create("empty");
    env.run(&["services", "select", "green"]).ends(0);
    let rollout = ["services", "rollout", "--promote", "--sites", "shop,empty"];
    let result = env.run(&rollout).ends(7);
    assert!(result.err.contains("1 skipped"), "{}", result.err);
    let hint = result.err.lines().last().expect("a hint");
    assert!(hint.contains("op list --rollout rollout-"), "{hint}");
}

#[test]
fn an_unreachable_server_is_8() {
    let home = tempfile::tempdir().expect("a directory");
    // This port was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let server = format!("http://{address}");
    let unreachable = execute(&mut cdm(home.path(), &["site", "list", "--server", &server])).ends(8);
    assert!(unreachable.err.contains(&server) && unreachable.err.contains("--local"), "{}", unreachable.err);
    assert_eq!(unreachable.out, "");
}

#[test]
fn no_secret_is_an_argument() {
    let home = tempfile::tempdir().expect("a directory");
    for flag in ["--token", "--password", "--secret", "--bearer"] {
        execute(&mut cdm(home.path(), &["site", "list", flag, "s3cret"])).ends(2);
    }
    let url =
        execute(&mut cdm(home.path(), &["site", "list", "--server", "http://me:s3cret@127.0.0.1:1"])).ends(2);
    assert!(!url.err.contains("s3cret"), "{}", url.err);
}

#[test]
fn a_plaintext_token_requires_an_option_and_bypasses_proxies() {
    let env = TestEnv::new();
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let environment = format!("http://{}", proxy.local_addr().expect("an address"));
    let ask = |server: &str, more: &[&str]| {
        let mut words = vec!["--server", server, "site", "list"];
        words.extend(more);
        let mut command = env.command(&words);
        execute(command.env("http_proxy", &environment).env("HTTP_PROXY", &environment))
    };
    let rejected = ask("http://cdm.invalid", &[]).ends(2);
    assert!(
        rejected.err.contains("not sent") && rejected.err.contains("--allow-plaintext"),
        "{}",
        rejected.err
    );
    ask("http://cdm.invalid", &["--allow-plaintext"]).ends(8);
    ask(&env.server, &[]).ends(0);
    proxy.set_nonblocking(true).expect("a socket");
    assert!(proxy.accept().is_err(), "the proxy was connected to");
}

/// A site is deleted only if its id is confirmed.
#[test]
fn without_a_terminal_only_the_right_id_deletes() {
    let env = TestEnv::new();
    env.create("shop");
    let wrong: [&[&str]; 3] = [
        &["site", "delete", "shop"],
        &["site", "delete", "shop", "--confirm", "ship"],
        &["site", "delete", "shop", "--confirm", ""],
    ];
    for words in wrong {
        let result = env.run(words).ends(2);
        assert_eq!(result.out, "");
        assert!(result.err.contains("site `shop` was not deleted"), "{}", result.err);
        assert!(result.err.contains("cdm site delete shop --confirm shop"), "{}", result.err);
    }
    assert_eq!(env.json(&["site", "get", "shop"])["state"], "created", "nothing was deleted");
    let audit = env.json(&["audit", "--site", "shop"]);
    assert_eq!(audit["items"].as_array().expect("a list").len(), 1, "no deletion was requested: {audit}");

    let rejected = env.run(&["site", "delete", "shop"]);
    let hint = rejected.err.lines().last().expect("a hint").to_owned();
    let command = hint.strip_prefix("hint: in a script: ").expect("a command");
    env.paste(command).ends(0);
    env.run(&["site", "get", "shop"]).ends(4);
}

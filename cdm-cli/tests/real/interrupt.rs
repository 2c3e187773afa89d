//! Ctrl-C during a wait: the work continues, and the suggested command works.

use crate::test_env::{Running, Stream, TestEnv, cdm, execute, image};

/// Returns the command after the last colon of the output.
fn suggested(output: &str) -> &str {
    let line = output.lines().last().expect("some output");
    line.rsplit_once(": ").expect("a command after a colon").1
}

#[test]
fn the_operation_continues_on_the_server() {
    let env = TestEnv::new();
    env.never_ready(&image('c'));
    // The address is an argument here, so the suggestion must contain it.
    let words = ["services", "deploy", &image('c'), "--server", &env.server];
    let mut command = cdm(env.home(), &words);
    let mut deploy = Running::start(command.env("CDM_TOKEN", &env.token), Stream::Err);
    deploy.until("step WaitReady running");
    deploy.interrupt();
    let (code, output) = deploy.end();
    assert_eq!(code, 130, "{output}");
    assert!(output.contains("the operation continues; follow it with: "), "{output}");
    let again = suggested(&output);
    assert!(again.contains(&format!("--server {}", env.server)), "{again}");

    // The operation still waits for its pods: the timeout expires before they are ready.
    let watched = env.paste(&format!("{again} --timeout 0s")).ends(6);
    let hint = watched.err.lines().last().expect("a hint");
    assert!(hint.contains(again), "{hint}");
    let id = again.rsplit_once(' ').expect("an id").1;
    let cancelled = env.run(&["op", "cancel", id]).ends(0);
    assert!(cancelled.out.contains("cancelled"), "{}", cancelled.out);
}

#[test]
fn the_rollout_continues_on_the_server() {
    let env = TestEnv::new();
    env.site("shop");
    env.never_ready(&image('c'));
    let words = ["services", "rollout", "--image", &image('c')];
    let mut rollout = Running::start(&mut env.command(&words), Stream::Err);
    rollout.until("deploying");
    rollout.interrupt();
    let (code, output) = rollout.end();
    assert_eq!(code, 130, "{output}");
    let again = suggested(&output);
    env.paste(&format!("{again} --timeout 0s")).ends(6);
    env.run(&["rollout", "abort", again.rsplit_once(' ').expect("an id").1]).ends(0);
}

/// SIGTERM and SIGHUP (a closed terminal) also release the work.
#[test]
fn every_end_signal_releases_the_work() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("cdm.toml");
    std::fs::write(&file, "[local]\npod_start_ms = 50\njob_ms = 60000\n").expect("a file");
    let (config, data) = (file.display().to_string(), home.path().join("data").display().to_string());
    for (signal, code, site) in [("-TERM", 143, "shop"), ("-HUP", 129, "bakery")] {
        let local = |words: &[&str]| {
            let mut all = vec!["--local", "--data-dir", &data, "--config", &config];
            all.extend(words);
            cdm(home.path(), &all)
        };
        let host = format!("{site}.example.com");
        execute(&mut local(&["site", "create", site, "--theme", "plain", "--hostname", &host])).ends(0);
        let inner = local(&["site", "provision", site]);
        // The tests may run with SIGHUP ignored, as under nohup, and the command would inherit that.
        let mut outer = std::process::Command::new("env");
        outer.arg("--default-signal=HUP").arg(inner.get_program()).args(inner.get_args());
        crate::test_env::isolate(&mut outer, home.path());
        let mut provision = Running::start(&mut outer, Stream::Err);
        provision.until("step Install running");
        provision.send(signal);
        let (ended, output) = provision.end();
        assert_eq!(ended, code, "{output}");
        assert!(output.contains("is released; the next process on this store resumes it: "), "{output}");
    }
}

#[test]
fn without_a_server_the_next_process_resumes() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("cdm.toml");
    std::fs::write(&file, "[local]\npod_start_ms = 50\njob_ms = 3000\n").expect("a file");
    let (config, data) = (file.display().to_string(), home.path().join("data").display().to_string());
    let local = |words: &[&str]| {
        let mut all = vec!["--local", "--data-dir", &data, "--config", &config];
        all.extend(words);
        cdm(home.path(), &all)
    };
    let create = ["site", "create", "shop", "--theme", "plain", "--hostname", "shop.example.com"];
    execute(&mut local(&create)).ends(0);
    let mut provision = Running::start(&mut local(&["site", "provision", "shop"]), Stream::Err);
    provision.until("step Install running");
    provision.interrupt();
    let (code, output) = provision.end();
    assert_eq!(code, 130, "{output}");
    assert!(output.contains("is released; the next process on this store resumes it: "), "{output}");
    let again = suggested(&output).to_owned();
    assert!(again.contains("--local --data-dir"), "{again}");

    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("{again} -o json")]);
    crate::test_env::isolate(&mut shell, home.path());
    let operation = execute(&mut shell).ends(0).json();
    assert_eq!(operation["status"], "succeeded");
    let install = &operation["steps"].as_array().expect("steps")[2];
    assert_eq!((&install["name"], &install["status"]), (&"Install".into(), &"succeeded".into()));
    let site = execute(&mut local(&["site", "get", "shop", "-o", "json"])).ends(0).json();
    assert_eq!(site["state"], "active");
}

#[test]
fn the_next_process_runs_work_started_without_a_wait() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data").display().to_string();
    let local = |words: &[&str]| {
        let mut all = vec!["--local", "--data-dir", &data];
        all.extend(words);
        execute(&mut cdm(home.path(), &all))
    };
    local(&["site", "create", "shop", "--theme", "plain", "--hostname", "shop.example.com"]).ends(0);
    let started = local(&["site", "provision", "shop", "--no-wait"]).ends(0);
    let id = started.out.trim();
    assert!(started.err.contains(&format!("op watch {id}")), "{}", started.err);
    local(&["op", "watch", id]).ends(0);
}

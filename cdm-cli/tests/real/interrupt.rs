//! Ctrl-C while something is waited for: the work goes on, and what is said about coming back is true.

use crate::place::{Place, Running, Stream, cdm, image, ran};

/// The command after the last colon of what was said.
fn suggested(said: &str) -> &str {
    let line = said.lines().last().expect("something was said");
    line.rsplit_once(": ").expect("a command after a colon").1
}

#[test]
fn the_operation_goes_on_in_the_server() {
    let place = Place::new();
    place.never_ready(&image('c'));
    // The address is an argument here, and what is suggested has to have it too.
    let words = ["services", "deploy", &image('c'), "--server", &place.server];
    let mut command = cdm(place.home(), &words);
    let mut deploy = Running::start(command.env("CDM_TOKEN", &place.token), Stream::Err);
    deploy.until("step WaitReady running");
    deploy.interrupt();
    let (code, said) = deploy.end();
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("the operation goes on; come back with: "), "{said}");
    let again = suggested(&said);
    assert!(again.contains(&format!("--server {}", place.server)), "{again}");

    // It still waits for its pods: the time to come back is over before they are ready.
    let watched = place.pasted(&format!("{again} --timeout 0s")).ends(6);
    let hint = watched.err.lines().last().expect("a hint");
    assert!(hint.contains(again), "{hint}");
    let id = again.rsplit_once(' ').expect("an id").1;
    let cancelled = place.run(&["op", "cancel", id]).ends(0);
    assert!(cancelled.out.contains("cancelled"), "{}", cancelled.out);
}

#[test]
fn the_rollout_goes_on_in_the_server() {
    let place = Place::new();
    place.site("shop");
    place.never_ready(&image('c'));
    let words = ["services", "rollout", "--image", &image('c')];
    let mut rollout = Running::start(&mut place.command(&words), Stream::Err);
    rollout.until("deploying");
    rollout.interrupt();
    let (code, said) = rollout.end();
    assert_eq!(code, 130, "{said}");
    let again = suggested(&said);
    place.pasted(&format!("{again} --timeout 0s")).ends(6);
    place.run(&["rollout", "abort", again.rsplit_once(' ').expect("an id").1]).ends(0);
}

/// SIGTERM and a terminal that closes are no Ctrl-C, and the work is given back all the same.
#[test]
fn every_signal_that_ends_gives_the_work_back() {
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
        ran(&mut local(&["site", "create", site, "--theme", "plain", "--hostname", &host])).ends(0);
        let inner = local(&["site", "provision", site]);
        // The tests may run where SIGHUP is ignored, as under nohup, and the command would inherit that.
        let mut outer = std::process::Command::new("env");
        outer.arg("--default-signal=HUP").arg(inner.get_program()).args(inner.get_args());
        crate::place::alone(&mut outer, home.path());
        let mut provision = Running::start(&mut outer, Stream::Err);
        provision.until("step Install running");
        provision.send(signal);
        let (ended, said) = provision.end();
        assert_eq!(ended, code, "{said}");
        assert!(said.contains("is given back; the next process on this store goes on with it: "), "{said}");
    }
}

#[test]
fn without_a_server_the_next_process_goes_on() {
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
    ran(&mut local(&create)).ends(0);
    let mut provision = Running::start(&mut local(&["site", "provision", "shop"]), Stream::Err);
    provision.until("step Install running");
    provision.interrupt();
    let (code, said) = provision.end();
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("is given back; the next process on this store goes on with it: "), "{said}");
    let again = suggested(&said).to_owned();
    assert!(again.contains("--local --data-dir"), "{again}");

    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("{again} -o json")]);
    crate::place::alone(&mut shell, home.path());
    let operation = ran(&mut shell).ends(0).json();
    assert_eq!(operation["status"], "succeeded");
    let install = &operation["steps"].as_array().expect("steps")[2];
    assert_eq!((&install["name"], &install["status"]), (&"Install".into(), &"succeeded".into()));
    let site = ran(&mut local(&["site", "get", "shop", "-o", "json"])).ends(0).json();
    assert_eq!(site["state"], "active");
}

#[test]
fn work_that_nobody_waits_for_is_done_by_the_next_process() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data").display().to_string();
    let local = |words: &[&str]| {
        let mut all = vec!["--local", "--data-dir", &data];
        all.extend(words);
        ran(&mut cdm(home.path(), &all))
    };
    local(&["site", "create", "shop", "--theme", "plain", "--hostname", "shop.example.com"]).ends(0);
    let begun = local(&["site", "provision", "shop", "--no-wait"]).ends(0);
    let id = begun.out.trim();
    assert!(begun.err.contains(&format!("op watch {id}")), "{}", begun.err);
    local(&["op", "watch", id]).ends(0);
}

//! Waiting for work: events cut and resumed, polling, time running out, Ctrl-C.

use cdm_core::wiring::EndSignal;
use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::fake::{Fake, Script, Setting, event, run, run_in};

const PROVISION: &str = "POST /sites/shop/provision";
const LOOK: &str = "GET /operations/op-1";

fn operation(status: &str, install: &str) -> Value {
    json!({
        "id": "op-1", "kind": "provision", "site": "shop", "status": status,
        "steps": [{ "name": "Install", "status": install, "attempts": 1 }],
        "reason": null
    })
}

fn rollout(status: &str, succeeded: u64, failed: u64) -> Value {
    json!({
        "id": "rollout-1", "status": status, "total": 4, "succeeded": succeeded, "failed": failed, "running": 0,
        "pending": 4 - succeeded - failed, "skipped": 0, "parked": 0,
        "waves": [
            { "name": "1", "total": 4, "succeeded": succeeded, "failed": failed, "pending": 4 - succeeded - failed }
        ]
    })
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_goes_on_where_it_was() {
    let fake = Fake::default()
        .says(PROVISION, 202, operation("queued", "pending"))
        .says(LOOK, 200, operation("running", "running"))
        .says(LOOK, 200, operation("running", "running"))
        .says(LOOK, 200, operation("running", "running"))
        .says(LOOK, 200, operation("succeeded", "succeeded"))
        .streams(Script::Cut(vec![event("7", "step")]))
        .streams(Script::Hang(vec![event("8", "step"), event("9", "end")]));
    let ran = run(fake, &["site", "provision", "shop", "-o", "json"]).await;
    assert_eq!(ran.exit.code(), 0, "{}", ran.err);
    let path = "/operations/op-1/events".to_owned();
    assert_eq!(ran.fake.listened(), [(path.clone(), None), (path, Some("7".into()))]);
    assert_eq!(ran.err, "step Install running\nstep Install succeeded\n");
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(printed, operation("succeeded", "succeeded"));
}

#[tokio::test(start_paused = true)]
async fn without_events_it_polls_and_a_server_that_comes_back_is_waited_for() {
    let fake = Fake::default()
        .says(PROVISION, 202, operation("queued", "pending"))
        .silent(LOOK)
        .says(LOOK, 503, json!({ "code": "unavailable" }))
        .says(LOOK, 200, operation("succeeded", "succeeded"))
        .streams(Script::Away)
        .streams(Script::Refused(404));
    let ran = run(fake, &["site", "provision", "shop"]).await;
    assert_eq!(ran.exit.code(), 0, "{}", ran.err);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_given_up_when_the_time_is_over() {
    let fake = Fake::default().says(PROVISION, 202, operation("queued", "pending")).silent(LOOK);
    let began = tokio::time::Instant::now();
    let ran = run(fake, &["site", "provision", "shop", "--timeout", "15m"]).await;
    assert_eq!(ran.exit.code(), 8, "{}", ran.err);
    assert_eq!(began.elapsed().as_secs(), 900, "a restart may take as long");
}

#[tokio::test(start_paused = true)]
async fn events_that_hang_do_not_hang_the_wait() {
    let fake = Fake::default()
        .says(PROVISION, 202, operation("queued", "pending"))
        .says(LOOK, 200, operation("running", "running"))
        .says(LOOK, 200, operation("succeeded", "succeeded"))
        .streams(Script::Hang(Vec::new()));
    let ran = run(fake, &["site", "provision", "shop", "-q"]).await;
    assert_eq!((ran.exit.code(), ran.err.as_str()), (0, ""));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_in_time() {
    let fake = Fake::default()
        .says(PROVISION, 202, operation("queued", "pending"))
        .says(LOOK, 200, operation("running", "running"))
        .streams(Script::Hang(Vec::new()));
    let ran = run(fake, &["site", "provision", "shop", "--timeout", "1m30s"]).await;
    assert_eq!(ran.exit.code(), 6, "{}", ran.err);
    assert!(ran.err.contains("cdm op watch op-1"), "{}", ran.err);
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_leaves_the_work_and_says_how_to_come_back() {
    let fake = Fake::default()
        .says(PROVISION, 202, operation("queued", "pending"))
        .says(LOOK, 200, operation("running", "running"))
        .streams(Script::Hang(vec![event("1", "step")]));
    let interrupt = async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        EndSignal::Interrupt
    };
    let setting = Setting { interrupt: interrupt.boxed().shared(), ..Setting::default() };
    let ran = run_in(fake, &["site", "provision", "shop"], setting).await;
    assert_eq!(ran.exit.code(), 130);
    assert!(ran.err.ends_with("the operation goes on; come back with: cdm op watch op-1\n"), "{}", ran.err);
    assert_eq!(ran.out, "");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_gets_the_id() {
    let fake = || Fake::default().says(PROVISION, 202, operation("queued", "pending"));
    let ran = run(fake(), &["site", "provision", "shop", "--no-wait"]).await;
    assert_eq!((ran.exit.code(), ran.out.as_str(), ran.err.as_str()), (0, "op-1\n", ""));
    let ran = run(fake(), &["site", "provision", "shop", "--no-wait", "-o", "yaml"]).await;
    assert!(ran.out.starts_with("id: op-1\n"), "{}", ran.out);
}

#[tokio::test(start_paused = true)]
async fn parked_work_says_why_and_what_clears_it() {
    let mut parked = operation("parked", "running");
    parked["reason"] = json!({ "code": "theme_missing", "message": "theme `t` is not in the image" });
    let fake = Fake::default().says(LOOK, 200, parked);
    let ran = run(fake, &["op", "watch", "op-1"]).await;
    assert_eq!(ran.exit.code(), 1);
    assert!(ran.err.contains("parked: theme_missing: theme `t` is not in the image"), "{}", ran.err);
    assert!(ran.err.contains("hint: put the theme into the image"), "{}", ran.err);
    assert!(ran.err.contains("cdm op retry op-1"), "{}", ran.err);
}

/// One that finds another digest than its own goes on by no means of its own.
fn waits_for_a_word() -> Value {
    let mut waits = rollout("waiting", 1, 0);
    waits["reason"] = json!({ "code": "digest_changed", "message": "`green` runs another digest" });
    waits
}

#[tokio::test(start_paused = true)]
async fn rollouts_tell_their_waves_and_how_they_ended() {
    let cases = [
        (rollout("succeeded", 4, 0), 0),
        (rollout("succeeded", 3, 1), 7),
        (rollout("halted", 1, 1), 7),
        (waits_for_a_word(), 7),
        (rollout("failed", 0, 0), 1),
        (rollout("aborted", 0, 0), 1),
    ];
    for (last, code) in cases {
        let fake = Fake::default()
            .says("PUT /services", 202, rollout("running", 0, 0))
            .says("GET /rollouts/rollout-1", 200, last.clone())
            .streams(Script::Cut(vec![event("1", "end")]));
        let ran = run(fake, &["services", "rollout", "--promote"]).await;
        assert_eq!(ran.exit.code(), code, "{last}");
        assert!(ran.err.contains("rollout-1: running, wave 1/1: 0 of 4 succeeded\n"), "{}", ran.err);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_is_watched_names_who_failed_and_as_json_is_a_line_a_change() {
    let mut second = rollout("running", 2, 1);
    second["failures"] = json!([{ "site": "shop", "outcome": "returned", "message": "`/` answers 500" }]);
    let mut last = rollout("succeeded", 3, 1);
    last["failures"] = second["failures"].clone();
    let fake = || {
        Fake::default()
            .says("GET /rollouts/rollout-1", 200, rollout("running", 0, 0))
            .says("GET /rollouts/rollout-1", 200, second.clone())
            .says("GET /rollouts/rollout-1", 200, last.clone())
            .streams(Script::Cut(vec![event("1", "moved"), event("2", "end")]))
    };
    let ran = run(fake(), &["rollout", "watch", "rollout-1"]).await;
    assert_eq!(ran.exit.code(), 7);
    assert_eq!(ran.err.matches("shop returned: `/` answers 500").count(), 1, "{}", ran.err);
    assert!(!ran.err.contains('\u{1b}') && !ran.err.contains('\r'), "{}", ran.err);

    let ran = run(fake(), &["rollout", "watch", "rollout-1", "-o", "json"]).await;
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> = lines.iter().map(|line| line["succeeded"].as_u64().expect("a count")).collect();
    assert_eq!((told, ran.exit.code()), (vec![0, 2, 3], 7), "{}", ran.out);
    assert_eq!(lines[2]["status"], "succeeded");
    assert!(lines[2].get("rate").is_some() && lines[2].get("secondsLeft").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_ended_on_purpose_is_done() {
    let cancel = Fake::default()
        .says("POST /operations/op-1/cancel", 202, operation("parked", "failed"))
        .says(LOOK, 200, operation("cancelled", "failed"));
    assert_eq!(run(cancel, &["op", "cancel", "op-1"]).await.exit.code(), 0);

    let abort = Fake::default().says("POST /rollouts/rollout-1/abort", 202, rollout("halted", 1, 1)).says(
        "GET /rollouts/rollout-1",
        200,
        rollout("aborted", 1, 1),
    );
    assert_eq!(run(abort, &["rollout", "abort", "rollout-1"]).await.exit.code(), 0);
}

fn told(id: &str, what: &str) -> cdm_cli::transport::Event {
    let data = json!({ "at": "2030-01-01T00:00:00Z", "subject": "op-1", "what": what }).to_string();
    cdm_cli::transport::Event { data, ..event(id, "step") }
}

/// The server is restarted, and its proxy answers for it meanwhile; the stream goes on after the last event.
#[tokio::test(start_paused = true)]
async fn events_go_on_after_a_restart() {
    let fake = Fake::default()
        .streams(Script::Cut(vec![told("1", "queued")]))
        .streams(Script::Away)
        .streams(Script::Refused(503))
        .streams(Script::Cut(Vec::new()))
        .streams(Script::Cut(vec![told("2", "running")]))
        .streams(Script::Refused(403));
    let ran = run(fake, &["events"]).await;
    assert_eq!(ran.exit.code(), 3, "only a refusal ends it: {}", ran.err);
    assert_eq!(ran.out, "2030-01-01T00:00:00Z  op-1  queued\n2030-01-01T00:00:00Z  op-1  running\n");
    let after: Vec<_> = ran.fake.listened().into_iter().map(|(_, id)| id).collect();
    let (none, one, two) = (None, Some("1".to_owned()), Some("2".to_owned()));
    assert_eq!(after, [none, one.clone(), one.clone(), one.clone(), one, two]);
    assert_eq!(ran.err.matches("does not answer; its events go on").count(), 1, "{}", ran.err);
    assert_eq!(ran.err.matches("answers again").count(), 1, "{}", ran.err);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answered_has_no_events() {
    let ran = run(Fake::default().streams(Script::Away), &["events"]).await;
    assert_eq!((ran.exit.code(), ran.fake.listened().len()), (8, 1), "{}", ran.err);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_come_back_ends_the_events_after_the_timeout() {
    let mut fake = Fake::default().streams(Script::Cut(vec![told("1", "queued")]));
    for _ in 0..50 {
        fake = fake.streams(Script::Away);
    }
    let ran = run(fake, &["events", "--timeout", "1m"]).await;
    assert_eq!(ran.exit.code(), 8, "{}", ran.err);
    assert!((10..40).contains(&ran.fake.listened().len()), "{}", ran.fake.listened().len());
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_waited_out() {
    let fake = Fake::default()
        .says_with(PROVISION, 429, &[("retry-after", "30")])
        .says_with(PROVISION, 429, &[])
        .says(PROVISION, 202, operation("queued", "pending"))
        .says_with(LOOK, 429, &[("retry-after", "5")])
        .says(LOOK, 200, operation("succeeded", "succeeded"));
    let began = tokio::time::Instant::now();
    let ran = run(fake, &["site", "provision", "shop"]).await;
    assert_eq!(ran.exit.code(), 0, "{}", ran.err);
    assert!(began.elapsed().as_secs() >= 36, "{:?}", began.elapsed());
    assert_eq!(ran.fake.asked().iter().filter(|line| line.as_str() == PROVISION).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_limit_beyond_the_timeout_is_no_failed_work() {
    let fake = Fake::default().says_with(PROVISION, 429, &[("retry-after", "30")]);
    let ran = run(fake, &["site", "provision", "shop", "--timeout", "20s"]).await;
    assert_eq!(ran.exit.code(), 8, "{}", ran.err);
    assert!(ran.err.contains("hint: ask again later"), "{}", ran.err);
    // Also where the work was accepted before: it goes on.
    let fake = Fake::default().says(PROVISION, 202, operation("queued", "pending")).says_with(
        LOOK,
        429,
        &[("retry-after", "30")],
    );
    let ran = run(fake, &["site", "provision", "shop", "--timeout", "20s"]).await;
    assert!([6, 8].contains(&ran.exit.code()), "{}: {}", ran.exit.code(), ran.err);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_named_with_its_target() {
    let to = [("location", "https://cdm.example.com/operations?limit=100")];
    let ran = run(Fake::default().says_with("GET /operations", 308, &to), &["op", "list"]).await;
    assert_eq!(ran.exit.code(), 2, "{}", ran.err);
    assert!(ran.err.contains("leads to `https://cdm.example.com/operations?limit=100`"), "{}", ran.err);
    assert!(ran.err.contains("--server https://cdm.example.com\n"), "{}", ran.err);
}

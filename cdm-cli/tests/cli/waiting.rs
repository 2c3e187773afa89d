//! Waiting for work: interrupted and resumed event streams, polling, timeouts, Ctrl-C.

use cdm_core::wiring::EndSignal;
use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::fake::{FakeServer, Script, Setting, event, run, run_in};
use crate::samples;

const PROVISION: &str = "POST /sites/shop/provision";
const POLL: &str = "GET /operations/op-1";

fn operation(status: &str, install: &str) -> Value {
    samples::operation(json!({ "status": status, "steps": [samples::step("Install", install)] }))
}

fn rollout(status: &str, succeeded: u64, failed: u64) -> Value {
    let pending = 4 - succeeded - failed;
    let wave = json!({
        "name": "1", "total": 4, "succeeded": succeeded, "failed": failed, "running": 0, "pending": pending,
        "skipped": 0, "parked": 0
    });
    samples::rollout(json!({
        "status": status, "total": 4, "succeeded": succeeded, "failed": failed, "pending": pending, "waves": [wave]
    }))
}

#[tokio::test(start_paused = true)]
async fn a_closed_stream_resumes_after_the_last_event() {
    let fake = FakeServer::default()
        .responds(PROVISION, 202, operation("queued", "pending"))
        .responds(POLL, 200, operation("running", "running"))
        .responds(POLL, 200, operation("running", "running"))
        .responds(POLL, 200, operation("running", "running"))
        .responds(POLL, 200, operation("succeeded", "succeeded"))
        .streams(Script::Cut(vec![event("7", "step")]))
        .streams(Script::Hang(vec![event("8", "step"), event("9", "end")]));
    let result = run(fake, &["site", "provision", "shop", "-o", "json"]).await;
    assert_eq!(result.exit.code(), 0, "{}", result.err);
    let path = "/operations/op-1/events".to_owned();
    assert_eq!(result.fake.event_requests(), [(path.clone(), None), (path, Some("7".into()))]);
    assert_eq!(result.err, "step Install running\nstep Install succeeded\n");
    let printed: Value = serde_json::from_str(&result.out).unwrap();
    assert_eq!(printed, operation("succeeded", "succeeded"));
}

#[tokio::test(start_paused = true)]
async fn without_events_the_wait_polls_and_survives_an_outage() {
    let fake = FakeServer::default()
        .responds(PROVISION, 202, operation("queued", "pending"))
        .silent(POLL)
        .responds(POLL, 503, json!({ "code": "unavailable" }))
        .responds(POLL, 200, operation("succeeded", "succeeded"))
        .streams(Script::Unreachable)
        .streams(Script::Rejected(404));
    let result = run(fake, &["site", "provision", "shop"]).await;
    assert_eq!(result.exit.code(), 0, "{}", result.err);
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_the_wait_at_the_timeout() {
    let fake = FakeServer::default().responds(PROVISION, 202, operation("queued", "pending")).silent(POLL);
    let began = tokio::time::Instant::now();
    let result = run(fake, &["site", "provision", "shop", "--timeout", "15m"]).await;
    assert_eq!(result.exit.code(), 8, "{}", result.err);
    assert_eq!(began.elapsed().as_secs(), 900, "the wait lasts until its timeout");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_hangs_does_not_block_the_wait() {
    let fake = FakeServer::default()
        .responds(PROVISION, 202, operation("queued", "pending"))
        .responds(POLL, 200, operation("running", "running"))
        .responds(POLL, 200, operation("succeeded", "succeeded"))
        .streams(Script::Hang(Vec::new()));
    let result = run(fake, &["site", "provision", "shop", "-q"]).await;
    assert_eq!((result.exit.code(), result.err.as_str()), (0, ""));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_timeout() {
    let fake = FakeServer::default()
        .responds(PROVISION, 202, operation("queued", "pending"))
        .responds(POLL, 200, operation("running", "running"))
        .streams(Script::Hang(Vec::new()));
    let result = run(fake, &["site", "provision", "shop", "--timeout", "1m30s"]).await;
    assert_eq!(result.exit.code(), 6, "{}", result.err);
    assert!(result.err.contains("cdm op watch op-1"), "{}", result.err);
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_leaves_the_work_and_suggests_the_watch_command() {
    let fake = FakeServer::default()
        .responds(PROVISION, 202, operation("queued", "pending"))
        .responds(POLL, 200, operation("running", "running"))
        .streams(Script::Hang(vec![event("1", "step")]));
    let interrupt = async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        EndSignal::Interrupt
    };
    let setting = Setting { interrupt: interrupt.boxed().shared(), ..Setting::default() };
    let result = run_in(fake, &["site", "provision", "shop"], setting).await;
    assert_eq!(result.exit.code(), 130);
    assert!(
        result.err.ends_with("the operation continues; follow it with: cdm op watch op-1\n"),
        "{}",
        result.err
    );
    assert_eq!(result.out, "");
}

#[tokio::test(start_paused = true)]
async fn without_a_wait_the_id_is_printed() {
    let fake = || FakeServer::default().responds(PROVISION, 202, operation("queued", "pending"));
    let result = run(fake(), &["site", "provision", "shop", "--no-wait"]).await;
    assert_eq!((result.exit.code(), result.out.as_str(), result.err.as_str()), (0, "op-1\n", ""));
    let result = run(fake(), &["site", "provision", "shop", "--no-wait", "-o", "yaml"]).await;
    assert!(result.out.contains("\nid: op-1\n"), "{}", result.out);
}

#[tokio::test(start_paused = true)]
async fn a_parked_operation_prints_its_reason_and_what_clears_it() {
    let mut parked = operation("parked", "running");
    parked["reason"] = samples::reason("theme_missing", "theme `t` is not in the image");
    let fake = FakeServer::default().responds(POLL, 200, parked);
    let result = run(fake, &["op", "watch", "op-1"]).await;
    assert_eq!(result.exit.code(), 1);
    assert!(result.err.contains("parked: theme_missing: theme `t` is not in the image"), "{}", result.err);
    assert!(result.err.contains("hint: add the theme to the image"), "{}", result.err);
    assert!(result.err.contains("cdm op retry op-1"), "{}", result.err);
}

/// A rollout that finds another digest than its own does not continue automatically.
fn waiting_for_confirmation() -> Value {
    let mut waits = rollout("waiting", 1, 0);
    waits["reason"] = samples::reason("digest_changed", "`green` runs another digest");
    waits
}

#[tokio::test(start_paused = true)]
async fn rollouts_print_their_waves_and_map_to_exit_codes() {
    let cases = [
        (rollout("succeeded", 4, 0), 0),
        (rollout("succeeded", 3, 1), 7),
        (rollout("halted", 1, 1), 7),
        (waiting_for_confirmation(), 7),
        (rollout("failed", 0, 0), 1),
        (rollout("aborted", 0, 0), 1),
    ];
    for (last, code) in cases {
        let fake = FakeServer::default()
            .responds("PUT /services", 202, rollout("running", 0, 0))
            .responds("GET /rollouts/rollout-1", 200, last.clone())
            .streams(Script::Cut(vec![event("1", "end")]));
        let result = run(fake, &["services", "rollout", "--promote"]).await;
        assert_eq!(result.exit.code(), code, "{last}");
        assert!(result.err.contains("rollout-1: running, wave 1/1: 0 of 4 succeeded\n"), "{}", result.err);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watched_rollout_prints_failed_sites_and_as_json_a_line_per_change() {
    let mut second = rollout("running", 2, 1);
    second["failures"] = json!([{ "site": "shop", "outcome": "returned", "message": "`/` answers 500" }]);
    let mut last = rollout("succeeded", 3, 1);
    last["failures"] = second["failures"].clone();
    let fake = || {
        FakeServer::default()
            .responds("GET /rollouts/rollout-1", 200, rollout("running", 0, 0))
            .responds("GET /rollouts/rollout-1", 200, second.clone())
            .responds("GET /rollouts/rollout-1", 200, last.clone())
            .streams(Script::Cut(vec![event("1", "moved"), event("2", "end")]))
    };
    let result = run(fake(), &["rollout", "watch", "rollout-1"]).await;
    assert_eq!(result.exit.code(), 7);
    assert_eq!(result.err.matches("shop returned: `/` answers 500").count(), 1, "{}", result.err);
    assert!(!result.err.contains('\u{1b}') && !result.err.contains('\r'), "{}", result.err);

    let result = run(fake(), &["rollout", "watch", "rollout-1", "-o", "json"]).await;
    let lines: Vec<Value> =
        result.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let counts: Vec<_> = lines.iter().map(|line| line["succeeded"].as_u64().expect("a count")).collect();
    assert_eq!((counts, result.exit.code()), (vec![0, 2, 3], 7), "{}", result.out);
    assert_eq!(lines[2]["status"], "succeeded");
    assert!(lines[2].get("rate").is_some() && lines[2].get("secondsLeft").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_requested_end_is_a_success() {
    let cancel = FakeServer::default()
        .responds("POST /operations/op-1/cancel", 202, operation("parked", "failed"))
        .responds(POLL, 200, operation("cancelled", "failed"));
    assert_eq!(run(cancel, &["op", "cancel", "op-1"]).await.exit.code(), 0);

    let abort = FakeServer::default()
        .responds("POST /rollouts/rollout-1/abort", 202, rollout("halted", 1, 1))
        .responds("GET /rollouts/rollout-1", 200, rollout("aborted", 1, 1));
    assert_eq!(run(abort, &["rollout", "abort", "rollout-1"]).await.exit.code(), 0);
}

fn event_about(id: &str, what: &str) -> cdm_cli::transport::Event {
    let data = json!({ "at": "2030-01-01T00:00:00.000Z", "subject": "op-1", "what": what }).to_string();
    cdm_cli::transport::Event { data, ..event(id, "step") }
}

/// The server restarts, and a proxy responds in its place in the meantime; the stream resumes after the last event.
#[tokio::test(start_paused = true)]
async fn events_resume_after_a_restart() {
    let fake = FakeServer::default()
        .streams(Script::Cut(vec![event_about("1", "queued")]))
        .streams(Script::Unreachable)
        .streams(Script::Rejected(503))
        .streams(Script::Cut(Vec::new()))
        .streams(Script::Cut(vec![event_about("2", "running")]))
        .streams(Script::Rejected(403));
    let result = run(fake, &["events"]).await;
    assert_eq!(result.exit.code(), 3, "only a rejection ends the command: {}", result.err);
    assert_eq!(
        result.out,
        "2030-01-01T00:00:00.000Z  op-1  queued\n2030-01-01T00:00:00.000Z  op-1  running\n"
    );
    let after: Vec<_> = result.fake.event_requests().into_iter().map(|(_, id)| id).collect();
    let (none, one, two) = (None, Some("1".to_owned()), Some("2".to_owned()));
    assert_eq!(after, [none, one.clone(), one.clone(), one.clone(), one, two]);
    assert_eq!(result.err.matches("does not respond; the events resume").count(), 1, "{}", result.err);
    assert_eq!(result.err.matches("responds again").count(), 1, "{}", result.err);
}

#[tokio::test(start_paused = true)]
async fn without_a_first_response_events_fail_at_once() {
    let result = run(FakeServer::default().streams(Script::Unreachable), &["events"]).await;
    assert_eq!((result.exit.code(), result.fake.event_requests().len()), (8, 1), "{}", result.err);
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_the_events_after_the_timeout() {
    let mut fake = FakeServer::default().streams(Script::Cut(vec![event_about("1", "queued")]));
    for _ in 0..50 {
        fake = fake.streams(Script::Unreachable);
    }
    let result = run(fake, &["events", "--timeout", "1m"]).await;
    assert_eq!(result.exit.code(), 8, "{}", result.err);
    assert!((10..40).contains(&result.fake.event_requests().len()), "{}", result.fake.event_requests().len());
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_is_waited_out() {
    let fake = FakeServer::default()
        .responds_with_headers(PROVISION, 429, &[("retry-after", "30")])
        .responds_with_headers(PROVISION, 429, &[])
        .responds(PROVISION, 202, operation("queued", "pending"))
        .responds_with_headers(POLL, 429, &[("retry-after", "5")])
        .responds(POLL, 200, operation("succeeded", "succeeded"));
    let began = tokio::time::Instant::now();
    let result = run(fake, &["site", "provision", "shop"]).await;
    assert_eq!(result.exit.code(), 0, "{}", result.err);
    assert!(began.elapsed().as_secs() >= 36, "{:?}", began.elapsed());
    assert_eq!(result.fake.requests().iter().filter(|line| line.as_str() == PROVISION).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_beyond_the_timeout_is_8() {
    let fake = FakeServer::default().responds_with_headers(PROVISION, 429, &[("retry-after", "30")]);
    let result = run(fake, &["site", "provision", "shop", "--timeout", "20s"]).await;
    assert_eq!(result.exit.code(), 8, "{}", result.err);
    assert!(result.err.contains("hint: retry later"), "{}", result.err);
    // The work was accepted before the limit: it continues.
    let fake = FakeServer::default()
        .responds(PROVISION, 202, operation("queued", "pending"))
        .responds_with_headers(POLL, 429, &[("retry-after", "30")]);
    let result = run(fake, &["site", "provision", "shop", "--timeout", "20s"]).await;
    assert!([6, 8].contains(&result.exit.code()), "{}: {}", result.exit.code(), result.err);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_reported_with_its_target() {
    let to = [("location", "https://cdm.example.com/operations?limit=100")];
    let result =
        run(FakeServer::default().responds_with_headers("GET /operations", 308, &to), &["op", "list"]).await;
    assert_eq!(result.exit.code(), 2, "{}", result.err);
    assert!(
        result.err.contains("redirects to `https://cdm.example.com/operations?limit=100`"),
        "{}",
        result.err
    );
    assert!(result.err.contains("--server https://cdm.example.com\n"), "{}", result.err);
}

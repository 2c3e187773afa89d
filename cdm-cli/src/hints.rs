//! What to do next, for what went wrong.

use cdm_core::domain::Code;
use serde_json::Value;

use crate::error::{CliError, Problem, Subject};

const CODES: [Code; 18] = [
    Code::AttemptsExhausted,
    Code::ColourHeld,
    Code::CacheFlushFailed,
    Code::DeadlineExceeded,
    Code::Denied,
    Code::BudgetExceeded,
    Code::Foreign,
    Code::Deploying,
    Code::ImageNotReady,
    Code::JobFailed,
    Code::JobRunning,
    Code::Paused,
    Code::Retrying,
    Code::ServiceNotReady,
    Code::ThemeMissing,
    Code::Throttled,
    Code::RollingOut,
    Code::Invalid,
];

/// What to do about an error, if there is something.
pub fn for_error(error: &CliError) -> Option<String> {
    match error {
        CliError::Refused(problem) => for_problem(problem),
        CliError::Transport(error) => Some(format!(
            "is the server running at {}? Name another with --server or CDM_SERVER, or work without one: --local",
            error.server
        )),
        CliError::Unconfirmed { site } => {
            Some(format!("in a script: cdm site delete {site} --confirm {site}"))
        }
        CliError::WaitTimedOut { subject } => Some(format!(
            "come back with: {}; wait longer with --timeout, or not at all with --no-wait",
            subject.come_back()
        )),
        CliError::Answer(_) => Some("is this the address of a CDM server? Try: cdm doctor".into()),
        CliError::Usage(_)
        | CliError::Interrupted { .. }
        | CliError::Failed(_)
        | CliError::Io { .. }
        | CliError::Closed => None,
    }
}

fn for_problem(problem: &Problem) -> Option<String> {
    let watch = problem.operation.as_ref().map(|id| Subject::operation(id.as_str()).come_back());
    let rollout = problem.rollout.as_deref();
    Some(match problem.code.as_str() {
        "operation_in_flight" => match (watch, rollout) {
            (Some(watch), _) => format!("wait for it: {watch}"),
            (None, Some(id)) => format!("wait for it: cdm rollout watch {id}"),
            (None, None) => "see what is at work: cdm op list".into(),
        },
        "rollout_in_flight" => match rollout {
            Some(id) => format!("wait for it: cdm rollout watch {id}, or end it: cdm rollout abort {id}"),
            None => "see which: cdm rollout list; wait for it, or abort it".into(),
        },
        "unauthorized" => "set CDM_TOKEN, or name a file that holds the token with --token-file".into(),
        "forbidden" => "the token's role does not allow this; ask an admin for another: cdm token create".into(),
        "not_found" => "check the name; a terminated site is gone, its operations stay: cdm op list --site ID".into(),
        "site_exists" => "take another id, or look at that site: cdm site get ID".into(),
        "hostname_taken" => "take another hostname, or delete the site that has it".into(),
        "illegal_transition" => "look at the state: cdm site get ID, or cdm op get ID".into(),
        "no_healthy_digest" => {
            "see what ran: cdm services history blue; mark a digest: cdm services mark DIGEST healthy --reason …, \
             or deploy another"
                .into()
        }
        "idempotency_key_reused" => "use a fresh --idempotency-key for each request".into(),
        "backend_denied" => "grant the server what the message names, then ask again; see: cdm doctor".into(),
        "unavailable" => "ask again in a moment; see which backend is away: cdm doctor".into(),
        "contended" | "throttled" | "too_many_requests" => "ask again in a moment".into(),
        "outcome_unknown" => {
            "the request may have been accepted: repeat it with the same --idempotency-key, or look first: cdm op list"
                .into()
        }
        code => clears(code)?.to_owned(),
    })
}

/// What clears a reason of an operation or rollout.
pub fn clears(code: &str) -> Option<&'static str> {
    CODES.into_iter().find(|known| known.as_str() == code).map(Code::clears)
}

/// What to do about work that rests without being done, with the commands for it.
pub fn for_rest(subject: &Subject, value: &Value) -> Option<String> {
    let clears = value.pointer("/reason/code").and_then(Value::as_str).and_then(clears);
    let (noun, id) = (subject.kind.command(), &subject.id);
    let commands = match value.get("status").and_then(Value::as_str)? {
        "parked" => format!("cdm {noun} retry {id}, or cdm {noun} cancel {id}"),
        "halted" | "paused" => format!("cdm {noun} resume {id}, or cdm {noun} abort {id}"),
        "failed" if noun == "op" => format!("cdm op get {id}, cdm op retry {id}"),
        "failed" | "aborted" | "succeeded" if noun == "rollout" => {
            format!("see which sites: cdm op list --rollout {id}")
        }
        _ => return clears.map(str::to_owned),
    };
    Some(match clears {
        Some(clears) => format!("{clears}; {commands}"),
        None => commands,
    })
}

//! What to do next, for what went wrong.

use cdm_core::domain::ReasonCode;
use serde_json::Value;

use crate::error::{CliError, Problem, Subject};
use crate::transport::{TransportError, Trouble};
use crate::way::{Sent, Way};

/// What to do about an error, if there is something; commands are as they would be typed on this `way`.
pub fn for_error(error: &CliError, way: &Way) -> Option<String> {
    match error {
        CliError::Refused(problem) => for_problem(problem, way),
        CliError::Transport(error) => Some(for_trouble(error)),
        CliError::Redirected { target } => Some(match origin(target) {
            Some(origin) => format!("if you trust it, name that server: --server {origin}"),
            None => "name the server by the address that it is reached at, with --server or CDM_SERVER".into(),
        }),
        CliError::Unconfirmed { site } => {
            let delete = way.command(&format!("site delete {site} --confirm {site}"));
            Some(format!("in a script: {delete}"))
        }
        CliError::Unsaid => Some(format!(
            "say which sites, or that routes move: {}; see first what it would do: {}",
            way.command("services rollout --promote --scope inactive --waves 1,10%,100%"),
            way.command("services rollout --promote --scope inactive --dry-run")
        )),
        CliError::WaitTimedOut { subject } => Some(format!(
            "come back with: {}; wait longer with --timeout, or not at all with --no-wait",
            subject.come_back(way)
        )),
        CliError::Plaintext(_) => Some(
            "name the server with https://; or, where the network in between is trusted, add --allow-plaintext"
                .into(),
        ),
        CliError::Answer(_) => {
            Some(format!("is this the address of a CDM server? Try: {}", way.command("doctor")))
        }
        CliError::Usage(_)
        | CliError::Interrupted { .. }
        | CliError::Failed(_)
        | CliError::Io { .. }
        | CliError::Closed => None,
    }
}

fn for_trouble(error: &TransportError) -> String {
    let server = &error.server;
    match error.trouble {
        Trouble::Away => format!(
            "is the server running at {server}? Name another with --server or CDM_SERVER, or work without one: --local"
        ),
        Trouble::Untrusted => {
            "if you know its authority, name the authority's certificate with --cacert FILE \
                               (CDM_CACERT), or in the file of SSL_CERT_FILE"
                .into()
        }
        Trouble::OtherName => {
            "name the server, with --server or CDM_SERVER, as its certificate names it".into()
        }
        Trouble::OutOfDate => {
            "have its certificate renewed, and see that the clock of this machine is right".into()
        }
        Trouble::Authority => {
            "have a certificate issued for the server, with its name and not marked as an authority's \
                               (no `CA:TRUE`), and name the authority's with --cacert FILE (CDM_CACERT)"
                .into()
        }
        Trouble::Plaintext => {
            let plain = server.replacen("https://", "http://", 1);
            format!("is this the port of its TLS listener? Without TLS it would be: --server {plain}")
        }
        Trouble::Tls => {
            "see that the server's certificate, and what is between it and you, are in order".into()
        }
        Trouble::NoHttp => {
            let tls = server.replacen("http://", "https://", 1);
            format!("if it speaks TLS on this port, name it with https: --server {tls}")
        }
    }
}

/// Scheme, host and port of an address.
fn origin(target: &str) -> Option<String> {
    let url = reqwest::Url::parse(target).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}

fn for_problem(problem: &Problem, way: &Way) -> Option<String> {
    let cdm = |words: &str| way.command(words);
    let watch = problem.operation.as_ref().map(|id| Subject::operation(id.as_str()).come_back(way));
    let rollout = problem.rollout.as_deref();
    let watch_rollout = |id: &str| Subject::rollout(id).come_back(way);
    Some(match problem.code.as_str() {
        "operation_in_flight" if problem.operation_status.as_deref() == Some("parked") => {
            let id = problem.operation.as_deref().unwrap_or("ID");
            let cdm = |verb: &str| cdm(&format!("op {verb} {id}"));
            format!("it waits for you: see why: {}, then {}, or {}", cdm("get"), cdm("retry"), cdm("cancel"))
        }
        "operation_in_flight" => match (watch, rollout) {
            (Some(watch), _) => format!("wait for it: {watch}"),
            (None, Some(id)) => format!("wait for it: {}", watch_rollout(id)),
            (None, None) => format!("see what is at work: {}", cdm("op list")),
        },
        "rollout_in_flight" => match rollout {
            Some(id) => {
                let abort = cdm(&format!("rollout abort {id}"));
                format!("wait for it: {}, or end it: {abort}", watch_rollout(id))
            }
            None => format!("see which: {}; wait for it, or abort it", cdm("rollout list")),
        },
        "unauthorized" => match way.token {
            Sent::No => {
                "no token was sent: set CDM_TOKEN, or name a file that holds it with --token-file. The first \
                         start of cdm-server printed an administrator's; --local needs none"
                    .into()
            }
            Sent::Yes => {
                "the token that was sent is not known here, or has ended: look at CDM_TOKEN or --token-file"
                    .into()
            }
        },
        // Not on this way: the token that is on it would be refused again.
        "forbidden" => {
            "your role does not allow this; an administrator makes tokens of other roles: cdm token create"
                .into()
        }
        "not_found" => format!(
            "check the name: {}, {}; a terminated site is gone, its operations stay: {}",
            cdm("site list"),
            cdm("op list"),
            cdm("op list --site ID")
        ),
        "site_exists" => format!("take another id, or look at that site: {}", cdm("site get ID")),
        "hostname_taken" => "take another hostname, or delete the site that has it".into(),
        "illegal_transition" => {
            format!(
                "look at the state: {}, {} or {}",
                cdm("site get ID"),
                cdm("op get ID"),
                cdm("rollout get ID")
            )
        }
        "digest_changed" => match &problem.running {
            Some(running) => format!(
                "to move the other sites on what runs: {}; to stop: {}",
                cdm(&format!("rollout resume ID --accept-digest {running}")),
                cdm("rollout abort ID")
            ),
            None => format!("deploy the rollout's digest again, or stop: {}", cdm("rollout abort ID")),
        },
        "bad_digest" => format!(
            "see its verdict: {}; deploy another digest, or insist with --force",
            cdm("services history blue")
        ),
        "unknown_sites" => format!("see which sites there are: {}", cdm("site list --all")),
        "empty_plan" => format!(
            "see where the sites are: {}; see what another scope would do: {}",
            cdm("services show"),
            cdm("services rollout --promote --scope all --dry-run")
        ),
        "no_healthy_digest" => format!(
            "see what ran: {}; mark a digest: {}, or deploy another",
            cdm("services history blue"),
            cdm("services mark DIGEST healthy --reason …")
        ),
        "frozen" => format!("see what is frozen, and until when: {}", cdm("freeze list")),
        "plan_changed" => format!("see what would be done now: {}", cdm("services rollout … --dry-run")),
        "idempotency_key_reused" => "use a fresh --idempotency-key for each request".into(),
        "backend_denied" => {
            format!("grant the server what the message names, then ask again; see: {}", cdm("doctor"))
        }
        "unavailable" => format!("ask again in a moment; see which backend is away: {}", cdm("doctor")),
        "storage_full" => {
            format!(
                "free space on the disk of the server's data directory, then ask again; see: {}",
                cdm("doctor")
            )
        }
        "contended" | "throttled" => "ask again in a moment".into(),
        "rate_limited" => "ask again later, or wait longer for it: --timeout 10m".into(),
        "outcome_unknown" | "timed_out" => format!(
            "the request may have been accepted: repeat it with the same --idempotency-key, or look first: {}",
            cdm("op list")
        ),
        // What is wrong with the input is said field by field.
        "invalid" => return None,
        code => clears(code)?.to_owned(),
    })
}

/// What clears a reason of an operation or rollout.
pub fn clears(code: &str) -> Option<&'static str> {
    ReasonCode::ALL.into_iter().find(|known| known.as_str() == code).map(ReasonCode::clears)
}

/// What to do about work that rests without being done, with the commands for it.
pub fn for_rest(subject: &Subject, value: &Value, way: &Way) -> Option<String> {
    let clears = value.pointer("/reason/code").and_then(Value::as_str).and_then(clears);
    let (noun, id) = (subject.kind.command(), &subject.id);
    let cdm = |verb: &str| way.command(&format!("{noun} {verb} {id}"));
    let commands = match value.get("status").and_then(Value::as_str)? {
        "parked" => format!("{}, or {}", cdm("retry"), cdm("cancel")),
        // Of a rollout that waits for a person's word on the digest that runs.
        "waiting" if noun == "rollout" => {
            format!("{} --accept-digest DIGEST, or {}", cdm("resume"), cdm("abort"))
        }
        "halted" | "paused" => format!("{}, or {}", cdm("resume"), cdm("abort")),
        "failed" if noun == "op" => format!("{}, or {}", cdm("get"), cdm("retry")),
        "failed" | "aborted" | "succeeded" if noun == "rollout" => {
            let members = way.command(&format!("op list --rollout {id}"));
            format!("see which sites: {members}, and take up those that were not moved: {}", cdm("retry"))
        }
        _ => return clears.map(str::to_owned),
    };
    Some(match clears {
        Some(clears) => format!("{clears}; {commands}"),
        None => commands,
    })
}
